package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nines-go/nines/cluster"
)

// order is what travels.
type order struct {
	Keys []string `json:",omitempty"`
	All  bool     `json:",omitempty"`
}

// handle applies an order of another node. The sender's Invalidate returns after it, and whatever the sender posts later is handled after it.
func (c *Cache[V]) handle(_ context.Context, _ string, payload []byte) ([]byte, error) {
	var o order
	if err := json.Unmarshal(payload, &o); err != nil {
		c.drop() // of a later version: rather too much than too little
		return nil, nil
	}
	c.apply(o)
	return nil, nil
}

func (c *Cache[V]) apply(o order) {
	if o.All {
		c.drop()
		return
	}
	c.remove(o.Keys)
}

// Invalidate takes keys out of the cache on every node. Call it after the change is committed, and publish the change after it has returned: no
// Get that begins then, on any member, returns what was there before.
//
// It returns nil when every member has applied it, or is dead, or has left, or was declared failed: that one drops everything when it comes
// back. A member whose Fate is suspect is waited for until it answers or fails. Otherwise it returns *cluster.PeersError with those that had not
// answered when ctx ended, which may have applied it; calling it again is safe. Before the first settled view it waits for that.
func (c *Cache[V]) Invalidate(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return c.everywhere(ctx, order{Keys: keys})
}

// InvalidateAll is Invalidate for everything.
func (c *Cache[V]) InvalidateAll(ctx context.Context) error {
	return c.everywhere(ctx, order{All: true})
}

func (c *Cache[V]) everywhere(ctx context.Context, o order) error {
	if err := c.Check(ctx); err != nil {
		return err
	}
	payload, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("cache: invalidate in %q: %w", c.cfg.Name, err)
	}
	c.apply(o)
	if err := c.settled(ctx); err != nil {
		return fmt.Errorf("cache: invalidate in %q: %w", c.cfg.Name, err)
	}
	n := c.cfg.Node
	var mu sync.Mutex
	failed := map[string]error{}
	var wg sync.WaitGroup
	for _, m := range n.Members() { // Alive, and those that are about to be in it
		switch m.State {
		case cluster.FateFailed:
			_ = n.TryPost(m.ID, c.topic, payload) // so that it comes with the first bytes after its return
			continue
		case cluster.FateLeft, cluster.FateDead:
			continue
		}
		if m.ID == n.ID() {
			continue
		}
		wg.Go(func() {
			if err := c.ask(ctx, m.ID, payload); err != nil {
				mu.Lock()
				failed[m.ID] = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, err := range failed {
		if errors.Is(err, cluster.ErrClosed) {
			return fmt.Errorf("cache: invalidate in %q: %w", c.cfg.Name, err)
		}
	}
	if len(failed) > 0 {
		return &cluster.PeersError{Failed: failed}
	}
	return nil
}

// settled waits until the Node knows who is here.
func (c *Cache[V]) settled(ctx context.Context) error {
	n := c.cfg.Node
	changed := make(chan struct{}, 1)
	defer n.Notify(changed)()
	for n.Alive() == nil {
		if err := n.Check(ctx); errors.Is(err, cluster.ErrClosed) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// ask has a member apply an order, and returns nil too when it need not any more.
func (c *Cache[V]) ask(ctx context.Context, id string, payload []byte) error {
	n := c.cfg.Node
	changed := make(chan struct{}, 1)
	defer n.Notify(changed)()
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := n.Request(asking, id, c.topic, payload)
		done <- err
	})
	defer wg.Wait()
	for {
		select {
		case err := <-done:
			switch {
			case err == nil, errors.Is(err, cluster.ErrNoMember), errors.Is(err, cluster.ErrNoHandler), n.Fate(id) == cluster.FateFailed:
				return nil // it has applied it, is gone, has no such cache, or will drop all
			}
			return err
		case <-changed:
			if n.Fate(id) == cluster.FateFailed {
				cancel(nil) // what was sent stays on its way
				return nil
			}
		}
	}
}
