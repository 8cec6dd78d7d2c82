package jobs

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

const claimBatch = 200

type claimed struct {
	id, attempt, uncounted, maxAttempts, dueUS, deadlineUS, priority, runUS, now int64
	kind, schedule, args                                                         string
}

const claimedColumns = `id, attempt, uncounted, max_attempts, kind, COALESCE(schedule,''), COALESCE(due_us,0), deadline_us, priority, run_us, args`

// claimSQL returns the statement that takes the first jobs of a queue. The node's own row must be there: without it nobody would
// notice its death. Arguments: on PostgreSQL and SQLite those of claimArgs.
func (r *Runner) claimSQL(kinds int) string {
	pick := `SELECT id FROM nines_jobs WHERE state=1 AND queue=? AND kind IN (` + marks(kinds) + `) ORDER BY priority, run_us, id LIMIT ? {lock}`
	const set = `state=2, outcome='running', cancel=0, started_us={now}, owner=?, node=?`
	const mine = `EXISTS (SELECT 1 FROM nines_job_nodes n WHERE n.id=?)`
	if r.d == dialect.Postgres {
		return `WITH c AS MATERIALIZED (` + pick + `) UPDATE nines_jobs j SET attempt=j.attempt+1, ` + set + ` FROM c WHERE j.id=c.id AND ` + mine +
			` RETURNING j.id, j.attempt, j.uncounted, j.max_attempts, j.kind, COALESCE(j.schedule,''), COALESCE(j.due_us,0), j.deadline_us, j.priority, j.run_us, j.args, {now}`
	}
	return `UPDATE nines_jobs SET attempt=attempt+1, ` + set + ` WHERE id IN (` + pick + `) AND ` + mine + ` RETURNING ` + claimedColumns + `, {now}`
}

func (r *Runner) claim(ctx context.Context, queue string, kinds []string, limit int) ([]claimed, error) {
	pickArgs := []any{queue}
	for _, k := range kinds {
		pickArgs = append(pickArgs, k)
	}
	pickArgs = append(pickArgs, limit)
	setArgs := []any{r.id, r.nodeName()}
	var out []claimed
	scan := func(rows *sql.Rows) error {
		var c claimed
		err := rows.Scan(&c.id, &c.attempt, &c.uncounted, &c.maxAttempts, &c.kind, &c.schedule, &c.dueUS, &c.deadlineUS, &c.priority, &c.runUS, &c.args, &c.now)
		out = append(out, c)
		return err
	}
	var err error
	switch r.d {
	case dialect.Postgres: // in the order of the text
		err = r.each(ctx, r.cfg.DB, r.claimSQL(len(kinds)), slices.Concat(pickArgs, setArgs, []any{r.id}), scan)
	case dialect.SQLite:
		err = r.each(ctx, r.cfg.DB, r.claimSQL(len(kinds)), slices.Concat(setArgs, pickArgs, []any{r.id}), scan)
	default:
		err = r.inTx(ctx, func(tx *sql.Tx) error {
			query := `SELECT ` + claimedColumns + `, {now} FROM nines_jobs WHERE state=1 AND queue=? AND kind IN (` + marks(len(kinds)) + `) ORDER BY priority, run_us, id LIMIT ? {lock}`
			if err := r.each(ctx, tx, query, pickArgs, scan); err != nil || len(out) == 0 {
				return err
			}
			ids := make([]int64, len(out))
			for i := range out {
				out[i].attempt++
				ids[i] = out[i].id
			}
			slices.Sort(ids)
			n, err := r.exec(ctx, tx, `UPDATE nines_jobs SET attempt=attempt+1, state=2, outcome='running', cancel=0, started_us={now}, owner=?, node=? WHERE id IN (`+
				numbers(ids)+`) AND EXISTS (SELECT 1 FROM nines_job_nodes n WHERE n.id=?)`, r.id, r.nodeName(), r.id)
			if err == nil && n == 0 {
				out = nil
			}
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b claimed) int { // RETURNING promises no order
		switch {
		case a.priority != b.priority:
			return int(a.priority - b.priority)
		case a.runUS != b.runUS:
			return int(min(max(a.runUS-b.runUS, -1), 1))
		}
		return int(min(max(a.id-b.id, -1), 1))
	})
	return out, nil
}

// claimer returns the step of the claim loop. hard is Run's context: it outlives the loop, so that running jobs do.
func (r *Runner) claimer(hard context.Context, work *sync.WaitGroup) func(ctx context.Context) (time.Duration, error) {
	queues := slices.Sorted(maps.Keys(r.cfg.Queues))
	kinds := slices.Sorted(maps.Keys(r.workers))
	var nextDue time.Time // when to look for jobs that have become due
	return func(ctx context.Context) (time.Duration, error) {
		if r.backlog.Load() && r.crowded() {
			pause(ctx, time.Millisecond) // several attempts that end together make one claim
		}
		if r.dueChanged.Swap(false) || !time.Now().Before(nextDue) {
			wait, err := r.promote(ctx)
			if err != nil {
				r.dueChanged.Store(true)
				return 0, err
			}
			nextDue = time.Now().Add(wait)
		}
		again, left := false, false
		for _, queue := range queues {
			free := r.room(queue)
			if free == 0 {
				left = true
				continue
			}
			limit := min(free, claimBatch)
			// Once begun a claim is carried through a Shutdown: what it took would have no one to give it back.
			got, err := r.claim(hard, queue, kinds, limit)
			if err != nil {
				return 0, err
			}
			for _, c := range got {
				r.start(hard, work, queue, c)
			}
			if len(got) == limit {
				again = again || free > limit
				left = true
			}
		}
		r.backlog.Store(left)
		if again {
			return 0, nil
		}
		return min(r.cfg.Poll, max(time.Until(nextDue), time.Millisecond)), nil
	}
}

func (r *Runner) room(queue string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.cfg.Queues[queue]-r.busy[queue], 0)
}

// crowded reports whether every queue has little room.
func (r *Runner) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for queue, limit := range r.cfg.Queues {
		if limit-r.busy[queue] > limit/2 {
			return false
		}
	}
	return true
}

func (r *Runner) start(hard context.Context, work *sync.WaitGroup, queue string, c claimed) {
	w := r.workers[c.kind]
	ctx, cancel := context.WithCancelCause(hard)
	e := &execution{
		r: r, w: w, id: c.id, attempt: c.attempt, uncounted: c.uncounted, max: int(c.maxAttempts), queue: queue, kind: c.kind,
		schedule: c.schedule, dueUS: c.dueUS, args: c.args, began: time.Now(), cancel: cancel,
	}
	if e.max == 0 {
		e.max = w.opts.MaxAttempts
	}
	r.mu.Lock()
	r.running[e.id] = e
	r.busy[queue]++
	r.mu.Unlock()
	work.Go(func() {
		defer cancel(nil)
		if c.deadlineUS > 0 && c.now > c.deadlineUS && c.attempt-c.uncounted == 1 {
			r.done(result{e: e, outcome: outSkipped, err: errDeadline})
			return
		}
		r.execute(ctx, e)
	})
}

// promote makes jobs available whose time has come by the database's clock, and returns how long it is until the next one. A job that is
// held waits until no older one of its schedule is left.
func (r *Runner) promote(ctx context.Context) (time.Duration, error) {
	var due, now int64
	err := r.one(ctx, r.cfg.DB, `SELECT COALESCE(min(run_us),0), {now} FROM nines_jobs WHERE state=0`, nil, &due, &now)
	if err != nil {
		return 0, err
	}
	if due == 0 {
		return time.Minute, nil
	}
	if due > now {
		return time.Duration(due-now) * time.Microsecond, nil
	}
	n, err := r.take(ctx, `state=1, held=0`,
		`state=0 AND run_us<={now} AND (held=0 OR NOT EXISTS (SELECT 1 FROM nines_jobs p WHERE p.schedule=j.schedule AND p.state<3 AND p.id<j.id))`,
		`run_us`, 500)
	if err != nil || len(n) == 500 {
		return 0, err
	}
	err = r.one(ctx, r.cfg.DB, `SELECT COALESCE(min(run_us),0), {now} FROM nines_jobs WHERE state=0 AND held=0`, nil, &due, &now)
	if due == 0 {
		return r.cfg.Poll, err
	}
	return min(max(time.Duration(due-now)*time.Microsecond, 0), r.cfg.Poll), err
}
