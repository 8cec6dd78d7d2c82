package jobs

import (
	"context"
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
	e := j.e
	n, err := e.r.exec(ctx, e.r.cfg.DB, `UPDATE nines_jobs SET progress=?, note=? WHERE id=? AND attempt=? AND owner=? AND state=2`,
		min(max(percent, 0), 100), cutText(note, 1000), e.id, e.attempt, e.r.id)
	if err != nil {
		return fmt.Errorf("jobs: progress of job %d: %w", e.id, err)
	}
	if n == 0 && !e.lives(ctx) { // MySQL counts a row that did not change as none
		return ErrStale
	}
	return nil
}

// CompleteTx makes the job succeed with the caller's transaction: both commit or neither does, so that the effect happens once however
// often the job is attempted. Commit before the worker returns; when the worker returns nil and the transaction was not committed, the
// attempt has failed. ErrStale when the attempt is over: roll back.
func (j *Job[A]) CompleteTx(ctx context.Context, tx Tx) error {
	if err := checkTx(tx); err != nil {
		return err
	}
	e := j.e
	e.completing.Store(true)
	n, err := e.r.exec(ctx, txExecer{tx}, `UPDATE nines_jobs SET state=3, outcome='succeeded', progress=100, error='', done_us={now} WHERE id=? AND attempt=? AND owner=? AND state=2`,
		e.id, e.attempt, e.r.id)
	if err != nil {
		return fmt.Errorf("jobs: complete job %d: %w", e.id, err)
	}
	if n == 0 {
		return ErrStale
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
