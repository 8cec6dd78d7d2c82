package election

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/migrate"
)

// Mutex is a named lock for all processes that use one database. It is a lease of 3 s like that of an Elector, without a cluster: who
// waits looks four times a second, and takes over from a holder that fell silent. It is safe for concurrent use; each Lock is a holder
// of its own, so locking twice in one process waits too.
type Mutex struct {
	db   DB
	d    dialect.Dialect
	name string
}

// NewMutex returns the mutex called name, of at most 128 bytes. It does no I/O: the tables are made by the first Lock.
func NewMutex(db DB, name string) (*Mutex, error) {
	var faults []error
	bad := func(field string, value any, remedy string) {
		faults = append(faults, fmt.Errorf("election: NewMutex: %s is %v: %s", field, value, remedy))
	}
	var d dialect.Dialect
	if isNil(db) {
		bad("db", "nil", "pass an open database")
	} else {
		d = driverOf(db, bad)
	}
	if name == "" {
		bad("name", `""`, "give the mutex a name")
	} else if err := validName(name); err != nil {
		bad("name", fmt.Sprintf("%q", name), err.Error())
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Mutex{db: db, d: d, name: name}, nil
}

// Lock is a mutex that is held. Call Unlock when done, also when its Context has ended.
type Lock struct {
	term    uint64
	holder  string
	store   *lease.Store
	m       *core.Lease
	clock   clock
	trusted time.Duration

	ctx     context.Context
	cancel  context.CancelCauseFunc
	stop    context.CancelFunc // ends renewing
	renewer sync.WaitGroup

	mu       sync.Mutex
	sent     core.Now
	unlocked bool
	result   error
}

// Lock waits until the mutex is free and takes it. While the database fails it goes on trying until ctx ends.
func (m *Mutex) Lock(ctx context.Context) (*Lock, error) {
	l := m.open()
	err := l.take(ctx, false)
	if err != nil {
		l.store.Close()
		return nil, fmt.Errorf("election: lock %q: %w", m.name, err)
	}
	return l, nil
}

// TryLock takes the mutex if it is free now, or returns ErrLocked. A holder that crashed less than a TTL ago still has it.
func (m *Mutex) TryLock(ctx context.Context) (*Lock, error) {
	l := m.open()
	if err := l.take(ctx, true); err != nil {
		l.store.Close()
		return nil, fmt.Errorf("election: lock %q: %w", m.name, err)
	}
	return l, nil
}

func (m *Mutex) open() *Lock {
	l := &Lock{
		store: lease.New(m.db, m.d, "mutex:"+m.name, defaultTTL), clock: clock{start: time.Now()},
		trusted: defaultTTL - defaultTTL/6,
	}
	l.m = core.NewLease(core.Config{TTL: defaultTTL, Margin: defaultTTL / 6, Renew: defaultTTL / 3, Look: defaultTTL / 12, Nonce: nonce()})
	return l
}

// take drives the machine until the lock is held and nobody else can still be acting.
func (l *Lock) take(ctx context.Context, once bool) error {
	if err := migrate.Apply(ctx, l.store.DB, "election", Migrations()); err != nil {
		return err
	}
	alone := core.View{Me: "mutex", Members: []core.Member{{ID: "mutex", Eligible: true}}}
	actions := l.m.Step(l.clock.now(), core.Saw{View: alone})
	for looks := 0; ; {
		for len(actions) > 0 {
			a := actions[0]
			if _, ok := a.(core.Look); ok {
				looks++
			}
			actions = append(actions[1:], l.m.Step(l.clock.now(), l.do(ctx, a))...)
		}
		s := l.m.Status(l.clock.now())
		switch {
		case s.Mine != 0 && s.Unfenced:
			l.hold(s)
			return nil
		case ctx.Err() != nil:
			if s.Mine != 0 {
				_ = l.release(core.Revoked)
			}
			return errors.Join(ctx.Err(), l.fault())
		case once && s.Mine != 0 || once && looks >= 2:
			if s.Mine != 0 {
				_ = l.release(core.Revoked)
			}
			return errors.Join(ErrLocked, l.fault())
		}
		timer := time.NewTimer(max(l.m.Next(l.clock.now()), time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		actions = l.m.Step(l.clock.now(), core.Tick{})
	}
}

func (l *Lock) fault() error {
	if f := l.m.Fault(); f != "" {
		return errors.New(f)
	}
	return nil
}

// do runs one action and answers with its event.
func (l *Lock) do(ctx context.Context, a core.Action) core.Event {
	switch a := a.(type) {
	case core.Acquire:
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*defaultTTL)
		defer cancel()
		got, err := l.store.Acquire(long, a.Row, a.Holder, l.clock.now)
		return core.Acquired{Outcome: got.Outcome, Term: got.Term, Identity: got.Identity, Sent: got.Sent, Err: text(err)}
	case core.Renew:
		ctx, cancel := context.WithTimeout(ctx, l.trusted)
		defer cancel()
		sent := l.clock.now()
		id, ok, err := l.store.Renew(ctx, a.Term, a.Holder, a.Lock)
		ev := core.Renewed{Outcome: core.Granted, Term: a.Term, Identity: id, Lock: a.Lock, Sent: sent, Err: text(err)}
		if err != nil {
			ev.Outcome = core.Failed
		} else if !ok {
			ev.Outcome = core.Lost
		}
		return ev
	case core.Release:
		return core.Released{Err: text(l.store.Release(ctx, a.Term, a.Holder, a.Mark))}
	case core.Revoke:
		done, err := l.store.Revoke(ctx, a.Row)
		return core.Took{Done: done, Err: text(err)}
	case core.Look:
		ctx, cancel := context.WithTimeout(ctx, defaultTTL)
		defer cancel()
		row, err := l.store.Look(ctx)
		return core.Looked{Row: row, At: l.clock.now(), Err: text(err)}
	}
	return core.Tick{}
}

// hold starts the renewals.
func (l *Lock) hold(s core.Status) {
	l.term, l.holder, l.sent = s.Mine, s.Holder, s.Sent
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	var ctx context.Context
	ctx, l.stop = context.WithCancel(context.Background())
	l.renewer.Go(func() { l.watch(ctx) })
	l.renewer.Go(func() { l.renew(ctx) })
}

// watch ends the lock's context when trust ends, whatever the renewal under way is doing.
func (l *Lock) watch(ctx context.Context) {
	for {
		left := l.left()
		if left <= 0 {
			l.cancel(ErrDeposed)
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-l.ctx.Done():
		case <-ctx.Done():
		case <-timer.C:
			continue
		}
		timer.Stop()
		return
	}
}

func (l *Lock) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trusted - l.clock.now().Trusted(l.sent)
}

func (l *Lock) renew(ctx context.Context) {
	for l.ctx.Err() == nil {
		now := l.clock.now()
		actions := l.m.Step(now, core.Tick{})
		for len(actions) > 0 && ctx.Err() == nil {
			if _, ok := actions[0].(core.Renew); !ok {
				break // lost: it would begin to look for a new term
			}
			actions = append(actions[1:], l.m.Step(l.clock.now(), l.do(ctx, actions[0]))...)
		}
		if ctx.Err() != nil {
			return
		}
		s := l.m.Status(l.clock.now())
		if s.Mine != l.term {
			l.cancel(ErrDeposed)
			return
		}
		l.mu.Lock()
		l.sent = s.Sent
		l.mu.Unlock()
		timer := time.NewTimer(max(l.m.Next(l.clock.now()), time.Millisecond))
		select {
		case <-ctx.Done():
		case <-l.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Context ends when the lock is lost, before another can take it, or unlocked.
func (l *Lock) Context() context.Context { return l.ctx }

// Token is the fencing token: it rises with each Lock of the mutex.
func (l *Lock) Token() uint64 { return l.term }

// Fence is Elector.Fence for the lock: ErrDeposed, or no other Lock is taken before tx ends.
func (l *Lock) Fence(ctx context.Context, tx Tx) error {
	if err := checkTx(tx); err != nil {
		return err
	}
	err := l.fenceOpen(ctx, tx)
	if err != nil {
		rollback(tx)
	}
	return err
}

func (l *Lock) fenceOpen(ctx context.Context, tx Tx) error {
	if l.ctx.Err() != nil || l.left() <= 0 {
		return ErrDeposed
	}
	ok, err := l.store.Fence(ctx, tx, l.term, l.holder)
	if err != nil {
		return fmt.Errorf("election: fence: %w", err)
	}
	if !ok {
		return ErrDeposed
	}
	return nil
}

// Unlock ends the lock's context and gives the mutex back. It returns ErrDeposed when it had been lost. Further calls do nothing
// and answer the same.
func (l *Lock) Unlock(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unlocked {
		return l.result
	}
	l.unlocked = true
	lost := l.ctx.Err() != nil
	l.cancel(context.Canceled)
	l.stop()
	l.mu.Unlock()
	l.renewer.Wait()
	l.mu.Lock()
	defer l.store.Close()
	if lost {
		l.result = ErrDeposed
		return l.result
	}
	if err := l.store.Release(ctx, l.term, l.holder, ""); err != nil {
		l.result = fmt.Errorf("election: unlock: %w", err)
	}
	return l.result
}

func (l *Lock) release(mark string) error {
	s := l.m.Status(l.clock.now())
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return l.store.Release(ctx, s.Mine, s.Holder, mark)
}
