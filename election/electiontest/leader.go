package electiontest

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/nines-go/nines/election"
)

// Leader stands in for an *election.Elector in tests of code that asks whether it leads: the test says when.
type Leader struct {
	id string

	mu      sync.Mutex
	state   election.State
	quiet   bool // Lead may run
	mine    uint64
	fenced  chan struct{} // closed when the term has ended
	acting  chan struct{} // closed when Lead must end
	changed chan struct{}
	inside  sync.WaitGroup
}

// NewLeader returns the stand-in of the member called id, which does not know yet who leads.
func NewLeader(id string) *Leader {
	return &Leader{id: id, changed: make(chan struct{}), state: election.State{Reason: "not said yet"}}
}

// Grant makes this member lead, and returns the new term.
func (l *Leader) Grant() uint64 { return l.grant(true) }

// GrantFenced makes this member lead for fenced work alone, as an Elector does after a crash of the leader before: LeadFenced runs, Lead does
// not, and IsLeader is false. Grant afterwards keeps the term.
func (l *Leader) GrantFenced() uint64 { return l.grant(false) }

func (l *Leader) grant(quiet bool) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mine == 0 {
		l.mine = l.state.Term + 1
		l.fenced = make(chan struct{})
	}
	if quiet && !l.quiet {
		l.quiet, l.acting = true, make(chan struct{})
	}
	l.setLocked(election.State{LeaderID: l.id, Term: l.mine, Known: true, Leading: l.quiet, Reason: "the test granted it"})
	return l.mine
}

// Revoke ends the leadership of this member. leader is who leads now, under the next term; "" is nobody. It returns when the contexts of Lead
// and LeadFenced have ended, which may be before their functions have returned: see Wait.
func (l *Leader) Revoke(leader string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.quiet {
		close(l.acting)
	}
	if l.mine != 0 {
		close(l.fenced)
	}
	s := election.State{LeaderID: leader, Term: l.state.Term, Known: true, Reason: "the test revoked it"}
	if leader != "" {
		s.Term++
	}
	l.mine, l.quiet = 0, false
	l.setLocked(s)
}

// Wait returns when no function of Lead and LeadFenced runs.
func (l *Leader) Wait() { l.inside.Wait() }

func (l *Leader) setLocked(s election.State) {
	if s.Since = l.state.Since; s.LeaderID != l.state.LeaderID || s.Term != l.state.Term {
		s.Since = time.Now().Round(0)
	}
	l.state = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// IsLeader reports whether Grant was called last.
func (l *Leader) IsLeader() bool { return l.State().Leading }

// State returns what the test said last.
func (l *Leader) State() election.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Watch is that of an Elector; it ends with ctx.
func (l *Leader) Watch(ctx context.Context) iter.Seq[election.State] {
	return func(yield func(election.State) bool) {
		var last election.State
		for first := true; ; first = false {
			l.mu.Lock()
			s, changed := l.state, l.changed
			l.mu.Unlock()
			if first || s != last {
				last = s
				if ctx.Err() != nil || !yield(s) {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Lead is that of an Elector.
func (l *Leader) Lead(ctx context.Context, fn func(ctx context.Context, term uint64) error) error {
	return l.lead(ctx, fn, true)
}

// LeadFenced is that of an Elector.
func (l *Leader) LeadFenced(ctx context.Context, fn func(ctx context.Context, term uint64) error) error {
	return l.lead(ctx, fn, false)
}

func (l *Leader) lead(ctx context.Context, fn func(ctx context.Context, term uint64) error, quiet bool) error {
	for {
		l.mu.Lock()
		term, ended, changed := l.mine, l.fenced, l.changed
		if quiet {
			ended = l.acting
		}
		enter := term != 0 && (l.quiet || !quiet)
		if enter {
			l.inside.Add(1)
		}
		l.mu.Unlock()
		if enter {
			if err, over := l.within(ctx, ended, term, fn); !over {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leading is a context that has ended as soon as the leadership has.
type leading struct {
	context.Context
	ended <-chan struct{}
	end   func()
}

func (c leading) look() {
	select {
	case <-c.ended:
		c.end()
	default:
	}
}

// Done is that of the context, after a look at the leadership.
func (c leading) Done() <-chan struct{} { c.look(); return c.Context.Done() }

// Err is that of the context, after a look at the leadership.
func (c leading) Err() error { c.look(); return c.Context.Err() }

func (l *Leader) within(ctx context.Context, ended <-chan struct{}, term uint64, fn func(ctx context.Context, term uint64) error) (err error, over bool) {
	defer l.inside.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end := func() { cancel(election.ErrNotLeader) }
	var watch sync.WaitGroup
	defer watch.Wait()
	done := make(chan struct{})
	defer close(done)
	watch.Go(func() {
		select {
		case <-ended:
			end()
		case <-done:
		}
	})
	err = fn(leading{ctx, ended, end}, term)
	select {
	case <-ended:
		return err, true
	default:
		return err, false
	}
}

// Fence fails with election.ErrDeposed unless term is the present one; tx is not used but rolled back then, where it can be.
func (l *Leader) Fence(_ context.Context, tx election.Tx, term uint64) error {
	l.mu.Lock()
	ok := term != 0 && term == l.mine
	l.mu.Unlock()
	if ok {
		return nil
	}
	if r, can := tx.(interface{ Rollback() error }); can {
		_ = r.Rollback()
	}
	return election.ErrDeposed
}

// Commit is Fence, and then the COMMIT of tx.
func (l *Leader) Commit(ctx context.Context, tx election.CommitTx, term uint64) error {
	if err := l.Fence(ctx, tx, term); err != nil {
		return err
	}
	return tx.Commit()
}
