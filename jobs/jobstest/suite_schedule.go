package jobstest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

func catchUp(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	hourly := jobs.Every(time.Hour)
	f.schedule(s, "latest", hourly, nil)
	f.schedule(s, "skip", hourly, &jobs.ScheduleOptions{CatchUp: jobs.Skip})
	f.schedule(s, "half", hourly, &jobs.ScheduleOptions{CatchUp: jobs.Skip, StartDeadline: 30 * time.Minute})
	f.schedule(s, "all", hourly, &jobs.ScheduleOptions{CatchUp: jobs.All(2), Overlap: jobs.OverlapQueue})
	f.schedule(s, "few", hourly, &jobs.ScheduleOptions{CatchUp: jobs.All(9), Overlap: jobs.OverlapAllow})
	require.Empty(t, s.Tick(), "the first slot is yet to come")
	s.Clock.Set(start.Add(3*time.Hour + 40*time.Minute)) // 14:10, and nobody was there
	s.Tick()
	for name, want := range map[string][2][]string{
		"latest": {{"14:00"}, {"11:00", "12:00", "13:00"}},
		"skip":   {nil, {"11:00", "12:00", "13:00", "14:00"}},
		"half":   {{"14:00"}, {"11:00", "12:00", "13:00"}},
		"all":    {{"13:00", "14:00"}, {"11:00", "12:00"}},
		"few":    {{"11:00", "12:00", "13:00", "14:00"}, nil},
	} {
		require.Equal(t, want[0], f.slots(s, name, "succeeded"), name)
		require.Equal(t, want[1], f.slots(s, name, "skipped"), name)
	}
	require.Len(t, s.Advance(time.Hour), 5, "then each at its time")
	require.Equal(t, "missed", s.Jobs(jobs.Filter{Schedule: "skip"})[0].Error)

	// The clock is set back: nothing comes twice. Set forward: nothing is lost.
	s.Clock.Add(-2 * time.Hour)
	require.Empty(t, s.Advance(time.Hour))
	s.Clock.Add(2 * time.Hour) // 16:10
	s.Tick()
	require.Equal(t, []string{"14:00", "15:00", "16:00"}, f.slots(s, "latest", "succeeded"))
}

func overlap(t *testing.T, f *fixture) {
	s := New(t, f.handle(), start, &jobs.Config{NoWorkers: true})
	for name, o := range map[string]jobs.Overlap{"skip": jobs.OverlapSkip, "allow": jobs.OverlapAllow, "queue": jobs.OverlapQueue, "replace": jobs.OverlapReplace} {
		f.schedule(s, name, jobs.Every(time.Hour), &jobs.ScheduleOptions{Overlap: o})
	}
	s.Advance(150 * time.Minute) // 13:00, and no job has been run
	for name, want := range map[string]map[string][]string{
		"skip":    {"pending": {"11:00"}, "skipped": {"12:00", "13:00"}},
		"allow":   {"pending": {"11:00", "12:00", "13:00"}},
		"queue":   {"pending": {"11:00", "12:00", "13:00"}},
		"replace": {"pending": {"13:00"}, "cancelled": {"11:00", "12:00"}},
	} {
		for _, state := range []string{"pending", "skipped", "cancelled"} {
			require.Equal(t, want[state], f.slots(s, name, state), "%s: %s", name, state)
		}
	}
	// Of the queue one runs when the one before has ended, retries included.
	w := New(t, f.handle(), s.Clock.Now(), &jobs.Config{NoScheduler: true})
	live := 0
	var queue []string
	require.NoError(t, jobs.AddWorker(w.Runner, func(ctx context.Context, job *jobs.Job[task]) error {
		i, err := w.Runner.Get(ctx, job.ID)
		require.NoError(t, err)
		if i.Schedule == "queue" {
			queue = append(queue, fmt.Sprintf("%s %d", job.Slot.Format("15:04"), job.Attempt))
			live++
			defer func() { live-- }()
			require.Equal(t, 1, live)
			if job.Attempt == 1 {
				return fmt.Errorf("once more")
			}
		}
		return nil
	}, nil))
	w.Advance(time.Minute)
	require.Equal(t, []string{"11:00 1", "11:00 2", "12:00 1", "12:00 2", "13:00 1", "13:00 2"}, queue)
}

func jitterAndDeadline(t *testing.T, f *fixture) {
	s := New(t, f.handle(), start, &jobs.Config{NoWorkers: true})
	for n := range 5 {
		f.schedule(s, fmt.Sprint("jitter", n), jobs.Every(time.Hour), &jobs.ScheduleOptions{Jitter: 10 * time.Minute, Overlap: jobs.OverlapAllow})
	}
	f.schedule(s, "deadline", jobs.Every(time.Hour), &jobs.ScheduleOptions{StartDeadline: 5 * time.Minute, Overlap: jobs.OverlapAllow, Priority: 5, MaxAttempts: 3, Queue: "default"})
	s.Advance(30 * time.Minute)
	eleven := start.Add(30 * time.Minute)
	at := map[time.Time]bool{}
	for n := range 5 {
		i := s.Jobs(jobs.Filter{Schedule: fmt.Sprint("jitter", n)})[0]
		require.Equal(t, eleven, i.Slot)
		require.False(t, i.RunAt.Before(eleven))
		require.True(t, i.RunAt.Before(eleven.Add(10*time.Minute)))
		at[i.RunAt] = true
	}
	require.Greater(t, len(at), 1)
	i := s.Jobs(jobs.Filter{Schedule: "deadline"})[0]
	require.Equal(t, 5, i.Priority)
	require.Equal(t, 3, i.MaxAttempts)
	w := f.sim(&jobs.Config{NoScheduler: true}, nil)
	w.Clock.Set(eleven.Add(5*time.Minute + 1e6))
	w.Advance(5 * time.Minute)
	i, err := w.Runner.Get(t.Context(), i.ID)
	require.NoError(t, err)
	require.Equal(t, "skipped", i.State)
	require.Contains(t, i.Error, "StartDeadline")
	s.Clock.Add(66 * time.Minute) // 12:06
	s.Tick()
	require.Equal(t, []string{"11:00", "12:00"}, f.slots(s, "deadline", "skipped"))
}

func timeZone(t *testing.T, f *fixture) {
	s := f.sim(&jobs.Config{Keep: 30 * 24 * time.Hour}, nil)
	f.schedule(s, "night", jobs.Daily("02:30"), &jobs.ScheduleOptions{TimeZone: "Europe/Berlin"})
	f.schedule(s, "utc", jobs.Daily("02:30"), nil)
	s.Advance(8 * 24 * time.Hour)
	require.Equal(t, []string{"01:30", "01:30", "01:30", "01:30", "01:30", "01:30", "01:00", "00:30"}, f.slots(s, "night", "succeeded"), "the hour from two to three is left out on the 29th")
	require.Len(t, f.slots(s, "utc", "succeeded"), 8)
}

func enabled(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	on, boom, asked := false, false, 0
	f.schedule(s, "hourly", jobs.Every(time.Hour), &jobs.ScheduleOptions{Enabled: func(ctx context.Context) bool {
		asked++
		if boom {
			panic("the predicate")
		}
		return on && ctx.Err() == nil
	}})
	i := s.Advance(time.Hour)[0]
	require.Equal(t, "skipped", i.State)
	require.Contains(t, i.Error, "not enabled")
	require.NoError(t, s.Runner.RunNow(t.Context(), "hourly"))
	require.Equal(t, "succeeded", s.Tick()[0].State, "who presses the button is not asked")
	require.Equal(t, 1, asked)
	on = true
	require.Equal(t, "succeeded", s.Advance(time.Hour)[0].State)
	boom = true
	tries := s.Advance(time.Hour)
	i = tries[len(tries)-1]
	require.Equal(t, "retryable", i.State)
	require.Contains(t, i.Error, "the predicate")

	elsewhere := f.sim(&jobs.Config{NoScheduler: true}, nil)
	elsewhere.Clock.Set(i.RunAt)
	require.Equal(t, "succeeded", elsewhere.Tick()[0].State, "each node asks its own")
	require.EqualValues(t, 1, s.Runner.Stats().Skipped)
}

func pauseAndRunNow(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	f.schedule(s, "hourly", jobs.Every(time.Hour), nil)
	require.NoError(t, s.Runner.Pause(t.Context(), "hourly", true))
	require.NoError(t, s.Runner.Pause(t.Context(), "hourly", true))
	require.Empty(t, s.Advance(3*time.Hour))
	require.NoError(t, s.Runner.RunNow(t.Context(), "hourly"))
	ran := s.Tick()
	require.Len(t, ran, 1)
	require.Equal(t, "hourly", ran[0].Schedule)
	require.True(t, ran[0].Slot.IsZero())

	again := f.sim(nil, nil) // a process that starts anew
	again.Clock.Set(s.Clock.Now())
	f.schedule(again, "hourly", jobs.Every(time.Hour), nil)
	require.Empty(t, again.Advance(time.Hour), "it lasts over restarts")
	require.NoError(t, again.Runner.Pause(t.Context(), "hourly", false))
	ran = again.Advance(time.Hour)
	require.Len(t, ran, 1, "the pause is not caught up")
	require.Equal(t, "15:00", ran[0].Slot.Format("15:04"))
	require.ErrorIs(t, s.Runner.Pause(t.Context(), "nobody", true), jobs.ErrNotFound)
	require.ErrorIs(t, s.Runner.RunNow(t.Context(), "nobody"), jobs.ErrNotFound)
}

func unschedule(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	f.schedule(s, "hourly", jobs.Every(time.Hour), &jobs.ScheduleOptions{Jitter: time.Minute})
	require.ErrorIs(t, s.Runner.Unschedule(t.Context(), "nobody"), jobs.ErrNotFound)
	s.Advance(time.Hour) // 11:30: 11:00 has run
	s.Clock.Set(start.Add(90 * time.Minute))
	idle := New(t, f.handle(), s.Clock.Now(), &jobs.Config{NoWorkers: true})
	idle.Tick()
	require.Len(t, s.Jobs(jobs.Filter{States: []string{"pending"}}), 1)
	require.NoError(t, s.Runner.Unschedule(t.Context(), "hourly"))
	require.Equal(t, []string{"11:00"}, f.slots(s, "hourly", "succeeded"))
	require.Equal(t, []string{"12:00"}, f.slots(s, "hourly", "cancelled"))
	require.Empty(t, s.Advance(3*time.Hour))
	require.Len(t, s.Jobs(jobs.Filter{}), 2)
	require.ErrorIs(t, s.Runner.Unschedule(t.Context(), "hourly"), jobs.ErrNotFound)
	f.schedule(s, "hourly", jobs.Every(2*time.Hour), nil)
	require.Len(t, s.Advance(2*time.Hour), 1, "the name is free again")
}

func changedRule(t *testing.T, f *fixture) {
	register := func(at time.Duration, spec jobs.Spec, opts *jobs.ScheduleOptions) *Sim {
		s := f.sim(nil, nil)
		s.Clock.Set(start.Add(at))
		f.schedule(s, "x", spec, opts)
		s.Tick()
		return s
	}
	register(0, jobs.Daily("12:00"), nil)
	s := register(time.Minute, jobs.Daily("11:00"), &jobs.ScheduleOptions{Priority: 7})
	i := s.Advance(30 * time.Minute)
	require.Len(t, i, 1, "the new rule, from now on")
	require.Equal(t, 7, i[0].Priority)
	register(time.Hour, jobs.Daily("11:00"), &jobs.ScheduleOptions{Priority: 7})
	// The slot of tomorrow is due when the next version starts, which has another rule: what is due stays due.
	s = register(25*time.Hour, jobs.Daily("23:00"), nil)
	require.Equal(t, []string{"11:00", "11:00"}, f.slots(s, "x", "succeeded"))
	require.Equal(t, "23:00", s.Advance(12 * time.Hour)[0].Slot.Format("15:04"))
}

func slotsAreUnique(t *testing.T, f *fixture) {
	const schedules, slots = 20, 100
	var sims []*Sim
	for range 4 {
		s := New(t, f.handle(), start, &jobs.Config{NoWorkers: true})
		for n := range schedules {
			f.schedule(s, fmt.Sprint("s", n), jobs.Every(time.Second), &jobs.ScheduleOptions{CatchUp: jobs.All(1000), Overlap: jobs.OverlapAllow})
		}
		sims = append(sims, s)
		s.Tick()
	}
	var wg sync.WaitGroup
	for _, s := range sims {
		s.Clock.Add(slots * time.Second)
		wg.Go(func() {
			for range 5 {
				if _, err := s.Runner.Step(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	n := 0
	for _, i := range sims[0].Jobs(jobs.Filter{}) {
		n++
		seen[i.Schedule+i.Slot.String()] = true
		require.True(t, i.Slot.After(start))
		require.False(t, i.Slot.After(start.Add(slots*time.Second)))
	}
	require.Equal(t, schedules*slots, n)
	require.Len(t, seen, schedules*slots)
}
