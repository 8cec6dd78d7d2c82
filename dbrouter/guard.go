package dbrouter

import (
	"context"
	"runtime"
	"sync"
)

// flights are the reads under way on a source. When it is found hung they are cancelled, so that they run elsewhere instead of waiting.
type flights struct {
	mu   sync.Mutex
	ring flight // its head
}

type flight struct {
	cancel     context.CancelCauseFunc
	prev, next *flight
	hung       bool // guarded by flights.mu
}

var flightPool = sync.Pool{New: func() any { return new(flight) }}

func (fs *flights) add(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.ring.next == nil {
		fs.ring.next, fs.ring.prev = &fs.ring, &fs.ring
	}
	f.prev, f.next = fs.ring.prev, &fs.ring
	f.prev.next, fs.ring.prev = f, f
}

// remove takes a flight out and reports whether its source was found hung meanwhile.
func (fs *flights) remove(f *flight) (hung bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.prev.next, f.next.prev = f.next, f.prev
	return f.hung
}

// abort cancels all.
func (fs *flights) abort(why error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.ring.next == nil {
		return
	}
	for f := fs.ring.next; f != &fs.ring; f = f.next {
		f.hung = true
		f.cancel(why)
	}
}

// begin begins a flight and returns its context.
func (fs *flights) begin(ctx context.Context) (context.Context, *flight) {
	f := flightPool.Get().(*flight)
	ctx, f.cancel = context.WithCancelCause(ctx)
	fs.add(f)
	return ctx, f
}

// end ends a flight whose result is complete; it reports whether the source was found hung meanwhile.
func (fs *flights) end(f *flight) bool {
	hung := fs.remove(f)
	f.cancel(nil)
	*f = flight{}
	flightPool.Put(f)
	return hung
}

// lease is the context of a flight that what was made in it keeps reachable until it ends, which we have no other way to see.
type lease struct{ context.Context }

// leave leaves the end of a flight to the end of what was made in it.
func (fs *flights) leave(l *lease, f *flight) {
	type end struct {
		fs *flights
		f  *flight
	}
	runtime.AddCleanup(l, func(e end) { e.fs.end(e.f) }, end{fs, f})
}

// guard begins the flight of an attempt and returns its context. It is over with land or retain.
func (c *read) guard(ctx context.Context) context.Context {
	if c.flight = nil; c.s.role == roleMaster || c.s.role == roleRead {
		return ctx
	}
	c.isHung = false
	ctx, c.flight = c.s.flights.begin(ctx)
	return ctx
}

// land ends a flight whose result is complete.
func (c *read) land() {
	if c.flight != nil {
		c.isHung = c.s.flights.end(c.flight)
		c.flight = nil
	}
}

// leased is guard for a call whose result outlives it: rows, a transaction.
func (c *read) leased(ctx context.Context) context.Context {
	ctx = c.guard(ctx)
	if c.flight == nil {
		return ctx
	}
	return &lease{ctx}
}

// retain leaves the end of a flight to the end of what was made in it.
func (c *read) retain(ctx context.Context) {
	if l, ok := ctx.(*lease); ok && c.flight != nil {
		c.s.flights.leave(l, c.flight)
		c.flight = nil
	}
}
