package dbrouter

import (
	"context"
	"time"
)

// timeout gives a call the deadline QueryTimeout unless it has an earlier one.
func (t *topology) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	d := t.cfg.QueryTimeout
	if d <= 0 {
		return ctx, func() {}
	}
	if at, ok := ctx.Deadline(); ok && time.Until(at) <= d {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// poolerTimeout does the same for calls whose result outlives them, behind a pooler, where the server's own timeout is not ours to set.
func (t *topology) poolerTimeout(ctx context.Context) context.Context {
	if !t.cfg.Pooler {
		return ctx
	}
	ctx, cancel := t.timeout(ctx)
	context.AfterFunc(ctx, cancel)
	return ctx
}
