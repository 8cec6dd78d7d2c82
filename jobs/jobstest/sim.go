package jobstest

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

// Sim is a Runner in simulated time.
type Sim struct {
	// Runner is the real one: register workers and schedules on it, list and cancel jobs with it. It is not to be Run.
	Runner *jobs.Runner
	// Clock is the database's.
	Clock *Clock

	t testing.TB
}

// New makes a Sim on a database, whose clock shows start. cfg may set Queues, ClusterLimits, Keep, NoWorkers, NoScheduler and Logger; its DB, Leader and
// Cluster are not used. nil is the default of all, and no log.
func New(t testing.TB, db jobs.DB, start time.Time, cfg *jobs.Config) *Sim {
	t.Helper()
	var c jobs.Config
	if cfg != nil {
		c = *cfg
	}
	s := &Sim{Clock: NewClock(start), t: t}
	c.DB, c.Leader, c.Cluster = DB(db, s.Clock), nil, nil
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	s.Runner, err = jobs.New(c)
	require.NoError(t, err)
	return s
}

// Tick does all that is due now, and returns the jobs that were attempted, in that order, as they are afterwards.
func (s *Sim) Tick() []jobs.Info {
	s.t.Helper()
	ran, _ := s.step()
	return ran
}

func (s *Sim) step() (ran []jobs.Info, next time.Time) {
	s.t.Helper()
	res, err := s.Runner.Step(s.t.Context())
	require.NoError(s.t, err)
	return s.infos(res.Ran), res.Next
}

func (s *Sim) infos(ids []int64) (infos []jobs.Info) {
	s.t.Helper()
	for _, id := range ids {
		info, err := s.Runner.Get(s.t.Context(), id)
		require.NoError(s.t, err)
		infos = append(infos, info)
	}
	return infos
}

// Advance lets time pass and does what is due on the way, each thing at its time. It returns the jobs that were attempted, in that order, each as it
// was after the attempt.
func (s *Sim) Advance(d time.Duration) (ran []jobs.Info) {
	s.t.Helper()
	end := s.Clock.Now().Add(d)
	for {
		some, next := s.step()
		ran = append(ran, some...)
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(s.Clock.Now()) {
			s.Clock.Set(next)
		} else { // it waits for what has not happened: a worker elsewhere, a schedule that is not understood
			s.Clock.Add(min(time.Second, end.Sub(s.Clock.Now())))
			if !s.Clock.Now().Before(end) {
				break
			}
		}
	}
	s.Clock.Set(end)
	return append(ran, s.Tick()...)
}

// Do enqueues a job, does what is due, and returns what became of it.
func (s *Sim) Do(args jobs.Args, opts *jobs.EnqueueOptions) jobs.Info {
	s.t.Helper()
	id, err := s.Runner.Enqueue(s.t.Context(), args, opts)
	require.NoError(s.t, err)
	s.Tick()
	return s.infos([]int64{id})[0]
}

// Jobs returns the jobs that a filter selects, oldest first.
func (s *Sim) Jobs(f jobs.Filter) (infos []jobs.Info) {
	s.t.Helper()
	for i, err := range s.Runner.List(s.t.Context(), f) {
		require.NoError(s.t, err)
		infos = append([]jobs.Info{i}, infos...)
	}
	return infos
}
