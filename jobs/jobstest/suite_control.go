package jobstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

// beside runs what another node would take while the jobs of the first are running, and returns what that was.
func (f *fixture) beside(cfg *jobs.Config, enqueue func(s *Sim)) (first, second []jobs.Info) {
	f.t.Helper()
	s, other := New(f.t, f.handle(), start, cfg), f.sim(cfg, nil)
	inside := false
	require.NoError(f.t, jobs.AddWorker(s.Runner, func(ctx context.Context, job *jobs.Job[task]) error {
		if !inside {
			inside = true
			second = other.Tick()
		}
		return nil
	}, nil))
	enqueue(s)
	return s.Tick(), second
}

func limitKey(t *testing.T, f *fixture) {
	opts := func(key string, most int) *jobs.EnqueueOptions {
		return &jobs.EnqueueOptions{LimitKey: key, LimitMax: most}
	}
	var waiting int64
	first, second := f.beside(nil, func(s *Sim) {
		f.enqueue(s, task{N: 1}, opts("a", 0))
		waiting = f.enqueue(s, task{N: 2}, opts("a", 0))
		f.enqueue(s, task{N: 3}, opts("b", 1))
		_, err := s.Runner.EnqueueMany(t.Context(), []jobs.Args{task{N: 4}, task{N: 5}, task{N: 6}}, opts("c", 2))
		require.NoError(t, err)
		f.enqueue(s, task{N: 7}, nil)
		i, err := s.Runner.Get(t.Context(), waiting)
		require.NoError(t, err)
		require.Equal(t, "pending", i.State)
		require.Equal(t, "a", i.LimitKey)
	})
	// While number 1 runs, the other node runs one after the other what the limits leave: 3; 4 and 5, then 6; and 7.
	var got []string
	for _, i := range second {
		got = append(got, i.Args)
	}
	slices.Sort(got)
	require.Equal(t, []string{`{"Do":"","N":3}`, `{"Do":"","N":4}`, `{"Do":"","N":5}`, `{"Do":"","N":6}`, `{"Do":"","N":7}`}, got)
	require.Len(t, first, 2)
	require.Equal(t, waiting, first[1].ID, "then number 2")

	// A place is free again whatever becomes of the job; a retry gives it back while it waits.
	s := f.sim(nil, &jobs.WorkerOptions{MaxAttempts: 2, Backoff: time.Minute})
	failing := f.enqueue(s, task{Do: "fail"}, opts("d", 1))
	f.enqueue(s, task{}, opts("d", 1))
	cancelled := f.enqueue(s, task{}, opts("d", 1))
	require.NoError(t, s.Runner.Cancel(t.Context(), cancelled))
	require.Equal(t, []string{"retryable", "succeeded"}, statesOf(s.Tick()))
	require.Equal(t, []string{"failed"}, statesOf(s.Advance(time.Minute)))
	require.NoError(t, s.Runner.Retry(t.Context(), failing))
	require.NoError(t, s.Runner.Retry(t.Context(), cancelled))
	require.ElementsMatch(t, []string{"retryable", "succeeded"}, statesOf(s.Tick()))

	// RunNow waits for a slot of a schedule with a key.
	require.NoError(t, s.Runner.Schedule("hourly", jobs.Every(time.Hour), other{}, &jobs.ScheduleOptions{LimitKey: "h", Overlap: jobs.OverlapAllow}))
	s.Advance(time.Hour) // its slot waits, no one has a worker
	require.NoError(t, s.Runner.RunNow(t.Context(), "hourly"))
	ran := 0
	w := New(t, f.handle(), s.Clock.Now(), nil)
	require.NoError(t, jobs.AddWorker(w.Runner, func(ctx context.Context, job *jobs.Job[other]) error {
		ran++
		require.Equal(t, ran == 2, job.Slot.IsZero())
		return nil
	}, nil))
	require.Len(t, w.Tick(), 2)
}

func clusterLimits(t *testing.T, f *fixture) {
	first, second := f.beside(&jobs.Config{ClusterLimits: map[string]int{"default": 1}}, func(s *Sim) {
		for n := range 3 {
			f.enqueue(s, task{N: n}, nil)
		}
	})
	require.Empty(t, second, "one is running")
	require.Len(t, first, 3)
	first, second = f.beside(&jobs.Config{ClusterLimits: map[string]int{"default": 2}}, func(s *Sim) {
		for n := range 3 {
			f.enqueue(s, task{N: n}, nil)
		}
	})
	require.Len(t, first, 1)
	require.Len(t, second, 2)
}

func cancel(t *testing.T, f *fixture) {
	a, b := New(t, f.handle(), start, nil), f.sim(nil, nil)
	require.NoError(t, jobs.AddWorker(a.Runner, func(ctx context.Context, job *jobs.Job[task]) error {
		require.NoError(t, b.Runner.Cancel(ctx, job.ID)) // on another node
		if job.Args.Do == "" {
			return nil
		}
		return errors.New("stopped half way")
	}, nil))
	i := a.Do(task{Do: "fail"}, nil)
	require.Equal(t, "cancelled", i.State, "nothing is tried again")
	require.Contains(t, i.Error, "half way")
	require.Equal(t, "succeeded", a.Do(task{}, nil).State, "it came too late")
	id := f.enqueue(a, task{}, &jobs.EnqueueOptions{RunAt: start.Add(time.Hour)})
	require.NoError(t, b.Runner.Cancel(t.Context(), id))
	require.NoError(t, b.Runner.Cancel(t.Context(), id), "again is no error")
	require.Empty(t, a.Advance(time.Hour))
	require.NoError(t, b.Runner.Cancel(t.Context(), i.ID))
	require.ErrorIs(t, b.Runner.Cancel(t.Context(), 1<<40), jobs.ErrNotFound)
	_, err := b.Runner.Get(t.Context(), 1<<40)
	require.ErrorIs(t, err, jobs.ErrNotFound)
}

func retry(t *testing.T, f *fixture) {
	s := f.sim(nil, &jobs.WorkerOptions{MaxAttempts: 2})
	for _, do := range []string{"", "warn", "discard", "panic"} {
		i := s.Do(task{Do: do}, nil)
		ran := s.Advance(time.Minute)
		was := i.State
		if len(ran) > 0 {
			was = ran[len(ran)-1].State
		}
		require.NoError(t, s.Runner.Retry(t.Context(), i.ID), do)
		ran = s.Tick()
		require.Len(t, ran, 1)
		require.Equal(t, 1, ran[0].Attempt, "the attempts begin again")
		if rest := s.Advance(time.Minute); len(rest) > 0 {
			ran = rest
		}
		require.Equal(t, was, ran[len(ran)-1].State)
	}
	require.ErrorIs(t, s.Runner.Retry(t.Context(), 1<<40), jobs.ErrNotFound)
}

func list(t *testing.T, f *fixture) {
	s := f.sim(&jobs.Config{Queues: map[string]int{"default": 9, "b": 1}}, &jobs.WorkerOptions{MaxAttempts: 1})
	f.schedule(s, "hourly", jobs.Every(time.Hour), nil)
	s.Advance(time.Hour)
	failed := s.Do(task{Do: "fail"}, &jobs.EnqueueOptions{Queue: "b", UniqueKey: "u", LimitKey: "l"})
	ok := s.Do(task{}, nil)
	f.enqueue(s, other{}, nil)
	for n, c := range []struct {
		f    jobs.Filter
		want int
	}{
		{jobs.Filter{}, 4}, {jobs.Filter{Kind: "other"}, 1}, {jobs.Filter{Queue: "b"}, 1}, {jobs.Filter{Schedule: "hourly"}, 1}, {jobs.Filter{UniqueKey: "u"}, 1}, {jobs.Filter{LimitKey: "l"}, 1},
		{jobs.Filter{IDs: []int64{ok.ID, failed.ID}}, 2}, {jobs.Filter{IDs: []int64{}}, 0}, {jobs.Filter{States: []string{"failed", "pending"}}, 2}, {jobs.Filter{States: []string{"running", "cancel requested"}}, 0},
		{jobs.Filter{Limit: 3}, 3}, {jobs.Filter{Before: failed.ID}, 1}, {jobs.Filter{Kind: "task", States: []string{"succeeded"}, Limit: 1}, 1}, {jobs.Filter{Node: "nobody"}, 0},
	} {
		require.Len(t, s.Jobs(c.f), c.want, n)
	}
	for _, err := range s.Runner.List(t.Context(), jobs.Filter{States: []string{"success"}}) {
		require.ErrorContains(t, err, `"success"`)
	}
	many := make([]jobs.Args, 450)
	for n := range many {
		many[n] = other{V: n}
	}
	_, err := s.Runner.EnqueueMany(t.Context(), many, nil)
	require.NoError(t, err)
	last := int64(1 << 60)
	n := 0
	for i, err := range s.Runner.List(t.Context(), jobs.Filter{}) {
		require.NoError(t, err)
		require.Less(t, i.ID, last, "newest first, over all pages")
		last = i.ID
		if n++; n == 3 {
			_, err := s.Runner.Get(t.Context(), i.ID) // the caller may use the database meanwhile
			require.NoError(t, err)
		}
	}
	require.Equal(t, 454, n)
}

func prune(t *testing.T, f *fixture) {
	s := f.sim(&jobs.Config{Keep: 24 * time.Hour}, &jobs.WorkerOptions{MaxAttempts: 1})
	f.schedule(s, "hourly", jobs.Every(time.Hour), &jobs.ScheduleOptions{CatchUp: jobs.Skip})
	for _, do := range []string{"", "fail", "warn", "discard"} {
		s.Do(task{Do: do}, nil)
	}
	waiting := f.enqueue(s, other{}, nil)
	many := make([]jobs.Args, 1100)
	for n := range many {
		many[n] = task{N: n}
	}
	if _, err := s.Runner.EnqueueMany(t.Context(), many[:100], nil); err != nil {
		require.NoError(t, err)
	}
	s.Tick()
	s.Advance(24*time.Hour - time.Second)
	require.Len(t, s.Jobs(jobs.Filter{}), 5+100+24)
	s.Advance(2 * time.Second)
	left := s.Jobs(jobs.Filter{})
	require.Len(t, left, 1+24, "what has not finished stays, and what is younger")
	require.Equal(t, waiting, left[0].ID)
	// The clock is set back over a slot whose row is gone: it does not come back.
	s.Clock.Set(start)
	require.Empty(t, s.Advance(20*time.Hour))
}

func badInput(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	db := f.handle()
	_, err := jobs.New(jobs.Config{DB: db, Queues: map[string]int{"two words": 0}, ClusterLimits: map[string]int{"": 0}, Poll: 1, Keep: 1})
	for _, part := range []string{`Config.Queues is "two words"`, `Config.Queues is 0 for "two words"`, `Config.ClusterLimits is ""`, `Config.ClusterLimits is 0 for ""`, "Config.Poll is 1ns", "Config.Keep is 1ns"} {
		require.ErrorContains(t, err, part, "all faults at once")
	}
	for part, o := range map[string]*jobs.EnqueueOptions{
		"Queue": {Queue: "a b"}, "Priority": {Priority: 1e6 + 1}, "UniqueKey": {UniqueKey: "\x00"}, "LimitKey": {LimitKey: string(make([]byte, 200))}, "LimitMax is 2 without": {LimitMax: 2}, "LimitMax is -1": {LimitKey: "x", LimitMax: -1}, "MaxAttempts": {MaxAttempts: -1},
	} {
		_, err := s.Runner.Enqueue(t.Context(), task{}, o)
		require.ErrorContains(t, err, part)
	}
	_, err = s.Runner.Enqueue(t.Context(), other{V: make([]byte, 1<<20)}, nil)
	require.ErrorContains(t, err, "use at most 1048576")
	_, err = s.Runner.Enqueue(t.Context(), other{V: make(chan int)}, nil)
	require.ErrorContains(t, err, "unsupported type")
	_, err = s.Runner.Enqueue(t.Context(), nil, nil)
	require.ErrorContains(t, err, "nil")
	_, err = s.Runner.Enqueue(t.Context(), odd{}, nil)
	require.ErrorContains(t, err, `kind "no good"`)
	err = s.Runner.Schedule("x", jobs.Cron("0 25 * * *"), task{}, &jobs.ScheduleOptions{TimeZone: "Europe/Atlantis"})
	require.ErrorContains(t, err, `hour "25"`, "the field is named")
	require.ErrorContains(t, err, "Atlantis")
	require.NoError(t, s.Runner.Schedule("x", jobs.Daily("03:00"), task{}, nil))
	require.ErrorContains(t, s.Runner.Schedule("x", jobs.Daily("03:00"), task{}, nil), "registered already")
	require.ErrorContains(t, jobs.AddWorker(s.Runner, work, nil), "has a worker already")
	require.ErrorContains(t, jobs.AddWorker(s.Runner, func(context.Context, *jobs.Job[odd]) error { return nil }, nil), `kind "no good"`)
	require.Error(t, jobs.AddWorker[other](s.Runner, nil, nil))
	for name, do := range s.Runner.Actions() {
		require.Error(t, do(t.Context(), "nobody"), name)
	}
	require.Empty(t, s.Jobs(jobs.Filter{}))

	// What nobody has a worker for waits, and is told.
	require.NoError(t, s.Runner.Schedule("orphan", jobs.Every(time.Hour), other{}, nil))
	s.Advance(time.Hour)
	watch := New(t, f.handle(), s.Clock.Now(), nil)
	require.NoError(t, jobs.AddWorker(watch.Runner, work, nil))
	watch.Tick()
	st := watch.Runner.Stats()
	require.Equal(t, map[string]int64{"other/default": 1}, st.Unserved)
	require.Equal(t, fmt.Sprint(map[string]bool{"orphan": true, "x": false}), fmt.Sprint(map[string]bool{st.Schedules[0].Name: st.Schedules[0].NoWorker, st.Schedules[1].Name: st.Schedules[1].NoWorker}))
	var w interface {
		Warning() bool
		Remedy() string
	}
	err = watch.Runner.Check(t.Context())
	require.ErrorAs(t, err, &w)
	require.True(t, w.Warning())
}

// odd has a name that no kind can have.
type odd struct{}

// Kind names the job.
func (odd) Kind() string { return "no good" }
