// Package lifecycle holds the life of an active type: New, then Run once, then Shutdown or the end of Run's context.
package lifecycle

import (
	"context"
	"errors"
	"sync"
)

// Life is the state that Run and Shutdown share. The zero value is ready. It is safe for concurrent use.
type Life struct {
	mu      sync.Mutex
	started bool
	asked   chan struct{} // closed by the first Shutdown or by Finish
	done    chan struct{} // closed by Finish, or by Shutdown before Run
	closed  bool
}

func (l *Life) initLocked() {
	if l.asked == nil {
		l.asked, l.done = make(chan struct{}), make(chan struct{})
	}
}

// Start begins the one Run of a life. It reports false when Shutdown came first: Run then returns nil at once.
// A second Run is the caller's mistake and gets an error.
func (l *Life) Start() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.initLocked()
	if l.started {
		return false, errors.New("started twice: make a new one for another Run")
	}
	l.started = true
	return !l.closed, nil
}

// Finish ends the life: Run calls it when its last goroutine has returned.
func (l *Life) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.initLocked()
	l.closeLocked()
	select {
	case <-l.done:
	default:
		close(l.done)
	}
}

func (l *Life) closeLocked() {
	if !l.closed {
		l.closed = true
		close(l.asked)
	}
}

// Stopping is closed when Run should end in good order.
func (l *Life) Stopping() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.initLocked()
	return l.asked
}

// Closed reports whether methods should answer ErrClosed.
func (l *Life) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Done is closed when Run has returned, or never will run.
func (l *Life) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.initLocked()
	return l.done
}

// Stop asks Run to end and waits until it has, or until ctx ends. Before Run it makes a later Run return at once.
// It may be called any number of times.
func (l *Life) Stop(ctx context.Context) error {
	l.mu.Lock()
	l.initLocked()
	l.closeLocked()
	if !l.started {
		select {
		case <-l.done:
		default:
			close(l.done)
		}
	}
	done := l.done
	l.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
