package election

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
	"github.com/nines-go/nines/internal/migrate"
)

const (
	tagCandidate = "election.candidate"
	tagPaused    = "nines.paused"
)

func (e *Elector) tagTerm() string { return "election.term." + e.cfg.Name }
func (e *Elector) topic() string   { return "election/" + e.cfg.Name }

// machine is the pure core, in one of its two forms.
type machine interface {
	Step(now core.Now, ev core.Event) []core.Action
	Status(now core.Now) core.Status
	Next(now core.Now) time.Duration
	Willing(now core.Now) bool
	Busy() bool
	Fault() string
	Holder() string
}

// loop is the protocol loop: it feeds the machine and does what it says. It never waits for anything but its own channels;
// statements and requests run beside it and come back as events.
type loop struct {
	e        *Elector
	m        machine
	advisory *core.Advisory
	ctx      context.Context
	wg       sync.WaitGroup
	telling  sync.WaitGroup // nominations, which are sent even at the end
	lock     *locker
	prepared bool // read and written by the one statement under way, as is advised
	advised  bool
	tagged   bool
	claim    uint64 // in the tag
	claimed  bool   // the tag says claim
	stopping bool
	fault    string
	last     core.Status
	said     announced
}

func newLoop(e *Elector) *loop {
	l := &loop{e: e}
	cfg := e.coreConfig(nonce())
	if e.store != nil {
		l.m = core.NewLease(cfg)
	} else {
		l.advisory = core.NewAdvisory(cfg)
		l.m = l.advisory
	}
	return l
}

func (l *loop) run(ctx context.Context) {
	e := l.e
	ctx, cancel := context.WithCancel(ctx)
	l.ctx = ctx
	if e.store != nil {
		defer e.store.Close()
		defer e.lock.Close()
	}
	defer l.wg.Wait()
	defer cancel()
	defer l.telling.Wait()
	l.lock = &locker{l: l}
	defer l.lock.set(core.LockWish{})

	notify := make(chan struct{}, 1)
	defer e.cfg.Members.Notify(notify)()
	defer e.cfg.Members.Handle(e.topic(), e.asked)()
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer close(e.quit)
	stopping := e.life.Stopping()
	var deadline <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			l.unclaim()
			return
		case <-deadline:
			l.unclaim()
			return
		case <-stopping:
			stopping, l.stopping = nil, true
			deadline = time.After(2 * e.cfg.TTL)
			l.handle(core.Tick{})
		case ev := <-e.events:
			l.handle(ev)
		case <-notify:
			l.handle(core.Tick{})
		case <-e.wakeup:
			l.handle(core.Tick{})
		case <-timer.C:
			l.handle(core.Tick{})
		}
		if l.stopping && l.last.Mine == 0 && !l.last.Stepping && !l.m.Busy() {
			l.unclaim()
			return
		}
		now := e.clock.now()
		timer.Reset(max(l.m.Next(now), time.Millisecond))
	}
}

// handle gives the machine the newest view and then the event, does what it says and publishes what holds.
func (l *loop) handle(ev core.Event) {
	l.tag()
	l.step(core.Saw{View: l.view()})
	holder := l.m.Holder()
	l.step(ev)
	if l.m.Holder() != holder {
		l.step(core.Saw{View: l.view()})
	}
	now := l.e.clock.now()
	l.last = l.m.Status(now)
	l.publish(now, l.last)
	if l.last.Stepping {
		l.e.mu.Lock()
		n := l.e.running
		l.e.mu.Unlock()
		l.step(core.Idle{Running: n})
		now = l.e.clock.now()
		l.last = l.m.Status(now)
		l.publish(now, l.last)
	}
	l.lock.set(l.last.Lock)
	if l.advisory != nil {
		l.announce()
	}
}

func (l *loop) step(ev core.Event) {
	if l.advisory != nil {
		l.advisory.Clock(uint64(time.Now().UnixMilli()))
	}
	l.count(ev)
	for _, a := range l.m.Step(l.e.clock.now(), ev) {
		l.do(a)
	}
}

// tag tells the others whether this node is a candidate.
func (l *loop) tag() {
	if l.tagged {
		return
	}
	m, value := l.e.cfg.Members, ""
	if l.e.cfg.NonCandidate {
		value = "no"
	} else if m.Tag(m.ID(), tagCandidate) != "no" {
		l.tagged = true
		return
	}
	if err := m.SetTag(tagCandidate, value); err != nil {
		l.warn("tag not set", err)
		return
	}
	l.tagged = true
}

// view reads the cluster's opinion.
func (l *loop) view() core.View {
	m := l.e.cfg.Members
	v := core.View{Me: m.ID()}
	for _, id := range m.Alive() {
		fate := m.Fate(id)
		x := core.Member{
			ID:       id,
			Eligible: fate != "draining" && m.Tag(id, tagCandidate) != "no" && m.Tag(id, tagPaused) == "",
			Suspect:  fate == "suspect" && id != v.Me,
		}
		if id == v.Me && l.stopping {
			x.Eligible = false
		}
		if l.advisory != nil {
			x.Claim, _ = strconv.ParseUint(m.Tag(id, l.e.tagTerm()), 10, 64)
		}
		v.Members = append(v.Members, x)
	}
	if id := core.HolderID(l.m.Holder()); id != "" && id != v.Me {
		if fate := m.Fate(id); fate == "dead" || fate == "left" {
			v.Gone = id
		}
	}
	if lm, ok := l.m.(*core.Lease); ok {
		if id := lm.Before(); id != "" && m.Fate(id) == "dead" {
			v.Dead = id
		}
	}
	return v
}

func (l *loop) do(a core.Action) {
	e := l.e
	switch a := a.(type) {
	case core.Look:
		timeout := 2 * time.Second
		if !l.prepared {
			timeout = 15 * time.Second // another process may be applying the schema
		}
		l.sql(timeout, func(ctx context.Context) core.Event { return l.look(ctx) })
	case core.Acquire:
		// No deadline below the TTL: a COMMIT that is cancelled may have happened.
		l.sql(2*e.cfg.TTL+2*time.Second, func(ctx context.Context) core.Event { return l.acquire(ctx, a) })
	case core.Renew:
		timeout := e.cfg.TTL / 3
		if e.dialect == "sqlite" {
			timeout = e.trusted // behind the transactions of this process: asking again would only lose the place in the queue
		}
		l.sql(timeout, func(ctx context.Context) core.Event {
			sent := e.clock.now()
			id, ok, err := e.store.Renew(ctx, a.Term, a.Holder, a.Lock)
			ev := core.Renewed{Outcome: core.Granted, Term: a.Term, Identity: id, Lock: a.Lock, Sent: sent}
			switch {
			case err != nil:
				ev.Outcome, ev.Err = core.Failed, err.Error()
			case !ok:
				ev.Outcome = core.Lost
			}
			return ev
		})
	case core.Release:
		l.sql(e.cfg.TTL/3, func(ctx context.Context) core.Event {
			return core.Released{Err: text(e.store.Release(ctx, a.Term, a.Holder, a.Mark))}
		})
	case core.Revoke:
		l.sql(2*time.Second, func(ctx context.Context) core.Event {
			done, err := e.store.Revoke(ctx, a.Row)
			return core.Took{Done: done, Err: text(err)}
		})
	case core.Ask:
		l.wg.Go(func() { e.post(core.Answer{To: a.To, Willing: e.ask(l.ctx, a.To)}) })
	case core.Confirm:
		l.wg.Go(func() { e.post(core.Confirmed{ID: a.ID, Yes: e.confirm(l.ctx, a.ID)}) })
	case core.Nominate:
		l.telling.Go(func() { e.nominate(l.ctx, a.To, a.Term) })
	case core.Claim:
		l.claim, l.claimed = a.Term, false
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sql runs one statement beside the loop. Its answer is an event.
func (l *loop) sql(timeout time.Duration, fn func(ctx context.Context) core.Event) {
	l.wg.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, timeout)
		defer cancel()
		ev := fn(ctx)
		l.e.post(ev)
	})
}

func (l *loop) look(ctx context.Context) core.Event {
	e := l.e
	if !l.prepared {
		if err := migrate.Apply(ctx, e.cfg.DB, "election", Migrations()); err != nil {
			return core.Looked{Err: err.Error()}
		}
		l.prepared = true
		if advice := e.store.Advice(ctx); advice != "" && !l.advised {
			l.advised = true
			e.cfg.Logger.Warn("database connections of the election", "election", e.cfg.Name, "advice", advice)
		}
	}
	row, err := e.store.Look(ctx)
	if err != nil {
		l.prepared = !lease.NoTable(err) // another database than before
		return core.Looked{Err: err.Error()}
	}
	return core.Looked{Row: row, At: e.clock.now()}
}

func (l *loop) acquire(ctx context.Context, a core.Acquire) core.Event {
	e := l.e
	var unblock func()
	if a.Escalate {
		unblock = e.store.Escalate(ctx)
	}
	got, err := e.store.Acquire(ctx, a.Row, a.Holder, e.clock.now)
	if unblock != nil {
		unblock()
	}
	return core.Acquired{Outcome: got.Outcome, Term: got.Term, Identity: got.Identity, Sent: got.Sent, Err: text(err)}
}

// announce writes the advisory claim into the tag of this node, again when that failed.
func (l *loop) announce() {
	if l.claimed {
		return
	}
	value := ""
	if l.claim != 0 {
		value = strconv.FormatUint(l.claim, 10)
	}
	if err := l.e.cfg.Members.SetTag(l.e.tagTerm(), value); err != nil {
		l.warn("claim not announced", err)
		return
	}
	l.claimed = true
}

func (l *loop) unclaim() {
	if l.advisory != nil && l.claim != 0 {
		l.claim, l.claimed = 0, false
		l.announce()
	}
}

// publish makes what holds visible: contexts first, so that nobody is told of another leader while they still run.
func (l *loop) publish(now core.Now, s core.Status) {
	e := l.e
	t := (*trust)(nil)
	if s.Mine != 0 {
		t = &trust{term: s.Mine, holder: s.Holder, sent: s.Sent, lasting: l.advisory != nil, unfenced: s.Unfenced}
	}
	e.trust.Store(t)
	e.willing.Store(l.m.Willing(now) && !l.stopping)
	state := State{LeaderID: s.LeaderID, Term: s.Term, Known: s.Known, Leading: s.Mine != 0 && s.Unfenced, Reason: s.Reason}
	holding := s.Mine
	if s.Stepping {
		holding = s.Term
	}
	e.mu.Lock()
	before := e.state
	changed := l.spansLocked(s)
	if e.setStateLocked(state); e.state != before || holding != e.holding {
		changed = true
	}
	if e.holding, e.fault = holding, l.m.Fault(); t != nil && !t.lasting {
		e.guardLocked(e.trusted - now.Trusted(t.sent))
	}
	if changed {
		e.broadcastLocked()
	}
	e.mu.Unlock()
	l.log(before, state)
	if said := (announced{s.Mine, s.Named}); said != l.said && l.advisory == nil {
		if l.said = said; s.Mine != 0 {
			l.tellAll()
		}
	}
}

// announced is what was told to the others about a leadership of this process.
type announced struct {
	term  uint64
	named bool
}

// tellAll makes the others look at the row now: they learn who leads, and wait for the session lock that it names.
func (l *loop) tellAll() {
	e := l.e
	for _, id := range e.cfg.Members.Alive() {
		if id != e.cfg.Members.ID() {
			l.wg.Go(func() { e.tell(l.ctx, id, note{Op: "look"}, askTimeout) })
		}
	}
}

// spansLocked ends and begins the stretches of leadership.
func (l *loop) spansLocked(s core.Status) (changed bool) {
	e := l.e
	if u := e.unfenced; u != nil && (!s.Unfenced || s.Mine != u.term) {
		u.cancel(ErrNotLeader)
		e.unfenced, changed = nil, true
	}
	if f := e.fenced; f != nil && s.Mine != f.term {
		f.cancel(ErrNotLeader)
		e.fenced, changed = nil, true
		e.stats.TermsLost++
	}
	if s.Mine != 0 && e.fenced == nil && e.valid() != nil {
		e.fenced, changed = newSpan(s.Mine), true
		e.stats.TermsWon++
	}
	if s.Mine != 0 && s.Unfenced && e.unfenced == nil && e.fenced != nil {
		e.unfenced, changed = newSpan(s.Mine), true
	}
	return changed
}

func (l *loop) log(before, now State) {
	log := l.e.cfg.Logger.With("election", l.e.cfg.Name)
	if before.LeaderID != now.LeaderID || before.Term != now.Term || before.Leading != now.Leading {
		log.Info("leadership changed", "leader", now.LeaderID, "term", now.Term, "leading", now.Leading, "reason", now.Reason)
	}
	if f := l.m.Fault(); f != l.fault {
		if l.fault = f; f != "" {
			log.Warn("database of the election failed", "error", strings.TrimSpace(f))
		} else {
			log.Info("database of the election answers again")
		}
	}
}

func (l *loop) warn(msg string, err error) {
	l.e.cfg.Logger.Warn(msg, "election", l.e.cfg.Name, "error", err)
}
