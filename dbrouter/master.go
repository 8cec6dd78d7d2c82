package dbrouter

import (
	"context"
	"database/sql"
	"time"

	"github.com/jmoiron/sqlx"
)

// Master runs statements on the master. It is stable: it survives Reconfigure and Recycle, and has the signatures of sqlx.DB. A call
// that meets a pool that was just replaced runs on the new one; nothing else is repeated. It is safe for concurrent use.
//
// There is no Prepare: a prepared statement dies with its pool. Prepare on a transaction or a connection.
type Master struct{ r *Router }

// write is one call of a Master.
type write struct {
	m     *Master
	t     *topology
	again int
	began time.Time
}

func (m *Master) begin(ctx context.Context) write {
	touch(ctx)
	c := write{m: m, t: m.r.top.Load()}
	if c.t.cfg.Trace {
		c.began = time.Now()
	}
	return c
}

// next reports whether the call did not begin because its pool was replaced, and should be made again.
func (c *write) next(ctx context.Context, err *error) bool {
	if *err == nil {
		return false
	}
	if (*err).Error() == closedText {
		if c.t.master.retired.Load() && c.again < 10 {
			c.again++
			c.t = c.m.r.top.Load()
			return true
		}
		*err = c.m.r.closedError(*err)
		return false
	}
	if ctx.Err() != nil {
		c.t.master.suspect()
		return false
	}
	switch c.t.classify(*err) {
	case FaultConnection:
		c.m.r.condemn(c.t.master, *err)
	case FaultReadOnly:
		c.m.r.condemn(c.t.master, *err)
		c.m.r.renew()
	}
	return false
}

func (c *write) end(ctx context.Context, query string, args []any, err error) error {
	if c.t.cfg.Trace {
		c.m.r.trace(ctx, c.t, c.t.master, query, args, c.began, err)
	}
	return err
}

// DriverName returns the name of the driver.
func (m *Master) DriverName() string { return m.r.top.Load().cfg.DriverName }

// Rebind rewrites the ? of a query into the driver's placeholders.
func (m *Master) Rebind(query string) string { return m.r.top.Load().master.db.Rebind(query) }

// Generation changes when the master's pool is replaced. A program that holds a connection for long gives it back then.
func (m *Master) Generation() uint64 { return m.r.top.Load().generation }

// PingContext checks that the master answers.
func (m *Master) PingContext(ctx context.Context) error {
	c := m.begin(context.Background()) // no write
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		err := c.t.master.db.PingContext(ctx)
		if !c.next(ctx, &err) {
			return c.end(ctx, "ping", nil, err)
		}
	}
}

// ExecContext runs a statement.
func (m *Master) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c := m.begin(ctx)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		res, err := c.t.master.db.ExecContext(ctx, query, args...)
		if !c.next(ctx, &err) {
			return res, c.end(ctx, query, args, err)
		}
	}
}

// NamedExecContext runs a statement with named parameters.
func (m *Master) NamedExecContext(ctx context.Context, query string, arg any) (sql.Result, error) {
	c := m.begin(ctx)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		res, err := c.t.master.db.NamedExecContext(ctx, query, arg)
		if !c.next(ctx, &err) {
			return res, c.end(ctx, query, []any{arg}, err)
		}
	}
}

// GetContext reads one row into dest.
func (m *Master) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	c := m.begin(ctx)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		err := c.t.master.db.GetContext(ctx, dest, query, args...)
		if !c.next(ctx, &err) {
			return c.end(ctx, query, args, err)
		}
	}
}

// SelectContext reads all rows into dest.
func (m *Master) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	c := m.begin(ctx)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		err := c.t.master.db.SelectContext(ctx, dest, query, args...)
		if !c.next(ctx, &err) {
			return c.end(ctx, query, args, err)
		}
	}
}

// QueryContext reads rows.
func (m *Master) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	c := m.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		rows, err := c.t.master.db.QueryContext(ctx, query, args...)
		if !c.next(ctx, &err) {
			return rows, c.end(ctx, query, args, err)
		}
	}
}

// QueryxContext reads rows.
func (m *Master) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	c := m.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		rows, err := c.t.master.db.QueryxContext(ctx, query, args...)
		if !c.next(ctx, &err) {
			return rows, c.end(ctx, query, args, err)
		}
	}
}

// QueryRowContext reads one row.
func (m *Master) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	c := m.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		row := c.t.master.db.QueryRowContext(ctx, query, args...)
		err := row.Err()
		if !c.next(ctx, &err) {
			_ = c.end(ctx, query, args, err)
			return row
		}
	}
}

// QueryRowxContext reads one row.
func (m *Master) QueryRowxContext(ctx context.Context, query string, args ...any) *sqlx.Row {
	c := m.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		row := c.t.master.db.QueryRowxContext(ctx, query, args...)
		err := row.Err()
		if !c.next(ctx, &err) {
			_ = c.end(ctx, query, args, err)
			return row
		}
	}
}

// BeginTx begins a transaction. It survives Reconfigure and Recycle: its pool is closed when it has ended.
func (m *Master) BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error) {
	c := m.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		tx, err := c.t.master.db.BeginTx(ctx, opts)
		if !c.next(ctx, &err) {
			return tx, c.end(ctx, "BEGIN", nil, err)
		}
	}
}

// BeginTxx is BeginTx with a transaction of sqlx.
func (m *Master) BeginTxx(ctx context.Context, opts *sql.TxOptions) (*sqlx.Tx, error) {
	c := m.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		tx, err := c.t.master.db.BeginTxx(ctx, opts)
		if !c.next(ctx, &err) {
			return tx, c.end(ctx, "BEGIN", nil, err)
		}
	}
}

// Conn takes a connection out of the pool until its Close. It outlives Reconfigure and Recycle for DrainTimeout at least: watch Generation.
func (m *Master) Conn(ctx context.Context) (*sql.Conn, error) {
	c := m.begin(ctx)
	for {
		conn, err := c.t.master.db.DB.Conn(ctx)
		if !c.next(ctx, &err) {
			return conn, c.end(ctx, "connect", nil, err)
		}
	}
}

// Connx is Conn with a connection of sqlx.
func (m *Master) Connx(ctx context.Context) (*sqlx.Conn, error) {
	c := m.begin(ctx)
	for {
		conn, err := c.t.master.db.Connx(ctx)
		if !c.next(ctx, &err) {
			return conn, c.end(ctx, "connect", nil, err)
		}
	}
}
