package wsfanout

import (
	"maps"
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/sock"
)

// announceLocked tells the nodes of a Told topic what has changed; of a large one only how many there are, once a second.
func (h *Hub) announceLocked(topic string, r *roster, now time.Time) {
	for u, since := range r.gone {
		if now.Sub(since) >= presenceDelay {
			delete(r.gone, u)
			r.leave[u] = struct{}{}
			r.changed = true
		}
	}
	large := len(r.count) > h.cfg.MaxPresence
	if !r.changed && len(r.full) == 0 || large && len(r.full) == 0 && now.Sub(r.told) < presenceLarge {
		return
	}
	for node := range r.nodes {
		p := present{Topic: topic, Count: len(r.count), Large: large}
		_, all := r.full[node]
		switch {
		case large:
		case all:
			// Somebody on his way to another node is still there for those that look on.
			p.All, p.Join = true, slices.Sorted(maps.Keys(r.count))
			p.Join = append(p.Join, slices.Collect(maps.Keys(r.gone))...)
		case len(r.join)+len(r.leave) == 0:
			continue
		default:
			p.Join, p.Leave = slices.Sorted(maps.Keys(r.join)), slices.Sorted(maps.Keys(r.leave))
		}
		if node == h.id {
			h.toldLocked(&p)
		} else {
			h.tellOne(node, &control{Roster: []present{p}})
		}
	}
	clear(r.join)
	clear(r.leave)
	clear(r.full)
	r.changed, r.told = false, now
}

// toldLocked passes on to the subscribers here what the home tells of a topic.
func (h *Hub) toldLocked(p *present) {
	a, r := h.presence.here[p.Topic], h.rooms[p.Topic]
	if a == nil {
		return
	}
	k, f := a.known, frame.Server{Type: frame.Presence, Topic: p.Topic, Count: p.Count}
	switch {
	case p.Large:
		a.known = &known{count: p.Count}
	case p.All:
		now := map[string]struct{}{}
		for _, u := range p.Join {
			now[u] = struct{}{}
		}
		a.known = &known{users: now, count: p.Count}
		if k == nil || k.users == nil {
			f.Users, f.Full = slices.Sorted(maps.Keys(now)), true
			break
		}
		for u := range now {
			if _, ok := k.users[u]; !ok {
				f.Join = append(f.Join, u)
			}
		}
		for u := range k.users {
			if _, ok := now[u]; !ok {
				f.Leave = append(f.Leave, u)
			}
		}
		slices.Sort(f.Join)
		slices.Sort(f.Leave)
		if len(f.Join)+len(f.Leave) == 0 {
			return
		}
	case k == nil || k.users == nil:
		// It was large until now, or the beginning is still under way: all of it has to come.
		a.known = nil
		h.reportAgainLocked(p.Topic, a)
		return
	default:
		for _, u := range p.Join {
			k.users[u] = struct{}{}
		}
		for _, u := range p.Leave {
			delete(k.users, u)
		}
		k.count = p.Count
		f.Join, f.Leave = p.Join, p.Leave
	}
	if r == nil {
		return
	}
	b := sock.Text(frame.Marshal(f))
	for _, s := range r.subs {
		if s.told {
			if !s.conn.held && !s.conn.sock.Offer(b, r.lane()) {
				s.told = false // it gets all of it when it has room
				h.wakeLocked(s)
			}
		} else {
			h.rollLocked(s)
		}
	}
}

// reportAgainLocked makes the home send the whole roster.
func (h *Hub) reportAgainLocked(topic string, a *attendance) {
	a.reported.N, a.reported.Node = 0, ""
	h.reportLocked(topic, a, present{})
}

// rollLocked shows a subscriber who is there, if that is known and the socket has room.
func (h *Hub) rollLocked(s *sub) {
	a := h.presence.here[s.room.topic]
	if s.told || s.room.opts.Presence != Told || a == nil || a.known == nil || s.mode == waiting || s.conn.held {
		return
	}
	f := frame.Server{Type: frame.Presence, Topic: s.room.topic, Count: a.known.count, Full: true}
	if a.known.users != nil {
		f.Users = slices.Sorted(maps.Keys(a.known.users))
	}
	if s.told = s.conn.sock.Offer(sock.Text(frame.Marshal(f)), sock.Direct); !s.told {
		h.wakeLocked(s)
	}
}
