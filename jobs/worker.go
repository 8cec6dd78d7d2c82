package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/internal/backoff"
)

// WorkerOptions are the limits of one kind of job.
type WorkerOptions struct {
	// Timeout ends an attempt's context; 0 is 1 h, negative is none.
	Timeout time.Duration
	// MaxAttempts is how often a job is tried; 0 is 20. EnqueueOptions.MaxAttempts comes first.
	MaxAttempts int
	// Backoff is the pause before the second attempt; it doubles up to 1 h, with jitter. 0 is 1 s.
	Backoff time.Duration
}

type worker struct {
	opts  WorkerOptions
	stats KindStats // guarded by Runner.mu
	run   func(ctx context.Context, e *execution) error
}

// execution is one claimed attempt. attempt is the fence: with the owner it names one claim among all that ever were.
type execution struct {
	r          *Runner
	w          *worker
	id         int64
	attempt    int64
	uncounted  int64
	max        int
	queue      string
	kind       string
	schedule   string
	limitKey   string
	dueUS      int64
	errors     string // of earlier attempts
	args       string
	began      time.Time
	delay      time.Duration // from when it could run to the claim
	cancel     context.CancelCauseFunc
	completing atomic.Bool // CompleteTx was called

	mu       sync.Mutex
	position string // as the database has it, or is about to
	output   string
}

// AddWorker makes fn run the jobs of A's kind in this process. Call it before Run. fn must return when ctx ends; the cause of ctx says
// why. nil means done; any other error, or a panic, is tried again until MaxAttempts, except Warn, Discard and Snooze. So is an attempt
// whose args do not decode: a node with another version of A may be able to.
//
// A kind without a worker is left to the nodes that have one.
func AddWorker[A Args](r *Runner, fn func(ctx context.Context, job *Job[A]) error, opts *WorkerOptions) error {
	if fn == nil {
		return errors.New("jobs: AddWorker: the function is nil")
	}
	kind, err := kindOf[A]()
	if err != nil {
		return fmt.Errorf("jobs: AddWorker: %w", err)
	}
	w := &worker{}
	if opts != nil {
		w.opts = *opts
	}
	if w.opts.MaxAttempts < 0 || w.opts.Backoff < 0 {
		return fmt.Errorf("jobs: AddWorker %q: MaxAttempts is %d and Backoff %v: use 0 or more", kind, w.opts.MaxAttempts, w.opts.Backoff)
	}
	if w.opts.Timeout == 0 {
		w.opts.Timeout = defaultTimeout
	}
	if w.opts.MaxAttempts == 0 {
		w.opts.MaxAttempts = defaultMaxAttempts
	}
	if w.opts.Backoff == 0 {
		w.opts.Backoff = defaultBackoff
	}
	w.run = func(ctx context.Context, e *execution) error {
		job := &Job[A]{ID: e.id, Attempt: int(e.attempt - e.uncounted), e: e}
		if e.dueUS != 0 {
			job.Slot = time.UnixMicro(e.dueUS).UTC()
		}
		if err := json.Unmarshal([]byte(e.args), &job.Args); err != nil {
			return fmt.Errorf("args do not decode: %w", err)
		}
		return fn(ctx, job)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.life.Closed():
		return ErrClosed
	case r.running != nil && !r.stepped:
		return fmt.Errorf("jobs: AddWorker %q: call it before Run", kind)
	case r.workers[kind] != nil:
		return fmt.Errorf("jobs: AddWorker: kind %q has a worker already", kind)
	}
	r.workers[kind] = w
	return nil
}

// kindOf asks a zero A for its kind; a pointer type may not be able to say it from nil.
func kindOf[A Args]() (kind string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Kind of a zero value panics (%v): give Kind a value receiver and use the value type", p)
		}
	}()
	var a A
	kind = a.Kind()
	if err := validName(kind); err != nil {
		return "", fmt.Errorf("kind %q: %w", kind, err)
	}
	return kind, nil
}

var errTimeout = errors.New("timed out")

// execute runs one attempt to its end and hands the result on.
func (r *Runner) execute(ctx context.Context, e *execution) {
	if d := e.w.opts.Timeout; d > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, d, fmt.Errorf("%w after %v", errTimeout, d))
		defer stop()
	}
	err := e.guarded(ctx)
	res := result{e: e, took: time.Since(e.began)}
	cause := context.Cause(ctx)
	var v *verdict
	var later *snooze
	switch {
	case err == nil && !e.completing.Load():
		res.outcome = outSucceeded
	case err == nil:
		res.outcome, res.err = outSucceeded, errors.New("CompleteTx was called, and its transaction was not committed")
	case errors.Is(cause, ErrCancelled):
		res.outcome, res.err = outCancelled, err
	case errors.Is(err, errDisabled):
		res.outcome, res.err = outSkipped, errDisabled
	case errors.As(err, &later):
		res.outcome, res.pause = outSnoozed, later.pause
	case cause != nil && !errors.Is(cause, errTimeout):
		res.outcome, res.err = outPending, err // given back: shutdown, hard stop or loss of the lease
	case errors.As(err, &v):
		res.outcome, res.err = v.outcome, v.err
	default:
		if errors.Is(cause, errTimeout) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		res.outcome, res.err = outRetryable, err
		tries := int(e.attempt - e.uncounted)
		if tries >= e.max {
			res.outcome = outFailed
		}
		res.pause = backoff.Delay(tries-1, e.w.opts.Backoff, max(maxBackoff, e.w.opts.Backoff))
	}
	r.done(res)
}

func (e *execution) guarded(ctx context.Context) (err error) {
	finished := false
	defer func() {
		if finished {
			return
		}
		if p := recover(); p != nil {
			err = &panicError{value: p, stack: debug.Stack()}
		} else {
			err = errors.New("the worker ended its goroutine (runtime.Goexit)")
		}
	}()
	if err = e.r.enabled(ctx, e); err == nil {
		err = e.w.run(ctx, e)
	}
	finished = true
	return err
}

// lives asks whether the attempt is still the running one.
func (e *execution) lives(ctx context.Context, on execer) (bool, error) {
	const query = `SELECT count(*) FROM nines_jobs WHERE id=? AND attempt=? AND owner=? AND state+0=2`
	args := []any{e.id, e.attempt, e.r.id}
	var n int
	var err error
	if tx, ok := on.(txExecer); ok {
		err = tx.QueryRowContext(ctx, e.r.q(query), args...).Scan(&n)
	} else {
		err = e.r.one(ctx, on, query, args, &n)
	}
	return n == 1, err
}
