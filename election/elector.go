package election

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/lifecycle"
)

// Elector takes part in one election. It is safe for concurrent use.
type Elector struct {
	cfg     Config
	dialect dialect.Dialect
	store   *lease.Store // nil: advisory
	lock    *lease.Lock
	life    lifecycle.Life
	clock   clock
	trusted time.Duration // TTL without the margin
	wakeup  chan struct{} // something that the loop should look at
	events  chan core.Event
	quit    chan struct{} // closed when nobody reads events any more

	trust   atomic.Pointer[trust] // nil: this process does not lead
	willing atomic.Bool

	mu       sync.Mutex
	state    State
	changed  chan struct{} // closed and replaced when anything below the mutex changes
	timer    *time.Timer   // calls guard
	fenced   *span         // nil: no term
	unfenced *span         // nil: somebody else may still be acting
	holding  uint64        // the term in the database that is this process's, given up or not
	running  int           // unfenced callbacks
	stats    Stats
	fault    string
	done     bool
	handlers map[string]leaderFunc
}

// trust is what IsLeader and Fence need without a lock.
type trust struct {
	term     uint64
	holder   string
	sent     core.Now
	lasting  bool // advisory: no lease that could end
	unfenced bool
}

// span is a stretch of time in which this process leads.
type span struct {
	term   uint64
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newSpan(term uint64) *span {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &span{term: term, ctx: ctx, cancel: cancel}
}

// clock reads both clocks of the process, from a common start.
type clock struct{ start time.Time }

func (c clock) now() core.Now {
	t := time.Now()
	return core.Now{Mono: t.Sub(c.start), Wall: t.Round(0).Sub(c.start.Round(0))}
}

// New returns an Elector that does nothing until Run.
func New(cfg Config) (*Elector, error) {
	d, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	e := &Elector{
		cfg: cfg, dialect: d, clock: clock{start: time.Now()},
		wakeup: make(chan struct{}, 1), events: make(chan core.Event, 64), quit: make(chan struct{}), changed: make(chan struct{}),
		state: State{Reason: "not running yet"},
	}
	e.trusted = cfg.TTL - cfg.TTL/6
	if cfg.DB != nil {
		e.store = lease.New(cfg.DB, d, cfg.Name, cfg.TTL)
		e.lock = lease.NewLock(e.store)
	}
	return e, nil
}

// nonce tells two electors apart that have one ID after each other.
func nonce() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// coreConfig scales the constants that were measured with a TTL of 3 s.
func (e *Elector) coreConfig(nonce string) core.Config {
	ttl := e.cfg.TTL
	look := ttl / 15
	look += time.Duration(nonce[0]) * look / 2 / 256 // 200 to 300 ms, not in step with the others
	return core.Config{
		TTL: ttl, Margin: ttl - e.trusted, Renew: ttl / 3, Look: look, Stagger: ttl / 5,
		StableFor: e.cfg.StableFor, Nonce: nonce, NonCandidate: e.cfg.NonCandidate, Proven: e.cfg.EarlyLead == Proven, Quorum: e.cfg.Quorum,
	}
}

// Run takes part until Shutdown or the end of ctx, which is the hard stop: leadership is then not given back but times out. It
// returns nil in both cases. The cluster and the database need not be there yet.
func (e *Elector) Run(ctx context.Context) error {
	ok, err := e.life.Start()
	if err != nil {
		return err
	}
	defer e.life.Finish()
	defer e.end("closed")
	if !ok {
		return nil
	}
	newLoop(e).run(ctx)
	return nil
}

// Shutdown gives leadership back so that another leads at once, and stops. It returns when Run has, or with the error of ctx. Shut the
// Elector down before the cluster node that it uses.
func (e *Elector) Shutdown(ctx context.Context) error {
	err := e.life.Stop(ctx)
	if err == nil {
		e.end("closed") // Run may never have been called
	}
	return err
}

// end publishes the last state.
func (e *Elector) end(reason string) {
	e.trust.Store(nil)
	e.willing.Store(false)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done {
		return
	}
	e.done = true
	if e.timer != nil {
		e.timer.Stop()
	}
	e.endSpansLocked(ErrClosed)
	e.holding = 0
	e.setStateLocked(State{Reason: reason})
	e.broadcastLocked()
}

func (e *Elector) endSpansLocked(cause error) {
	for _, s := range []**span{&e.unfenced, &e.fenced} {
		if *s != nil {
			(*s).cancel(cause)
			*s = nil
		}
	}
}

// guardLocked sets when the contexts have to end unless another renewal is accepted.
func (e *Elector) guardLocked(d time.Duration) {
	if e.timer == nil {
		e.timer = time.AfterFunc(d, e.guard)
	} else {
		e.timer.Reset(d)
	}
}

func (e *Elector) broadcastLocked() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// wake makes the loop look around.
func (e *Elector) wake() {
	select {
	case e.wakeup <- struct{}{}:
	default:
	}
}

// post hands an event to the loop, or drops it when the loop has ended.
func (e *Elector) post(ev core.Event) {
	select {
	case e.events <- ev:
	case <-e.quit:
	}
}

// valid returns the trust that holds now, or nil.
func (e *Elector) valid() *trust {
	t := e.trust.Load()
	if t == nil || !t.lasting && e.clock.now().Trusted(t.sent) >= e.trusted {
		return nil
	}
	return t
}

// IsLeader reports whether this process leads and nobody else can still be acting: what Lead waits for. The answer is computed from
// the clock at the time of the call, and holds for no longer than that: work that takes time belongs into Lead.
func (e *Elector) IsLeader() bool {
	t := e.valid()
	return t != nil && t.unfenced
}
