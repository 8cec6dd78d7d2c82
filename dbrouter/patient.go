package dbrouter

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"sync/atomic"
	"time"
)

// grace is what a driver gets to end a call by itself once the context has ended.
const grace = 100 * time.Millisecond

// patientConn stands before a connection whose driver goes on waiting for a frozen server after the context has ended. Its calls run in
// goroutines; a caller whose context ends leaves the goroutine behind with the connection, which is closed when the driver comes back.
type patientConn struct {
	base driver.Conn
	c    *connector
	left atomic.Bool // somebody left: base belongs to a goroutine
	rows atomic.Bool // a goroutine reads rows
}

var errRowsOpen = errors.New("the connection still has the rows of another query: read them to their end or close them first")

// run calls fn, and leaves it behind when ctx ends and the grace is over: then what fn sets must not be looked at.
func (p *patientConn) run(ctx context.Context, fn func()) error {
	if p.left.Load() {
		return driver.ErrBadConn
	}
	if p.rows.Load() {
		return errRowsOpen
	}
	if ctx.Done() == nil {
		fn()
		return nil
	}
	finished := make(chan struct{})
	p.c.blocked.Go(func() { fn(); close(finished) })
	return p.await(ctx, finished)
}

// await waits for a goroutine that uses the connection.
func (p *patientConn) await(ctx context.Context, finished <-chan struct{}) error {
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-finished:
		return nil
	case <-t.C:
	}
	p.leave(finished)
	return ctx.Err()
}

func (p *patientConn) leave(finished <-chan struct{}) {
	if !p.left.Swap(true) {
		p.c.left.Add(1)
		p.c.blocked.Go(func() { <-finished; p.base.Close(); p.c.left.Add(-1) })
	}
}

func (p *patientConn) Close() error {
	if p.left.Load() {
		return nil
	}
	return p.base.Close()
}

func (p *patientConn) Prepare(query string) (driver.Stmt, error) {
	return p.PrepareContext(context.Background(), query)
}

func (p *patientConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	var st driver.Stmt
	var err error
	if e := p.run(ctx, func() {
		if c, ok := p.base.(driver.ConnPrepareContext); ok {
			st, err = c.PrepareContext(ctx, query)
		} else {
			st, err = p.base.Prepare(query)
		}
	}); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return &patientStmt{base: st, conn: p}, nil
}

func (p *patientConn) Begin() (driver.Tx, error) {
	return p.BeginTx(context.Background(), driver.TxOptions{})
}

func (p *patientConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	b, ok := p.base.(driver.ConnBeginTx)
	if !ok {
		return nil, errors.New("the driver has no transactions with options")
	}
	var tx driver.Tx
	var err error
	if e := p.run(ctx, func() { tx, err = b.BeginTx(ctx, opts) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return &patientTx{base: tx, conn: p, ctx: ctx}, nil
}

func (p *patientConn) Ping(ctx context.Context) error {
	b, ok := p.base.(driver.Pinger)
	if !ok {
		return nil
	}
	var err error
	if e := p.run(ctx, func() { err = b.Ping(ctx) }); e != nil {
		return e
	}
	return err
}

func (p *patientConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	b, ok := p.base.(driver.ExecerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	args = keep(ctx, args)
	var res driver.Result
	var err error
	if e := p.run(ctx, func() { res, err = b.ExecContext(ctx, query, args) }); e != nil {
		return nil, e
	}
	return res, err
}

func (p *patientConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	b, ok := p.base.(driver.QueryerContext)
	if !ok {
		return nil, driver.ErrSkip
	}
	args = keep(ctx, args)
	return p.query(ctx, func() (driver.Rows, error) { return b.QueryContext(ctx, query, args) })
}

func (p *patientConn) ResetSession(ctx context.Context) error {
	if p.left.Load() {
		return driver.ErrBadConn
	}
	if b, ok := p.base.(driver.SessionResetter); ok {
		return b.ResetSession(ctx)
	}
	return nil
}

func (p *patientConn) IsValid() bool {
	if p.left.Load() {
		return false
	}
	b, ok := p.base.(driver.Validator)
	return !ok || b.IsValid()
}

func (p *patientConn) CheckNamedValue(v *driver.NamedValue) error {
	if b, ok := p.base.(driver.NamedValueChecker); ok {
		return b.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// keep copies what the caller may change once it has left a call behind.
func keep(ctx context.Context, args []driver.NamedValue) []driver.NamedValue {
	if ctx.Done() == nil {
		return args
	}
	for i, a := range args {
		if b, ok := a.Value.([]byte); ok {
			args[i].Value = bytes.Clone(b)
		}
	}
	return args
}

type patientTx struct {
	base driver.Tx
	conn *patientConn
	ctx  context.Context // that of BeginTx: database/sql gives none to Commit and Rollback
}

func (t *patientTx) Commit() error   { return t.end(t.base.Commit) }
func (t *patientTx) Rollback() error { return t.end(t.base.Rollback) }

func (t *patientTx) end(fn func() error) error {
	var err error
	if e := t.conn.run(t.ctx, func() { err = fn() }); e != nil {
		return e
	}
	return err
}

type patientStmt struct {
	base driver.Stmt
	conn *patientConn
}

func (s *patientStmt) NumInput() int { return s.base.NumInput() }

func (s *patientStmt) Close() error {
	if s.conn.left.Load() {
		return nil
	}
	return s.base.Close()
}

func (s *patientStmt) Exec([]driver.Value) (driver.Result, error) { return nil, driver.ErrSkip }
func (s *patientStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, driver.ErrSkip }

func (s *patientStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	args = keep(ctx, args)
	var res driver.Result
	var err error
	if e := s.conn.run(ctx, func() {
		if b, ok := s.base.(driver.StmtExecContext); ok {
			res, err = b.ExecContext(ctx, args)
		} else {
			//lint:ignore SA1019 lib/pq's COPY has nothing else
			res, err = s.base.Exec(values(args))
		}
	}); e != nil {
		return nil, e
	}
	return res, err
}

func (s *patientStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	args = keep(ctx, args)
	return s.conn.query(ctx, func() (driver.Rows, error) {
		if b, ok := s.base.(driver.StmtQueryContext); ok {
			return b.QueryContext(ctx, args)
		}
		//lint:ignore SA1019 a driver of the old kind has nothing else
		return s.base.Query(values(args))
	})
}

func values(args []driver.NamedValue) []driver.Value {
	v := make([]driver.Value, len(args))
	for i, a := range args {
		v[i] = a.Value
	}
	return v
}

// item is a row, or the end of a result set.
type item struct {
	row  []driver.Value
	err  error // io.EOF at the end of a result set
	more bool  // another result set follows
}

// patientRows are rows that a goroutine reads ahead of the caller: a channel operation a row instead of a goroutine.
type patientRows struct {
	base     driver.Rows
	conn     *patientConn
	ctx      context.Context // that of the query: database/sql gives none to Next and Close
	columns  []string
	items    chan item
	next     chan chan error // asks for the next result set
	stop     chan struct{}
	finished chan struct{} // the goroutine is gone, base is closed
	last     item
	closeErr error // set before finished is closed
}

// query starts a query and the goroutine that reads its rows.
func (p *patientConn) query(ctx context.Context, fn func() (driver.Rows, error)) (driver.Rows, error) {
	if p.left.Load() {
		return nil, driver.ErrBadConn
	}
	if p.rows.Load() {
		return nil, errRowsOpen
	}
	if ctx.Done() == nil {
		return fn()
	}
	p.rows.Store(true)
	r := &patientRows{conn: p, ctx: ctx, items: make(chan item, 16), next: make(chan chan error), stop: make(chan struct{}), finished: make(chan struct{})}
	var err error
	answered := make(chan struct{})
	p.c.blocked.Go(func() {
		defer func() { p.rows.Store(false); close(r.finished) }()
		r.base, err = fn()
		if err == nil {
			r.columns = r.base.Columns()
		}
		close(answered)
		if err == nil {
			r.read()
			r.closeErr = r.base.Close()
		}
	})
	select {
	case <-answered:
	case <-ctx.Done():
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-answered:
		case <-t.C:
			close(r.stop)
			p.leave(r.finished)
			return nil, ctx.Err()
		}
	}
	if err != nil {
		<-r.finished
		return nil, err
	}
	return r, nil
}

// read sends the rows until the caller stops.
func (r *patientRows) read() {
	send := func(it item) bool {
		select {
		case r.items <- it:
			return true
		case <-r.stop:
			return false
		}
	}
	width := len(r.columns)
	for {
		it := item{row: make([]driver.Value, width)}
		it.err = r.base.Next(it.row)
		for i, v := range it.row {
			if b, ok := v.([]byte); ok && it.err == nil {
				it.row[i] = bytes.Clone(b) // the driver's own until the next Next
			}
		}
		sets, ok := r.base.(driver.RowsNextResultSet)
		it.more = it.err == io.EOF && ok && sets.HasNextResultSet()
		if !send(it) || it.err != nil && !it.more {
			return
		}
		if it.err == nil {
			continue
		}
		select {
		case answer := <-r.next:
			err := sets.NextResultSet()
			r.columns = r.base.Columns()
			width = len(r.columns)
			answer <- err
			if err != nil {
				return
			}
		case <-r.stop:
			return
		}
	}
}

func (r *patientRows) Columns() []string { return r.columns }

func (r *patientRows) Next(dest []driver.Value) error {
	if r.last.err != nil {
		return r.last.err
	}
	select {
	case it := <-r.items:
		r.last = it
		copy(dest, it.row)
		return it.err
	default:
	}
	select {
	case it := <-r.items:
		r.last = it
		copy(dest, it.row)
		return it.err
	case <-r.ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case it := <-r.items:
		r.last = it
		copy(dest, it.row)
		return it.err
	case <-t.C:
		r.last.err = r.ctx.Err()
		return r.last.err
	}
}

func (r *patientRows) Close() error {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	// Without an answer in time the goroutine keeps the connection.
	if err := r.conn.await(r.ctx, r.finished); err != nil {
		return err
	}
	return r.closeErr
}

func (r *patientRows) HasNextResultSet() bool { return r.last.more }

func (r *patientRows) NextResultSet() error {
	if !r.last.more {
		return io.EOF
	}
	answer := make(chan error, 1)
	select {
	case r.next <- answer:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	select {
	case err := <-answer:
		r.last = item{}
		return err
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func (r *patientRows) ColumnTypeDatabaseTypeName(i int) string {
	if b, ok := r.base.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return b.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

func (r *patientRows) ColumnTypeLength(i int) (int64, bool) {
	if b, ok := r.base.(driver.RowsColumnTypeLength); ok {
		return b.ColumnTypeLength(i)
	}
	return 0, false
}

func (r *patientRows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	if b, ok := r.base.(driver.RowsColumnTypePrecisionScale); ok {
		return b.ColumnTypePrecisionScale(i)
	}
	return 0, 0, false
}

func (r *patientRows) ColumnTypeScanType(i int) reflect.Type {
	if b, ok := r.base.(driver.RowsColumnTypeScanType); ok {
		return b.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}
