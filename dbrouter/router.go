package dbrouter

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/internal/backoff"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/migrate"
)

// How long a new master is tried, and how long a new configuration waits for its replicas once the master answers.
const (
	openTimeout = 12 * time.Second
	openTry     = 2 * time.Second
	openReplica = 500 * time.Millisecond
)

// Router holds the pools of a master and its replicas. It is safe for concurrent use.
type Router struct {
	top             atomic.Pointer[topology]
	master          Master
	replica, search Reader

	verdicts        verdicts
	past            history
	budget          budget
	identity        atomic.Uint32 // of the cluster, in tokens
	moved, toMaster atomic.Uint64
	extra           atomic.Int64 // reads that the master serves because all replicas trail
	own             struct{ waited, master atomic.Uint64 }

	change sync.Mutex // one Reconfigure, Recycle, adoption or Close at a time
	mu     sync.Mutex // guards the replacing of top, and what follows
	chase  *chase     // a search for a master, or nil
	wg     sync.WaitGroup
	ctx    context.Context // of the goroutines
	cancel context.CancelFunc

	drainMu  sync.Mutex
	draining map[*source]struct{}
}

// Open connects to the databases of cfg. It tries the master for 12 s, two seconds a try; replicas may be down: they come into use when
// they answer. The router watches its data sources until Close.
func Open(ctx context.Context, cfg Config) (*Router, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("dbrouter: open: %w", err)
	}
	cfg = cfg.withDefaults()
	t, err := dialAny(ctx, &cfg, 1)
	if err != nil {
		return nil, fmt.Errorf("dbrouter: open: %w", err)
	}
	r := &Router{draining: map[*source]struct{}{}}
	r.verdicts.seed = maphash.MakeSeed()
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.master.r, r.replica.r, r.search.r, r.search.search = r, r, r, true
	r.identity.Store(t.identity(ctx))
	r.install(t.choices())
	return r, nil
}

// dialAny opens the pools of a configuration and dials its master, n connections of it, wherever that is, and as many replicas as answer.
func dialAny(ctx context.Context, cfg *Config, n int) (*topology, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	began := time.Now()
	for tries := 0; ; tries++ {
		l, err := locate(ctx, cfg, cfg.layout())
		if errors.Is(err, ErrTwoMasters) {
			return nil, err
		}
		t, e := newTopology(cfg, l, nil, nil)
		if e != nil {
			return nil, e
		}
		if err == nil {
			if err = t.dial(ctx, n); err == nil {
				return t, nil
			}
		}
		t.discard(nil)
		// What the server refuses by name (password, database) a second try does not mend, nor one of a data source that cannot be read.
		hopeless := t.classify(err) == FaultNone && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errNoMaster)
		if !hopeless {
			select {
			case <-time.After(backoff.Delay(tries, 100*time.Millisecond, time.Second)):
			case <-ctx.Done():
			}
		}
		if hopeless || ctx.Err() != nil {
			return nil, &sourceError{err: err, text: fmt.Sprintf("DataSource %q cannot be used (tried for %v): %s: start that database or correct DataSource",
				t.master.name, time.Since(began).Round(100*time.Millisecond), redactIn(err.Error(), t.master.dsn))}
		}
	}
}

// dial connects to the master, n connections of it, and to as many replicas as answer meanwhile and shortly after.
func (t *topology) dial(ctx context.Context, n int) error {
	replicas, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range t.sources()[1:] {
		if s.role == roleRead {
			continue // its file may not exist yet
		}
		wg.Go(func() {
			if err := s.first(replicas, t); err != nil {
				s.exclude(err)
				t.cfg.Logger.Warn("data source out of use", "role", string(s.role), "source", s.name, "error", redactIn(err.Error(), s.dsn))
			}
		})
	}
	try, cancelTry := context.WithTimeout(ctx, openTry)
	err := t.master.warm(try, n)
	cancelTry()
	if err == nil {
		defer time.AfterFunc(openReplica, cancel).Stop() // it comes into use when it answers
	} else {
		cancel()
	}
	wg.Wait()
	return err
}

// first connects to a replica, and looks at it where it must not be used unseen.
func (s *source) first(ctx context.Context, t *topology) error {
	ctx, cancel := context.WithTimeout(ctx, openTry)
	defer cancel()
	if err := s.warm(ctx, 1); err != nil {
		return err
	}
	if !t.cfg.Pooler && !t.cfg.FollowMaster {
		return nil
	}
	o, err := s.observe(ctx)
	for err != nil && t.classify(err) == FaultNone && ctx.Err() == nil && s.simpler() {
		o, err = s.observe(ctx)
	}
	switch {
	case err != nil || o.standby:
	case !o.known:
		err = errMute
	case t.cfg.Pooler:
		err = errWritable
	default:
		err = errPromoted
	}
	return err
}

// identity is the number of the cluster for tokens.
func (t *topology) identity(ctx context.Context) uint32 {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return identify(ctx, t.master.probe, t.dialect)
}

// install makes t current, starts the probers of its new sources and drains those of the old one that it does not have.
func (r *Router) install(t *topology) {
	r.mu.Lock()
	old := r.top.Load()
	var gone []*source
	if old != nil {
		if old.closed {
			r.mu.Unlock()
			t.discard(old)
			return
		}
		t.generation = old.generation + 1
		for _, s := range old.sources() {
			if !contains(t.sources(), s) {
				s.retired.Store(true) // before the new one shows: whoever meets a closed pool finds the new one
				gone = append(gone, s)
			}
		}
		for _, s := range t.sources() {
			for _, o := range old.sources() {
				if s != o && s.role == o.role && s.dsn == o.dsn {
					s.counts = o.counts
				}
			}
		}
		if t.cfg.FenceOldMaster > 0 && t.layout.master != old.layout.master {
			t.hold = make(chan struct{})
		}
	}
	r.top.Store(t)
	if old != nil {
		close(old.gone)
	}
	if t.dialect != dialect.SQLite { // a file needs no watching
		for _, s := range t.sources() {
			if s.stop == nil {
				var ctx context.Context
				ctx, s.stop = context.WithCancel(r.ctx)
				r.wg.Go(func() { r.watch(ctx, s) })
			}
		}
	}
	r.mu.Unlock()
	for _, s := range gone {
		if s.role == roleMaster && t.hold != nil {
			r.fence(t, s)
		}
		r.drain(s)
	}
}

// fence lets the calls of a new master wait until nothing is under way on the old one.
func (r *Router) fence(t *topology, old *source) {
	release := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if now := r.top.Load(); now.generation == t.generation && !now.closed {
			next := *now
			next.hold = nil
			r.top.Store(&next)
		}
		close(t.hold)
	}
	if !r.spawn(func() {
		defer release()
		idle := func(d time.Duration) bool {
			end := time.NewTimer(d)
			defer end.Stop()
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for old.db.Stats().InUse > 0 {
				select {
				case <-tick.C:
				case <-end.C:
					return false
				case <-r.ctx.Done():
					return false
				}
			}
			return true
		}
		if !idle(t.cfg.FenceOldMaster) {
			old.flights.abort(errFenced)
			idle(time.Second)
		}
		_ = old.db.Close() // whoever was about to begin there begins on the new one
	}) {
		close(t.hold)
	}
}

var errFenced = errors.New("dbrouter: the master was replaced")

// Master returns the handle for writes, and for reads that must be current.
func (r *Router) Master() *Master { return &r.master }

// Replica returns the handle for reads. They go to the read replicas in turn, or to the master when none is in use.
func (r *Router) Replica() *Reader { return &r.replica }

// Search returns the handle for searches. They go to the search replicas in turn, else where Replica's go.
func (r *Router) Search() *Reader { return &r.search }

// Reconfigure replaces the configuration. The new pools are opened and the new master must answer before they take over; on an error the old
// configuration goes on serving. Calls, transactions and connections that have begun on old pools end there: a pool is closed
// when nothing of it is in use, or after DrainTimeout. Reconfigure does not wait for that.
func (r *Router) Reconfigure(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("dbrouter: reconfigure: %w", err)
	}
	cfg = cfg.withDefaults()
	if err := r.replace(ctx, func(*topology) (*Config, layout) { return &cfg, cfg.layout() }); err != nil {
		return fmt.Errorf("dbrouter: reconfigure: %w", err)
	}
	return nil
}

// Recycle replaces every connection, those of search replicas included, like Reconfigure with the same configuration: names are resolved anew.
func (r *Router) Recycle(ctx context.Context) error {
	if err := r.replace(ctx, func(old *topology) (*Config, layout) {
		cfg := *old.cfg
		cfg.DataSource, cfg.DataSourceReplicas, cfg.DataSourceSearchReplicas = old.layout.master, old.layout.replicas, old.layout.search
		return &cfg, old.layout
	}); err != nil {
		return fmt.Errorf("dbrouter: recycle: %w", err)
	}
	return nil
}

func (r *Router) replace(ctx context.Context, with func(old *topology) (*Config, layout)) error {
	r.change.Lock()
	defer r.change.Unlock()
	old := r.top.Load()
	if old.closed {
		return ErrClosed
	}
	cfg, _ := with(old)
	if cfg.DriverName != old.cfg.DriverName {
		return fmt.Errorf("DriverName changes from %q to %q: statements are written for one; open another router", old.cfg.DriverName, cfg.DriverName)
	}
	n := 1
	if old.dialect != dialect.SQLite {
		n = min(old.master.db.Stats().InUse+1, max(cfg.MaxIdleConns, 1), 8)
	}
	t, err := dialAny(ctx, cfg, n)
	if err != nil {
		return err
	}
	if id := t.identity(ctx); id != 0 {
		r.identity.Store(id)
	}
	r.install(t.choices())
	r.log(t).Info("data sources replaced", "generation", r.top.Load().generation)
	return nil
}

// drain closes a retired pool when its last user is gone: database/sql counts rows, transactions and connections as in use.
func (r *Router) drain(s *source) {
	if s.stop != nil {
		s.stop()
	}
	s.db.SetMaxIdleConns(-1)
	timeout := r.top.Load().cfg.DrainTimeout
	r.drainMu.Lock()
	r.draining[s] = struct{}{}
	r.drainMu.Unlock()
	if !r.spawn(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		end := time.NewTimer(timeout)
		defer end.Stop()
		open := true
		for s.db.Stats().InUse > 0 && open {
			select {
			case <-tick.C:
			case <-end.C:
				open = false
			case <-r.ctx.Done():
				open = false
			}
		}
		_ = s.close()
		// Whoever still holds a connection keeps it: it is closed when he gives it back. Stats counts it until then.
		tick.Reset(time.Second)
		for s.db.Stats().InUse > 0 {
			select {
			case <-tick.C:
			case <-r.ctx.Done():
				return
			}
		}
		r.drainMu.Lock()
		delete(r.draining, s)
		r.drainMu.Unlock()
	}) {
		_ = s.close()
	}
}

// Close closes all pools. Calls that have begun end; later ones return ErrClosed. It may be called again.
func (r *Router) Close() error {
	t := r.end()
	if t == nil {
		return nil
	}
	var errs []error
	for _, s := range t.sources() {
		errs = append(errs, s.close())
	}
	r.wg.Wait()
	return errors.Join(errs...)
}

// end marks the router closed and returns what it had, or nil when it was closed before.
func (r *Router) end() *topology {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.top.Load()
	if t.closed {
		return nil
	}
	last := *t
	last.closed, last.refuse, last.hold = true, nil, nil
	r.top.Store(&last)
	close(t.gone)
	r.cancel()
	return t
}

// closedError tells a closed router from a closed pool.
func (r *Router) closedError(err error) error {
	if r.top.Load().closed {
		return ErrClosed
	}
	return err
}

func (r *Router) log(t *topology) *slog.Logger { return t.cfg.Logger }

// Migrate brings the schema called name up to date on the master: files are <dialect>/<NNNN>_<name>.sql, whose statements end with a
// semicolon at the end of a line. One process of the cluster runs a step while the others wait. QueryTimeout does not bound it.
// An error names the schema, the file and the statement; the steps before it are done. Migrations inside one minor version of a program
// should only add, so that servers of both versions can run side by side.
func (r *Router) Migrate(ctx context.Context, name string, files fs.FS) error {
	t := r.top.Load()
	if t.closed {
		return fmt.Errorf("dbrouter: %w", ErrClosed)
	}
	if t.dialect == dialect.SQLite {
		return wrapMigrate(migrate.Apply(ctx, &r.master, name, files))
	}
	// A statement that rewrites a table may take longer than any query should.
	cfg := *t.cfg
	cfg.QueryTimeout = -1
	s, err := newSource(&cfg, t.dialect, roleMaster, "DataSource", t.layout.master)
	if err != nil {
		return wrapMigrate(err)
	}
	return wrapMigrate(errors.Join(migrate.Apply(ctx, s.db, name, files), s.close()))
}

func wrapMigrate(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("dbrouter: %w", err)
}
