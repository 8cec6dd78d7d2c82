package election

import "context"

// Lead waits until this process leads and nobody else can still be acting, runs fn with the term, and when leadership ends while fn runs,
// waits again. The context of fn ends before another process can begin to lead: fn should return then, for what it does afterwards is
// not excluded by anything but Fence. Lead returns fn's result when fn returns while this process still leads, the error of ctx, or
// ErrClosed. fn runs on the caller's goroutine.
func (e *Elector) Lead(ctx context.Context, fn func(ctx context.Context, term uint64) error) error {
	return e.lead(ctx, fn, true)
}

// LeadFenced is Lead, but starts fn as soon as a term is granted: the leader before may still be acting, so every effect of fn has to go
// through Fence or Commit. After a crash that is up to a TTL earlier.
func (e *Elector) LeadFenced(ctx context.Context, fn func(ctx context.Context, term uint64) error) error {
	return e.lead(ctx, fn, false)
}

func (e *Elector) lead(ctx context.Context, fn func(ctx context.Context, term uint64) error, unfenced bool) error {
	for {
		s, leave, err := e.enter(ctx, unfenced)
		if err != nil {
			return err
		}
		err, over := e.within(ctx, s, unfenced, leave, fn)
		switch {
		case !over:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// within runs fn until it returns, and says whether leadership was over by then.
func (e *Elector) within(ctx context.Context, s *span, unfenced bool, leave func(), fn func(ctx context.Context, term uint64) error) (err error, over bool) {
	defer leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })()
	watched := leadContext{ctx, func() {
		if t := e.valid(); t == nil || t.term != s.term || unfenced && !t.unfenced {
			s.cancel(ErrNotLeader)
			cancel(context.Cause(s.ctx))
		}
	}}
	err = fn(watched, s.term)
	return err, s.ctx.Err() != nil
}

// leadContext ends with the trust in the lease, by the clock: a process that was stopped and goes on finds it ended before any timer of it
// had the time to say so.
type leadContext struct {
	context.Context
	check func()
}

// Done looks at the clock first.
func (c leadContext) Done() <-chan struct{} {
	c.check()
	return c.Context.Done()
}

// Err looks at the clock first.
func (c leadContext) Err() error {
	c.check()
	return c.Context.Err()
}

// guard ends the contexts when trust ends, whatever the protocol loop is doing.
func (e *Elector) guard() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done || e.fenced == nil || e.valid() != nil {
		return
	}
	e.endSpansLocked(ErrNotLeader)
	e.stats.TermsLost++
	if s := e.state; s.Leading {
		e.setStateLocked(s.lapsed())
	}
	e.broadcastLocked()
	e.wake()
}

// enter waits for leadership and counts the caller among those that act, until leave is called.
func (e *Elector) enter(ctx context.Context, unfenced bool) (s *span, leave func(), err error) {
	for {
		e.mu.Lock()
		s = e.fenced
		if unfenced {
			s = e.unfenced
		}
		changed, done := e.changed, e.done
		if s != nil && unfenced {
			e.running++
		}
		e.mu.Unlock()
		switch {
		case s != nil && unfenced:
			return s, e.leave, nil
		case s != nil:
			return s, func() {}, nil
		case done || e.life.Closed():
			return nil, nil, ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-e.life.Stopping():
			return nil, nil, ErrClosed
		}
	}
}

func (e *Elector) leave() {
	e.mu.Lock()
	e.running--
	e.mu.Unlock()
	e.wake()
}
