package jobs

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Stats is a picture of the Runner. What it says of the whole cluster is read from the database each few seconds.
type Stats struct {
	// Live counts the jobs of the whole cluster that have not finished, by Info.State: pending, running, retryable. It counts to 10,000 of each.
	Live map[string]int64
	// Backlog counts the jobs that could run at once if there were room, by queue, to 10,000 in all. Unserved counts those of them that no node takes,
	// by kind and queue ("export/default"): it has no worker for the kind, or does not serve the queue.
	Backlog, Unserved map[string]int64
	// OldestWait is how long the oldest of these jobs has been able to run; 0 when none waits.
	OldestWait time.Duration
	// Schedules are all of the database, by name.
	Schedules []ScheduleInfo
	// Nodes are the processes that run a Runner on this database.
	Nodes []NodeInfo
	// AsOf is when the fields above were read, by this machine's clock.
	AsOf time.Time

	// Running are the jobs in this process.
	Running []RunningInfo
	// Room is how many more jobs of each queue this process would take.
	Room map[string]int64
	// Scheduling: this process schedules now.
	Scheduling bool
	// What attempts in this process came to, since New. Retried counts those that failed and are tried again, Snoozed those that their worker
	// put off, GivenBack those of Shutdown, and Taken results that were refused because the attempt was someone else's by then.
	Succeeded, Warned, Failed, Retried, Cancelled, Skipped, Discarded, Snoozed, GivenBack, Taken int64
	// Kinds is the same by kind of job, for the kinds that this process has a worker for.
	Kinds map[string]KindStats
	// Slots that this process inserted to be run, jobs that it rescued from dead nodes, and statements that the database refused.
	Slots, Rescued, Faults int64
}

// KindStats is what attempts at one kind of job in this process came to, since New.
type KindStats struct {
	// Attempts are those that have ended, however. Succeeded counts warnings too, and Failed the discarded.
	Attempts, Succeeded, Failed, Retried int64
	// RunTime is the time that they took in all, and StartDelay how long in all their jobs had been able to run before they were started.
	RunTime, StartDelay time.Duration
}

// ScheduleInfo is a schedule as it is in the database.
type ScheduleInfo struct {
	// Name is the schedule's, Spec its rule ("cron 0 3 * * *", "every 10m0s"), TimeZone the rule's ("" is UTC), and Kind that of its jobs.
	Name, Spec, TimeZone, Kind string
	// Paused: its slots are not inserted.
	Paused bool
	// NoWorker: no node has a worker for its kind, or serves its queue.
	NoWorker bool
	// Next is the next due time; zero: never again.
	Next time.Time
	// Last is the newest slot that was inserted; zero: none yet. LastState is Info.State of its job, or "" when it has been pruned.
	Last      time.Time
	LastState string
}

// NodeInfo is one process that runs a Runner.
type NodeInfo struct {
	// Node is the cluster ID, "" without a cluster, and Host the machine's name.
	Node, Host string
	// Scheduling: it schedules now. Working: it has workers and runs jobs.
	Scheduling, Working bool
	// Kinds and Queues are what it works on; empty for a version that does not say.
	Kinds, Queues []string
	// Seen is its last heartbeat, by the database's clock.
	Seen time.Time
}

// RunningInfo is an attempt in this process.
type RunningInfo struct {
	// ID, Kind, Queue and Attempt are as in Info.
	ID      int64
	Kind    string
	Queue   string
	Attempt int
	// Since is when it began, by this machine's clock.
	Since time.Time
}

type counters struct {
	succeeded, warned, failed, retried, cancelled, skipped, discarded, snoozed, givenBack, taken, slots, rescued, faults atomic.Int64
}

func (c *counters) count(outcome string) {
	map[string]*atomic.Int64{
		outSucceeded: &c.succeeded, outWarning: &c.warned, outFailed: &c.failed, outRetryable: &c.retried, outCancelled: &c.cancelled,
		outSkipped: &c.skipped, outDiscarded: &c.discarded, outSnoozed: &c.snoozed, outPending: &c.givenBack, "": &c.taken,
	}[outcome].Add(1)
}

// snapshot is what refresh read; guarded by Runner.mu.
type snapshot struct {
	live, backlog, unserved map[string]int64
	oldest                  time.Duration
	schedules               []ScheduleInfo
	nodes                   []NodeInfo
	at                      time.Time
}

const (
	snapshotAge = 2 * time.Second
	countTo     = 10_000 // a longer backlog is only looked at so far
)

// refresh reads the shared part of Stats when it is old.
func (r *Runner) refresh(ctx context.Context) error {
	r.mu.Lock()
	fresh := time.Since(r.snapshot.at) < snapshotAge
	r.mu.Unlock()
	if fresh {
		return nil
	}
	s := snapshot{live: map[string]int64{}, backlog: map[string]int64{}, unserved: map[string]int64{}, at: time.Now()}
	err := r.each(ctx, r.cfg.DB, `SELECT node, host, scheduling, working, kinds, queues, seen_us FROM nines_job_nodes ORDER BY node, id`, nil, func(rows *sql.Rows) error {
		var n NodeInfo
		var scheduling, working int
		var kinds, queues string
		var seen int64
		err := rows.Scan(&n.Node, &n.Host, &scheduling, &working, &kinds, &queues, &seen)
		n.Scheduling, n.Working, n.Kinds, n.Queues, n.Seen = scheduling == 1, working == 1, strings.Fields(kinds), strings.Fields(queues), instant(seen)
		s.nodes = append(s.nodes, n)
		return err
	})
	if err != nil {
		return err
	}
	for state, is := range map[int]string{stScheduled: `{waits}`, stAvailable: `{available}`, stRunning: `{runs}`} { // each by its own index: finished jobs are not read
		query := fmt.Sprintf(`SELECT outcome, kind, queue, count(*), min(run_us), {now} FROM (SELECT outcome, kind, queue, run_us FROM nines_jobs WHERE %s LIMIT %d) l GROUP BY outcome, kind, queue`, is, countTo)
		err := r.each(ctx, r.cfg.DB, query, nil, func(rows *sql.Rows) error {
			var outcome, kind, queue string
			var n, since, now int64
			err := rows.Scan(&outcome, &kind, &queue, &n, &since, &now)
			s.live[outcome] += n
			if state == stAvailable {
				s.backlog[queue] += n
				s.oldest = max(s.oldest, time.Duration(now-since)*time.Microsecond)
				if !s.served(kind, queue) {
					s.unserved[kind+"/"+queue] += n
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	err = r.each(ctx, r.cfg.DB, `SELECT s.name, s.spec, s.zone, s.kind, s.queue, s.paused, s.next_us, s.last_us, COALESCE((SELECT outcome FROM nines_jobs j WHERE j.schedule=s.name AND j.due_us=s.last_us),'') FROM nines_job_schedules s ORDER BY s.name`, nil, func(rows *sql.Rows) error {
		var i ScheduleInfo
		var queue string
		var paused int
		var next, last int64
		err := rows.Scan(&i.Name, &i.Spec, &i.TimeZone, &i.Kind, &queue, &paused, &next, &last, &i.LastState)
		i.Paused, i.Last, i.NoWorker = paused == 1, instant(last), !s.served(i.Kind, queue)
		if next != never {
			i.Next = instant(next)
		}
		s.schedules = append(s.schedules, i)
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

// served reports whether a node takes jobs of a kind in a queue. One that works and does not say on what may take any.
func (s *snapshot) served(kind, queue string) bool {
	return slices.ContainsFunc(s.nodes, func(n NodeInfo) bool {
		return n.Working && (len(n.Kinds) == 0 || slices.Contains(n.Kinds, kind) && slices.Contains(n.Queues, queue))
	})
}

// Stats returns the picture. It does not wait for the database.
func (r *Runner) Stats() Stats {
	r.mu.Lock()
	s := Stats{
		Live: maps.Clone(r.snapshot.live), Backlog: maps.Clone(r.snapshot.backlog), Unserved: maps.Clone(r.snapshot.unserved), OldestWait: r.snapshot.oldest,
		Schedules: slices.Clone(r.snapshot.schedules), Nodes: slices.Clone(r.snapshot.nodes), AsOf: r.snapshot.at, Room: map[string]int64{},
	}
	s.Kinds = make(map[string]KindStats, len(r.workers))
	for kind, w := range r.workers {
		s.Kinds[kind] = w.stats
	}
	if queues, _ := r.serves(); r.running != nil {
		for _, queue := range queues {
			s.Room[queue] = int64(max(r.cfg.Queues[queue]-r.busy[queue], 0))
		}
	}
	for _, e := range r.running {
		s.Running = append(s.Running, RunningInfo{ID: e.id, Kind: e.kind, Queue: e.queue, Attempt: int(e.attempt - e.uncounted), Since: e.began})
	}
	r.mu.Unlock()
	slices.SortFunc(s.Running, func(a, b RunningInfo) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	c := &r.counters
	s.Scheduling = r.scheduling.Load()
	s.Succeeded, s.Warned, s.Failed, s.Retried, s.Cancelled = c.succeeded.Load(), c.warned.Load(), c.failed.Load(), c.retried.Load(), c.cancelled.Load()
	s.Skipped, s.Discarded, s.Snoozed, s.GivenBack, s.Taken = c.skipped.Load(), c.discarded.Load(), c.snoozed.Load(), c.givenBack.Load(), c.taken.Load()
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

// Check asks the database. nil: jobs are scheduled and run. A *CheckError that is a warning: no node schedules, slots are late,
// or jobs wait that no node takes; else the Runner does not run or the database refuses what it asks.
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
	r.mu.Lock()
	unserved := strings.Join(slices.Sorted(maps.Keys(r.snapshot.unserved)), ", ")
	r.mu.Unlock()
	var schedulers, late int
	err := r.one(ctx, r.cfg.DB, fmt.Sprintf(`SELECT (SELECT count(*) FROM nines_job_nodes WHERE scheduling=1), (SELECT count(*) FROM nines_job_schedules WHERE paused=0 AND next_us<{now}-%d)`, lateSlot.Microseconds()), nil, &schedulers, &late)
	switch {
	case err != nil:
		return &CheckError{text: fmt.Sprintf("ask the database: %v", err), remedy: "see why the master database does not answer", err: err}
	case schedulers == 0:
		return &CheckError{text: "no node schedules: recurring jobs do not start", remedy: "let a process without NoScheduler lead: set NonCandidate where NoScheduler is set, and see that there is a leader", warning: true}
	case late > 0:
		return &CheckError{text: fmt.Sprintf("%d schedules are late by more than %v", late, lateSlot), remedy: "see the scheduling node's log", warning: true}
	case unserved != "":
		return &CheckError{text: fmt.Sprintf("jobs of kind/queue %s wait and no node takes them", unserved), remedy: "run a process that has a worker for the kind (AddWorker) and serves the queue (Config.Queues), or cancel the jobs", warning: true}
	}
	return nil
}
