package cluster

import (
	"context"
	"slices"
	"sync"
	"time"
)

// work does what follows from changes and may take time: links, tales to peers, log lines, hooks.
func (n *Node) work(ctx context.Context) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	said := map[string]spoken{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			n.pingSome()
			continue
		case <-n.kick:
		}
		n.mu.Lock()
		todo, tell := n.todo, n.tell
		n.todo, n.tell = map[string]struct{}{}, false
		now := time.Now()
		var members []Member
		var entries []entry
		for id := range todo {
			if e := n.table.members[id]; e != nil {
				members = append(members, n.table.member(e, now))
				entries = append(entries, *e)
			}
		}
		for id := range said {
			if n.table.members[id] == nil {
				delete(said, id)
			}
		}
		for id := range n.pongs {
			if n.table.members[id] == nil && !n.inRowsLocked(id) {
				delete(n.pongs, id)
			}
		}
		n.mu.Unlock()
		tell = tell || slices.ContainsFunc(entries, func(e entry) bool {
			return e.fate == FateFailed || e.fate == FateLeft && e.info != nil && e.info.Left // heard of it first hand
		})
		if tell {
			body := n.selfInfo(tellGone)
			for _, id := range n.peers() {
				n.respond(id, laneControl, controlEnvelope(kindInfo, 0), body)
			}
		}
		for i, e := range entries {
			if e.id != n.ID() {
				n.follow(ctx, e)
				n.say(said, e, members[i])
			}
		}
		if n.cfg.Hooks.MemberChanged != nil {
			n.hooks.add(members)
		}
	}
}

// follow makes the link fit the fate.
func (n *Node) follow(ctx context.Context, e entry) {
	switch e.fate {
	case FateLeft, FateDead:
		n.mesh.Forget(e.id)
		n.wire.forget(e.id)
		if e.fate == FateDead && n.oldest() {
			n.spawn(func() {
				if err := n.withDiscovery(ctx, func(ctx context.Context) error { return n.cfg.Discovery.Deregister(ctx, e.id) }); err != nil {
					n.log.Debug("the row of a dead process stays until it is stale", "id", e.id, "err", err)
				}
			})
		}
	case FateFailed:
		n.mesh.GiveUp(e.id)
	case "":
	default:
		if e.present {
			n.mesh.Connect(e.id)
		}
	}
}

func (n *Node) oldest() bool {
	ids := n.Alive()
	return len(ids) > 0 && ids[0] == n.ID()
}

// say writes one line for each coming and going, and keeps what happened.
func (n *Node) say(said map[string]spoken, e entry, m Member) {
	was := said[e.id]
	is := was
	switch {
	case e.shown:
		is.fate = FateAlive
	case e.fate == FateLeft || e.fate == FateDead || e.fate == FateFailed:
		is.fate = e.fate
	}
	if e.info != nil {
		is.revision = e.info.Revision
	}
	if is == was || is.fate == "" || was.fate == "" && !e.shown && e.info == nil { // or it is known by hearsay alone
		return
	}
	said[e.id] = is
	args := []any{"member", m.Name, "id", m.ID, "addr", m.Addr}
	switch {
	case is.fate == was.fate && is.fate == FateAlive:
		n.events.add(EventUpdated, m)
	case is.fate == was.fate:
	case is.fate == FateAlive && was.fate == "":
		n.log.Info("member joined", args...)
		n.events.add(EventJoined, m)
	case is.fate == FateAlive:
		n.log.Info("member is back", args...)
		n.events.add(EventBack, m)
	case is.fate == FateLeft:
		n.log.Info("member left", args...)
		n.events.add(EventLeft, m)
	case is.fate == FateDead:
		n.log.Warn("member is dead", append(args, "cause", m.Cause)...)
		n.events.add(EventDead, m)
	default:
		n.log.Warn("member does not answer", args...)
		n.events.add(EventFailed, m)
	}
}

// spoken is what was said last of a member.
type spoken struct {
	fate     string
	revision uint64
}

// pingSome tries the datagrams of the next few members, so that what a node sends does not grow with the cluster.
func (n *Node) pingSome() {
	n.mu.Lock()
	var ids []string
	for id, e := range n.table.members {
		if e.shown && id != n.id && e.addr != "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	first := 0
	for first < len(ids) && ids[first] <= n.pinged {
		first++
	}
	var addrs []string
	for i := range min(pingsAtOnce, len(ids)) {
		id := ids[(first+i)%len(ids)]
		n.pinged = id
		addrs = append(addrs, n.table.members[id].addr)
	}
	n.mu.Unlock()
	for _, a := range addrs {
		n.wire.ping(a)
	}
}

// answersDatagrams reports whether a member has answered one lately. Gossip then need not ask it over TCP when a datagram is lost: each time
// that costs a handshake, and on a busy machine, where many datagrams are late, handshakes are what makes it busier.
func (n *Node) answersDatagrams(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.pongs[id]
	return ok && time.Since(at) < pongWithin(len(n.table.members))
}

const (
	pingEvery   = 2 * time.Second
	pingsAtOnce = 8
)

// pongWithin is the time in which a member that gets datagrams has answered one: three rounds of pings.
func pongWithin(members int) time.Duration {
	return 3 * pingEvery * time.Duration(max(1, (members+pingsAtOnce-1)/pingsAtOnce))
}

// hookQueue holds what the hooks have not been told, the latest for each member.
type hookQueue struct {
	mu      sync.Mutex
	members map[string]Member
	order   []string
	wake    chan struct{}
}

func newHookQueue() *hookQueue {
	return &hookQueue{members: map[string]Member{}, wake: make(chan struct{}, 1)}
}

func (q *hookQueue) add(members []Member) {
	q.mu.Lock()
	for _, m := range members {
		if _, ok := q.members[m.ID]; !ok {
			q.order = append(q.order, m.ID)
		}
		q.members[m.ID] = m
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *hookQueue) next() (m Member, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return m, false
	}
	m = q.members[q.order[0]]
	delete(q.members, m.ID)
	q.order = q.order[1:]
	return m, true
}

// callHooks runs the user's hooks, apart from everything else.
func (n *Node) callHooks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.hooks.wake:
		}
		for m, ok := n.hooks.next(); ok && ctx.Err() == nil; m, ok = n.hooks.next() {
			n.cfg.Hooks.MemberChanged(m)
		}
	}
}
