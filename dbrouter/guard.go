package dbrouter

import (
	"context"
	"runtime"
)

// guard returns a context for one attempt of a read, which also ends when the source is found hung, and its release.
func (c *read) guard(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.life = nil; c.s.role == roleMaster || c.s.role == roleRead {
		return ctx, func() {}
	}
	c.s.mu.Lock()
	c.life = c.s.life
	c.s.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(errHung) })
	return &lease{ctx}, func() { stop(); cancel(nil) }
}

// hung reports whether the source of the last attempt was found hung meanwhile: its error then says nothing.
func (c *read) hung() bool { return c.life != nil && c.life.Err() != nil }

// lease is the context of a guarded call. Rows and transactions keep it reachable until they end, which we have no other way to see.
type lease struct{ context.Context }

// retain leaves the release of a guard to the end of what was made with its context.
func retain(ctx context.Context, release context.CancelFunc) {
	if l, ok := ctx.(*lease); ok {
		runtime.AddCleanup(l, func(release context.CancelFunc) { release() }, release)
		return
	}
	release()
}
