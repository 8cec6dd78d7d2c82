package dbrouter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/internal/backoff"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/migrate"
)

// How long a new master is tried.
const (
	openTimeout = 12 * time.Second
	openTry     = 2 * time.Second
)

// Router holds the pools of a master and its replicas. It is safe for concurrent use.
type Router struct {
	top             atomic.Pointer[topology]
	master          Master
	replica, search Reader

	written         atomic.Int64 // the master's position when last seen
	moved, toMaster atomic.Uint64

	renewing atomic.Bool
	renewals atomic.Int32 // in a row without a master that accepts writes

	change sync.Mutex // one Reconfigure, Recycle or Close at a time
	mu     sync.Mutex // guards the replacing of top
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
	t, err := newTopology(cfg)
	if err != nil {
		return nil, fmt.Errorf("dbrouter: open: %w", err)
	}
	if err := t.dial(ctx, 1); err != nil {
		for _, s := range t.sources() {
			_ = s.close()
		}
		return nil, fmt.Errorf("dbrouter: open: %w", err)
	}
	r := &Router{draining: map[*source]struct{}{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.master.r, r.replica.r, r.search.r, r.search.search = r, r, r, true
	r.install(t.choices())
	return r, nil
}

// dial connects to the master, n connections of it, and to as many replicas as answer.
func (t *topology) dial(ctx context.Context, n int) error {
	var wg sync.WaitGroup
	for _, s := range t.sources()[1:] {
		wg.Go(func() {
			try, cancel := context.WithTimeout(ctx, openTry)
			defer cancel()
			if s.role == roleRead {
				return // its file may not exist yet
			}
			err := s.warm(try, 1)
			if err == nil && t.cfg.Pooler {
				// Not one read before it is known to be a replica.
				var o observation
				if o, err = observe(try, s.probe, t.dialect, false); err == nil && !o.standby {
					err = errWritable
				}
			}
			if err != nil {
				s.mu.Lock()
				s.healthy, s.state.err, s.state.errAt, s.state.downSince = false, err, time.Now(), time.Now()
				s.mu.Unlock()
				t.cfg.Logger.Warn("data source out of use", "role", string(s.role), "source", s.name, "error", redactIn(err.Error(), s.dsn))
			}
		})
	}
	defer wg.Wait()
	all, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	began := time.Now()
	for tries := 0; ; tries++ {
		try, cancel := context.WithTimeout(all, openTry)
		err := t.master.warm(try, n)
		cancel()
		if err == nil {
			return nil
		}
		// What the server refuses by name (password, database) a second try does not mend.
		fault := t.classify(err)
		hopeless := fault == FaultNone && !errors.Is(err, context.DeadlineExceeded)
		if !hopeless {
			select {
			case <-time.After(backoff.Delay(tries, 100*time.Millisecond, time.Second)):
			case <-all.Done():
			}
		}
		if hopeless || all.Err() != nil {
			return &sourceError{err: err, text: fmt.Sprintf("DataSource %q cannot be used (tried for %v): %s: start that database or correct DataSource",
				t.master.name, time.Since(began).Round(100*time.Millisecond), redactIn(err.Error(), t.master.dsn))}
		}
	}
}

// install makes t current and starts its probers; it returns what was current before.
func (r *Router) install(t *topology) *topology {
	r.mu.Lock()
	old := r.top.Load()
	if old != nil {
		t.generation = old.generation + 1
		for _, s := range old.sources() {
			s.retired.Store(true) // before the new one shows: whoever meets a closed pool finds the new one
		}
	}
	r.top.Store(t)
	r.mu.Unlock()
	if t.dialect == dialect.SQLite {
		return old // a file needs no watching
	}
	for _, s := range t.sources() {
		var ctx context.Context
		ctx, s.stop = context.WithCancel(r.ctx)
		r.wg.Go(func() { r.watch(ctx, t, s) })
	}
	return old
}

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
	if err := r.replace(ctx, cfg.withDefaults()); err != nil {
		return fmt.Errorf("dbrouter: reconfigure: %w", err)
	}
	return nil
}

// Recycle replaces every connection, those of search replicas included, like Reconfigure with the same configuration: names are resolved anew.
func (r *Router) Recycle(ctx context.Context) error {
	if err := r.replace(ctx, *r.top.Load().cfg); err != nil {
		return fmt.Errorf("dbrouter: recycle: %w", err)
	}
	return nil
}

func (r *Router) replace(ctx context.Context, cfg Config) error {
	r.change.Lock()
	defer r.change.Unlock()
	old := r.top.Load()
	if old.closed {
		return ErrClosed
	}
	if cfg.DriverName != old.cfg.DriverName {
		return fmt.Errorf("DriverName changes from %q to %q: statements are written for one; open another router", old.cfg.DriverName, cfg.DriverName)
	}
	t, err := newTopology(cfg)
	if err != nil {
		return err
	}
	n := 1
	if t.dialect != dialect.SQLite {
		n = min(old.master.db.Stats().InUse+1, cfg.MaxIdleConns, 8)
	}
	if err := t.dial(ctx, n); err != nil {
		for _, s := range t.sources() {
			_ = s.close()
		}
		return err
	}
	for _, s := range r.install(t.choices()).sources() {
		r.drain(s)
	}
	r.log(t).Info("data sources replaced", "generation", r.top.Load().generation)
	return nil
}

// renew replaces the pools because the master has become read only: another server may be behind its name, or in its list of hosts. The first time it
// does so at once, then after longer and longer pauses until a master accepts writes.
func (r *Router) renew() {
	if r.renewing.Swap(true) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.top.Load()
	if t.closed || t.dialect == dialect.SQLite {
		return
	}
	r.wg.Go(func() {
		defer r.renewing.Store(false)
		if n := r.renewals.Add(1) - 1; n > 0 {
			select {
			case <-time.After(backoff.Delay(int(n)-1, 500*time.Millisecond, 30*time.Second)):
			case <-r.ctx.Done():
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.ctx, openTry)
		defer cancel()
		if err := r.Recycle(ctx); err != nil && r.ctx.Err() == nil {
			r.log(t).Warn("data sources not replaced", "error", err)
		}
	})
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
	r.wg.Go(func() {
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
	})
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
	last.closed = true
	r.top.Store(&last)
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

func (r *Router) trace(ctx context.Context, t *topology, s *source, query string, args []any, began time.Time, err error) {
	attrs := []slog.Attr{slog.String("role", string(s.role)), slog.String("source", s.name), slog.String("query", query), slog.Any("args", args), slog.Duration("took", time.Since(began))}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	t.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "sql", attrs...)
}

// Migrate brings the schema called name up to date on the master: files are <dialect>/<NNNN>_<name>.sql, whose statements end with a
// semicolon at the end of a line. One process of the cluster runs a step while the others wait. QueryTimeout does not bound it.
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
	s, err := newSource(&cfg, t.dialect, roleMaster, cfg.DataSource)
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
