package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nines-go/nines/internal/backoff"
	"github.com/nines-go/nines/internal/dialect"
)

var errDeadline = errors.New("not started within its StartDeadline")

const finishBatch = 500

// result is how an attempt ended. outcome pending: given back, uncounted.
type result struct {
	e       *execution
	outcome string
	err     error
	pause   time.Duration // before a retry
	took    time.Duration
}

// done hands a result to the finisher and makes room for another attempt. The attempt stays in running until it is recorded.
func (r *Runner) done(res result) {
	r.results <- res
	r.mu.Lock()
	r.busy[res.e.queue]--
	r.mu.Unlock()
	if r.backlog.Load() {
		kick(r.kickClaim)
	}
}

// finishLoop records results, as many at once as there are, until the channel is closed. It tries until the database takes them; after the
// hard stop, for a second.
func (r *Runner) finishLoop(hard context.Context) {
	for res := range r.results {
		batch := append(make([]result, 0, 16), res)
		for len(batch) < finishBatch {
			select {
			case res, ok := <-r.results:
				if ok {
					batch = append(batch, res)
					continue
				}
			default:
			}
			break
		}
		r.record(hard, batch)
	}
}

func (r *Runner) record(hard context.Context, batch []result) {
	var plain []result
	for _, res := range batch {
		if res.outcome == outSucceeded && !res.e.completing.Load() {
			plain = append(plain, res)
		}
	}
	var taken map[int64]bool
	r.persist(hard, "record results", func(ctx context.Context) (err error) {
		taken, err = r.complete(ctx, plain)
		return err
	})
	waiting := false
	for _, res := range batch {
		outcome := res.outcome
		if outcome == outSucceeded && !res.e.completing.Load() {
			if !taken[res.e.id] {
				outcome = ""
			}
		} else {
			r.persist(hard, "record a result", func(ctx context.Context) (err error) {
				outcome, err = r.recordOne(ctx, res)
				return err
			})
		}
		r.forget(res.e)
		waiting = waiting || res.e.schedule != "" || outcome == outPending || outcome == outRetryable
		r.report(res, outcome)
	}
	if waiting { // a held slot may go on, a retry may be due sooner than anything before
		r.dueChanged.Store(true)
		kick(r.kickClaim)
	}
}

func (r *Runner) forget(e *execution) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[e.id] == e {
		delete(r.running, e.id)
	}
}

// persist calls fn until it succeeds.
func (r *Runner) persist(hard context.Context, what string, fn func(ctx context.Context) error) {
	for n := 0; ; n++ {
		ctx, stop := context.WithTimeout(context.WithoutCancel(hard), 10*time.Second)
		if hard.Err() != nil {
			ctx, stop = context.WithTimeout(context.WithoutCancel(hard), time.Second)
		}
		err := fn(ctx)
		stop()
		if err == nil {
			return
		}
		r.fault(what, err)
		if hard.Err() != nil || !pause(hard, backoff.Delay(n, 20*time.Millisecond, time.Second)) {
			return
		}
	}
}

// complete makes attempts succeed that are still this process's, and returns which were.
func (r *Runner) complete(ctx context.Context, batch []result) (map[int64]bool, error) {
	taken := make(map[int64]bool, len(batch))
	if len(batch) == 0 {
		return taken, nil
	}
	// In the order of ids, as everything that locks several rows does.
	slices.SortFunc(batch, func(a, b result) int { return int(min(max(a.e.id-b.e.id, -1), 1)) })
	const set = `state=3, outcome='succeeded', progress=100, error='', done_us={now}`
	if r.d == dialect.Postgres {
		ids, attempts := make([]int64, len(batch)), make([]int64, len(batch))
		for i, res := range batch {
			ids[i], attempts[i] = res.e.id, res.e.attempt
		}
		done, err := r.ids(ctx, r.cfg.DB, `UPDATE nines_jobs j SET `+set+` FROM unnest(CAST(? AS bigint[]), CAST(? AS bigint[])) v(id, attempt) WHERE j.id=v.id AND j.attempt=v.attempt AND j.owner=? AND j.state=2 RETURNING j.id`,
			"{"+numbers(ids)+"}", "{"+numbers(attempts)+"}", r.id)
		for _, id := range done {
			taken[id] = true
		}
		return taken, err
	}
	byAttempt := map[int64][]int64{}
	for _, res := range batch {
		byAttempt[res.e.attempt] = append(byAttempt[res.e.attempt], res.e.id)
	}
	for attempt, ids := range byAttempt {
		where := ` WHERE id IN (` + numbers(ids) + `) AND attempt=? AND owner=? AND state=2`
		if r.d == dialect.SQLite {
			done, err := r.ids(ctx, r.cfg.DB, `UPDATE nines_jobs SET `+set+where+` RETURNING id`, attempt, r.id)
			if err != nil {
				return taken, err
			}
			for _, id := range done {
				taken[id] = true
			}
			continue
		}
		n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET `+set+where, attempt, r.id)
		if err != nil {
			return taken, err
		}
		for _, id := range ids {
			taken[id] = n == int64(len(ids)) // some were taken away: which ones only matters for the log
		}
	}
	return taken, nil
}

// recordOne records one result by compare-and-set and returns the outcome that the row has now; "" when the attempt was taken away.
func (r *Runner) recordOne(ctx context.Context, res result) (string, error) {
	e := res.e
	if e.completing.Load() {
		var state int
		err := r.one(ctx, r.cfg.DB, `SELECT COALESCE(max(state),-1) FROM nines_jobs WHERE id=? AND attempt=? AND owner=?`, []any{e.id, e.attempt, r.id}, &state)
		if err != nil {
			return "", err
		}
		if state == stDone {
			return outSucceeded, nil
		}
		if res.outcome == outSucceeded { // said so, but the transaction did not commit
			res.outcome, res.pause = outRetryable, backoff.Delay(0, e.w.opts.Backoff, maxBackoff)
			if int(e.attempt-e.uncounted) >= e.max {
				res.outcome = outFailed
			}
		}
	}
	text := ""
	if res.err != nil {
		text = cutText(res.err.Error(), maxErrorText)
	}
	const mine = ` WHERE id=? AND attempt=? AND owner=? AND state=2`
	var n int64
	var err error
	switch res.outcome {
	case outRetryable:
		n, err = r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=0, outcome='retryable', owner=NULL, error=?, run_us={now}+?`+mine+` AND cancel=0`,
			text, res.pause.Microseconds(), e.id, e.attempt, r.id)
	case outPending:
		n, err = r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=1, outcome=CASE WHEN attempt-uncounted>1 THEN 'retryable' ELSE 'pending' END, owner=NULL, uncounted=uncounted+1`+mine+` AND cancel=0`,
			e.id, e.attempt, r.id)
	}
	if err != nil || n > 0 {
		return res.outcome, err
	}
	outcome := res.outcome
	if outcome == outRetryable || outcome == outPending {
		outcome = outCancelled // a request came before the result: nothing is tried again
		mineCancelled := mine + ` AND cancel=1`
		n, err = r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=3, outcome=?, error=?, done_us={now}`+mineCancelled, outcome, text, e.id, e.attempt, r.id)
	} else {
		n, err = r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET state=3, outcome=?, error=?, done_us={now}`+mine, outcome, text, e.id, e.attempt, r.id)
	}
	if n == 0 {
		outcome = ""
	}
	return outcome, err
}

func (r *Runner) report(res result, outcome string) {
	r.counters.count(outcome)
	log := func(level slog.Level, msg string) {
		attrs := []any{"job", res.e.id, "kind", res.e.kind, "attempt", res.e.attempt - res.e.uncounted, "took", res.took}
		if res.err != nil {
			attrs = append(attrs, "error", fmt.Sprint(res.err))
		}
		r.log.Log(context.Background(), level, msg, attrs...)
	}
	switch outcome {
	case "":
		log(slog.LevelWarn, "jobs: attempt was taken away, its result is not recorded")
	case outFailed, outDiscarded:
		log(slog.LevelError, "jobs: job failed")
	case outWarning:
		log(slog.LevelWarn, "jobs: job is done with a warning")
	case outRetryable:
		log(slog.LevelInfo, "jobs: attempt failed, the job will be tried again")
	}
}
