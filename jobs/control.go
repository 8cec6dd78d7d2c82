package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"github.com/nines-go/nines/internal/dialect"
)

// Cancel ends a job: at once when it waits; when it runs, by the end of its context with ErrCancelled, on its own node within a second.
// What has finished stays as it is, which is no error. ErrNotFound for an id that is not there (any more).
func (r *Runner) Cancel(ctx context.Context, id int64) error {
	if err := r.ensure(ctx); err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("jobs: cancel job %d: %w", id, err) }
	n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=3, outcome='cancelled', done_us={now} WHERE id=? AND state<2`, id)
	if err != nil {
		return fail(err)
	}
	if n > 0 {
		r.wake(topicDue) // a slot behind it may be held
		return nil
	}
	if _, err = r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET cancel=1 WHERE id=? AND state=2`, id); err != nil {
		return fail(err)
	}
	var state int
	switch err := r.one(ctx, r.cfg.DB, `SELECT state FROM nines_jobs WHERE id=?`, []any{id}, &state); {
	case errors.Is(err, sql.ErrNoRows):
		return fail(ErrNotFound)
	case err != nil:
		return fail(err)
	case state == stRunning:
		r.sendCancel(id)
	case state != stDone: // it went back to its queue in between; the flag may have missed it
		_, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=3, outcome='cancelled', done_us={now} WHERE id=? AND state<2`, id)
		if err != nil {
			return fail(err)
		}
	}
	return nil
}

func (r *Runner) sendCancel(id int64) {
	r.cancelHere(id)
	if r.cfg.Cluster != nil {
		r.cfg.Cluster.TryBroadcast(topicCancel, strconv.AppendInt(nil, id, 10))
	}
}

// Retry makes a finished job available again, whatever its outcome, with at least one more attempt; one that waits for its time may run
// now. A job that failed goes on from the position that it saved, one that had succeeded begins anew. A running one is left alone. ErrNotFound for an id that is not there; ErrDuplicate when its unique key is live again.
func (r *Runner) Retry(ctx context.Context, id int64) error {
	if err := r.ensure(ctx); err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("jobs: retry job %d: %w", id, err) }
	// The attempts so far no longer count, but stay numbered: the number is the fence against a worker of before.
	n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET position=CASE WHEN outcome IN ('succeeded','warning') THEN '' ELSE position END, output='', outcome='pending', run_us={now}, deadline_us=0,
		held=CASE WHEN limit_key IS NULL THEN 0 ELSE 2 END, cancel=0, owner=NULL, progress=0, note='', done_us=0, uncounted=attempt, state=CASE WHEN limit_key IS NULL THEN 1 ELSE 0 END
		WHERE id=? AND state IN (0,3) AND (unique_key IS NULL OR state=0 OR NOT EXISTS (`+r.rivals()+`))`, id)
	if err != nil {
		return fail(err)
	}
	if n > 0 {
		r.wake(topicDue)
		return nil
	}
	var state int
	switch err := r.one(ctx, r.cfg.DB, `SELECT state FROM nines_jobs WHERE id=?`, []any{id}, &state); {
	case errors.Is(err, sql.ErrNoRows):
		return fail(ErrNotFound)
	case err != nil:
		return fail(err)
	case state == stDone:
		return fail(ErrDuplicate)
	}
	return nil
}

// rivals selects live jobs with the unique key of the one that is to live again.
func (r *Runner) rivals() string {
	if r.d == dialect.MySQL { // where the table that is changed can only be read as a derived one
		return `SELECT 1 FROM (SELECT kind, live_key, id FROM nines_jobs WHERE live_key IS NOT NULL) o WHERE o.kind=nines_jobs.kind AND o.live_key=nines_jobs.unique_key AND o.id<>nines_jobs.id`
	}
	return `SELECT 1 FROM nines_jobs o WHERE o.kind=nines_jobs.kind AND o.unique_key=nines_jobs.unique_key AND o.state<3 AND o.id<>nines_jobs.id`
}

// RunNow enqueues a job of a schedule beside its slots, whether it is paused or not, and whatever Enabled says. ErrNotFound for a schedule that nobody registered.
func (r *Runner) RunNow(ctx context.Context, schedule string) error {
	if err := r.ensure(ctx); err != nil {
		return err
	}
	if err := r.registered(ctx, schedule); err != nil {
		return fmt.Errorf("jobs: run schedule %q now: %w", schedule, err)
	}
	// No due time: the slot of this instant may be one of the rule's.
	n, err := r.exec(ctx, r.cfg.DB, `INSERT INTO nines_jobs (kind, queue, state, outcome, priority, run_us, deadline_us, attempt, uncounted, max_attempts, node, schedule, held, cancel, limit_key, limit_max, args, progress, note, error, created_us, started_us, done_us)
		SELECT kind, queue, CASE WHEN limit_key IS NULL THEN 1 ELSE 0 END, 'pending', priority, {now}, 0, 0, 0, max_attempts, '', name, CASE WHEN limit_key IS NULL THEN 0 ELSE 2 END, 0, limit_key, limit_max, args, 0, '', '', {now}, 0, 0
		FROM nines_job_schedules WHERE name=?`, schedule)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("jobs: run schedule %q now: %w", schedule, err)
	}
	r.wake(topicDue)
	return nil
}

// Pause stops a schedule's slots for the whole cluster, or lets them go on. Slots of the pause are not caught up. It lasts over restarts.
func (r *Runner) Pause(ctx context.Context, schedule string, on bool) error {
	if err := r.ensure(ctx); err != nil {
		return err
	}
	err := r.registered(ctx, schedule)
	if err == nil {
		err = r.pause(ctx, schedule, on)
	}
	if err != nil {
		return fmt.Errorf("jobs: pause schedule %q: %w", schedule, err)
	}
	r.wake(topicTick)
	return nil
}

// registered writes the schedule's row if this process has not got round to it.
func (r *Runner) registered(ctx context.Context, name string) error {
	r.mu.Lock()
	s := r.schedules[name]
	waiting := s != nil && !s.written
	r.mu.Unlock()
	if !waiting {
		return nil
	}
	_, err := r.register(ctx)
	return err
}

func (r *Runner) pause(ctx context.Context, name string, on bool) error {
	for ctx.Err() == nil {
		var s schedule
		var paused, now int64
		found := false
		err := r.each(ctx, r.cfg.DB, `SELECT `+scheduleColumns+`, paused, {now} FROM nines_job_schedules WHERE name=?`, []any{name}, func(rows *sql.Rows) error {
			found = true
			return s.scan(rows, &paused, &now)
		})
		switch {
		case err != nil:
			return err
		case !found:
			return ErrNotFound
		case on == (paused == 1):
			return nil
		}
		next := s.nextUS
		if !on {
			if next, err = s.nextAfter(now); err != nil {
				return err
			}
		}
		n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_job_schedules SET paused=?, next_us=? WHERE name=? AND next_us=? AND paused=?`, map[bool]int{true: 1}[on], next, name, s.nextUS, paused)
		if err != nil || n == 1 {
			return err
		}
	}
	return ctx.Err()
}
