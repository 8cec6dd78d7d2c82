package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nines-go/nines/internal/backoff"
	"github.com/nines-go/nines/internal/dialect"
)

var errLease = fmt.Errorf("%w: the database did not take this node's heartbeats", ErrStale)

func (r *Runner) nodeName() string {
	if r.cfg.Cluster == nil || r.cfg.Cluster.Alive() == nil { // before the first view the ID is not final
		return ""
	}
	return r.cfg.Cluster.ID()
}

// beats keeps this node's row. Others that see it unchanged for the lease give its jobs to someone else; this node stops them somewhat
// earlier, counted from before the last heartbeat that the database took was sent.
func (r *Runner) beats(ctx context.Context, registered chan struct{}) {
	failed, known, named := 0, false, false
	trusted := r.times.lease - r.times.margin
	lapse := time.AfterFunc(trusted, func() { r.cancelAll(errLease) }) // before the first heartbeat nothing runs
	defer lapse.Stop()
	for ctx.Err() == nil {
		sent := time.Now()
		beatCtx, stop := context.WithTimeout(ctx, r.times.beat)
		found, err := r.beat(beatCtx)
		if name := r.nodeName(); err == nil && !named && name != "" {
			err = r.succeed(beatCtx, name)
			named = err == nil
		}
		stop()
		wait := r.times.beat
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.fault("heartbeat", err)
			wait = backoff.Delay(failed, 50*time.Millisecond, r.times.beat/2)
			failed++
		default:
			lapse.Reset(max(trusted-time.Since(sent), 0))
			if known && !found { // declared dead: its jobs are, or soon will be, someone else's
				r.log.Warn("jobs: this node was taken for dead, its running jobs go elsewhere")
				r.cancelAll(ErrStale)
			}
			if !known {
				close(registered)
			}
			failed, known = 0, true
			r.failing.Store(nil)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.kickBeat:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// beat writes the row and reports whether it was there.
func (r *Runner) beat(ctx context.Context) (found bool, err error) {
	scheduling, working := 0, 0
	if r.scheduling.Load() {
		scheduling = 1
	}
	queues, kinds := r.serves()
	if len(kinds) > 0 {
		working = 1
	}
	n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_job_nodes SET beat=beat+1, seen_us={now}, node=?, scheduling=?, working=? WHERE id=?`, r.nodeName(), scheduling, working, r.id)
	if err != nil || n > 0 {
		return n > 0, err
	}
	_, err = r.exec(ctx, r.cfg.DB, `INSERT INTO nines_job_nodes (id, node, host, beat, seen_us, scheduling, working, kinds, queues) VALUES (?,?,?,1,{now},?,?,?,?)`,
		r.id, r.nodeName(), cutText(r.host, maxName), scheduling, working, strings.Join(kinds, " "), strings.Join(queues, " "))
	return false, err
}

// succeed removes the rows of earlier processes of this node, which cannot live beside this one: a cluster has one member of an ID. A node
// that was killed and is back at once need not wait for its own lease.
func (r *Runner) succeed(ctx context.Context, name string) error {
	n, err := r.exec(ctx, r.cfg.DB, `DELETE FROM nines_job_nodes WHERE node=? AND id<>?`, name, r.id)
	if n > 0 {
		r.log.Info("jobs: this node succeeds an earlier process of its ID, whose jobs go elsewhere", "node", name)
		kick(r.kickWatch)
	}
	return err
}

// leave takes the row away, so that whatever this process could not give back is found at once.
func (r *Runner) leave(ctx context.Context) {
	patience := 5 * time.Second
	if ctx.Err() != nil {
		patience = time.Second
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer stop()
	if _, err := r.exec(ctx, r.cfg.DB, `DELETE FROM nines_job_nodes WHERE id=?`, r.id); err != nil {
		r.fault("sign off", err)
	}
	r.broadcast(topicWake)
}

// sighting is what this process has seen of another's row, by its own clock: no clock of any machine is compared with another, and a
// step of the database's rescues nobody who lives.
type sighting struct {
	node  string
	beat  int64
	since time.Time
}

// watcher returns the step that finds dead nodes, returns their jobs, and passes on cancel requests.
func (r *Runner) watcher() func(ctx context.Context) (time.Duration, error) {
	seen := map[string]sighting{}
	member := map[string]bool{} // cluster IDs that were in Alive since they were last rescued
	return func(ctx context.Context) (time.Duration, error) {
		looked := map[string]sighting{}
		err := r.each(ctx, r.cfg.DB, `SELECT id, node, beat FROM nines_job_nodes`, nil, func(rows *sql.Rows) error {
			var id string
			var s sighting
			if err := rows.Scan(&id, &s.node, &s.beat); err != nil {
				return err
			}
			s.since = time.Now() // after the answer
			if old, ok := seen[id]; ok && old.beat == s.beat {
				s.since = old.since
			}
			looked[id] = s
			return nil
		})
		if err != nil {
			return 0, err
		}
		seen = looked
		var alive []string
		if r.cfg.Cluster != nil {
			alive = r.cfg.Cluster.Alive()
		}
		for _, id := range alive {
			member[id] = true
		}
		for id, s := range seen {
			gone := alive != nil && s.node != "" && member[s.node] && !slices.Contains(alive, s.node)
			if id == r.id || !gone && time.Since(s.since) < r.times.lease {
				continue
			}
			// Not if it has written since: then it lives.
			n, err := r.exec(ctx, r.cfg.DB, `DELETE FROM nines_job_nodes WHERE id=? AND beat=?`, id, s.beat)
			if err != nil {
				return 0, err
			}
			delete(member, s.node) // once for each time that it leaves: a partition must not take from a living node for ever
			if n > 0 {
				r.log.Warn("jobs: a node is gone, its jobs go elsewhere", "node", s.node, "incarnation", id, "silent", time.Since(s.since), "leftCluster", gone)
			}
		}
		if err := r.rescue(ctx); err != nil {
			return 0, err
		}
		return r.times.watch, errors.Join(r.obey(ctx), r.refresh(ctx))
	}
}

// rescue returns running jobs whose owner has no row. The attempt counts: a job that brings its process down must not do so for ever.
func (r *Runner) rescue(ctx context.Context) error {
	most := r.mostSQL()
	for {
		ids, err := r.take(ctx,
			`state=CASE WHEN cancel=1 OR attempt-uncounted>=`+most+` THEN 3 ELSE 1 END,`+
				` outcome=CASE WHEN cancel=1 THEN 'cancelled' WHEN attempt-uncounted>=`+most+` THEN 'failed' ELSE 'retryable' END,`+
				` error='`+goneText+`', errors=`+r.goneSQL()+`, owner=NULL, done_us={now}`,
			`{runs} AND owner NOT IN (SELECT id FROM nines_job_nodes)`, `id`, 500)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			r.counters.rescued.Add(int64(len(ids)))
			r.log.Warn("jobs: jobs of a dead node are available again", "count", len(ids))
			r.dueChanged.Store(true) // slots behind them may be held
			r.wake(topicWake)
		}
		if len(ids) < 500 {
			return nil
		}
	}
}

// mostSQL is how many attempts a job has: its own number, else that of the worker here, else the default.
func (r *Runner) mostSQL() string {
	var b strings.Builder
	b.WriteString(`CASE WHEN max_attempts>0 THEN max_attempts`)
	for _, kind := range slices.Sorted(maps.Keys(r.workers)) {
		if !strings.ContainsAny(kind, `'\?{}`) { // what a text in SQL, or q, would take for something else
			fmt.Fprintf(&b, ` WHEN kind='%s' THEN %d`, kind, r.workers[kind].opts.MaxAttempts)
		}
	}
	fmt.Fprintf(&b, ` ELSE %d END`, defaultMaxAttempts)
	return b.String()
}

// obey ends the contexts of jobs here that somebody wants cancelled: the message may have been lost.
func (r *Runner) obey(ctx context.Context) error {
	r.mu.Lock()
	n := len(r.running)
	r.mu.Unlock()
	if n == 0 {
		return nil
	}
	ids, err := r.ids(ctx, r.cfg.DB, `SELECT id FROM nines_jobs WHERE {owner}=? AND cancel=1`, r.id)
	for _, id := range ids {
		r.cancelHere(id)
	}
	return err
}

func (r *Runner) cancelHere(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.running[id]; e != nil {
		e.cancel(ErrCancelled)
	}
}

// pruneOnce deletes finished jobs after Keep. Their slots cannot come back: the schedule's next due time is past them.
func (r *Runner) pruneOnce(ctx context.Context) (time.Duration, error) {
	where := fmt.Sprintf(`{done_us} < {now}-%d`, r.cfg.Keep.Microseconds())
	if r.d == dialect.Postgres {
		n, err := r.exec(ctx, r.cfg.DB, `WITH c AS MATERIALIZED (SELECT id FROM nines_jobs WHERE `+where+` ORDER BY {order_done} LIMIT 1000 {lock}) DELETE FROM nines_jobs j USING c WHERE j.id=c.id`)
		return r.pruneAgain(n), err
	}
	if r.d == dialect.MySQL {
		n, err := r.exec(ctx, r.cfg.DB, `DELETE FROM nines_jobs WHERE `+where+` ORDER BY {order_done} LIMIT 1000`)
		return r.pruneAgain(n), err
	}
	n, err := r.exec(ctx, r.cfg.DB, `DELETE FROM nines_jobs WHERE id IN (SELECT id FROM nines_jobs WHERE `+where+` ORDER BY {order_done} LIMIT 1000)`)
	return r.pruneAgain(n), err
}

func (r *Runner) pruneAgain(n int64) time.Duration {
	if n == 1000 {
		return 20 * time.Millisecond
	}
	return r.times.prune
}
