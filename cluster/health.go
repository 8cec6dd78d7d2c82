package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Self returns this node as a Member.
func (n *Node) Self() Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table.member(n.table.members[n.id], time.Now())
}

// Members returns every process that this node knows of, those that ended in the last 24 h too, oldest first.
func (n *Node) Members() []Member {
	n.measure()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	var members []Member
	for _, e := range n.table.members {
		if e.fate != "" && !e.hearsay() {
			members = append(members, n.table.member(e, now))
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return members
}

// Status returns how well the cluster is, as this node sees it: its members but for those that left or were replaced, with what is to be said
// about each. Whatever concerns discovery stands with the node's own.
func (n *Node) Status() Status { return n.judged(n.status()) }

func (n *Node) status() Status {
	n.measure()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.lookLocked()
	var s Status
	within := pongWithin(len(n.table.members))
	for _, e := range n.table.members {
		if e.fate == "" || e.fate == FateLeft || !e.shown && (e.info == nil && e.addr == "" || n.table.replaced(e)) {
			continue
		}
		m := MemberStatus{Member: n.table.member(e, now)}
		if e.id == n.id {
			m.Reasons = n.ownReasonsLocked(now)
		} else {
			m.Reasons = n.table.about(e, now)
			if at, ok := n.pongs[e.id]; e.relay == "" && e.shown && e.linked && now.Sub(e.first) > within && (!ok || now.Sub(at) > within) {
				m.Reasons = append(m.Reasons, Reason{Code: CodeDatagrams, Level: Amber, Text: m.Member.Name + " answers on TCP and not on UDP",
					Remedy: "let its port be reached over UDP too, so that failures are found quickly"})
			}
		}
		sortReasons(m.Reasons)
		m.Level = worst(m.Reasons)
		s.Members = append(s.Members, m)
		s.Reasons = append(s.Reasons, m.Reasons...)
	}
	s.Flags = n.flagsLocked()
	slices.SortFunc(s.Members, func(a, b MemberStatus) int { return strings.Compare(a.Member.ID, b.Member.ID) })
	sortReasons(s.Reasons)
	s.Level = worst(s.Reasons)
	return s
}

// ownReasonsLocked is what this node has to say about itself and about discovery.
func (n *Node) ownReasonsLocked(now time.Time) (reasons []Reason) {
	add := func(level Level, notReady bool, code, text, remedy string) {
		reasons = append(reasons, Reason{Code: code, Text: text, Remedy: remedy, Level: level, NotReady: notReady})
	}
	if !n.table.settled {
		add(Red, true, CodeStarting, "this node is looking for the others", "wait: it takes at most 1.5 s after Run")
	} else if !n.tried && !n.cfg.Single {
		add(Red, true, CodeStarting, "this node has not heard yet from everybody in discovery", "wait: it takes at most 5 s after Run")
	}
	if n.paused {
		add(Red, true, CodePaused, "this process was paused and no peer has acknowledged it since", "wait; if it stays so, let this node's port be reached")
	}
	if n.self.Draining {
		add(Amber, true, CodeDraining, "this node drains", "send new work to the others")
	}
	if n.trouble != nil {
		add(Amber, false, CodeDiscovery, fmt.Sprintf("discovery fails: %v", n.trouble), "make the database, or the name server, answer; members that are here stay")
	}
	if !n.cfg.Single && n.cfg.InsecureNoKeys {
		add(Amber, false, CodeKeyless, "this node runs without keys: whoever reaches its port can join", "set Keys")
	}
	if n.table.nobodySchedules() {
		add(Amber, false, CodeNobodyLeads, "no member is a candidate for leadership: nobody schedules jobs", "let NonCandidate be false on at least one node")
	}
	if n.warning != "" {
		add(Amber, false, CodeAddress, n.warning, "set AdvertiseAddr")
	}
	for _, r := range n.rows {
		reasons = append(reasons, n.aboutRowLocked(r, now)...)
	}
	return reasons
}

// measure copies the clock offsets, and who relays, from the links.
func (n *Node) measure() {
	if n.cfg.Single || !n.isRunning() {
		return
	}
	ids := n.peers()
	for _, id := range ids {
		offset, _, ok := n.mesh.Offset(id)
		via := n.mesh.Via(id)
		n.mu.Lock()
		if e := n.table.members[id]; e != nil {
			e.relay = via
			if ok {
				e.offset, e.measured = offset, true
			}
		}
		n.mu.Unlock()
	}
}

// Check returns nil when all is green, and a *CheckError otherwise. When its Warning is true this node should serve all the same; when it is
// false, it must not: it is starting, draining, was paused, or stands apart from processes that it should see. After the end of Run it
// returns ErrClosed.
func (n *Node) Check(ctx context.Context) error {
	if n.life.Closed() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	s := n.Status()
	if len(s.Reasons) == 0 {
		return nil
	}
	return &CheckError{Reasons: s.Reasons}
}

// WaitReady returns nil once this node is fit to serve: the view has settled and nothing that Check finds is more than a warning.
func (n *Node) WaitReady(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	defer n.Notify(changed)()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := n.Check(ctx)
		if ce, ok := err.(*CheckError); err == nil || ok && ce.Warning() {
			return nil
		} else if !ok {
			return err
		}
		select {
		case <-changed:
		case <-again.C:
		case <-n.ended:
			return ErrClosed
		case <-n.life.Done():
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// Stats are the figures of a Node since the beginning, or now.
type Stats struct {
	ID, Addr      string
	Alive         int
	Suspect       int // of Alive
	Failed        int
	Links         int    // that work now
	HealthScore   int    // of gossip: 0 is well, more means that this process misses its deadlines
	Pauses        int64  // of this process
	Handled       uint64 // messages given to handlers
	Waiting       int    // messages that wait for handlers
	Unhandled     uint64 // messages dropped because their topic had no handler
	Refused       uint64 // connections and datagrams of strangers
	TurnedAway    uint64 // of them, connections dropped because there were too many
	Forged        uint64 // of them, datagrams: forged, replayed, of another cluster, or noise
	Sent          uint64 // messages and answers given to links
	Received      uint64 // messages and answers that links brought
	SentBytes     uint64
	ReceivedBytes uint64
	RepeatedBytes uint64 // sent again after a reconnection
	Retained      int    // bytes that peers have not acknowledged
	Backpressure  uint64 // posts that were refused or had to wait
	Reconnections uint64

	Events map[string]uint64 // what happened to other members, by kind of Event
	Peers  []PeerStats       // those with a link, ascending
}

// PeerStats are the figures of the link to one peer.
type PeerStats struct {
	ID            string
	Up            bool
	SentBytes     uint64
	ReceivedBytes uint64
	Retained      int           // bytes that it has not acknowledged: the queue to it
	Backpressure  uint64        // posts that were refused or had to wait
	RTT           time.Duration // of the link, the best of late; 0 until measured
}

// Stats returns the figures.
func (n *Node) Stats() Stats {
	n.mu.Lock()
	s := Stats{ID: n.id, Addr: n.addr, Pauses: n.pause.count.Load()}
	for _, e := range n.table.members {
		switch {
		case e.shown:
			s.Alive++
			if e.fate == FateSuspect {
				s.Suspect++
			}
		case e.fate == FateFailed:
			s.Failed++
		}
	}
	n.mu.Unlock()
	s.Handled, s.Waiting, s.Unhandled = n.inbox.figures()
	s.Sent, s.Received, s.Events = n.sent.Load(), n.received.Load(), n.events.counted()
	if n.cfg.Single || !n.isRunning() {
		return s
	}
	w := n.wire // set before running was closed, and not changed since
	s.Refused, s.TurnedAway, s.Forged = w.refused.Load(), w.gate.turnedAway(), w.forged.Load()
	s.HealthScore = n.gossip.GetHealthScore()
	for id, p := range n.mesh.Stats().Peers {
		s.Peers = append(s.Peers, PeerStats{
			ID: id, Up: p.Up, SentBytes: p.SentBytes, ReceivedBytes: p.RecvBytes, Retained: p.Retained, Backpressure: p.Backpressure, RTT: p.RTT,
		})
		if p.Up {
			s.Links++
		}
		s.SentBytes += p.SentBytes
		s.ReceivedBytes += p.RecvBytes
		s.RepeatedBytes += p.RepeatedBytes
		s.Retained += p.Retained
		s.Backpressure += p.Backpressure
		if p.Connections > 1 {
			s.Reconnections += p.Connections - 1
		}
	}
	slices.SortFunc(s.Peers, func(a, b PeerStats) int { return strings.Compare(a.ID, b.ID) })
	return s
}
