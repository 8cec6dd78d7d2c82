package lease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Pin is a connection that is kept, or taken for each use. It serves one use at a time.
type Pin struct {
	DB     DB
	Pinned bool

	mu    sync.Mutex
	conn  *sql.Conn
	gen   uint64
	count uint64         // of connections that were taken; the last is conn
	stuck sync.WaitGroup // uses, which may outlive their context
}

// Generation is the number of the DB's pool where it has one: a pinned connection of an older pool has to be given back.
func Generation(db DB) uint64 {
	if g, ok := db.(interface{ Generation() uint64 }); ok {
		return g.Generation()
	}
	return 0
}

// grace is how much longer than its context a use may take.
const grace = 100 * time.Millisecond

// errStuck says that a use did not end with its context. What it sent may still happen.
var errStuck = errors.New("the database driver did not return in time")

// with runs fn on the connection of p. A pinned connection on which fn failed is thrown away, whatever state it is in. Drivers return
// late, or not at all, when the network falls silent: lib/pq asks the server to cancel, and waits for it. Then the use is left to end
// by itself, and the next one gets another connection.
func with[T any](ctx context.Context, p *Pin, fn func(c *sql.Conn) (T, error)) (T, error) {
	return counted(ctx, p, func(c *sql.Conn, _ uint64) (T, error) { return fn(c) })
}

// counted is with, and tells fn the number of the connection: another one has another.
func counted[T any](ctx context.Context, p *Pin, fn func(c *sql.Conn, n uint64) (T, error)) (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gen := Generation(p.DB)
	if p.conn != nil && p.gen != gen {
		discard(p.conn, p.Pinned)
		p.conn = nil
	}
	if p.conn == nil {
		p.count++
	}
	n := p.count
	type result struct {
		conn *sql.Conn
		v    T
		err  error
	}
	done := make(chan result, 1)
	var left atomic.Bool // by either side
	conn := p.conn
	p.conn = nil
	p.stuck.Go(func() {
		r := result{conn: conn}
		if r.conn == nil {
			r.conn, r.err = p.DB.Conn(ctx)
		}
		if r.err == nil {
			r.v, r.err = fn(r.conn, n)
		}
		if left.CompareAndSwap(false, true) {
			done <- r
		} else if r.conn != nil {
			discard(r.conn, p.Pinned || errors.Is(r.err, errDirty))
		}
	})
	late := make(chan struct{})
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, func() { close(late) }) })()
	var r result
	select {
	case r = <-done:
	case <-late:
		if left.CompareAndSwap(false, true) {
			var none T
			return none, errors.Join(errStuck, ctx.Err())
		}
		r = <-done
	}
	switch {
	case r.conn == nil:
	case r.err == nil && p.Pinned:
		p.conn, p.gen = r.conn, gen
	case r.err == nil:
		r.conn.Close()
	default:
		discard(r.conn, p.Pinned || errors.Is(r.err, errDirty))
	}
	return r.v, r.err
}

// discard gives a connection back; one that may hold locks and settings is not used again: its session has to end.
func discard(c *sql.Conn, bad bool) {
	if bad {
		_ = c.Raw(func(any) error { return driver.ErrBadConn })
	}
	c.Close()
}

// Discard ends the connection, and its session with it.
func (p *Pin) Discard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		discard(p.conn, p.Pinned)
		p.conn = nil
	}
}
