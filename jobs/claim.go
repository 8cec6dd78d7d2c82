package jobs

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

const claimBatch = 500

type claimed struct {
	id, attempt, uncounted, maxAttempts, dueUS, deadlineUS, priority, runUS, now int64
	kind, schedule, limitKey, errors, position, args                             string
}

// claimedColumns are what a worker needs to know; what earlier attempts left behind is read only where there were some.
func claimedColumns(table string, first string) string {
	return strings.ReplaceAll(`@id, @attempt, @uncounted, @max_attempts, @kind, COALESCE(@schedule,''), COALESCE(@due_us,0), @deadline_us, @priority, @run_us, COALESCE(@limit_key,''),
		CASE WHEN @attempt>`+first+` THEN @errors ELSE '' END, CASE WHEN @attempt>`+first+` THEN @position ELSE '' END, @args, {now}`, "@", table)
}

const pickColumns = ` FROM nines_jobs WHERE {lane}=? AND kind IN (%s) ORDER BY priority, run_us, id LIMIT ? {lock}`

// claimSQL returns the statement that takes the first jobs of a queue. The node's own row must be there: without it nobody would
// notice its death. Arguments: on PostgreSQL and SQLite those of claim.
func (r *Runner) claimSQL(kinds int) string {
	pick := `SELECT id` + fmt.Sprintf(pickColumns, marks(kinds))
	const set = `state=2, outcome='running', cancel=0, started_us={now}, owner=?, node=?`
	const mine = `EXISTS (SELECT 1 FROM nines_job_nodes n WHERE n.id=?)`
	if r.d == dialect.Postgres {
		return `WITH c AS MATERIALIZED (` + pick + `) UPDATE nines_jobs j SET attempt=j.attempt+1, ` + set + ` FROM c WHERE j.id=c.id AND ` + mine + ` RETURNING ` + claimedColumns("j.", "1")
	}
	return `UPDATE nines_jobs SET attempt=attempt+1, ` + set + ` WHERE id IN (` + pick + `) AND ` + mine + ` RETURNING ` + claimedColumns("", "1")
}

// claim takes up to limit jobs of a queue, in the order in which they are to start.
func (r *Runner) claim(ctx context.Context, queue string, kinds []string, limit int) (out []claimed, err error) {
	most := r.cfg.ClusterLimits[queue]
	switch {
	case most == 0 && r.d != dialect.MySQL:
		out, err = r.claimOn(ctx, r.cfg.DB, queue, kinds, limit)
	default:
		err = r.inTx(ctx, func(tx *sql.Tx) error {
			out = nil
			if most > 0 {
				if err := r.turn(ctx, tx, "queue "+queue); err != nil {
					return err
				}
				var running int
				if err := r.one(ctx, tx, `SELECT count(*) FROM nines_jobs WHERE {runs} AND queue=?`, []any{queue}, &running); err != nil {
					return err
				}
				if limit = min(limit, most-running); limit <= 0 {
					return nil
				}
			}
			out, err = r.claimOn(ctx, tx, queue, kinds, limit)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b claimed) int { // RETURNING promises no order
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.runUS, b.runUS), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

func (r *Runner) claimOn(ctx context.Context, on execer, queue string, kinds []string, limit int) (out []claimed, err error) {
	pickArgs := []any{queue}
	for _, k := range kinds {
		pickArgs = append(pickArgs, k)
	}
	pickArgs = append(pickArgs, limit)
	setArgs := []any{r.id, r.nodeName()}
	scan := func(rows *sql.Rows) error {
		var c claimed
		err := rows.Scan(&c.id, &c.attempt, &c.uncounted, &c.maxAttempts, &c.kind, &c.schedule, &c.dueUS, &c.deadlineUS, &c.priority, &c.runUS, &c.limitKey, &c.errors, &c.position, &c.args, &c.now)
		out = append(out, c)
		return err
	}
	switch r.d {
	case dialect.Postgres: // in the order of the text
		err = r.each(ctx, on, r.claimSQL(len(kinds)), slices.Concat(pickArgs, setArgs, []any{r.id}), scan)
		return out, err
	case dialect.SQLite:
		err = r.each(ctx, on, r.claimSQL(len(kinds)), slices.Concat(setArgs, pickArgs, []any{r.id}), scan)
		return out, err
	}
	query := `SELECT ` + claimedColumns("", "0") + fmt.Sprintf(pickColumns, marks(len(kinds)))
	if err := r.each(ctx, on, query, pickArgs, scan); err != nil || len(out) == 0 {
		return nil, err
	}
	ids := make([]int64, len(out))
	for i := range out {
		out[i].attempt++
		ids[i] = out[i].id
	}
	slices.Sort(ids)
	n, err := r.exec(ctx, on, `UPDATE nines_jobs SET attempt=attempt+1, state=2, outcome='running', cancel=0, started_us={now}, owner=?, node=? WHERE id IN (`+
		numbers(ids)+`) AND EXISTS (SELECT 1 FROM nines_job_nodes n WHERE n.id=?)`, r.id, r.nodeName(), r.id)
	if err != nil || n == 0 {
		return nil, err
	}
	return out, nil
}

// claimer returns the step of the claim loop. hard is Run's context: it outlives the loop, so that running jobs do.
func (r *Runner) claimer(hard context.Context, work *sync.WaitGroup) func(ctx context.Context) (time.Duration, error) {
	queues, kinds := r.serves()
	var nextDue, nextLost time.Time // when to look for jobs that have become due, and for claims whose answer was lost
	unsure := false                 // the last claim failed: the database may have made it all the same
	return func(ctx context.Context) (time.Duration, error) {
		if r.backlog.Load() && r.crowded() {
			pause(ctx, time.Millisecond) // several attempts that end together make one claim
		}
		if unsure || !time.Now().Before(nextLost) {
			if err := r.returnLost(ctx); err != nil {
				return 0, err
			}
			unsure, nextLost = false, time.Now().Add(r.times.lease)
		}
		if r.dueChanged.Swap(false) || !time.Now().Before(nextDue) {
			wait, err := r.promote(ctx)
			if err != nil {
				r.dueChanged.Store(true)
				return 0, err
			}
			nextDue = time.Now().Add(min(wait, 10*r.cfg.Poll)) // the database's clock may be set
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
			claimCtx, stop := context.WithTimeout(hard, r.times.answer)
			got, err := r.claim(claimCtx, queue, kinds, limit)
			stop()
			if err != nil {
				unsure = true
				return 0, err
			}
			for _, c := range got {
				e, ctx := r.begin(hard, queue, c)
				work.Go(func() { r.perform(ctx, e, c) })
			}
			if len(got) == limit {
				again = again || free > limit
				left = true
			}
			left = left || r.cfg.ClusterLimits[queue] > 0
		}
		r.backlog.Store(left)
		if again {
			return 0, nil
		}
		return min(r.cfg.Poll, max(time.Until(nextDue), time.Millisecond)), nil
	}
}

// serves returns the queues and kinds that this process works on.
func (r *Runner) serves() (queues, kinds []string) {
	if r.cfg.NoWorkers || len(r.workers) == 0 {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(r.cfg.Queues)), slices.Sorted(maps.Keys(r.workers))
}

// returnLost gives back jobs that are this process's in the database and that nobody here works on: a claim's answer was lost, and the
// claim was not. It runs where claims are made, so that none is under way; a late one is found the next time.
func (r *Runner) returnLost(ctx context.Context) error {
	var lost []int64
	err := r.each(ctx, r.cfg.DB, `SELECT id FROM nines_jobs WHERE {owner}=?`, []any{r.id}, func(rows *sql.Rows) error {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.running[id] == nil {
			lost = append(lost, id)
		}
		return nil
	})
	if err != nil || len(lost) == 0 {
		return err
	}
	slices.Sort(lost)
	n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=CASE WHEN cancel=1 THEN 3 ELSE 1 END, outcome=CASE WHEN cancel=1 THEN 'cancelled' WHEN attempt-uncounted>1 THEN 'retryable' ELSE 'pending' END,
		owner=NULL, uncounted=uncounted+1, done_us={now} WHERE state=2 AND owner=? AND id IN (`+numbers(lost)+`)`, r.id)
	if n > 0 {
		r.log.Warn("jobs: claims whose answers were lost are given back", "count", n)
	}
	return err
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

// begin makes a claimed job a running attempt.
func (r *Runner) begin(hard context.Context, queue string, c claimed) (*execution, context.Context) {
	w := r.workers[c.kind]
	ctx, cancel := context.WithCancelCause(hard)
	e := &execution{
		r: r, w: w, id: c.id, attempt: c.attempt, uncounted: c.uncounted, max: int(c.maxAttempts), queue: queue, kind: c.kind,
		schedule: c.schedule, limitKey: c.limitKey, dueUS: c.dueUS, errors: c.errors, position: c.position, args: c.args,
		began: time.Now(), delay: time.Duration(max(c.now-c.runUS, 0)) * time.Microsecond, cancel: cancel,
	}
	if e.max == 0 {
		e.max = w.opts.MaxAttempts
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[e.id] = e
	r.busy[queue]++
	return e, ctx
}

// perform runs the attempt, unless it is too late for it or not wanted here.
func (r *Runner) perform(ctx context.Context, e *execution, c claimed) {
	defer e.cancel(nil)
	if e.attempt-e.uncounted == 1 && c.deadlineUS > 0 && c.now > c.deadlineUS {
		r.done(result{e: e, outcome: outSkipped, err: errDeadline})
		return
	}
	r.execute(ctx, e)
}

// promote makes jobs available whose time has come by the database's clock, and returns how long it is until the next one. A job that is
// held waits until no older one of its schedule is left.
func (r *Runner) promote(ctx context.Context) (time.Duration, error) {
	var due, now int64
	err := r.one(ctx, r.cfg.DB, `SELECT COALESCE(min({waits_us}),0), {now} FROM nines_jobs WHERE {waits}`, nil, &due, &now)
	if err != nil {
		return 0, err
	}
	if due == 0 {
		return time.Minute, nil
	}
	if due > now {
		return time.Duration(due-now) * time.Microsecond, nil
	}
	n, err := r.take(ctx, `state=CASE WHEN limit_key IS NULL THEN 1 ELSE 0 END, held=CASE WHEN limit_key IS NULL THEN 0 ELSE 2 END`,
		`{waits} AND {waits_us}<={now} AND held<2 AND (held=0 OR NOT EXISTS (SELECT 1 FROM nines_jobs p WHERE p.{live_of}=j.schedule AND p.state<3 AND p.id<j.id))`,
		`{waits_us}`, 500)
	if err != nil || len(n) == 500 {
		return 0, err
	}
	// With many jobs that wait for their keys the look takes long: then it is seldom.
	if began := time.Now(); !began.Before(r.limitsAfter) {
		more, err := r.letWaiting(ctx)
		if err != nil || more {
			return 0, err
		}
		r.limitsAfter = time.Now().Add(20 * time.Since(began))
	}
	err = r.one(ctx, r.cfg.DB, `SELECT COALESCE(min({waits_us}),0), {now} FROM nines_jobs WHERE {waits} AND held=0`, nil, &due, &now)
	if due == 0 {
		return r.cfg.Poll, err
	}
	return min(max(time.Duration(due-now)*time.Microsecond, 0), r.cfg.Poll), err
}
