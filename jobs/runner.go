package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/internal/backoff"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/lifecycle"
	"github.com/nines-go/nines/internal/migrate"
)

// times are the intervals of the protocol between the nodes; tests shorten them.
type times struct {
	beat   time.Duration // between two heartbeats
	lease  time.Duration // how long a node that has fallen silent keeps its jobs
	margin time.Duration // how much earlier the node itself gives them up
	watch  time.Duration // between two looks at the nodes and at cancel requests
	answer time.Duration // how long the database may take for one round of a loop
	prune  time.Duration
}

// Runner schedules, keeps and runs jobs. Make it with New, add workers and schedules, then Run it. It is safe for concurrent use.
type Runner struct {
	cfg    Config
	d      dialect.Dialect
	finish *strings.Replacer // of statements
	id     string            // of this incarnation: the owner of what it claims
	host   string
	log    *slog.Logger
	times  times
	life   lifecycle.Life

	hurry     chan struct{} // closed when Shutdown's patience ends
	hurryOnce sync.Once
	results   chan result

	kickClaim, kickTick, kickBeat, kickWatch, kickRegister, kickWake chan struct{}

	migrated   atomic.Bool
	scheduling atomic.Bool // this process is in the scheduler's loop
	dueChanged atomic.Bool // a job was put off: look again when the next one is due
	backlog    atomic.Bool // the last claim left work behind for want of room
	failing    atomic.Pointer[error]
	counters   counters

	steps
	limitsAfter time.Time // the claim loop's: when it may look for jobs that wait for their keys

	mu        sync.Mutex
	workers   map[string]*worker
	schedules map[string]*schedule
	asks      map[string]func(ctx context.Context) bool // ScheduleOptions.Enabled
	running   map[int64]*execution                      // nil before Run
	busy      map[string]int                            // attempts by queue, from the claim until the result is with the finisher
	snapshot  snapshot
	wakes     wakes
}

// New checks the configuration. It touches neither the database nor the cluster.
func New(cfg Config) (*Runner, error) {
	d, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	r := &Runner{
		cfg: cfg, d: d, id: rand.Text(), log: cfg.Logger,
		times:     times{beat: 3 * time.Second, lease: 15 * time.Second, margin: 2 * time.Second, watch: time.Second, answer: 20 * time.Second, prune: 30 * time.Second},
		hurry:     make(chan struct{}),
		results:   make(chan result, 1024),
		workers:   map[string]*worker{},
		schedules: map[string]*schedule{},
		asks:      map[string]func(ctx context.Context) bool{},
		busy:      map[string]int{},
	}
	for _, c := range []*chan struct{}{&r.kickClaim, &r.kickTick, &r.kickBeat, &r.kickWatch, &r.kickRegister, &r.kickWake} {
		*c = make(chan struct{}, 1)
	}
	r.host, _ = os.Hostname()
	r.finish = r.words()
	r.watchStep, r.stepping = r.watcher(), make(chan struct{}, 1)
	return r, nil
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run brings the tables up to date and works until Shutdown, then returns nil. It waits for a database that does not answer yet. The end
// of ctx is the hard stop: workers' contexts end, and their jobs are given back if the database answers at once.
func (r *Runner) Run(ctx context.Context) error {
	ok, err := r.life.Start()
	if !ok {
		return err
	}
	defer r.life.Finish()
	soft, stop := context.WithCancel(ctx)
	defer stop()
	unlink := context.AfterFunc(ctx, stop)
	defer unlink()
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() {
		select {
		case <-r.life.Stopping():
			stop()
		case <-soft.Done():
		}
	})
	if err := r.prepare(soft); err != nil {
		if soft.Err() != nil {
			return nil
		}
		return err
	}
	r.mu.Lock()
	stepped := r.stepped
	if !stepped {
		r.running = map[int64]*execution{}
	}
	r.mu.Unlock()
	if stepped {
		return errors.New("jobs: Run after Step: make a new Runner")
	}
	defer r.listen()()

	// Three groups, ended one after the other: what makes work, the work, and what the work needs until it is recorded.
	var makers, work, keepers sync.WaitGroup
	keep, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeping()
	registered := make(chan struct{})
	keepers.Go(func() { r.beats(keep, registered) })
	keepers.Go(func() { r.loop(keep, "watch nodes", r.kickWatch, r.watchStep) })
	keepers.Go(func() { r.wakeLoop(keep) })
	var finisher sync.WaitGroup
	finisher.Go(func() { r.finishLoop(ctx) })
	makers.Go(func() { r.loop(soft, "register schedules", r.kickRegister, r.register) })
	makers.Go(func() { r.loop(soft, "prune", nil, r.pruneOnce) })
	if !r.cfg.NoScheduler {
		makers.Go(func() { r.scheduleLoop(soft) })
	}
	if !r.cfg.NoWorkers && len(r.workers) > 0 {
		makers.Go(func() {
			select {
			case <-registered:
				r.loop(soft, "claim", r.kickClaim, r.claimer(ctx, &work))
			case <-soft.Done():
			}
		})
	}
	<-soft.Done()
	makers.Wait()
	end := make(chan struct{})
	asked.Go(func() { // patience
		select {
		case <-r.hurry:
			r.cancelAll(ErrShutdown)
		case <-end:
		}
	})
	work.Wait()
	close(end)
	close(r.results)
	finisher.Wait()
	stopKeeping()
	keepers.Wait()
	r.leave(ctx)
	return nil
}

// prepare applies the migrations, waiting for the database as long as it takes.
func (r *Runner) prepare(ctx context.Context) error {
	for n := 0; ; n++ {
		err := r.ensure(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var fault *migrate.Error
		if errors.As(err, &fault) && n >= 3 {
			return err
		}
		r.fault("prepare tables", err)
		if !pause(ctx, backoff.Delay(n, 100*time.Millisecond, 3*time.Second)) {
			return ctx.Err()
		}
	}
}

// ensure makes the tables be there: methods may be called before Run.
func (r *Runner) ensure(ctx context.Context) error {
	if r.life.Closed() {
		return ErrClosed
	}
	if r.migrated.Load() {
		return nil
	}
	if err := migrate.Apply(ctx, r.cfg.DB, "jobs", Migrations()); err != nil {
		return fmt.Errorf("jobs: %w", err)
	}
	r.migrated.Store(true)
	return nil
}

// Shutdown ends Run in good order: nothing more is claimed or scheduled, running jobs have until shortly before ctx's deadline to end,
// then their contexts end with ErrShutdown and what has not finished goes back to its queue without counting as an attempt. It returns
// when Run has ended, or with ctx's cause when that comes first.
func (r *Runner) Shutdown(ctx context.Context) error {
	patience := ctx
	if deadline, ok := ctx.Deadline(); ok {
		// Giving jobs back takes a moment too.
		left := time.Until(deadline)
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeout(ctx, left-min(2*time.Second, left/4))
		defer cancel()
	}
	unlink := context.AfterFunc(patience, func() { r.hurryOnce.Do(func() { close(r.hurry) }) })
	defer unlink()
	return r.life.Stop(ctx)
}

func (r *Runner) cancelAll(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.running {
		e.cancel(cause)
	}
}

// loop calls fn again after the time it returns, or sooner when kicked; after an error with growing pauses.
func (r *Runner) loop(ctx context.Context, what string, kicked <-chan struct{}, fn func(ctx context.Context) (time.Duration, error)) {
	failed := 0
	for ctx.Err() == nil {
		round, stop := context.WithTimeout(ctx, r.times.answer)
		wait, err := fn(round)
		stop()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.fault(what, err)
			if !pause(ctx, backoff.Delay(failed, 50*time.Millisecond, time.Second)) {
				return
			}
			failed++
			continue
		}
		failed = 0
		if wait <= 0 {
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-kicked:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// fault logs what the database refused, and keeps it for Check until the next heartbeat succeeds.
func (r *Runner) fault(what string, err error) {
	r.counters.faults.Add(1)
	err = fmt.Errorf("%s: %w", what, err)
	if r.failing.Swap(&err) == nil {
		r.log.Warn("jobs: database does not do as asked", "doing", what, "error", err)
	} else {
		r.log.Debug("jobs: database still does not do as asked", "doing", what, "error", err)
	}
}
