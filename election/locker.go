package election

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
)

// locker runs the session lock that the machine wishes for: one task at a time.
type locker struct {
	l      *loop
	wish   core.LockWish
	gen    uint64
	cancel context.CancelFunc
	done   chan struct{}
	pooler atomic.Bool // no locks until the pool is replaced
}

func (k *locker) set(wish core.LockWish) {
	e := k.l.e
	if e.store == nil || !e.lock.Supported() {
		return
	}
	gen := lease.Generation(e.cfg.DB)
	if wish == k.wish && gen == k.gen {
		return
	}
	if k.cancel != nil {
		k.cancel()
	}
	if gen != k.gen {
		k.pooler.Store(false)
	}
	k.wish, k.gen, k.cancel = wish, gen, nil
	if wish == (core.LockWish{}) || k.pooler.Load() {
		return
	}
	ctx, cancel := context.WithCancel(k.l.ctx)
	before, done := k.done, make(chan struct{})
	k.cancel, k.done = cancel, done
	k.l.wg.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		k.task(ctx, wish)
	})
}

func (k *locker) task(ctx context.Context, wish core.LockWish) {
	e := k.l.e
	for ctx.Err() == nil {
		if wish.Hold != 0 {
			taken := false
			err := e.lock.Hold(ctx, wish.Hold, func(session string) {
				taken = true
				e.post(core.LockTaken{Term: wish.Hold, Session: session})
			})
			if ctx.Err() != nil {
				return
			}
			if taken {
				e.post(core.LockLost{Term: wish.Hold})
			}
			e.cfg.Logger.Debug("session lock lost", "election", e.cfg.Name, "error", err)
			if k.off(err) {
				return
			}
		} else if err := e.lock.Wait(ctx, wish.Wait, wish.Session); err == nil {
			e.post(core.Evidence{Term: wish.Wait, Session: wish.Session})
			return
		} else if k.off(err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(e.cfg.TTL / 6):
		}
	}
}

// off ends the use of session locks when there is a pooler.
func (k *locker) off(err error) bool {
	if !errors.Is(err, lease.ErrPooler) {
		return false
	}
	e := k.l.e
	if !k.pooler.Swap(true) {
		e.cfg.Logger.Info("fail-over waits for the lease", "election", e.cfg.Name, "reason", err)
		e.mu.Lock()
		e.stats.Pooler = true
		e.mu.Unlock()
	}
	return true
}
