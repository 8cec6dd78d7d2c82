package dbrouter

import (
	"context"
	"database/sql"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/internal/dialect"
)

// Master runs statements on the master. It is stable: it survives Reconfigure, Recycle and a master that moves, and has the signatures of sqlx.DB. A
// call that has certainly not begun is made again: when its pool was just replaced, and, for up to Config.MasterWait, when the
// master refuses connections or has become read only. Nothing else is repeated: a connection that is lost under a statement
// returns an error that is ErrUnknownOutcome. It is safe for concurrent use.
//
// There is no Prepare: a prepared statement dies with its pool. Prepare on a transaction or a connection.
type Master struct{ r *Router }

// write is one call of a Master.
type write struct {
	m      *Master
	t      *topology
	s      *source // its master
	tr     *track  // of the session, or nil
	ends   bool    // what it does has happened when it returns
	again  int
	began  time.Time
	until  time.Time // how long it waits for a master; zero: not yet known
	waited bool      // for a master
	flight *flight   // what ties it to its master, or nil
}

func (m *Master) begin(ctx context.Context, ends bool) write {
	c := write{m: m, t: m.r.top.Load(), tr: m.r.trackOf(ctx), ends: ends}
	if c.t.timed {
		c.began = time.Now()
	}
	return c
}

// on returns the source of the next attempt. It waits while an old master is being drained.
func (c *write) on(ctx context.Context) (*sqlx.DB, error) {
	for {
		c.s = c.t.master
		if c.t.refuse != nil {
			return nil, c.t.refuse
		}
		if c.t.hold == nil {
			return c.s.db, nil
		}
		select {
		case <-c.t.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if t := c.m.r.top.Load(); t != c.t {
			c.t = t
		} else {
			return c.s.db, nil
		}
	}
}

// tied returns a context that ends when the old master has had its time to drain, where FenceOldMaster is asked for.
func (c *write) tied(ctx context.Context) context.Context {
	if c.t.cfg.FenceOldMaster <= 0 {
		return ctx
	}
	ctx, f := c.s.flights.begin(ctx)
	if c.ends {
		c.flight = f
		return ctx
	}
	l := &lease{ctx}
	c.s.flights.leave(l, f)
	return l
}

// next reports whether the call did not begin, because its pool was replaced or the master is away, and should be made again.
func (c *write) next(ctx context.Context, err *error) bool {
	fenced := false
	if c.flight != nil {
		fenced = c.s.flights.end(c.flight)
		c.flight = nil
	}
	if *err == nil {
		return false
	}
	if fenced && ctx.Err() == nil {
		*err = unknown(errFenced)
		return false
	}
	r := c.m.r
	if (*err).Error() == closedText {
		if c.s.retired.Load() && c.again < 10 {
			c.again++
			c.t = r.top.Load()
			return true
		}
		*err = r.closedError(*err)
		return false
	}
	if over(ctx) {
		c.s.suspect()
		return false
	}
	fault := c.t.classify(*err)
	switch fault {
	case FaultConnection:
		c.s.counts.failed.Add(1)
		r.condemn(c.s, *err)
	case FaultReadOnly:
		c.s.counts.failed.Add(1)
		r.condemn(c.s, *err)
		c.s.note(errNoMaster)
	default:
		return false
	}
	if !unsent(fault, *err) {
		if c.ends {
			*err = unknown(*err)
		}
		return false
	}
	return c.masterComes(ctx)
}

// masterPause is the least time between two attempts of one call on a master that refuses it.
const masterPause = 5 * time.Millisecond

// masterComes waits until another master has taken over, or the one there accepts writes again; it reports whether it did in time.
func (c *write) masterComes(ctx context.Context) bool {
	r := c.m.r
	if c.t.cfg.MasterWait <= 0 || c.t.dialect == dialect.SQLite || !c.until.IsZero() && time.Now().After(c.until) {
		return false
	}
	since, found := r.hunted()
	// For all calls alike: they do not pile up behind a master that does not come.
	if until := since.Add(c.t.cfg.MasterWait); c.until.IsZero() || until.Before(c.until) {
		c.until = until
	}
	timer := time.NewTimer(time.Until(c.until))
	defer timer.Stop()
	if c.waited {
		select {
		case <-time.After(masterPause): // it was said to be there, and was not for us
		case <-ctx.Done():
			return false
		}
	}
	c.waited = true
	select {
	case <-c.t.gone:
	case <-found:
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	}
	c.t = r.top.Load()
	return !c.t.closed
}

func (c *write) end(ctx context.Context, query string, args []any, err error) error {
	if c.tr != nil {
		c.tr.did()
	}
	if c.t.timed {
		c.m.r.observeCall(ctx, c.t, c.s, query, args, c.began, err)
	}
	return err
}

// DriverName returns the name of the driver.
func (m *Master) DriverName() string { return m.r.top.Load().cfg.DriverName }

// Rebind rewrites the ? of a query into the driver's placeholders.
func (m *Master) Rebind(query string) string { return m.r.top.Load().master.db.Rebind(query) }

// Generation changes when the master's pool is replaced. A program that holds a connection for long gives it back then.
func (m *Master) Generation() uint64 { return m.r.top.Load().generation }

// PingContext checks that the master answers. It does not wait for one, as other calls do.
func (m *Master) PingContext(ctx context.Context) error {
	c := m.begin(context.Background(), false) // no write
	c.until = time.Now()
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		c.s = c.t.master
		err := c.s.db.PingContext(ctx)
		if !c.next(ctx, &err) {
			return c.end(ctx, "ping", nil, err)
		}
	}
}

// run calls fn, whose work is done when it returns, on the master.
func (m *Master) run(ctx context.Context, query string, args []any, fn func(ctx context.Context, db *sqlx.DB) error) error {
	c := m.begin(ctx, true)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		db, err := c.on(ctx)
		if err == nil {
			err = fn(c.tied(ctx), db)
		}
		if !c.next(ctx, &err) {
			return c.end(ctx, query, args, err)
		}
	}
}

// start calls fn, whose result outlives it, on the master.
func (m *Master) start(ctx context.Context, what string, args []any, fn func(ctx context.Context, db *sqlx.DB, tr *track) error) error {
	c := m.begin(ctx, false)
	ctx = c.t.poolerTimeout(ctx)
	for {
		db, err := c.on(ctx)
		if err == nil {
			err = fn(c.tied(ctx), db, c.tr)
		}
		if !c.next(ctx, &err) {
			return c.end(ctx, what, args, err)
		}
	}
}

// ExecContext runs a statement.
func (m *Master) ExecContext(ctx context.Context, query string, args ...any) (res sql.Result, err error) {
	err = m.run(ctx, query, args, func(ctx context.Context, db *sqlx.DB) error {
		var err error
		res, err = db.ExecContext(ctx, query, args...)
		return err
	})
	return res, err
}

// NamedExecContext runs a statement with named parameters.
func (m *Master) NamedExecContext(ctx context.Context, query string, arg any) (res sql.Result, err error) {
	err = m.run(ctx, query, []any{arg}, func(ctx context.Context, db *sqlx.DB) error {
		var err error
		res, err = db.NamedExecContext(ctx, query, arg)
		return err
	})
	return res, err
}

// GetContext reads one row into dest.
func (m *Master) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	return m.run(ctx, query, args, func(ctx context.Context, db *sqlx.DB) error { return db.GetContext(ctx, dest, query, args...) })
}

// SelectContext reads all rows into dest.
func (m *Master) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	return m.run(ctx, query, args, func(ctx context.Context, db *sqlx.DB) error { return db.SelectContext(ctx, dest, query, args...) })
}

// QueryContext reads rows.
func (m *Master) QueryContext(ctx context.Context, query string, args ...any) (res *sql.Rows, err error) {
	err = m.start(ctx, query, args, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		var err error
		if res, err = db.QueryContext(ctx, query, args...); err == nil && tr != nil {
			pin(tr, res)
		}
		return err
	})
	return res, err
}

// QueryxContext reads rows.
func (m *Master) QueryxContext(ctx context.Context, query string, args ...any) (res *sqlx.Rows, err error) {
	err = m.start(ctx, query, args, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		var err error
		if res, err = db.QueryxContext(ctx, query, args...); err == nil && tr != nil {
			pin(tr, res.Rows)
		}
		return err
	})
	return res, err
}

// QueryRowContext reads one row.
func (m *Master) QueryRowContext(ctx context.Context, query string, args ...any) (row *sql.Row) {
	err := m.start(ctx, query, args, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		row = db.QueryRowContext(ctx, query, args...)
		if row.Err() == nil && tr != nil {
			pin(tr, row)
		}
		return row.Err()
	})
	if err != nil && (row == nil || row.Err() == nil || row.Err().Error() == closedText) {
		row = m.r.top.Load().master.db.QueryRowContext(refused{ctx, err}, query, args...)
	}
	return row
}

// QueryRowxContext reads one row.
func (m *Master) QueryRowxContext(ctx context.Context, query string, args ...any) (row *sqlx.Row) {
	err := m.start(ctx, query, args, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		row = db.QueryRowxContext(ctx, query, args...)
		if row.Err() == nil && tr != nil {
			pin(tr, row)
		}
		return row.Err()
	})
	if err != nil && (row == nil || row.Err() == nil || row.Err().Error() == closedText) {
		row = m.r.top.Load().master.db.QueryRowxContext(refused{ctx, err}, query, args...)
	}
	return row
}

// BeginTx begins a transaction. It survives Reconfigure and Recycle: its pool is closed when it has ended.
func (m *Master) BeginTx(ctx context.Context, opts *sql.TxOptions) (res *sql.Tx, err error) {
	err = m.start(ctx, "BEGIN", nil, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		var err error
		if res, err = db.BeginTx(ctx, opts); err == nil && tr != nil && (opts == nil || !opts.ReadOnly) {
			pin(tr, res)
		}
		return err
	})
	return res, err
}

// BeginTxx is BeginTx with a transaction of sqlx.
func (m *Master) BeginTxx(ctx context.Context, opts *sql.TxOptions) (*sqlx.Tx, error) {
	return m.beginTxx(ctx, opts, true)
}

// beginTxx pins the session to the transaction's end when that will not be seen.
func (m *Master) beginTxx(ctx context.Context, opts *sql.TxOptions, unseen bool) (res *sqlx.Tx, err error) {
	err = m.start(ctx, "BEGIN", nil, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		var err error
		if res, err = db.BeginTxx(ctx, opts); err == nil && tr != nil && unseen && (opts == nil || !opts.ReadOnly) {
			pin(tr, res.Tx)
		}
		return err
	})
	return res, err
}

// Conn takes a connection out of the pool until its Close. It outlives Reconfigure and Recycle for DrainTimeout at least: watch Generation.
func (m *Master) Conn(ctx context.Context) (res *sql.Conn, err error) {
	err = m.start(ctx, "connect", nil, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		var err error
		if res, err = db.DB.Conn(ctx); err == nil && tr != nil {
			pin(tr, res)
		}
		return err
	})
	return res, err
}

// Connx is Conn with a connection of sqlx.
func (m *Master) Connx(ctx context.Context) (res *sqlx.Conn, err error) {
	err = m.start(ctx, "connect", nil, func(ctx context.Context, db *sqlx.DB, tr *track) error {
		var err error
		if res, err = db.Connx(ctx); err == nil && tr != nil {
			pin(tr, res.Conn)
		}
		return err
	})
	return res, err
}
