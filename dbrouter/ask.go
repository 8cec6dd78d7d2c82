package dbrouter

import (
	"context"
	"sync"
)

// asker asks a server where it stands, once for all who want to know at the same moment. An answer is only given to those who came before
// its question was sent: what they saw before they came is part of it.
type asker struct {
	mu      sync.Mutex
	running *answer // asked, not answered yet
	waiting *answer // of those who came meanwhile; it is asked next
}

// answer is one question and what came of it.
type answer struct {
	done chan struct{}
	at   position // applied; set before done is closed
	seen position // what reads before the question may have shown
	err  error
}

// ask returns the answer to a question that is sent after this call began. spawn runs the asking in a goroutine, or says that it is too late.
func (a *asker) ask(spawn func(func()) bool, query func() (at, seen position, err error)) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting != nil {
		return a.waiting
	}
	w := &answer{done: make(chan struct{})}
	if a.running != nil {
		a.waiting = w
		return w
	}
	a.running = w
	if !spawn(func() { a.run(query) }) {
		a.running, w.err = nil, ErrClosed
		close(w.done)
	}
	return w
}

func (a *asker) run(query func() (at, seen position, err error)) {
	for {
		a.mu.Lock()
		w := a.running
		a.mu.Unlock()
		w.at, w.seen, w.err = query()
		close(w.done)
		a.mu.Lock()
		a.running, a.waiting = a.waiting, nil
		done := a.running == nil
		a.mu.Unlock()
		if done {
			return
		}
	}
}

// wait returns what came of the question, or the context's end.
func (w *answer) wait(ctx context.Context) (position, error) {
	select {
	case <-w.done:
		return w.at, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask asks a source where it stands, in a question that is sent after the call began, and returns its answer to come.
// It has half a second, whoever wants to know.
func (r *Router) ask(s *source) *answer {
	return s.asker.ask(r.spawn, func() (at, seen position, err error) {
		ctx, cancel := context.WithTimeout(r.ctx, probeTimeout)
		defer cancel()
		o, err := s.observe(ctx)
		if err != nil {
			s.suspect()
			return nil, nil, err
		}
		s.learn(o)
		return o.at, o.seen, nil
	})
}

// spawn runs fn in a goroutine of the router, unless that is closed.
func (r *Router) spawn(fn func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.top.Load().closed {
		return false
	}
	r.wg.Go(fn)
	return true
}
