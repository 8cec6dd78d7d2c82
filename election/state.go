package election

import (
	"context"
	"iter"
	"time"
)

// State is one leadership as this node knows it.
type State struct {
	LeaderID string    // "" while nobody leads, or nobody is known to
	Term     uint64    // the last that is known; it rises with each leadership
	Known    bool      // who leads, or that nobody does. False until the cluster's view is settled, and while the database is away
	Leading  bool      // this node leads, and nobody else can still be acting: see IsLeader
	Since    time.Time // of this LeaderID and Term, as seen by this node
	Reason   string    // for people
}

// State returns what is known now.
func (e *Elector) State() State {
	e.mu.Lock()
	s := e.state
	e.mu.Unlock()
	if s.Leading && !e.IsLeader() {
		return s.lapsed()
	}
	return s
}

func (s State) lapsed() State {
	s.Leading, s.Known, s.LeaderID, s.Reason = false, false, "", "the lease was not renewed in time"
	return s
}

// Watch yields the current state and then each later one, never the same twice. A slow consumer skips states in between, but never
// the last. The sequence ends with ctx, or after the last state when the Elector is closed.
func (e *Elector) Watch(ctx context.Context) iter.Seq[State] {
	return func(yield func(State) bool) {
		var last State
		first := true
		for {
			e.mu.Lock()
			s, changed, done := e.state, e.changed, e.done
			e.mu.Unlock()
			if first || s != last {
				last, first = s, false
				if ctx.Err() != nil || !yield(s) {
					return
				}
				continue
			}
			if done {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// setStateLocked publishes a state; Since is kept while the leadership is the same one.
func (e *Elector) setStateLocked(s State) {
	s.Since = e.state.Since
	if s.LeaderID != e.state.LeaderID || s.Term != e.state.Term || s.Known != e.state.Known {
		s.Since = time.Now().Round(0)
	}
	e.state = s
}
