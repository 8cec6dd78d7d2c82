package jobstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

// Run is the conformance suite. open is called once for each test and makes an empty database; what it returns makes handles on it, of which a test
// needs up to three. The suite closes none.
func Run(t *testing.T, open func(t testing.TB) (handle func() jobs.DB)) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, f *fixture)
	}{
		{"States", states},
		{"Attempts", attempts},
		{"Panics", panics},
		{"Order", order},
		{"RunAt", runAt},
		{"UniqueKey", uniqueKey},
		{"EnqueueTx", enqueueTx},
		{"EnqueueMany", enqueueMany},
		{"CompleteTx", completeTx},
		{"Position", position},
		{"Output", output},
		{"Snooze", snooze},
		{"CatchUp", catchUp},
		{"Overlap", overlap},
		{"JitterAndDeadline", jitterAndDeadline},
		{"TimeZone", timeZone},
		{"Enabled", enabled},
		{"PauseAndRunNow", pauseAndRunNow},
		{"Unschedule", unschedule},
		{"ChangedRule", changedRule},
		{"SlotsAreUnique", slotsAreUnique},
		{"LimitKey", limitKey},
		{"ClusterLimits", clusterLimits},
		{"Cancel", cancel},
		{"Retry", retry},
		{"List", list},
		{"Prune", prune},
		{"BadInput", badInput},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, &fixture{t: t, handle: open(t)}) })
	}
}

// start is a Sunday; the clocks of Berlin are set forward on the next one.
var start = time.Date(2026, 3, 22, 10, 30, 0, 0, time.UTC)

type fixture struct {
	t      *testing.T
	handle func() jobs.DB
}

// sim makes a Sim whose worker for task does as it says.
func (f *fixture) sim(cfg *jobs.Config, opts *jobs.WorkerOptions) *Sim {
	f.t.Helper()
	s := New(f.t, f.handle(), start, cfg)
	require.NoError(f.t, jobs.AddWorker(s.Runner, work, opts))
	return s
}

// task is a job whose worker does as it says.
type task struct {
	Do string
	N  int
}

// Kind names the job.
func (task) Kind() string { return "task" }

// other is a job of another kind.
type other struct{ V any }

// Kind names the job.
func (other) Kind() string { return "other" }

func work(ctx context.Context, job *jobs.Job[task]) error {
	switch job.Args.Do {
	case "warn":
		return jobs.Warn(errors.New("half of it"))
	case "discard":
		return errors.Join(errors.New("wrapped"), jobs.Discard(errors.New("no such user")))
	case "fail":
		return errors.New("again")
	case "twice":
		if job.Attempt < 3 {
			return errors.New("not yet")
		}
	case "panic":
		panic("kaboom")
	case "time out":
		<-ctx.Done()
		return ctx.Err()
	case "progress":
		return job.Progress(ctx, 40, "almost half")
	}
	return nil
}

func (f *fixture) enqueue(s *Sim, args jobs.Args, opts *jobs.EnqueueOptions) int64 {
	f.t.Helper()
	id, err := s.Runner.Enqueue(f.t.Context(), args, opts)
	require.NoError(f.t, err)
	return id
}

func (f *fixture) schedule(s *Sim, name string, spec jobs.Spec, opts *jobs.ScheduleOptions) {
	f.t.Helper()
	require.NoError(f.t, s.Runner.Schedule(name, spec, task{}, opts))
}

// slots are the due times of a schedule's jobs in a state, as clock times of UTC.
func (f *fixture) slots(s *Sim, name, state string) (at []string) {
	f.t.Helper()
	for _, i := range s.Jobs(jobs.Filter{Schedule: name, States: []string{state}}) {
		at = append(at, i.Slot.Format("15:04"))
	}
	return at
}

func statesOf(infos []jobs.Info) (states []string) {
	for _, i := range infos {
		states = append(states, i.State)
	}
	return states
}
