package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"
)

// CatchUp says what becomes of slots that nobody was there for. The zero value is Latest.
type CatchUp struct {
	skip bool
	n    int // All
}

var (
	// Latest runs the newest missed slot, late as it may be. The default.
	Latest = CatchUp{}
	// Skip runs a slot only if it is at most a minute late (or ScheduleOptions.StartDeadline), and of several the newest.
	Skip = CatchUp{skip: true}
)

// All runs the newest n missed slots, oldest first; n from 1 to 1,000. It needs an Overlap other than OverlapSkip.
func All(n int) CatchUp {
	if n == 0 {
		n = -1 // not Latest: Schedule refuses it
	}
	return CatchUp{n: n}
}

// Overlap says what happens to a slot that is due while a job of its schedule has not finished. The zero value is OverlapSkip.
type Overlap int

const (
	// OverlapSkip records the slot as skipped. The default.
	OverlapSkip Overlap = iota
	// OverlapAllow runs both at once.
	OverlapAllow
	// OverlapQueue runs it when the older ones have finished, retries included.
	OverlapQueue
	// OverlapReplace cancels the older ones and runs it when they have ended.
	OverlapReplace
)

var overlaps = []string{"skip", "allow", "queue", "replace"}

// ScheduleOptions are what a schedule has besides its rule. The zero value: UTC, CatchUp Latest, OverlapSkip, queue "default".
type ScheduleOptions struct {
	// TimeZone is the zone of the rule's clock times, "Europe/Berlin"; "" is UTC. "Local" is refused: it may differ between nodes.
	TimeZone string
	CatchUp  CatchUp
	Overlap  Overlap
	// Jitter puts each job off by a random time below it; up to 24 h. The slot stays what it is.
	Jitter time.Duration
	// StartDeadline skips a slot whose job could not be started within it; 0 is none, else at least 1 s.
	StartDeadline time.Duration
	// Enabled is asked by the node that has claimed a slot's job, before each attempt; false ends the job as skipped. It is for what can be
	// switched off while the program runs, differs between nodes, or has to look. nil: always. A panic in it fails the attempt. RunNow does
	// not ask. It is a function of this process: a node that did not register the schedule does not ask either.
	Enabled func(ctx context.Context) bool
	// Queue, Priority, MaxAttempts, LimitKey and LimitMax are as in EnqueueOptions. With a LimitKey RunNow waits for a slot that runs.
	Queue       string
	Priority    int
	MaxAttempts int
	LimitKey    string
	LimitMax    int
}

// schedule is a registered schedule, as its row.
type schedule struct {
	name, spec, zone, kind, queue, args, catchUp, overlap, limitKey string
	priority, maxAttempts, limitMax                                 int64
	catchMax, jitterUS, deadlineUS                                  int64
	nextUS                                                          int64 // of the row, not of the registration
	written                                                         bool
}

const never = math.MaxInt64

// Schedule registers a recurring rule under a name, before Run or while it runs. The schedule is a row that every process with this call
// writes at Run and that stays until Unschedule: whichever process schedules needs the row, not this code. Registering a
// name with another rule changes it; a slot that was due by then still runs. args are given to every job; their kind needs a worker somewhere.
func (r *Runner) Schedule(name string, spec Spec, args Args, opts *ScheduleOptions) error {
	if r.life.Closed() {
		return ErrClosed
	}
	var o ScheduleOptions
	if opts != nil {
		o = *opts
	}
	var faults []error
	bad := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("jobs: schedule %q: "+format, append([]any{name}, a...)...))
	}
	if err := validName(name); err != nil {
		bad("the name: %w", err)
	}
	if spec.text == "" && spec.err == nil {
		bad("Spec is empty: use Cron, Every or Daily")
	}
	if spec.err != nil {
		bad("%w", spec.err)
	}
	if o.TimeZone == "Local" {
		bad(`TimeZone is "Local": name one, nodes may differ`)
	} else if _, err := time.LoadLocation(o.TimeZone); err != nil {
		bad("TimeZone %q: %w: use an IANA name, and embed time/tzdata where the system has none", o.TimeZone, err)
	}
	if o.TimeZone != "" && spec.every > 0 {
		bad("TimeZone is %q: an interval has none, leave it out", o.TimeZone)
	}
	if o.CatchUp.n < 0 || o.CatchUp.n > 1000 {
		bad("CatchUp is All(%d): use 1 to 1,000", max(o.CatchUp.n, 0))
	}
	if o.Overlap < OverlapSkip || o.Overlap > OverlapReplace {
		bad("Overlap is %d: use OverlapSkip, OverlapAllow, OverlapQueue or OverlapReplace", o.Overlap)
	} else if o.CatchUp.n > 1 && (o.Overlap == OverlapSkip || o.Overlap == OverlapReplace) {
		bad("CatchUp is All(%d) and Overlap would drop all but one: use OverlapQueue or OverlapAllow", o.CatchUp.n)
	}
	if o.Jitter < 0 || o.Jitter > 24*time.Hour {
		bad("Jitter is %v: use 0 to 24h", o.Jitter)
	}
	if o.StartDeadline != 0 && o.StartDeadline < time.Second {
		bad("StartDeadline is %v: use at least 1s, or 0 for none", o.StartDeadline)
	}
	in, err := prepare(args, &EnqueueOptions{Queue: o.Queue, Priority: o.Priority, MaxAttempts: o.MaxAttempts, LimitKey: o.LimitKey, LimitMax: o.LimitMax})
	if err != nil {
		bad("%w", err)
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	s := &schedule{
		name: name, spec: spec.text, zone: o.TimeZone, kind: in.kind, queue: in.opts.Queue, args: in.args, catchUp: "latest", overlap: overlaps[o.Overlap],
		limitKey: o.LimitKey, limitMax: int64(in.opts.LimitMax), priority: int64(o.Priority), maxAttempts: int64(o.MaxAttempts), catchMax: int64(o.CatchUp.n), jitterUS: o.Jitter.Microseconds(), deadlineUS: o.StartDeadline.Microseconds(),
	}
	switch {
	case o.CatchUp.skip:
		s.catchUp = "skip"
	case o.CatchUp.n > 0:
		s.catchUp = "all"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.schedules[name] != nil {
		return fmt.Errorf("jobs: schedule %q is registered already in this process", name)
	}
	r.schedules[name] = s
	if o.Enabled != nil {
		r.asks[name] = o.Enabled
	}
	kick(r.kickRegister)
	return nil
}

// Unschedule removes a schedule and its jobs that wait; one that runs goes on, and what has finished stays listed. A process that still calls
// Schedule with the name writes it again at its next Run: take the call out of the program first. ErrNotFound for a schedule that nobody
// registered.
func (r *Runner) Unschedule(ctx context.Context, name string) error {
	if err := r.ensure(ctx); err != nil {
		return err
	}
	var n, m int64
	err := r.inTx(ctx, func(tx *sql.Tx) (err error) {
		if n, err = r.exec(ctx, tx, `DELETE FROM nines_job_schedules WHERE name=?`, name); err != nil {
			return err
		}
		m, err = r.exec(ctx, tx, `UPDATE nines_jobs SET state=3, outcome='cancelled', error='its schedule was removed', done_us={now} WHERE schedule=? AND state<2`, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("jobs: unschedule %q: %w", name, err)
	}
	r.mu.Lock()
	known := r.schedules[name] != nil
	delete(r.schedules, name)
	delete(r.asks, name)
	r.snapshot.at = time.Time{}
	r.mu.Unlock()
	if n == 0 && m == 0 && !known {
		return fmt.Errorf("jobs: unschedule %q: %w", name, ErrNotFound)
	}
	return nil
}

// enabled asks the schedule of a slot whether it is to run here.
func (r *Runner) enabled(ctx context.Context, e *execution) error {
	if e.schedule == "" || e.dueUS == 0 {
		return nil
	}
	r.mu.Lock()
	ask := r.asks[e.schedule]
	r.mu.Unlock()
	if ask != nil && !ask(ctx) {
		return errDisabled
	}
	return nil
}

// register writes the schedules that this process has not written yet.
func (r *Runner) register(ctx context.Context) (time.Duration, error) {
	r.mu.Lock()
	var todo []*schedule
	for _, s := range r.schedules {
		if !s.written {
			todo = append(todo, s)
		}
	}
	r.mu.Unlock()
	for _, s := range todo {
		if err := r.writeSchedule(ctx, s); err != nil {
			return 0, fmt.Errorf("schedule %q: %w", s.name, err)
		}
		r.mu.Lock()
		s.written = true
		r.mu.Unlock()
	}
	if len(todo) > 0 {
		r.wake(topicTick)
	}
	return time.Hour, nil
}

const scheduleColumns = `name, spec, zone, kind, queue, args, catch_up, overlap, COALESCE(limit_key,''), limit_max, priority, max_attempts, catch_max, jitter_us, deadline_us, next_us`

func (s *schedule) scan(rows *sql.Rows, more ...any) error {
	return rows.Scan(append([]any{&s.name, &s.spec, &s.zone, &s.kind, &s.queue, &s.args, &s.catchUp, &s.overlap, &s.limitKey, &s.limitMax, &s.priority, &s.maxAttempts, &s.catchMax, &s.jitterUS, &s.deadlineUS, &s.nextUS}, more...)...)
}

func (s *schedule) values() []any {
	return []any{s.spec, s.zone, s.kind, s.queue, s.args, s.catchUp, s.overlap, orNull(s.limitKey), s.limitMax, s.priority, s.maxAttempts, s.catchMax, s.jitterUS, s.deadlineUS}
}

// rule returns what the texts of the row mean.
func (s *schedule) rule() (Spec, *time.Location, CatchUp, error) {
	spec, err := parseSpec(s.spec)
	if err != nil {
		return spec, nil, CatchUp{}, err
	}
	loc, err := time.LoadLocation(s.zone)
	return spec, loc, CatchUp{skip: s.catchUp == "skip", n: int(s.catchMax)}, err
}

// nextAfter is the first slot after a time of the database's clock.
func (s *schedule) nextAfter(us int64) (int64, error) {
	spec, loc, _, err := s.rule()
	if err != nil {
		return 0, err
	}
	return slotUS(spec.next(time.UnixMicro(us), loc)), nil
}

func slotUS(at time.Time) int64 {
	if at.IsZero() {
		return never
	}
	return at.UnixMicro()
}

// writeSchedule inserts or changes the row. A change compares the next due time: a scheduler may be at work on it.
func (r *Runner) writeSchedule(ctx context.Context, s *schedule) error {
	for ctx.Err() == nil {
		var old schedule
		var now int64
		found := false
		err := r.each(ctx, r.cfg.DB, `SELECT `+scheduleColumns+`, {now} FROM nines_job_schedules WHERE name=?`, []any{s.name}, func(rows *sql.Rows) error {
			found = true
			return old.scan(rows, &now)
		})
		if err != nil {
			return err
		}
		if !found {
			if err := r.one(ctx, r.cfg.DB, `SELECT {now}`, nil, &now); err != nil {
				return err
			}
			next, err := s.nextAfter(now)
			if err != nil {
				return err
			}
			insert := `INSERT INTO nines_job_schedules (name, spec, zone, kind, queue, args, catch_up, overlap, limit_key, limit_max, priority, max_attempts, catch_max, jitter_us, deadline_us, paused, next_us, last_us) VALUES (` + marks(15) + `,0,?,0)`
			if r.d == "mysql" {
				insert += ` ON DUPLICATE KEY UPDATE name=VALUES(name)`
			} else {
				insert += ` ON CONFLICT (name) DO NOTHING`
			}
			n, err := r.exec(ctx, r.cfg.DB, insert, append(append([]any{s.name}, s.values()...), next)...)
			if err != nil {
				return err
			}
			if n == 1 {
				return nil
			}
			continue
		}
		same := old
		same.nextUS, same.written = s.nextUS, s.written
		if same == *s {
			return nil
		}
		next := old.nextUS
		if (old.spec != s.spec || old.zone != s.zone) && old.nextUS > now { // what is due already stays due
			if next, err = s.nextAfter(now); err != nil {
				return err
			}
		}
		args := append(append([]any{}, s.values()...), next, s.name, old.nextUS)
		n, err := r.exec(ctx, r.cfg.DB, `UPDATE nines_job_schedules SET spec=?, zone=?, kind=?, queue=?, args=?, catch_up=?, overlap=?, limit_key=?, limit_max=?, priority=?, max_attempts=?, catch_max=?, jitter_us=?, deadline_us=?, next_us=? WHERE name=? AND next_us=?`, args...)
		if err != nil || n == 1 {
			return err
		}
	}
	return ctx.Err()
}
