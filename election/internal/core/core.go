// Package core decides who leads. It is pure: no goroutine, no clock, no I/O. Each call of Step takes an event and the time at which
// it is handled and returns what the shell should do; Status tells what holds now, and Next when Step must be called again at the latest.
//
// Two machines share the events and actions: Lease, where a row of a database decides, and Advisory, where members announce claims.
package core

import (
	"slices"
	"strings"
	"time"
)

// Now is a reading of this process's two clocks, each counted from the start of the process.
//
// A holder's trust must end in time even when the monotonic clock stood still because the machine slept: it takes the larger of the
// two. An observer must never count too much: a wall clock that is set forward would let it take over from a live holder, so it counts
// by the monotonic clock alone.
type Now struct{ Mono, Wall time.Duration }

// Trusted is the time passed since t as a holder counts it.
func (n Now) Trusted(t Now) time.Duration { return max(n.Mono-t.Mono, n.Wall-t.Wall) }

// Observed is the time passed since t as an observer counts it.
func (n Now) Observed(t Now) time.Duration { return n.Mono - t.Mono }

// Config holds the constants of one election.
type Config struct {
	TTL, Margin, Renew, Look, Stagger, StableFor time.Duration
	Nonce                                        string // makes the holder's name that of this elector alone
	NonCandidate                                 bool
	Proven                                       bool // Lease: who is proven dead is not waited for
	Quorum                                       int  // Advisory: expected size; 0 none
}

// Member is one member of the view.
type Member struct {
	ID                string
	Eligible, Suspect bool
	Claim             uint64 // Advisory: the term that it claims, 0 none
}

// View is this process's opinion on who is here. Members holds itself too, ascending by ID; nil before the first settled view.
type View struct {
	Me      string
	Members []Member
	Gone    string // a holder whose process is proven dead, or said goodbye
	Dead    string // whom Lease.Before names, if its process is proven dead
}

func (v View) find(id string) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// candidates are those that could lead, ascending, without the one named.
func (v View) candidates(without string) []string {
	var ids []string
	for _, m := range v.Members {
		if m.Eligible && !m.Suspect && m.ID != without {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// Row is the lease as one statement saw it.
type Row struct {
	Term        uint64
	Holder      string // "" released by its holder, "~" revoked by a candidate
	Beat        int64
	Server      string // that took the last write
	LockSession string
	Identity    string // of the server that answered
	Conn        uint64 // the connection that was asked, where Identity cannot tell one run of a server from the next; 0 elsewhere
	Fresh       bool   // the server has run for so short a time that a grant of its last run may still be trusted
}

// Revoked marks a lease that was taken from its holder, or that was given back by a holder that could not vouch for its predecessor.
const Revoked = "~"

// Standby is the identity of a server that takes no writes.
const Standby = "standby"

// same reports whether two observations are of one state on one run of one server.
func (r Row) same(o Row) bool {
	return r.Identity == o.Identity && r.Conn == o.Conn && r.Server == o.Server && r.Term == o.Term && r.Holder == o.Holder && r.Beat == o.Beat
}

// HolderID is the member behind the holder of a lease, "" when nobody holds it.
func HolderID(holder string) string {
	i := strings.LastIndexByte(holder, '/')
	if i < 0 {
		return ""
	}
	return holder[:i]
}

// Event is what happened.
type Event interface{ event() }

// The events.
type (
	// Tick asks for nothing but a look at the clock.
	Tick struct{}
	// Saw brings a view.
	Saw struct{ View View }
	// Looked answers Look. At is when the answer had come.
	Looked struct {
		Row Row
		At  Now
		Err string
	}
	// Acquired answers Acquire. Sent is from before the statement that wrote the beat was sent.
	Acquired struct {
		Outcome  Outcome
		Term     uint64
		Identity string
		Sent     Now
		Err      string
	}
	// Renewed answers Renew, or tells of a renewal inside a fenced transaction that committed.
	Renewed struct {
		Outcome  Outcome
		Term     uint64
		Identity string
		Lock     string
		Fenced   bool // a user's transaction did it: no answer to Renew
		Sent     Now
		Err      string
	}
	// Released answers Release.
	Released struct{ Err string }
	// Took answers Revoke: Done when the row was as named.
	Took struct {
		Done bool
		Err  string
	}
	// LockTaken says that the holder's session lock of the term is held.
	LockTaken struct {
		Term    uint64
		Session string
	}
	// LockLost says that it may be lost.
	LockLost struct{ Term uint64 }
	// Evidence says that the session named has ended: its lock was freed while this process waited for it.
	Evidence struct {
		Term    uint64
		Session string
	}
	// Doubt says that a fence found the term ended: the next renewal will tell.
	Doubt struct{ Term uint64 }
	// Idle says how many unfenced callbacks still run.
	Idle struct{ Running int }
	// Asked is the wish to give up leadership, to the member To or to the next one.
	Asked struct{ To string }
	// Answer answers Ask.
	Answer struct {
		To      string
		Willing bool
	}
	// Confirmed answers Confirm: another member has seen the death too.
	Confirmed struct {
		ID  string
		Yes bool
	}
	// Hinted says that the row may have changed.
	Hinted struct{}
	// Nominated says that the leader of the term gives way to this process.
	Nominated struct{ Term uint64 }
)

func (Tick) event()      {}
func (Saw) event()       {}
func (Looked) event()    {}
func (Acquired) event()  {}
func (Renewed) event()   {}
func (Released) event()  {}
func (Took) event()      {}
func (LockTaken) event() {}
func (LockLost) event()  {}
func (Evidence) event()  {}
func (Doubt) event()     {}
func (Idle) event()      {}
func (Asked) event()     {}
func (Answer) event()    {}
func (Confirmed) event() {}
func (Hinted) event()    {}
func (Nominated) event() {}

// Outcome is how a write of the lease ended.
type Outcome string

// The outcomes.
const (
	Granted Outcome = "granted"
	Lost    Outcome = "lost"    // the row says otherwise
	Blocked Outcome = "blocked" // a fenced transaction held it off for the whole lock timeout
	Unknown Outcome = "unknown" // sent, and not heard of
	Failed  Outcome = "failed"  // provably not done
)

// Action is what the shell should do. One of Look, Acquire, Renew, Release and Revoke is under way at a time.
type Action interface{ action() }

// The actions.
type (
	Look    struct{}
	Acquire struct {
		Row      Row
		Holder   string
		Escalate bool // end the sessions that hold it off
	}
	Renew struct {
		Term   uint64
		Holder string
		Lock   string
	}
	Release struct {
		Term   uint64
		Holder string
		Mark   string
	}
	Revoke struct{ Row Row }
	// Ask asks a member whether it would lead now.
	Ask struct{ To string }
	// Nominate tells a member that the lease is free for it.
	Nominate struct {
		To   string
		Term uint64
	}
	// Confirm asks the other members whether they too have proof that a process is dead.
	Confirm struct{ ID string }
	// Claim announces an advisory leadership, 0 ends it.
	Claim struct{ Term uint64 }
)

func (Look) action()     {}
func (Acquire) action()  {}
func (Renew) action()    {}
func (Release) action()  {}
func (Revoke) action()   {}
func (Ask) action()      {}
func (Nominate) action() {}
func (Confirm) action()  {}
func (Claim) action()    {}

// Status is what holds at one time.
type Status struct {
	Known    bool // who leads, or that nobody does
	LeaderID string
	Term     uint64
	Reason   string
	Mine     uint64 // the term that this process holds and trusts; 0 none
	Sent     Now    // what the trust is counted from
	Holder   string // this process's name in the row
	Unfenced bool   // nobody else can still be acting
	Stepping bool   // giving up
	Resigned bool   // gave up, and waits for another to lead
	Lock     LockWish
	Named    bool // the row names the session of the lock that this process holds
}

// LockWish says which session lock the shell should hold or wait for.
type LockWish struct {
	Hold, Wait uint64 // a term, 0 none
	Session    string // Wait: whose lock
}
