package jobs

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrClosed is returned by every method after Shutdown or the end of Run.
	ErrClosed = errors.New("jobs: runner closed")
	// ErrDuplicate is returned by Enqueue, EnqueueTx and Retry when a job of the same kind and unique key has not finished. The id
	// that comes with it is that job's.
	ErrDuplicate = errors.New("jobs: a job with this unique key is live")
	// ErrStale is returned by CompleteTx, Progress, Save and SaveTx when the attempt is over for the database: the job was rescued from this node,
	// cancelled or finished. It is also the cause of a worker's cancelled context then.
	ErrStale = errors.New("jobs: attempt is no longer the owner's")
	// ErrNotFound is returned by Get, Cancel, Retry, RunNow, Pause and Unschedule for a job or schedule that does not exist.
	ErrNotFound = errors.New("jobs: no such job")
	// ErrCancelled is the cause of a worker's context after Cancel.
	ErrCancelled = errors.New("jobs: cancelled on request")
	// ErrShutdown is the cause of a worker's context when Shutdown's patience ended; the job goes back uncounted.
	ErrShutdown = errors.New("jobs: runner shuts down")
)

type verdict struct {
	outcome string
	err     error
}

func (v *verdict) Error() string { return v.err.Error() }
func (v *verdict) Unwrap() error { return v.err }

// Warn returns an error by which a worker says: the job is done, with something that people should see. It is not retried.
func Warn(err error) error { return &verdict{outcome: outWarning, err: orUnknown(err)} }

// Discard returns an error by which a worker says: no further attempt can succeed. The job is not retried.
func Discard(err error) error { return &verdict{outcome: outDiscarded, err: orUnknown(err)} }

// snooze is a worker's wish to go on later.
type snooze struct{ pause time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("goes on in %v", s.pause) }

// Snooze returns an error by which a worker says: call me again after the pause, for the same job. The attempt does not count. With
// Job.Save a long job can be done in pieces. A pause below 0 is 0.
func Snooze(pause time.Duration) error { return &snooze{pause: max(pause, 0)} }

var errDisabled = errors.New("not enabled on the node that would have run it")

func orUnknown(err error) error {
	if err == nil {
		return errors.New("no reason given")
	}
	return err
}

// panicError is a worker's panic, kept with its stack.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }
