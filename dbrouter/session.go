package dbrouter

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// route is what a context says about its reads. One value holds all of it: looking it up is on the hot path.
type route struct {
	master  bool
	stale   time.Duration // how old what is read may be; 0: as MaxLag says
	session *Session
}

type routeKey struct{}

func routeOf(ctx context.Context) *route {
	rt, _ := ctx.Value(routeKey{}).(*route)
	return rt
}

// with returns a context whose route is that of ctx after change.
func with(ctx context.Context, change func(*route)) context.Context {
	var rt route
	if outer := routeOf(ctx); outer != nil {
		rt = *outer
	}
	change(&rt)
	return context.WithValue(ctx, routeKey{}, &rt)
}

// UseMaster returns a context whose reads go to the master: for what must be current, and for checks that decide about a write.
func UseMaster(ctx context.Context) context.Context {
	return with(ctx, func(rt *route) { rt.master = true })
}

// Stale returns a context whose reads may be up to d old, also where the session of ctx has written since, and whatever MaxLag says: a replica
// that trails by less than d serves them, and where none does, the master. The age is measured, not declared: a replica
// counts when it has everything that the master had d ago. d must be positive; others are taken as a nanosecond.
func Stale(ctx context.Context, d time.Duration) context.Context {
	return with(ctx, func(rt *route) { rt.stale = max(d, 1) })
}

// Session is a piece of work, such as a request, whose reads see its own writes and never go back in time. Its context may be used by several
// goroutines. A session may use several routers; each keeps its own account.
type Session struct {
	wrote  atomic.Bool
	tracks atomic.Pointer[track] // one for each router that has been used

	mu     sync.Mutex // guards what follows, and the growing of tracks
	tokens []string   // that came from elsewhere
}

// WithSession begins a session. Reads with the context that it returns, or with one made of it, see what calls with such a context have
// written before, through Master or in a transaction, and never an older state than a read before them: they run on replicas that have come
// so far, or wait up to 20 ms until one has, or run on the master. A context that is in a session already stays in that one.
func WithSession(ctx context.Context) (context.Context, *Session) {
	if rt := routeOf(ctx); rt != nil && rt.session != nil {
		return ctx, rt.session
	}
	s := &Session{}
	return with(ctx, func(rt *route) { rt.session = s }), s
}

// WithToken returns a context in which reads see what the session that gave the token had written and read. It begins a session when ctx is in
// none, else the session of ctx goes on from there, too. A token that is forged, foreign or expired sends the reads of the session
// to the master. An empty one says nothing.
func WithToken(ctx context.Context, token string) context.Context {
	ctx, s := WithSession(ctx)
	if token != "" {
		s.join(token)
	}
	return ctx
}

// Wrote reports whether the session has called the master, where it may have written.
func (s *Session) Wrote() bool { return s.wrote.Load() }

// join adds a token.
func (s *Session) join(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, token)
	for tr := s.tracks.Load(); tr != nil; tr = tr.next {
		tr.fold(token)
	}
}

// track returns the session's account with a router, a new one when there is none.
func (s *Session) track(r *Router) *track {
	for tr := s.tracks.Load(); tr != nil; tr = tr.next {
		if tr.r == r {
			return tr
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	head := s.tracks.Load()
	for tr := head; tr != nil; tr = tr.next {
		if tr.r == r {
			return tr
		}
	}
	tr := &track{r: r, session: s, next: head}
	for _, token := range s.tokens {
		tr.fold(token)
	}
	s.tracks.Store(tr)
	return tr
}

// trackOf returns the account of the session of ctx with a router, or nil.
func (r *Router) trackOf(ctx context.Context) *track {
	if rt := routeOf(ctx); rt != nil && rt.session != nil {
		return rt.session.track(r)
	}
	return nil
}
