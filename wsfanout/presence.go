package wsfanout

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
)

// Presence of a topic is kept by its home. Each node reports its own users to it, so nobody is left over when a node is gone, and a new home hears
// from all. Who has left his last socket of a node is reported after presenceDelay, so that coming back elsewhere is no leaving.
//
// All of it is guarded by hub.exec.
type presence struct {
	here    map[string]*attendance // topics with subscribers on this node
	rosters map[string]*roster     // topics of which this node is the home
	told    map[string]*roster     // of those, the Told ones
	leaving []departure            // in order
	scan    time.Time              // until then homes are looked at often
	scanned time.Time
	asks    map[uint64]chan present
	asked   uint64
}

const (
	presenceScan  = 2 * time.Second // between two looks at all homes
	presenceRetry = 250 * time.Millisecond
	presenceLarge = time.Second // between two counts of a large room
)

// departure is a user without sockets in a topic here.
type departure struct {
	topic, user string
	at          time.Time
}

// attendance is who is subscribed to a topic on this node.
type attendance struct {
	mode     PresenceMode
	users    map[string]int       // sockets
	leaving  map[string]time.Time // without sockets since
	reported cursor.Term          // of the home that has been told
	known    *known               // of a Told topic: what its subscribers here have been told; nil: nothing yet
}

// known is a node's copy of the roster of a Told topic.
type known struct {
	users map[string]struct{} // nil: too many to be named
	count int
}

// roster is who is subscribed to a topic on all nodes.
type roster struct {
	mode    PresenceMode
	nodes   map[string]map[string]struct{}
	count   map[string]int // on how many nodes each user is
	gone    map[string]time.Time
	join    map[string]struct{} // not told yet
	leave   map[string]struct{}
	full    map[string]struct{} // nodes that need all of it
	changed bool
	told    time.Time
}

// present is what hubs tell each other about one topic.
type present struct {
	Topic string   `json:"topic"`
	Join  []string `json:"join,omitempty"`
	Leave []string `json:"leave,omitempty"`
	All   bool     `json:"all,omitempty"` // Join is all there are
	End   bool     `json:"end,omitempty"` // no subscribers here any more
	Count int      `json:"count,omitempty"`
	Large bool     `json:"large,omitempty"` // only the count is told
	Ask   uint64   `json:"ask,omitempty"`
	Not   bool     `json:"not,omitempty"` // asked the wrong node
}

func (p *presence) init() {
	p.here, p.rosters, p.told, p.asks = map[string]*attendance{}, map[string]*roster{}, map[string]*roster{}, map[uint64]chan present{}
}

// Presence returns the users with a socket that is subscribed to the topic, on any node, in order. A user that has left stays for 5 s, so that
// coming back elsewhere is no leaving; those of a dead node vanish with it. The answer is some milliseconds old, and may lack somebody in the moment
// in which the topic gets a new home. It waits for ctx, and 10 s at most, while the topic has none.
func (h *Hub) Presence(ctx context.Context, topic string) ([]string, error) {
	p, err := h.askPresence(ctx, topic, false)
	return p.Join, err
}

// PresenceCount returns how many users Presence would.
func (h *Hub) PresenceCount(ctx context.Context, topic string) (int, error) {
	p, err := h.askPresence(ctx, topic, true)
	return p.Count, err
}

var errNoHome = errors.New("wsfanout: presence: the topic has no home at the moment")

func (h *Hub) askPresence(ctx context.Context, topic string, count bool) (present, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errNoHome)
	defer cancel()
	for !h.closed() {
		answer := make(chan present, 1)
		var id uint64
		h.with(func() {
			switch home := h.homeOf(topic); home.Node {
			case "":
			case h.id:
				answer <- h.presenceOfLocked(topic, count)
			default:
				h.presence.asked++
				id = h.presence.asked
				h.presence.asks[id] = answer
				h.tellOne(home.Node, &control{Who: &present{Topic: topic, Ask: id, Large: count}})
			}
		})
		var got present
		retry := time.NewTimer(presenceRetry)
		select {
		case got = <-answer:
		case <-retry.C:
			got.Not = true
		case <-h.life.Done():
		case <-ctx.Done():
		}
		if id != 0 {
			h.with(func() { delete(h.presence.asks, id) })
		}
		if err := ctx.Err(); err != nil && got.Topic == "" {
			return present{}, context.Cause(ctx)
		}
		if got.Topic != "" && !got.Not {
			return got, nil
		}
		if got.Topic != "" { // another node knows better who the home is: soon this one does
			select {
			case <-retry.C:
			case <-ctx.Done():
				return present{}, context.Cause(ctx)
			case <-h.life.Done():
			}
		}
	}
	return present{}, ErrClosed
}

// homeOf returns the term of the topic's home; exec is held or not.
func (h *Hub) homeOf(topic string) cursor.Term {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.node == nil {
		return cursor.Term{}
	}
	return h.node.HomeTerm(topic)
}

// tellOne queues a control for one hub.
func (h *Hub) tellOne(id string, c *control) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peerLocked(id).push(nil, c)
}

func (h *Hub) presenceOfLocked(topic string, count bool) present {
	p := present{Topic: topic}
	if r := h.presence.rosters[topic]; r != nil {
		if p.Count = len(r.count); !count {
			p.Join = slices.Sorted(maps.Keys(r.count))
		}
	}
	return p
}

func (h *Hub) presenceAddLocked(r *room, user string) {
	if r.opts.Presence == Hidden {
		return
	}
	a := h.presence.here[r.topic]
	if a == nil {
		a = &attendance{mode: r.opts.Presence, users: map[string]int{}, leaving: map[string]time.Time{}}
		h.presence.here[r.topic] = a
	}
	_, known := a.users[user]
	a.users[user]++
	delete(a.leaving, user)
	if !known {
		h.reportLocked(r.topic, a, present{Join: []string{user}})
	}
}

func (h *Hub) presenceRemoveLocked(r *room, user string) {
	a := h.presence.here[r.topic]
	if a == nil {
		return
	}
	if a.users[user]--; a.users[user] == 0 {
		now := time.Now()
		a.leaving[user] = now
		h.presence.leaving = append(h.presence.leaving, departure{r.topic, user, now})
	}
}

// reportLocked tells the home of a topic what has changed here, or all when it is another than before.
func (h *Hub) reportLocked(topic string, a *attendance, p present) {
	home := h.homeOf(topic)
	if home.Node == "" {
		return // presenceScan comes back to it
	}
	if home != a.reported {
		p = present{Join: slices.Collect(maps.Keys(a.users)), All: true}
		a.reported = home
	}
	p.Topic = topic
	if home.Node == h.id {
		h.reportedLocked(h.id, &p, a.mode)
	} else {
		h.tellOne(home.Node, &control{Present: []present{p}})
	}
}

// presenceTick lets those go that have been away for long enough, looks for new homes, and tells what has changed.
func (h *Hub) presenceTick() {
	h.with(func() {
		now := time.Now()
		for n := h.presence.leaving; len(n) > 0 && now.Sub(n[0].at) >= presenceDelay; n = h.presence.leaving {
			d := n[0]
			h.presence.leaving = n[1:]
			a := h.presence.here[d.topic]
			if a == nil || !a.leaving[d.user].Equal(d.at) {
				continue // he is back
			}
			delete(a.leaving, d.user)
			delete(a.users, d.user)
			h.reportLocked(d.topic, a, present{Leave: []string{d.user}, End: len(a.users) == 0})
			if len(a.users) == 0 {
				delete(h.presence.here, d.topic)
			}
		}
		if len(h.presence.leaving) == 0 {
			h.presence.leaving = nil
		}
		if now.Before(h.presence.scan) || now.Sub(h.presence.scanned) >= presenceScan {
			h.presence.scanned = now
			h.scanLocked()
		}
		for topic, r := range h.presence.told {
			h.announceLocked(topic, r, now)
		}
	})
}

// scanLocked reports to homes that are new, and forgets what this node is no home of any more.
func (h *Hub) scanLocked() {
	for topic, a := range h.presence.here {
		if home := h.homeOf(topic); home.Node != "" && home != a.reported {
			h.reportLocked(topic, a, present{})
		}
	}
	for topic := range h.presence.rosters {
		if home := h.homeOf(topic); home.Node != "" && home.Node != h.id {
			h.forgetRosterLocked(topic)
		}
	}
}

func (h *Hub) forgetRosterLocked(topic string) {
	delete(h.presence.rosters, topic)
	delete(h.presence.told, topic)
}

// presenceHear takes what another hub tells.
func (h *Hub) presenceHear(from string, c *control) {
	modes := make([]PresenceMode, len(c.Present))
	for i := range c.Present {
		modes[i] = h.optionsOf(c.Present[i].Topic).Presence
	}
	h.with(func() {
		for i := range c.Present {
			if p := &c.Present[i]; h.homeOf(p.Topic).Node == h.id {
				h.reportedLocked(from, p, modes[i])
			}
		}
		for i := range c.Roster {
			h.toldLocked(&c.Roster[i])
		}
		if p := c.Who; p != nil {
			answer := present{Topic: p.Topic, Not: true}
			if h.homeOf(p.Topic).Node == h.id {
				answer = h.presenceOfLocked(p.Topic, p.Large)
			}
			answer.Ask = p.Ask
			h.tellOne(from, &control{Here: &answer})
		}
		if p := c.Here; p != nil {
			if ask := h.presence.asks[p.Ask]; ask != nil {
				delete(h.presence.asks, p.Ask)
				ask <- *p
			}
		}
	})
}

// reportedLocked takes what a node reports about its own users.
func (h *Hub) reportedLocked(from string, p *present, mode PresenceMode) {
	r := h.presence.rosters[p.Topic]
	if r == nil {
		if p.End {
			return
		}
		r = &roster{mode: mode, nodes: map[string]map[string]struct{}{}, count: map[string]int{}, gone: map[string]time.Time{},
			join: map[string]struct{}{}, leave: map[string]struct{}{}, full: map[string]struct{}{}}
		if h.presence.rosters[p.Topic] = r; mode == Told {
			h.presence.told[p.Topic] = r
		}
	}
	users := r.nodes[from]
	if users == nil {
		users = map[string]struct{}{}
		r.nodes[from] = users
		r.full[from] = struct{}{}
	}
	if p.All {
		keep := map[string]struct{}{}
		for _, u := range p.Join {
			keep[u] = struct{}{}
		}
		for u := range users {
			if _, ok := keep[u]; !ok {
				r.remove(from, u, false)
			}
		}
		r.full[from] = struct{}{}
	}
	for _, u := range p.Join {
		r.add(from, u)
	}
	for _, u := range p.Leave {
		r.remove(from, u, true)
	}
	if p.End {
		h.partLocked(p.Topic, r, from, true)
	}
}

func (r *roster) add(node, user string) {
	users := r.nodes[node]
	if _, ok := users[user]; ok {
		return
	}
	users[user] = struct{}{}
	r.count[user]++
	if r.count[user] > 1 || r.mode != Told {
		return
	}
	r.changed = true
	if _, ok := r.gone[user]; ok { // he is back before he was missed
		delete(r.gone, user)
		return
	}
	if _, ok := r.leave[user]; ok {
		delete(r.leave, user)
		return
	}
	r.join[user] = struct{}{}
}

// remove takes a user off a node's part. Who was not said to have left may be on his way to another node.
func (r *roster) remove(node, user string, left bool) {
	if _, ok := r.nodes[node][user]; !ok {
		return
	}
	delete(r.nodes[node], user)
	if r.count[user]--; r.count[user] > 0 {
		return
	}
	delete(r.count, user)
	if r.mode != Told {
		return
	}
	r.changed = true
	switch _, untold := r.join[user]; {
	case untold:
		delete(r.join, user)
	case left:
		r.leave[user] = struct{}{}
	default:
		r.gone[user] = time.Now()
	}
}

// partLocked forgets a node's part.
func (h *Hub) partLocked(topic string, r *roster, node string, left bool) {
	for u := range r.nodes[node] {
		r.remove(node, u, left)
	}
	delete(r.nodes, node)
	delete(r.full, node)
	if len(r.nodes) == 0 {
		h.forgetRosterLocked(topic)
	}
}

// presenceKeep drops what nodes reported that are gone, and looks for new homes for a while.
func (h *Hub) presenceKeep(alive []string) {
	h.with(func() {
		h.presence.scan = time.Now().Add(5 * time.Second)
		for topic, r := range h.presence.rosters {
			for id := range r.nodes {
				if !slices.Contains(alive, id) {
					h.partLocked(topic, r, id, false)
				}
			}
		}
	})
}
