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

// Reader runs reads on replicas, in turn. It is stable: it survives Reconfigure, Recycle and a master that moves. It has no Exec, and its
// connections to replicas are read only; a statement that writes or locks runs on the master, at the latest when a server has
// refused it.
//
// A read that fails because a replica is away, before it has returned, runs once on each other source that may serve it.
// It is safe for concurrent use.
type Reader struct {
	r      *Router
	search bool
	turn   atomic.Uint32
}

// read is one call of a Reader: its attempts one after another.
type read struct {
	rd     *Reader
	t      *topology
	s      *source
	tr     *track // of the session, or nil
	refuse error  // it runs nowhere
	tried  []*source
	again  int     // attempts because a pool was replaced
	flight *flight // of the attempt
	isHung bool    // the source of the last attempt was found hung meanwhile: its error says nothing
	extra  bool    // it counts as an extra read of the master
	began  time.Time
}

// begin chooses the source of a read. It is the hot path: one atomic load of what the probers have prepared, no allocation.
func (rd *Reader) begin(ctx context.Context, query string) read {
	c := read{rd: rd}
	c.choose(ctx, query)
	if c.t.timed {
		c.began = time.Now()
	}
	return c
}

func (c *read) choose(ctx context.Context, query string) {
	rd := c.rd
	t := rd.r.top.Load()
	c.t = t
	if rt := routeOf(ctx); rt != nil && c.route(ctx, rt, query) {
		return
	}
	if rd.r.verdicts.forMaster(query) {
		c.toMaster()
		return
	}
	list := t.reads
	if rd.search {
		list = t.searches
	}
	if len(list) == 0 {
		c.lagging()
		return
	}
	c.s = list[rd.turn.Add(1)&uint32(len(list)-1)]
}

// toMaster sends a statement to the master because it does more than read.
func (c *read) toMaster() {
	c.s = c.t.master
	if c.t.read != c.t.master || len(c.t.replicas)+len(c.t.search) > 0 {
		c.rd.r.toMaster.Add(1)
	}
	c.refuse = c.t.refuse
}

// route chooses by what the context says; it reports whether that decides.
func (c *read) route(ctx context.Context, rt *route, query string) bool {
	if rt.session != nil {
		c.tr = rt.session.track(c.rd.r)
	}
	switch {
	case rt.master:
		c.s = c.t.master
	case c.rd.r.verdicts.forMaster(query):
		c.toMaster()
	case rt.stale > 0:
		c.s = c.rd.stale(ctx, c.t, rt.stale)
	case c.tr != nil:
		c.s = c.tr.choose(ctx, c.rd, c.t, nil)
	}
	return c.s != nil
}

// lagging chooses where every replica that answers trails too far.
func (c *read) lagging() {
	least := c.t.leastRead
	if c.rd.search {
		least = c.t.leastSearch
	}
	r := c.rd.r
	switch {
	case c.t.cfg.WhenLagging == LaggingError:
		c.s, c.refuse = c.t.master, ErrLagging
	case r.extra.Add(1) <= int64(c.t.cfg.MaxExtraReads):
		c.s, c.extra = c.t.read, true
	default:
		r.extra.Add(-1)
		c.s = least
	}
}

// stale returns a source that has everything that the master had d ago.
func (rd *Reader) stale(ctx context.Context, t *topology, d time.Duration) *source {
	if t.dialect == dialect.SQLite || len(t.replicas)+len(t.search) == 0 {
		return t.read
	}
	need, ok := rd.r.past.ago(d)
	if !ok {
		var err error
		if need, err = rd.r.ask(t.master).wait(ctx); err != nil || need == nil {
			return t.master
		}
	}
	if s := rd.covering(t, need, nil, nil); s != nil {
		return s
	}
	list := t.replicas
	if rd.search {
		list = t.search
	}
	for _, s := range list { // those that trail more than MaxLag, and not more than d
		s.mu.Lock()
		lags := s.lags
		s.mu.Unlock()
		if lags && !s.mute.Load() && s.has(need, nil) {
			return s
		}
	}
	return t.read
}

// next decides about an attempt: it reports whether the call should be made again, on c.s; else err is the answer.
func (c *read) next(ctx context.Context, query string, err *error) bool {
	if *err == nil {
		return false
	}
	r := c.rd.r
	if (*err).Error() == closedText {
		if c.s.retired.Load() && c.again < 10 {
			c.again++
			c.settleExtra()
			c.s, c.tried = nil, nil
			c.choose(ctx, query)
			return c.refuse == nil
		}
		*err = r.closedError(*err)
		return false
	}
	if over(ctx) {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) || ctx.Err() == nil {
			c.s.suspect() // the caller's deadline condemns nobody
		}
		return false
	}
	fault := c.t.classify(*err)
	if c.isHung {
		fault = FaultBusy // the guard ended this attempt
		c.s.counts.failed.Add(1)
	}
	switch fault {
	case FaultReadOnly:
		if c.s == c.t.master {
			return false
		}
		r.verdicts.refused(query)
		c.t = r.top.Load()
		c.toMaster()
		return c.refuse == nil
	case FaultConnection:
		c.s.counts.failed.Add(1)
		r.condemn(c.s, *err)
	case FaultBusy, FaultRetry: // on a replica: a conflict with replication
	default:
		return false
	}
	if c.s == c.t.master {
		return false
	}
	c.tried = append(c.tried, c.s)
	t := r.top.Load()
	var other *source
	if c.tr != nil {
		other = c.tr.choose(ctx, c.rd, t, c.tried)
	}
	if other == nil {
		other = t.other(c.rd.search, c.tried)
	}
	if other == nil || contains(c.tried, other) || !r.budget.take(r.replica.turn.Load()+r.search.turn.Load(), 2*t.cfg.MaxOpenConns) {
		return false
	}
	r.moved.Add(1)
	other.counts.moved.Add(1)
	c.t, c.s = t, other
	return true
}

// over reports whether a call has ended because its caller's patience has: a driver may notice a deadline a moment before the context does.
func over(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	at, ok := ctx.Deadline()
	return ok && time.Until(at) < 5*time.Millisecond
}

func (c *read) settleExtra() {
	if c.extra {
		c.rd.r.extra.Add(-1)
		c.extra = false
	}
}

// end gives the answer of a call its last form.
func (c *read) end(ctx context.Context, query string, args []any, err error) error {
	c.settleExtra()
	if c.refuse != nil {
		err = c.refuse
	}
	if c.tr != nil {
		switch {
		case c.s.role == roleMaster && c.rd.r.verdicts.forMaster(query):
			c.tr.did()
		case c.s.role == roleMaster:
			c.tr.saw()
		case c.s.role != roleRead && c.tr.last.Load() != c.s:
			c.tr.saw() // the session has moved on meanwhile: what comes next must have what this one saw
		}
	}
	if c.t.timed {
		c.rd.r.observeCall(ctx, c.t, c.s, query, args, c.began, err)
	}
	return err
}

// inTx reports whether a read needs a transaction to be read only: behind a transaction pooler the session cannot be.
func (c *read) inTx() bool {
	return c.t.cfg.Pooler && c.s.role != roleMaster && c.t.dialect != dialect.SQLite
}

// GetContext reads one row into dest, like sqlx.DB.GetContext.
func (rd *Reader) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	c := rd.begin(ctx, query)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for c.refuse == nil {
		try := c.guard(ctx)
		var err error
		if c.inTx() {
			err = readTx(try, c.s.db, func(tx *sqlx.Tx) error { return tx.GetContext(try, dest, query, args...) })
		} else {
			err = c.s.db.GetContext(try, dest, query, args...)
		}
		c.land()
		if !c.next(ctx, query, &err) {
			return c.end(ctx, query, args, err)
		}
	}
	return c.end(ctx, query, args, nil)
}

// SelectContext reads all rows into dest, like sqlx.DB.SelectContext.
func (rd *Reader) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	c := rd.begin(ctx, query)
	ctx, cancel := c.t.timeout(ctx)
	defer cancel()
	for c.refuse == nil {
		try := c.guard(ctx)
		var err error
		if c.inTx() {
			err = readTx(try, c.s.db, func(tx *sqlx.Tx) error { return tx.SelectContext(try, dest, query, args...) })
		} else {
			err = c.s.db.SelectContext(try, dest, query, args...)
		}
		c.land()
		if !c.next(ctx, query, &err) {
			return c.end(ctx, query, args, err)
		}
	}
	return c.end(ctx, query, args, nil)
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
	c := rd.begin(ctx, query)
	ctx = c.t.poolerTimeout(ctx)
	for c.refuse == nil {
		try := c.leased(ctx)
		rows, err := c.s.db.QueryContext(try, query, args...)
		if err == nil {
			c.retain(try)
			c.hold(rows)
		}
		c.land()
		if !c.next(ctx, query, &err) {
			return rows, c.end(ctx, query, args, err)
		}
	}
	return nil, c.end(ctx, query, args, nil)
}

// QueryxContext reads rows, like sqlx.DB.QueryxContext.
func (rd *Reader) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	c := rd.begin(ctx, query)
	ctx = c.t.poolerTimeout(ctx)
	for c.refuse == nil {
		try := c.leased(ctx)
		rows, err := c.s.db.QueryxContext(try, query, args...)
		if err == nil {
			c.retain(try)
			c.hold(rows.Rows)
		}
		c.land()
		if !c.next(ctx, query, &err) {
			return rows, c.end(ctx, query, args, err)
		}
	}
	return nil, c.end(ctx, query, args, nil)
}

// QueryRowxContext reads one row, like sqlx.DB.QueryRowxContext.
func (rd *Reader) QueryRowxContext(ctx context.Context, query string, args ...any) *sqlx.Row {
	c := rd.begin(ctx, query)
	ctx = c.t.poolerTimeout(ctx)
	for c.refuse == nil {
		try := c.leased(ctx)
		row := c.s.db.QueryRowxContext(try, query, args...)
		err := row.Err()
		if err == nil {
			c.retain(try)
			if c.tr != nil && c.s.role == roleMaster {
				pin(c.tr, row)
			}
		}
		c.land()
		if !c.next(ctx, query, &err) {
			if err = c.end(ctx, query, args, err); c.refuse != nil || errors.Is(err, ErrClosed) {
				return c.s.db.QueryRowxContext(refused{ctx, err}, query, args...)
			}
			return row
		}
	}
	return c.s.db.QueryRowxContext(refused{ctx, c.end(ctx, query, args, nil)}, query, args...)
}

// hold keeps rows of a statement that ran on the master from ending unseen: it may write until then.
func (c *read) hold(rows *sql.Rows) {
	if c.tr != nil && c.s.role == roleMaster {
		pin(c.tr, rows)
	}
}

// BeginReadx begins a read-only transaction: several reads that see one state of the data, of one source.
func (rd *Reader) BeginReadx(ctx context.Context) (*sqlx.Tx, error) {
	const query = "SELECT" // as far as the choice goes
	c := rd.begin(ctx, query)
	ctx = c.t.poolerTimeout(ctx)
	for c.refuse == nil {
		try := c.leased(ctx)
		tx, err := c.s.db.BeginTxx(try, &sql.TxOptions{ReadOnly: true})
		if err == nil {
			c.retain(try)
		}
		c.land()
		if !c.next(ctx, query, &err) {
			return tx, c.end(ctx, "BEGIN READ ONLY", nil, err)
		}
	}
	return nil, c.end(ctx, "BEGIN READ ONLY", nil, nil)
}

// refused is a context in which a call ends at once with err: a row has no other way to bear one.
type refused struct {
	context.Context
	err error
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (r refused) Done() <-chan struct{} { return closedChannel }
func (r refused) Err() error            { return r.err }
