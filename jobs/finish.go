package jobs

import (
	"cmp"
	"context"
	"database/sql"
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
	// In the order of ids, as everything that locks several rows does.
	slices.SortFunc(batch, func(a, b result) int { return cmp.Compare(a.e.id, b.e.id) })
	var plain, others []result
	for _, res := range batch {
		if res.outcome == outSucceeded && !res.e.completing.Load() && res.e.result() == "" {
			plain = append(plain, res)
		} else {
			others = append(others, res)
		}
	}
	var taken map[int64]bool
	r.persist(hard, "record results", func(ctx context.Context) (err error) {
		taken, err = r.complete(ctx, plain)
		return err
	})
	outcomes := make([]string, len(others))
	r.persist(hard, "record results", func(ctx context.Context) error { return r.recordEach(ctx, others, outcomes) })
	waiting, shared := false, false
	var keys []limitKey
	settle := func(res result, outcome string) {
		e := res.e
		r.forget(e)
		waiting = waiting || e.schedule != "" || outcome == outPending || outcome == outRetryable || outcome == outSnoozed
		shared = shared || r.cfg.ClusterLimits[e.queue] > 0
		if e.limitKey != "" && outcome != outPending {
			keys = append(keys, limitKey{e.kind, e.limitKey})
		}
		r.report(res, outcome)
	}
	for _, res := range plain {
		outcome := ""
		if taken[res.e.id] {
			outcome = outSucceeded
		}
		settle(res, outcome)
	}
	for i, res := range others {
		settle(res, outcomes[i])
	}
	if len(keys) > 0 && hard.Err() == nil {
		ctx, stop := context.WithTimeout(context.WithoutCancel(hard), 10*time.Second)
		if _, err := r.letThrough(ctx, keys); err != nil {
			r.fault("let the next of a key through", err) // the claim loop looks again
			waiting = true
		}
		stop()
	}
	if waiting { // a held slot may go on, a retry may be due sooner than anything before
		r.dueChanged.Store(true)
		kick(r.kickClaim)
	}
	if shared { // a place that another node may have use for
		r.broadcast(topicWake)
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

const completed = `state=3, outcome='succeeded', progress=100, error='', done_us={now}`

// completeSQL is complete's statement on PostgreSQL. It goes by the primary key or the index of what runs here, as the planner likes: both are short
// ways. A table without statistics would be read whole if it could not be the latter.
func (r *Runner) completeSQL() string {
	return `UPDATE nines_jobs j SET ` + completed + ` FROM unnest(CAST(? AS bigint[]), CAST(? AS bigint[])) v(id, attempt) WHERE j.id=v.id AND j.attempt=v.attempt AND j.owner=? AND j.state=2 RETURNING j.id`
}

// complete makes attempts succeed that are still this process's, and returns which were. batch is in the order of ids.
func (r *Runner) complete(ctx context.Context, batch []result) (map[int64]bool, error) {
	taken := make(map[int64]bool, len(batch))
	if len(batch) == 0 {
		return taken, nil
	}
	if r.d == dialect.Postgres {
		ids, attempts := make([]int64, len(batch)), make([]int64, len(batch))
		for i, res := range batch {
			ids[i], attempts[i] = res.e.id, res.e.attempt
		}
		done, err := r.ids(ctx, r.cfg.DB, r.completeSQL(),
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
		where := ` WHERE id IN (` + numbers(ids) + `) AND attempt=? AND owner=? AND state+0=2`
		if r.d == dialect.SQLite {
			done, err := r.ids(ctx, r.cfg.DB, `UPDATE nines_jobs SET `+completed+where+` RETURNING id`, attempt, r.id)
			if err != nil {
				return taken, err
			}
			for _, id := range done {
				taken[id] = true
			}
			continue
		}
		n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_jobs SET `+completed+where, attempt, r.id)
		if err != nil {
			return taken, err
		}
		for _, id := range ids {
			taken[id] = n == int64(len(ids)) // some were taken away: which ones only matters for the log
		}
	}
	return taken, nil
}

// recordEach records results in one transaction and notes the outcome that each row has now.
func (r *Runner) recordEach(ctx context.Context, batch []result, outcomes []string) (err error) {
	switch len(batch) {
	case 0:
		return nil
	case 1:
		outcomes[0], err = r.recordOne(ctx, r.cfg.DB, batch[0])
		return err
	}
	return r.inTx(ctx, func(tx *sql.Tx) error {
		for i, res := range batch {
			if outcomes[i], err = r.recordOne(ctx, tx, res); err != nil {
				return err
			}
		}
		return nil
	})
}

// recordOne records one result by compare-and-set and returns the outcome that the row has now; "" when the attempt was taken away.
func (r *Runner) recordOne(ctx context.Context, on execer, res result) (string, error) {
	e := res.e
	if e.completing.Load() {
		var state int
		err := r.one(ctx, on, `SELECT COALESCE(max(state),-1) FROM nines_jobs WHERE id=? AND attempt=? AND owner=?`, []any{e.id, e.attempt, r.id}, &state)
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
	before, after := e.history(text, r.nodeName())
	errs := r.concat(r.text(`?`), r.text(`{now}`), r.text(`?`))
	set := func(set, where string, args ...any) (bool, error) {
		n, err := r.exec(ctx, on, `UPDATE nines_jobs SET `+set+` WHERE id=? AND attempt=? AND owner=? AND state+0=2`+where, append(args, e.id, e.attempt, r.id)...)
		return n > 0, err
	}
	ok, err := false, error(nil)
	switch res.outcome {
	case outRetryable:
		ok, err = set(`state=0, outcome='retryable', owner=NULL, error=?, errors=`+errs+`, run_us={now}+?`, ` AND cancel=0`, text, before, after, res.pause.Microseconds())
	case outPending:
		ok, err = set(`state=1, outcome=CASE WHEN attempt-uncounted>1 THEN 'retryable' ELSE 'pending' END, owner=NULL, uncounted=uncounted+1`, ` AND cancel=0`)
	case outSnoozed:
		ok, err = set(`state=0, outcome=CASE WHEN attempt-uncounted>1 THEN 'retryable' ELSE 'pending' END, owner=NULL, uncounted=uncounted+1, run_us={now}+?`, ` AND cancel=0`, res.pause.Microseconds())
	case outSucceeded:
		ok, err = set(`state=3, outcome='succeeded', progress=100, error='', output=?, done_us={now}`, ``, e.result())
	case outWarning:
		ok, err = set(`state=3, outcome='warning', error=?, output=?, done_us={now}`, ``, text, e.result())
	case outFailed, outDiscarded:
		ok, err = set(`state=3, outcome=?, error=?, errors=`+errs+`, done_us={now}`, ``, res.outcome, text, before, after)
	default: // cancelled, skipped
		ok, err = set(`state=3, outcome=?, error=?, done_us={now}`, ``, res.outcome, text)
	}
	if ok || err != nil {
		return res.outcome, err
	}
	switch res.outcome {
	case outRetryable, outPending, outSnoozed: // was its end requested before the result came? Then nothing is tried again.
		if ok, err = set(`state=3, outcome='cancelled', error=?, done_us={now}`, ` AND cancel=1`, text); ok || err != nil {
			return outCancelled, err
		}
	}
	return "", nil
}

func (r *Runner) report(res result, outcome string) {
	r.counters.count(outcome)
	r.mu.Lock()
	k := &res.e.w.stats
	k.Attempts++
	k.RunTime += res.took
	k.StartDelay += res.e.delay
	switch outcome {
	case outSucceeded, outWarning:
		k.Succeeded++
	case outFailed, outDiscarded:
		k.Failed++
	case outRetryable:
		k.Retried++
	}
	r.mu.Unlock()
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
