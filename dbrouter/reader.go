package dbrouter

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/internal/dialect"
)

// Reader runs reads on replicas, in turn. It is stable: it survives Reconfigure and Recycle. It has no Exec, and its connections to
// replicas are read only; a statement that the server refuses as a write there runs once on the master.
//
// A read that fails because a replica is away, before it has returned, runs once on each other source that may serve it.
// It is safe for concurrent use.
type Reader struct {
	r      *Router
	search bool
	turn   atomic.Uint32
}

// choose returns the source of the next read. It is the hot path: one atomic load, no allocation.
func (rd *Reader) choose(ctx context.Context) (*topology, *source) {
	t := rd.r.top.Load()
	if rt := routeOf(ctx); rt != nil && rt.toMaster() {
		return t, t.master
	}
	list := t.reads
	if rd.search {
		list = t.searches
	}
	return t, list[rd.turn.Add(1)&uint32(len(list)-1)]
}

// read is one call of a Reader: its attempts one after another.
type read struct {
	rd    *Reader
	t     *topology
	s     *source
	tried []*source
	again int             // attempts because a pool was replaced
	life  context.Context // of the source when the attempt began
	began time.Time
}

func (rd *Reader) begin(ctx context.Context) read {
	c := read{rd: rd}
	c.t, c.s = rd.choose(ctx)
	if c.t.cfg.Trace {
		c.began = time.Now()
	}
	return c
}

// next decides about an attempt: it reports whether the call should be made again, on c.s; else err is the answer.
func (c *read) next(ctx context.Context, err *error) bool {
	if *err == nil {
		return false
	}
	r := c.rd.r
	if (*err).Error() == closedText {
		if c.s.retired.Load() && c.again < 10 {
			c.again++
			c.t, c.s = c.rd.choose(ctx)
			c.tried = nil
			return true
		}
		*err = r.closedError(*err)
		return false
	}
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.s.suspect() // the caller's deadline condemns nobody
		}
		return false
	}
	fault := c.t.classify(*err)
	if c.hung() {
		fault = FaultBusy // the guard ended this attempt
	}
	switch fault {
	case FaultReadOnly:
		if c.s == c.t.master {
			return false
		}
		r.toMaster.Add(1)
		touch(ctx)
		c.s = c.t.master
		return true
	case FaultConnection:
		r.condemn(c.s, *err)
	case FaultBusy, FaultRetry: // on a replica: a conflict with replication
	default:
		return false
	}
	c.tried = append(c.tried, c.s)
	other := r.top.Load().other(c.rd.search, c.tried)
	if other == nil || c.s == c.t.master {
		return false
	}
	r.moved.Add(1)
	c.s = other
	return true
}

// end gives the answer of a call its last form.
func (c *read) end(ctx context.Context, query string, args []any, err error) error {
	if c.t.cfg.Trace {
		c.rd.r.trace(ctx, c.t, c.s, query, args, c.began, err)
	}
	return err
}

// inTx reports whether a read needs a transaction to be read only: behind a transaction pooler the session cannot be.
func (c *read) inTx() bool {
	return c.t.cfg.Pooler && c.s != c.t.master && c.t.dialect != dialect.SQLite
}

// GetContext reads one row into dest, like sqlx.DB.GetContext.
func (rd *Reader) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	c := rd.begin(ctx)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		try, release := c.guard(ctx)
		var err error
		if c.inTx() {
			err = readTx(try, c.s.db, func(tx *sqlx.Tx) error { return tx.GetContext(try, dest, query, args...) })
		} else {
			err = c.s.db.GetContext(try, dest, query, args...)
		}
		release()
		if !c.next(ctx, &err) {
			return c.end(ctx, query, args, err)
		}
	}
}

// SelectContext reads all rows into dest, like sqlx.DB.SelectContext.
func (rd *Reader) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	c := rd.begin(ctx)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for {
		try, release := c.guard(ctx)
		var err error
		if c.inTx() {
			err = readTx(try, c.s.db, func(tx *sqlx.Tx) error { return tx.SelectContext(try, dest, query, args...) })
		} else {
			err = c.s.db.SelectContext(try, dest, query, args...)
		}
		release()
		if !c.next(ctx, &err) {
			return c.end(ctx, query, args, err)
		}
	}
}

func readTx(ctx context.Context, db *sqlx.DB, fn func(tx *sqlx.Tx) error) error {
	tx, err := db.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// QueryContext reads rows, like sqlx.DB.QueryContext.
func (rd *Reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	c := rd.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		try, release := c.guard(ctx)
		rows, err := c.s.db.QueryContext(try, query, args...)
		if !c.next(ctx, &err) {
			retain(try, release)
			return rows, c.end(ctx, query, args, err)
		}
		release()
	}
}

// QueryxContext reads rows, like sqlx.DB.QueryxContext.
func (rd *Reader) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	c := rd.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		try, release := c.guard(ctx)
		rows, err := c.s.db.QueryxContext(try, query, args...)
		if !c.next(ctx, &err) {
			retain(try, release)
			return rows, c.end(ctx, query, args, err)
		}
		release()
	}
}

// QueryRowxContext reads one row, like sqlx.DB.QueryRowxContext.
func (rd *Reader) QueryRowxContext(ctx context.Context, query string, args ...any) *sqlx.Row {
	c := rd.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		try, release := c.guard(ctx)
		row := c.s.db.QueryRowxContext(try, query, args...)
		err := row.Err()
		if !c.next(ctx, &err) {
			retain(try, release)
			_ = c.end(ctx, query, args, err)
			return row
		}
		release()
	}
}

// BeginReadx begins a read-only transaction: several reads that see one state of the data, of one source.
func (rd *Reader) BeginReadx(ctx context.Context) (*sqlx.Tx, error) {
	c := rd.begin(ctx)
	ctx = c.t.poolerTimeout(ctx)
	for {
		try, release := c.guard(ctx)
		tx, err := c.s.db.BeginTxx(try, &sql.TxOptions{ReadOnly: true})
		if !c.next(ctx, &err) {
			retain(try, release)
			return tx, c.end(ctx, "BEGIN READ ONLY", nil, err)
		}
		release()
	}
}
