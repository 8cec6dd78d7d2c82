package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// Args names the kind of the job that it is the input of. Kind is constant for a type, 1 to 128 bytes of printable ASCII. The value is
// kept as JSON, at most 1 MiB; it may be read by an older or a newer version of the program during a rolling update.
type Args interface{ Kind() string }

// Job is one attempt at a job, as its worker sees it. It must not be used after the worker has returned.
type Job[A Args] struct {
	// ID is the job's for its whole life, over all attempts.
	ID int64
	// Args is the input.
	Args A
	// Attempt counts from 1; attempts that were given back by Shutdown do not count.
	Attempt int
	// Slot is the due time of a scheduled job, which may be long ago; zero for others and for RunNow.
	Slot time.Time

	e *execution
}

// Progress records how far the attempt is, 0 to 100, and a note of at most 1,000 bytes, for List. It is one statement on the database:
// call it as often as people look. ErrStale when the attempt is over.
func (j *Job[A]) Progress(ctx context.Context, percent int, note string) error {
	return j.e.set(ctx, j.e.r.cfg.DB, "progress", `progress=?, note=?`, min(max(percent, 0), 100), cutText(note, 1000))
}

// Resume reads into position, a pointer, what Save or SaveTx kept last, in this attempt or an earlier one, and reports whether there was
// anything. A worker that goes on from there loses no more than one piece of its work to a crash, a deploy or an error.
func (j *Job[A]) Resume(position any) (bool, error) {
	j.e.mu.Lock()
	text := j.e.position
	j.e.mu.Unlock()
	if text == "" {
		return false, nil
	}
	if err := json.Unmarshal([]byte(text), position); err != nil {
		return false, fmt.Errorf("jobs: the position of job %d does not decode: %w", j.ID, err)
	}
	return true, nil
}

// Save keeps a position for Resume, as JSON of at most 64 KiB, beside the work done so far: after a crash between the two the last piece
// is done again. ErrStale when the attempt is over: stop.
func (j *Job[A]) Save(ctx context.Context, position any) error {
	return j.e.save(ctx, j.e.r.cfg.DB, position)
}

// SaveTx keeps a position in the caller's transaction, with the piece of work that it stands for: each piece takes effect once, however
// often the job is attempted. ErrStale when the attempt is over: roll back and stop. After any other rollback return the error too: Resume
// is right again in the next attempt.
func (j *Job[A]) SaveTx(ctx context.Context, tx Tx, position any) error {
	if err := checkTx(tx); err != nil {
		return err
	}
	return j.e.save(ctx, txExecer{tx}, position)
}

// SetOutput sets what the job leaves behind for people and for those who enqueued it: JSON of at most 1 MiB, in Info.Output. It is written
// when the attempt succeeds, ends with a warning, or by CompleteTx; the last call counts. What an attempt that failed has set is dropped.
func (j *Job[A]) SetOutput(output any) error {
	text, err := json.Marshal(output)
	switch {
	case err != nil:
		return fmt.Errorf("jobs: the output of job %d: %w", j.ID, err)
	case len(text) > maxArgs:
		return fmt.Errorf("jobs: the output of job %d has %d bytes: use at most %d, and keep large data elsewhere", j.ID, len(text), maxArgs)
	}
	j.e.mu.Lock()
	defer j.e.mu.Unlock()
	j.e.output = string(text)
	return nil
}

// CompleteTx makes the job succeed with the caller's transaction: both commit or neither does, so that the effect happens once however
// often the job is attempted. Commit before the worker returns; when the worker returns nil and the transaction was not committed, the
// attempt has failed. ErrStale when the attempt is over: roll back.
func (j *Job[A]) CompleteTx(ctx context.Context, tx Tx) error {
	if err := checkTx(tx); err != nil {
		return err
	}
	j.e.completing.Store(true)
	return j.e.set(ctx, txExecer{tx}, "completion", `state=3, outcome='succeeded', progress=100, error='', output=?, done_us={now}`, j.e.result())
}

const maxPosition = 64 << 10

func (e *execution) save(ctx context.Context, on execer, position any) error {
	text, err := json.Marshal(position)
	switch {
	case err != nil:
		return fmt.Errorf("jobs: the position of job %d: %w", e.id, err)
	case len(text) > maxPosition:
		return fmt.Errorf("jobs: the position of job %d has %d bytes: use at most %d", e.id, len(text), maxPosition)
	}
	if err := e.set(ctx, on, "position", `position=?`, string(text)); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.position = string(text)
	return nil
}

func (e *execution) result() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.output
}

// set changes the job's row while it is this attempt's.
func (e *execution) set(ctx context.Context, on execer, what, set string, args ...any) error {
	n, err := e.r.exec(ctx, on, `UPDATE nines_jobs SET `+set+` WHERE id=? AND attempt=? AND owner=? AND state+0=2`, append(args, e.id, e.attempt, e.r.id)...)
	if err == nil && n == 0 { // MySQL counts a row that did not change as none
		var lives bool
		if lives, err = e.lives(ctx, on); err == nil && !lives {
			return ErrStale
		}
	}
	if err != nil {
		return fmt.Errorf("jobs: %s of job %d: %w", what, e.id, err)
	}
	return nil
}

// cutText shortens s to n bytes without cutting a character, and takes out what a text column refuses.
func cutText(s string, n int) string {
	b := make([]rune, 0, min(len(s), n))
	size := 0
	for _, c := range s {
		if c == 0 || c == utf8.RuneError {
			c = '?'
		}
		if size += utf8.RuneLen(c); size > n {
			break
		}
		b = append(b, c)
	}
	return string(b)
}
