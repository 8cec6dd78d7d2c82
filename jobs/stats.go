package jobs

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Stats is a picture of the Runner. Live, Schedules and Nodes are read from the database each few seconds; AsOf says when.
type Stats struct {
	// Live counts the jobs of the whole cluster that have not finished, by Info.State: pending, running, retryable.
	Live map[string]int64
	// Schedules are all of the database, by name.
	Schedules []ScheduleInfo
	// Nodes are the processes that run a Runner on this database.
	Nodes []NodeInfo
	AsOf  time.Time

	// Running are the jobs in this process.
	Running []RunningInfo
	// Scheduling: this process schedules now.
	Scheduling bool
	// What attempts in this process came to, since New. Taken counts results that were refused because the attempt was someone else's by then;
	// GivenBack those of Shutdown.
	Succeeded, Warned, Failed, Retried, Cancelled, Skipped, Discarded, GivenBack, Taken int64
	// Slots that this process inserted to be run, jobs that it rescued from dead nodes, and statements that the database refused.
	Slots, Rescued, Faults int64
}

// ScheduleInfo is a schedule as it is in the database.
type ScheduleInfo struct {
	Name, Spec, TimeZone, Kind string
	Paused                     bool
	Next                       time.Time // zero: never again
	Last                       time.Time // the newest slot that was inserted
	LastState                  string    // Info.State of its job, or ""
}

// NodeInfo is one process that runs a Runner.
type NodeInfo struct {
	Node, Host          string
	Scheduling, Working bool
	Seen                time.Time // last heartbeat, by the database's clock
}

// RunningInfo is an attempt in this process.
type RunningInfo struct {
	ID      int64
	Kind    string
	Queue   string
	Attempt int
	Since   time.Time
}

type counters struct {
	succeeded, warned, failed, retried, cancelled, skipped, discarded, givenBack, taken, slots, rescued, faults atomic.Int64
}

func (c *counters) count(outcome string) {
	map[string]*atomic.Int64{
		outSucceeded: &c.succeeded, outWarning: &c.warned, outFailed: &c.failed, outRetryable: &c.retried, outCancelled: &c.cancelled,
		outSkipped: &c.skipped, outDiscarded: &c.discarded, outPending: &c.givenBack, "": &c.taken,
	}[outcome].Add(1)
}

// snapshot is what refresh read; guarded by Runner.mu.
type snapshot struct {
	live      map[string]int64
	schedules []ScheduleInfo
	nodes     []NodeInfo
	at        time.Time
}

const snapshotAge = 2 * time.Second

// refresh reads the shared part of Stats when it is old.
func (r *Runner) refresh(ctx context.Context) error {
	r.mu.Lock()
	fresh := time.Since(r.snapshot.at) < snapshotAge
	r.mu.Unlock()
	if fresh {
		return nil
	}
	s := snapshot{live: map[string]int64{}, at: time.Now()}
	for _, state := range []int{stScheduled, stAvailable, stRunning} { // each by its own index: finished jobs are not read
		err := r.each(ctx, r.cfg.DB, fmt.Sprintf(`SELECT outcome, count(*) FROM nines_jobs WHERE state=%d GROUP BY outcome`, state), nil, func(rows *sql.Rows) error {
			var outcome string
			var n int64
			err := rows.Scan(&outcome, &n)
			s.live[outcome] += n
			return err
		})
		if err != nil {
			return err
		}
	}
	err := r.each(ctx, r.cfg.DB, `SELECT s.name, s.spec, s.zone, s.kind, s.paused, s.next_us, s.last_us, COALESCE((SELECT outcome FROM nines_jobs j WHERE j.schedule=s.name AND j.due_us=s.last_us),'') FROM nines_job_schedules s ORDER BY s.name`, nil, func(rows *sql.Rows) error {
		var i ScheduleInfo
		var paused int
		var next, last int64
		err := rows.Scan(&i.Name, &i.Spec, &i.TimeZone, &i.Kind, &paused, &next, &last, &i.LastState)
		i.Paused, i.Last = paused == 1, instant(last)
		if next != never {
			i.Next = instant(next)
		}
		s.schedules = append(s.schedules, i)
		return err
	})
	if err != nil {
		return err
	}
	err = r.each(ctx, r.cfg.DB, `SELECT node, host, scheduling, working, seen_us FROM nines_job_nodes ORDER BY node, id`, nil, func(rows *sql.Rows) error {
		var n NodeInfo
		var scheduling, working int
		var seen int64
		err := rows.Scan(&n.Node, &n.Host, &scheduling, &working, &seen)
		n.Scheduling, n.Working, n.Seen = scheduling == 1, working == 1, instant(seen)
		s.nodes = append(s.nodes, n)
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.snapshot = s
	r.mu.Unlock()
	return nil
}

// Stats returns the picture. It does not wait for the database.
func (r *Runner) Stats() Stats {
	r.mu.Lock()
	s := Stats{Live: maps.Clone(r.snapshot.live), Schedules: slices.Clone(r.snapshot.schedules), Nodes: slices.Clone(r.snapshot.nodes), AsOf: r.snapshot.at}
	for _, e := range r.running {
		s.Running = append(s.Running, RunningInfo{ID: e.id, Kind: e.kind, Queue: e.queue, Attempt: int(e.attempt - e.uncounted), Since: e.began})
	}
	r.mu.Unlock()
	slices.SortFunc(s.Running, func(a, b RunningInfo) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	c := &r.counters
	s.Scheduling = r.scheduling.Load()
	s.Succeeded, s.Warned, s.Failed, s.Retried, s.Cancelled = c.succeeded.Load(), c.warned.Load(), c.failed.Load(), c.retried.Load(), c.cancelled.Load()
	s.Skipped, s.Discarded, s.GivenBack, s.Taken = c.skipped.Load(), c.discarded.Load(), c.givenBack.Load(), c.taken.Load()
	s.Slots, s.Rescued, s.Faults = c.slots.Load(), c.rescued.Load(), c.faults.Load()
	return s
}

// CheckError is what Check found.
type CheckError struct {
	text, remedy string
	warning      bool
	err          error
}

// Error says what is wrong.
func (e *CheckError) Error() string { return "jobs: " + e.text }

// Unwrap returns the database's error, if there is one.
func (e *CheckError) Unwrap() error { return e.err }

// Remedy says what to do about it.
func (e *CheckError) Remedy() string { return e.remedy }

// Warning reports whether things go on all the same.
func (e *CheckError) Warning() bool { return e.warning }

// lateSlot is how late a slot may be before Check says so.
const lateSlot = time.Minute

// Check asks the database. nil: jobs are scheduled and run. A *CheckError that is a warning: no node schedules, or slots are late; else
// the Runner does not run or the database refuses what it asks.
func (r *Runner) Check(ctx context.Context) error {
	if r.life.Closed() {
		return ErrClosed
	}
	r.mu.Lock()
	runs := r.running != nil
	r.mu.Unlock()
	if !runs {
		return &CheckError{text: "the runner does not run yet", remedy: "call Run; if it was called, its log says what it waits for"}
	}
	if p := r.failing.Load(); p != nil {
		return &CheckError{text: (*p).Error(), remedy: "see why the master database refuses it", err: *p}
	}
	var schedulers, late int
	err := r.one(ctx, r.cfg.DB, fmt.Sprintf(`SELECT (SELECT count(*) FROM nines_job_nodes WHERE scheduling=1), (SELECT count(*) FROM nines_job_schedules WHERE paused=0 AND next_us<{now}-%d)`, lateSlot.Microseconds()), nil, &schedulers, &late)
	switch {
	case err != nil:
		return &CheckError{text: fmt.Sprintf("ask the database: %v", err), remedy: "see why the master database does not answer", err: err}
	case schedulers == 0:
		return &CheckError{text: "no node schedules: recurring jobs do not start", remedy: "let a process without NoScheduler lead: set NonCandidate where NoScheduler is set, and see that there is a leader", warning: true}
	case late > 0:
		return &CheckError{text: fmt.Sprintf("%d schedules are late by more than %v", late, lateSlot), remedy: "see the scheduling node's log", warning: true}
	}
	return nil
}
