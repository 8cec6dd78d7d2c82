package dbrouter

import (
	"context"
	"sync/atomic"
)

// route is what a context says about its reads. One value holds all of it: looking it up is on the hot path.
type route struct {
	master  bool
	session *Session
}

type routeKey struct{}

func routeOf(ctx context.Context) *route {
	rt, _ := ctx.Value(routeKey{}).(*route)
	return rt
}

func (rt *route) toMaster() bool {
	return rt.master || rt.session != nil && rt.session.wrote.Load()
}

// UseMaster returns a context whose reads go to the master: for what was just written, and for checks that decide about a write.
func UseMaster(ctx context.Context) context.Context {
	rt := route{master: true}
	if outer := routeOf(ctx); outer != nil {
		rt.session = outer.session
	}
	return context.WithValue(ctx, routeKey{}, &rt)
}

// Session is a piece of work, such as a request, whose reads see its own writes. Its context may be used by several goroutines.
type Session struct{ wrote atomic.Bool }

// WithSession begins a session: once a call other than Ping has gone to the master with the context that it returns, or with one made of it, all reads
// with such a context go to the master. A transaction counts from its beginning, since its end is not the router's to see. A
// context that is in a session already stays in that one.
func WithSession(ctx context.Context) (context.Context, *Session) {
	var rt route
	if outer := routeOf(ctx); outer != nil {
		if outer.session != nil {
			return ctx, outer.session
		}
		rt.master = outer.master
	}
	rt.session = &Session{}
	return context.WithValue(ctx, routeKey{}, &rt), rt.session
}

// Wrote reports whether the session's reads go to the master by now. The next request of the same user should do so too, for as long as replicas may
// trail: give it UseMaster.
func (s *Session) Wrote() bool { return s.wrote.Load() }

// touch notes that a call of ctx goes to the master, where it may write.
func touch(ctx context.Context) {
	if rt := routeOf(ctx); rt != nil && rt.session != nil {
		rt.session.wrote.Store(true)
	}
}
