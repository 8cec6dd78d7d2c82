package jobs

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nines-go/nines/internal/backoff"
	"github.com/nines-go/nines/internal/dialect"
)

const tickBatch = 100

// scheduleLoop schedules while this process leads, or always without a Leader.
func (r *Runner) scheduleLoop(ctx context.Context) {
	lead := func(ctx context.Context, term uint64) error {
		r.scheduling.Store(true)
		kick(r.kickBeat)
		r.log.Debug("jobs: this process schedules", "term", term)
		defer func() {
			r.scheduling.Store(false)
			kick(r.kickBeat)
		}()
		r.loop(ctx, "schedule", r.kickTick, r.tick)
		return ctx.Err()
	}
	if r.cfg.Leader == nil {
		_ = lead(ctx, 0)
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		err := r.cfg.Leader.LeadFenced(ctx, lead)
		if ctx.Err() != nil {
			return
		}
		r.log.Debug("jobs: leadership ended", "error", err)
		if !pause(ctx, backoff.Delay(min(n, 5), 20*time.Millisecond, time.Second)) {
			return
		}
	}
}

var errTaken = errors.New("another scheduler was here first")

// tick inserts the slots that are due, and returns the time until the next one is.
func (r *Runner) tick(ctx context.Context) (time.Duration, error) {
	var due, now int64
	if err := r.one(ctx, r.cfg.DB, `SELECT COALESCE(min(next_us),0), {now} FROM nines_job_schedules WHERE paused=0`, nil, &due, &now); err != nil {
		return 0, err
	}
	if due == 0 {
		return r.cfg.Poll, nil
	}
	if due > now {
		return min(time.Duration(min(due-now, r.cfg.Poll.Microseconds()))*time.Microsecond, r.cfg.Poll), nil
	}
	var inserted int
	var replaced []int64
	moved := false
	err := r.inTx(ctx, func(tx *sql.Tx) error {
		inserted, replaced, moved = 0, nil, false
		var rows []schedule
		err := r.each(ctx, tx, `SELECT `+scheduleColumns+`, {now} FROM nines_job_schedules WHERE paused=0 AND next_us<={now} ORDER BY name LIMIT `+strconv.Itoa(tickBatch)+` {lock}`, nil, func(sr *sql.Rows) error {
			var s schedule
			if err := s.scan(sr, &now); err != nil {
				return err
			}
			rows = append(rows, s)
			return nil
		})
		if err != nil {
			return err
		}
		for i := range rows {
			n, cancelled, err := r.advance(ctx, tx, &rows[i], now)
			switch {
			case errors.Is(err, errRule):
				continue
			case err != nil:
				return err
			}
			moved = true
			inserted += n
			replaced = append(replaced, cancelled...)
		}
		return nil
	})
	if errors.Is(err, errTaken) {
		return time.Millisecond, nil
	}
	if err != nil {
		return 0, err
	}
	if inserted > 0 {
		r.counters.slots.Add(int64(inserted))
		r.wake(topicDue)
	}
	for _, id := range replaced {
		r.sendCancel(id)
	}
	if !moved { // others hold the rows, or a newer version must read them
		return min(r.cfg.Poll, 50*time.Millisecond), nil
	}
	return 0, nil
}

var errRule = errors.New("the row is not understood")

// advance inserts the due slots of one schedule and moves its next due time, by compare-and-set: with the unique slot that is all that
// keeps any number of schedulers from losing or doubling one.
func (r *Runner) advance(ctx context.Context, tx *sql.Tx, s *schedule, now int64) (inserted int, replaced []int64, err error) {
	spec, loc, catchUp, err := s.rule()
	if err != nil {
		r.log.Error("jobs: a schedule's row is not understood by this process", "schedule", s.name, "error", err)
		return 0, nil, errRule
	}
	p := planSlots(spec, loc, catchUp, time.Duration(s.deadlineUS)*time.Microsecond, time.UnixMicro(s.nextUS), time.UnixMicro(now))
	if missed := p.passed + len(p.skipped); missed > 0 {
		r.log.Warn("jobs: slots were missed and do not run", "schedule", s.name, "missed", missed, "unrecorded", p.passed)
	}
	for _, at := range p.skipped {
		if err := r.insertSlot(ctx, tx, s, at, "missed", false); err != nil {
			return 0, nil, err
		}
	}
	held := false
	if len(p.run) > 0 && s.overlap != overlaps[OverlapAllow] {
		var live int
		if err := r.one(ctx, tx, `SELECT count(*) FROM nines_jobs WHERE {live_of}=? AND state<3`, []any{s.name}, &live); err != nil {
			return 0, nil, err
		}
		switch {
		case live > 0 && s.overlap == overlaps[OverlapSkip]:
			for _, at := range p.run {
				if err := r.insertSlot(ctx, tx, s, at, "the one before it has not finished", false); err != nil {
					return 0, nil, err
				}
			}
			p.run = nil
		case live > 0 && s.overlap == overlaps[OverlapReplace]:
			if replaced, err = r.replace(ctx, tx, s.name); err != nil {
				return 0, nil, err
			}
			held = true
		default:
			held = live > 0 || len(p.run) > 1
		}
	}
	for _, at := range p.run {
		if err := r.insertSlot(ctx, tx, s, at, "", held); err != nil {
			return 0, nil, err
		}
	}
	last := s.nextUS
	for _, at := range append(p.skipped, p.run...) {
		last = max(last, at.UnixMicro())
	}
	n, err := r.exec(ctx, tx, `UPDATE nines_job_schedules SET next_us=?, last_us=? WHERE name=? AND next_us=?`, slotUS(p.next), last, s.name, s.nextUS)
	if err == nil && n != 1 {
		err = errTaken
	}
	return len(p.run), replaced, err
}

// insertSlot inserts one slot, with why it is skipped or "".
func (r *Runner) insertSlot(ctx context.Context, tx *sql.Tx, s *schedule, at time.Time, skipped string, held bool) error {
	due := at.UnixMicro()
	run := due
	if s.jitterUS > 0 {
		run += rand.Int64N(s.jitterUS)
	}
	deadline := int64(0)
	if s.deadlineUS > 0 {
		deadline = due + s.deadlineUS
		run = min(run, deadline)
	}
	state, outcome, done, hold := `0`, outPending, `0`, heldNot
	args := []any{s.kind, s.queue}
	switch {
	case skipped != "":
		state, outcome, done = `3`, outSkipped, `{now}`
	case held:
		hold = heldBySlot
	case s.limitKey == "":
		state = `CASE WHEN ?<={now} THEN 1 ELSE 0 END`
		args = append(args, run)
	}
	args = append(args, outcome, s.priority, run, deadline, s.maxAttempts, s.name, due, hold, orNull(s.limitKey), s.limitMax, s.args, skipped)
	end := ` ON CONFLICT (schedule, due_us) WHERE schedule IS NOT NULL DO NOTHING`
	if r.d == dialect.MySQL {
		end = ` ON DUPLICATE KEY UPDATE id=id`
	}
	_, err := r.exec(ctx, tx, `INSERT INTO nines_jobs (kind, queue, state, outcome, priority, run_us, deadline_us, attempt, uncounted, max_attempts, node, schedule, due_us, held, cancel, limit_key, limit_max, args, progress, note, error, created_us, started_us, done_us) VALUES (?,?,`+
		state+`,?,?,?,?,0,0,?,'',?,?,?,0,?,?,?,0,'',?,{now},0,`+done+`)`+end, args...)
	return err
}

// replace cancels what is live of a schedule, in the order of ids and passing over rows that others are at work on, so that it never
// waits for them: such a job ends by itself, and the new slot waits for it.
func (r *Runner) replace(ctx context.Context, tx *sql.Tx, name string) (running []int64, err error) {
	ids, err := r.ids(ctx, tx, `SELECT id FROM nines_jobs WHERE {live_of}=? AND state<3 ORDER BY id {lock}`, name)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		n, err := r.exec(ctx, tx, `UPDATE nines_jobs SET state=3, outcome='cancelled', error='replaced by a newer slot', done_us={now} WHERE id=? AND state<2`, id)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			if _, err := r.exec(ctx, tx, `UPDATE nines_jobs SET cancel=1 WHERE id=? AND state=2`, id); err != nil {
				return nil, err
			}
			running = append(running, id)
		}
	}
	return running, nil
}
