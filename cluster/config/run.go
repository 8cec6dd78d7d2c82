package config

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
)

const (
	lookInterval = 5 * time.Second
	retryAfter   = 30 * time.Second
	pullTimeout  = 10 * time.Second
)

// Run catches up with what others saved, keeps the tags true and calls the OnChange functions, until Shutdown or the end of ctx. It returns nil
// then. Run the Store beside its Node; without a Node it only calls the functions.
func (s *Store[T]) Run(ctx context.Context) error {
	ok, err := s.life.Start()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if !ok {
		return nil
	}
	defer s.life.Finish()
	defer s.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.deliver(ctx) })
	defer wg.Wait()
	defer cancel()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.wake:
		case <-tick.C:
			s.tell() // the keys may have been replaced
		case <-s.life.Stopping():
			return nil
		case <-ctx.Done():
			return nil
		}
		if n := s.node.Load(); n != nil {
			s.catchUp(ctx, n)
		}
	}
}

// Shutdown ends Run and waits for it within ctx. The Store leaves its Node; Get answers as before, and everything that would change something
// answers ErrClosed.
func (s *Store[T]) Shutdown(ctx context.Context) error {
	s.close()
	return s.life.Stop(ctx)
}

func (s *Store[T]) close() {
	s.endOnce.Do(func() {
		close(s.ended)
		s.mu.Lock()
		detach := s.detach
		s.mu.Unlock()
		for _, stop := range detach {
			stop()
		}
	})
}

// deliver calls the OnChange functions.
func (s *Store[T]) deliver(ctx context.Context) {
	for {
		now := s.now.Load()
		s.mu.Lock()
		watchers := s.watchers
		s.mu.Unlock()
		for _, w := range watchers {
			if w.last != now { // only this goroutine changes it
				old := w.last
				w.last = now
				w.fn(old.values, now.values)
			}
		}
		select {
		case <-now.next:
		case <-ctx.Done():
			return
		}
	}
}

// catchUp takes the newest version of all members.
func (s *Store[T]) catchUp(ctx context.Context, n *cluster.Node) {
	now := s.now.Load()
	if s.readOnly(now) || n.Alive() == nil {
		return
	}
	best, from := now.version, ""
	for _, id := range n.Alive() {
		if v, _, ok := told(n.Tag(id, tagHash)); ok && v.Compare(best) > 0 {
			best, from = v, id
		}
	}
	if from == "" {
		return
	}
	s.mu.Lock()
	wait := s.tried == best && time.Now().Before(s.retry)
	s.mu.Unlock()
	if wait {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	if err := s.pull(ctx, n, from); err != nil {
		s.mu.Lock()
		first := s.tried != best
		s.tried, s.retry = best, time.Now().Add(retryAfter)
		s.mu.Unlock()
		if first && ctx.Err() == nil {
			s.log.Error("a newer configuration cannot be taken", "version", best.Number, "from", nameOf(n, from), "error", err)
		}
	}
}
