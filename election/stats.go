package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nines-go/nines/election/internal/core"
)

// Stats is a snapshot for people and metrics. Counts are since New.
type Stats struct {
	Name     string // of the election
	State    State  // what is known now
	Fenced   bool   // this process holds a term: LeadFenced runs
	Unfenced bool   // and nobody else can still be acting: Lead runs
	Running  int    // callbacks of Lead and HandleLeader that have not returned
	Fault    string // last error of the database, "" when its last statement went well
	Pooler   bool   // a transaction pooler was found: fail-over waits for the lease, see the package's comment

	TermsWon, TermsLost uint64 // leaderships of this process that began and ended
	Looks               uint64 // reads of the lease
	Acquires            uint64 // attempts to take it
	LostRaces           uint64 // those of them that came second
	Blocked             uint64 // those of them that a fenced transaction held off
	Renewals            uint64 // renewals that were accepted, without those inside of fenced transactions
	Revokes             uint64 // leases taken from a leader that was thought to be gone
	LockLosses          uint64 // times the leader's session lock was lost, or might have been
	Evidences           uint64 // times a leader's session was found to have ended
	Faults              uint64 // statements that failed
}

// Stats returns a snapshot.
func (e *Elector) Stats() Stats {
	s := e.State()
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.stats
	st.Name, st.State, st.Running, st.Fault = e.cfg.Name, s, e.running, e.fault
	st.Fenced, st.Unfenced = e.fenced != nil, e.unfenced != nil
	return st
}

func (l *loop) count(ev core.Event) {
	e := l.e
	e.mu.Lock()
	defer e.mu.Unlock()
	st, fault := &e.stats, ""
	switch ev := ev.(type) {
	case core.Looked:
		st.Looks++
		fault = ev.Err
	case core.Acquired:
		st.Acquires++
		switch ev.Outcome {
		case core.Lost:
			st.LostRaces++
		case core.Blocked:
			st.Blocked++
		default:
			fault = ev.Err
		}
	case core.Renewed:
		if fault = ev.Err; ev.Outcome == core.Granted {
			st.Renewals++
		}
	case core.Took:
		if fault = ev.Err; ev.Done {
			st.Revokes++
		}
	case core.Released:
		fault = ev.Err
	case core.LockLost:
		st.LockLosses++
	case core.Evidence:
		st.Evidences++
	}
	if fault != "" {
		st.Faults++
	}
}

// checkError is what Check answers.
type checkError struct {
	text, remedy string
	warning      bool
	err          error
}

func (e *checkError) Error() string  { return e.text }
func (e *checkError) Remedy() string { return e.remedy }
func (e *checkError) Warning() bool  { return e.warning }
func (e *checkError) Unwrap() error  { return e.err }

// Check answers nil while this node knows who leads. Its error has a Remedy, and is a Warning when the election may well be on its way.
func (e *Elector) Check(context.Context) error {
	if e.life.Closed() {
		return ErrClosed
	}
	s := e.State()
	e.mu.Lock()
	fault := e.fault
	e.mu.Unlock()
	switch {
	case s.Known && s.LeaderID != "" && fault == "":
		return nil
	case fault != "":
		return &checkError{
			text: fmt.Sprintf("election %q: database: %s", e.cfg.Name, fault), remedy: "check that the master database is reachable and takes writes",
			warning: s.LeaderID != "", err: errors.New(fault),
		}
	case !s.Known:
		return &checkError{text: fmt.Sprintf("election %q: leader not known: %s", e.cfg.Name, s.Reason), remedy: "check that Run was called and that the cluster's view is settled", warning: true}
	}
	return &checkError{
		text:   fmt.Sprintf("election %q: nobody leads: %s", e.cfg.Name, s.Reason),
		remedy: "check that a member is eligible: a candidate, not draining and not paused", warning: time.Since(s.Since) < 3*e.cfg.TTL,
	}
}
