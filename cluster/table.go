package cluster

import (
	"slices"
	"time"
)

// The fates of a process, as Fate returns them.
const (
	FateAlive    = "alive"
	FateSuspect  = "suspect"  // its link is silent for a second: still in Alive
	FateDraining = "draining" // takes no new work: still in Alive
	FateLeft     = "left"     // said goodbye
	FateDead     = "dead"     // its connections were reset and nobody listens, or it was given up for good: never comes back
	FateFailed   = "failed"   // does not answer: may come back
)

const (
	silentAfter = 250 * time.Millisecond        // a link that is down (it says so after a second of silence) for that long makes its process suspect
	joinGrace   = 500 * time.Millisecond        // how long a newcomer waits for its info to arrive before it is shown without
	keepFate    = 24*time.Hour + 10*time.Minute // a separation of 24 h heals
	maxGraves   = 65536
)

// table is what this node thinks of every process. It is a pure core: no goroutine, clock or I/O; times come in as arguments. Three sources
// feed it, and none alone decides: gossip (who is here), links (who was heard when, whose process is proven dead) and what each process says
// of itself.
type table struct {
	self    string
	members map[string]*entry
	graves  map[string]struct{} // IDs that never come back
	settled bool
	resumed time.Time // end of the last pause of this process
	hold    time.Time // until then, nobody is given up: they get time to answer

	hearings hearings
}

// entry is one process.
type entry struct {
	id, addr string
	present  bool // gossip has it as a member
	absent   bool // gossip had it and has given it up
	left     bool
	dead     bool
	cause    string    // of dead
	ended    time.Time // of left, where that is known by hearsay
	linked   bool      // its link brings signs of life
	heard    time.Time // when its link last did
	info     *info
	life     uint64        // signs of life so far
	quiet    time.Duration // without one
	agree    []string      // peers that do not hear it either
	silent   bool          // nobody hears it
	first    time.Time     // known since
	joined   time.Time     // in gossip since
	seen     time.Time     // last sign of life of any kind
	fate     string
	since    time.Time // of fate
	shown    bool      // in Alive
	offset   time.Duration
	measured bool   // offset is known
	relay    string // ID of the member through which its link goes; empty: directly
}

func newTable(self *info, addr string, now time.Time) *table {
	t := &table{self: self.ID, members: map[string]*entry{}, graves: map[string]struct{}{}, hearings: LAN.timings().hearings}
	e := t.get(self.ID, now)
	e.present, e.joined, e.info, e.addr, e.seen, e.measured = true, now, self, addr, now, true
	e.fate, e.since, e.shown = FateAlive, now, true
	return t
}

func (t *table) get(id string, now time.Time) *entry {
	e := t.members[id]
	if e == nil {
		e = &entry{id: id, first: now, since: now}
		t.members[id] = e
	}
	return e
}

// buried reports whether id may never be a member again.
func (t *table) buried(id string) bool {
	_, ok := t.graves[id]
	return ok
}

// gossipJoin: gossip has the process as a member, for the first time or again.
func (t *table) gossipJoin(id, addr string, now time.Time) {
	if id == t.self || t.buried(id) {
		return
	}
	e := t.get(id, now)
	if e.left {
		return // a late rumour about a process that said goodbye
	}
	if !e.present {
		e.joined = now
		e.fresh()
	}
	e.present, e.absent, e.addr, e.seen = true, false, addr, now
}

// gossipLeave: gossip has given the process up, or it said goodbye there.
func (t *table) gossipLeave(id string) {
	e := t.members[id]
	if e == nil || id == t.self {
		return
	}
	e.present, e.absent = false, true
}

// linkUp and linkDown are what the link says.
func (t *table) linkUp(id string, now time.Time) {
	if t.buried(id) {
		return
	}
	e := t.get(id, now)
	e.linked, e.heard, e.seen = true, now, now
	e.fresh()
}

func (t *table) linkDown(id string, now time.Time) {
	if e := t.members[id]; e != nil && e.linked {
		e.linked, e.relay, e.heard, e.seen = false, "", now, now
	}
}

// bury: the process is proven dead, or was given up for good.
func (t *table) bury(id, cause string, now time.Time) {
	if id == t.self || t.buried(id) {
		return
	}
	e := t.get(id, now)
	if e.left {
		return
	}
	e.dead, e.cause, e.linked, e.present = true, cause, false, false
	if len(t.graves) < maxGraves {
		t.graves[id] = struct{}{}
	}
}

// told: the process told about itself.
func (t *table) told(in *info, now time.Time) {
	if in.ID == t.self || t.buried(in.ID) {
		return
	}
	e := t.get(in.ID, now)
	if e.info != nil && in.Revision < e.info.Revision {
		return
	}
	e.info, e.seen = in, now
	if in.Left {
		e.left = true
	}
}

// met reports whether a process was a member: this node has heard it, or a peer that is here has lost it.
func (t *table) met(id string) bool {
	if e := t.members[id]; e != nil && e.info != nil {
		return true
	}
	for _, e := range t.members {
		if e.shown && e.info != nil && slices.Contains(e.info.Lost, id) {
			return true
		}
	}
	return false
}

// resume: this process was paused until now. What it did not hear meanwhile is no evidence.
func (t *table) resume(now time.Time, grace time.Duration) {
	t.resumed, t.hold = now, now.Add(grace)
	for _, e := range t.members {
		e.quiet, e.agree = 0, nil
	}
}

// judge is the fate of a process from all that is known.
func (t *table) judge(e *entry, now time.Time) string {
	switch {
	case e.id == t.self:
		if e.info.Draining {
			return FateDraining
		}
		return FateAlive
	case e.left:
		return FateLeft
	case e.dead:
		return FateDead
	case e.silent && e.shown && now.Before(t.hold):
		return FateSuspect
	case e.silent:
		return FateFailed
	case e.absent && !e.linked && e.shown && (now.Before(t.hold) || t.lately(e)):
		return FateSuspect
	case e.absent && !e.linked: // gossip alone does not give up a process that talks to us
		return FateFailed
	case e.info != nil && e.info.Draining:
		return FateDraining
	case e.linked && !e.present:
		return FateAlive // gossip has not heard of it yet
	case !e.present:
		return ""
	case e.linked:
		return FateAlive
	}
	quiet := e.joined.Add(joinGrace)
	for _, at := range []time.Time{e.heard, t.resumed} {
		if at.After(quiet) {
			quiet = at
		}
	}
	if now.Sub(quiet) >= silentAfter {
		return FateSuspect
	}
	return FateAlive
}

// succeed buries processes without a link whose address a younger one has now: a port has one owner.
func (t *table) succeed(now time.Time) {
	var owners map[string]string
	for id, e := range t.members {
		if e.linked && e.addr != "" && id != t.self {
			if owners == nil {
				owners = make(map[string]string, len(t.members))
			}
			owners[e.addr] = max(owners[e.addr], id)
		}
	}
	for id, e := range t.members {
		if !e.linked && !e.dead && !e.left && owners[e.addr] > id && id != t.self {
			t.bury(id, "its address belongs to another process now", now)
		}
	}
}

// show reports whether the process belongs in Alive.
func (t *table) show(e *entry, now time.Time) bool {
	switch e.fate {
	case FateAlive, FateSuspect, FateDraining:
	default:
		return false
	}
	if e.shown || e.id == t.self {
		return true
	}
	// A newcomer is shown when it has told about itself, so that its tags are there when it is.
	return (e.present || e.absent) && (e.info != nil || now.Sub(e.joined) >= joinGrace)
}

// refresh judges everybody again and returns those whose fate or presence in Alive changed.
func (t *table) refresh(now time.Time) (changed []string) {
	t.succeed(now)
	for id, e := range t.members {
		fate := t.judge(e, now)
		was, shown := e.fate, e.shown
		if fate != was {
			e.fate, e.since = fate, now
			if fate == FateLeft && !e.ended.IsZero() {
				e.since = e.ended
			}
		}
		e.shown = t.show(e, now)
		if fate != was || e.shown != shown {
			changed = append(changed, id)
		}
		if !e.shown && id != t.self && !e.present && !e.linked && now.Sub(e.since) > keepFate && now.Sub(e.seen) > keepFate {
			delete(t.members, id)
		}
	}
	slices.Sort(changed)
	return changed
}

// alive is the view, ascending; nil until it has settled.
func (t *table) alive() []string {
	if !t.settled {
		return nil
	}
	ids := make([]string, 0, len(t.members))
	for id, e := range t.members {
		if e.shown {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// highest is the highest ID of the processes that are, or lately were, here.
func (t *table) highest() string {
	top := t.self
	for id := range t.members {
		top = max(top, id)
	}
	return top
}

// lost is the addresses to try again: of members that gossip gave up and that may come back, and of processes that came by link and that
// gossip has not heard of.
func (t *table) lost() (addrs []string) {
	for _, e := range t.members {
		switch {
		case e.present && !e.silent || e.left || e.dead || e.id == t.self:
		case (e.absent || e.silent) && e.addr != "":
			addrs = append(addrs, e.addr)
		case e.linked && e.info != nil && e.info.Addr != "":
			addrs = append(addrs, e.info.Addr)
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}
