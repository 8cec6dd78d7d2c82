package cluster

import (
	"context"
	"sync"
)

// credit is a number of bytes that may be in use at once; those who wait get it in order.
type credit struct {
	size int64

	mu    sync.Mutex
	used  int64
	queue []*claim
}

type claim struct {
	n  int64
	ok chan struct{}
}

func newCredit(size int64) *credit { return &credit{size: size} }

func (c *credit) try(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 || c.used+n > c.size {
		return false
	}
	c.used += n
	return true
}

func (c *credit) take(ctx context.Context, n int64) error {
	c.mu.Lock()
	if len(c.queue) == 0 && c.used+n <= c.size {
		c.used += n
		c.mu.Unlock()
		return nil
	}
	w := &claim{n: n, ok: make(chan struct{})}
	c.queue = append(c.queue, w)
	c.mu.Unlock()
	select {
	case <-w.ok:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	for i := range c.queue {
		if c.queue[i] == w {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			c.grantLocked()
			c.mu.Unlock()
			return context.Cause(ctx)
		}
	}
	c.mu.Unlock()
	c.give(n) // granted at the same moment
	return context.Cause(ctx)
}

// give gives back; a nil credit is none.
func (c *credit) give(n int64) {
	if c == nil || n == 0 {
		return
	}
	c.mu.Lock()
	c.used -= n
	c.grantLocked()
	c.mu.Unlock()
}

func (c *credit) grantLocked() {
	for len(c.queue) > 0 && c.used+c.queue[0].n <= c.size {
		c.used += c.queue[0].n
		close(c.queue[0].ok)
		c.queue = c.queue[1:]
	}
}
