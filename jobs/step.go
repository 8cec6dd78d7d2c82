package jobs

import (
	"context"
	"errors"
	"time"
)

// StepResult is what a Step did.
type StepResult struct {
	// Ran are the jobs that were attempted, in that order; one that was attempted twice is there twice.
	Ran []int64
	// Next is when there is something to do again as far as is known, by the database's clock: the earliest slot, retry or RunAt. Zero: nothing.
	Next time.Time
}

// Step does once, and in the caller's goroutine, what Run does for ever: it writes the schedules, inserts the slots that are due, takes the jobs
// of nodes that are gone, and attempts the jobs that may run, one after the other, until there is none. It is for programs that something
// else starts from time to time, and for tests (jobstest); Config.Leader and Config.Cluster are not used. Steps of one Runner take turns; a
// Runner that has stepped cannot Run. After an error what was attempted is recorded all the same.
//
// A process that ends between two Steps, or steps seldom, is a dead node for others: its row is taken away after each Step.
func (r *Runner) Step(ctx context.Context) (res StepResult, err error) {
	select {
	case r.stepping <- struct{}{}:
		defer func() { <-r.stepping }()
	case <-ctx.Done():
		return res, context.Cause(ctx)
	}
	if err := r.ensure(ctx); err != nil {
		return res, err
	}
	r.mu.Lock()
	runs := r.running != nil && !r.stepped
	if !runs && !r.stepped {
		r.stepped, r.running = true, map[int64]*execution{}
	}
	r.mu.Unlock()
	if runs {
		return res, errors.New("jobs: Step: the Runner runs")
	}
	if _, err := r.register(ctx); err != nil {
		return res, err
	}
	if _, err := r.beat(ctx); err != nil {
		return res, err
	}
	defer r.leave(ctx)
	if _, err := r.watchStep(ctx); err != nil {
		return res, err
	}
	queues, kinds := r.serves()
	for worked := true; worked; {
		worked = false
		if !r.cfg.NoScheduler {
			for wait := time.Duration(0); wait == 0; {
				if wait, err = r.tick(ctx); err != nil {
					return res, err
				}
			}
		}
		r.limitsAfter = time.Time{}
		if _, err := r.promote(ctx); err != nil {
			return res, err
		}
		for _, queue := range queues {
			got, err := r.claim(ctx, queue, kinds, 1)
			if err != nil {
				return res, errors.Join(err, r.returnLost(context.WithoutCancel(ctx)))
			}
			for _, c := range got {
				worked = true
				res.Ran = append(res.Ran, c.id)
				e, jobCtx := r.begin(ctx, queue, c)
				r.perform(jobCtx, e, c)
				r.record(ctx, []result{<-r.results})
			}
		}
		if err := ctx.Err(); err != nil {
			return res, err
		}
	}
	for again := true; again; {
		wait, err := r.pruneOnce(ctx)
		if err != nil {
			return res, err
		}
		again = wait < time.Second
	}
	next := int64(0)
	err = r.one(ctx, r.cfg.DB, `SELECT COALESCE(min(due),0) FROM (SELECT min(next_us) AS due FROM nines_job_schedules WHERE paused=0 UNION ALL SELECT min({waits_us}) FROM nines_jobs WHERE {waits} AND held=0) d`, nil, &next)
	if next != never {
		res.Next = instant(next)
	}
	return res, err
}

// steps is what Step needs.
type steps struct {
	stepping  chan struct{} // of one: steps take turns
	stepped   bool          // guarded by Runner.mu
	watchStep func(ctx context.Context) (time.Duration, error)
}
