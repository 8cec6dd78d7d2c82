package jobs_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

// dueSince puts a schedule's next due time back, as if nobody had scheduled since. It returns the first slot.
func (b *bench) dueSince(name string, interval, ago time.Duration) int64 {
	b.t.Helper()
	next := time.Now().Add(-ago).Truncate(interval).UnixMicro()
	b.exec(`UPDATE nines_job_schedules SET next_us=? WHERE name=?`, next, name)
	return next
}

// TestClockOfTheDatabase: what is due is judged there, even where this machine's clock disagrees.
func TestClockOfTheDatabase(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(func(cfg *jobs.Config) { cfg.NoWorkers = true })
		require.NoError(t, r.Schedule("daily", jobs.Daily("03:00"), note{}, nil))
		require.NoError(t, r.Register(t.Context()))
		before := b.number(r.Q(`SELECT {now}`))
		next := b.number(`SELECT next_us FROM nines_job_schedules`)
		require.Greater(t, next, before)
		require.LessOrEqual(t, next, before+(25*time.Hour).Microseconds())
		if b.postgres() {
			// A database that is two days ahead: a function of the same name that is found first.
			b.exec(`CREATE SCHEMA ahead`)
			b.exec(`CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.clock_timestamp() + interval ''2 days'''`)
			ahead := open(t, b.driver, b.dsn+" options='-c search_path=ahead,pg_catalog,public'")
			r2, err := jobs.New(jobs.Config{DB: ahead, NoWorkers: true, Logger: logger(t)})
			require.NoError(t, err)
			_, err = r.Tick(t.Context())
			require.NoError(t, err)
			require.Zero(t, b.number(`SELECT count(*) FROM nines_jobs`))
			_, err = r2.Tick(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 2, b.number(`SELECT count(*) FROM nines_jobs`), "one that runs, one that was missed")
			id, err := r.Enqueue(t.Context(), note{}, &jobs.EnqueueOptions{RunAt: time.Now().Add(24 * time.Hour)})
			require.NoError(t, err)
			require.EqualValues(t, 0, b.number(`SELECT state FROM nines_jobs WHERE id=?`, id))
			id, err = r2.Enqueue(t.Context(), note{}, &jobs.EnqueueOptions{RunAt: time.Now().Add(24 * time.Hour)})
			require.NoError(t, err)
			require.EqualValues(t, 1, b.number(`SELECT state FROM nines_jobs WHERE id=?`, id))
		}
	})
}

func TestSchedulesRun(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(nil)
		var got sync.Map
		var runs atomic.Int64
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			runs.Add(1)
			if _, twice := got.LoadOrStore(job.Slot, true); twice && !job.Slot.IsZero() {
				t.Errorf("slot %v twice", job.Slot)
			}
			if !job.Slot.IsZero() && job.Slot.Nanosecond() != 0 {
				t.Errorf("slot %v is not of the rule", job.Slot)
			}
			return nil
		}, nil)
		opts := &jobs.ScheduleOptions{CatchUp: jobs.All(100), Overlap: jobs.OverlapQueue}
		require.NoError(t, r.Schedule("seconds", jobs.Every(time.Second), note{Text: "s"}, opts))
		require.NoError(t, r.Schedule("yearly", jobs.Cron("@yearly"), note{Text: "y"}, &jobs.ScheduleOptions{TimeZone: "Europe/Berlin"}))
		b.run(r)
		eventually(t, func() bool { return runs.Load() >= 2 }, "slots run")
		eventually(t, func() bool {
			s := r.Stats()
			return s.Scheduling && len(s.Schedules) == 2 && s.Schedules[0].Name == "seconds" && s.Schedules[0].LastState != "" && len(s.Nodes) == 1 && s.Nodes[0].Scheduling
		}, "stats say so")
		require.NoError(t, r.Check(t.Context()))

		require.NoError(t, r.Pause(t.Context(), "seconds", true))
		require.ErrorIs(t, r.Pause(t.Context(), "nobody", true), jobs.ErrNotFound)
		require.ErrorIs(t, r.RunNow(t.Context(), "nobody"), jobs.ErrNotFound)
		require.NoError(t, r.RunNow(t.Context(), "yearly"))
		eventually(t, func() bool { _, ok := got.Load(time.Time{}); return ok }, "RunNow has no slot")
		paused := b.number(`SELECT count(*) FROM nines_jobs WHERE schedule='seconds'`)
		b.dueSince("seconds", time.Second, time.Hour)
		require.NoError(t, r.Pause(t.Context(), "seconds", false))
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_jobs WHERE schedule='seconds'`) > paused }, "it goes on")
		require.Less(t, b.number(`SELECT count(*) FROM nines_jobs WHERE schedule='seconds'`), paused+60, "the pause is not caught up")
	})
}

func TestOverlap(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(func(cfg *jobs.Config) { cfg.NoScheduler = true })
		gate := make(chan struct{})
		var running, most atomic.Int64
		var order sync.Map
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			defer running.Add(-1)
			most.Store(max(most.Load(), running.Add(1)))
			if job.Args.Text == "queue" {
				order.Store(job.Slot, running.Load())
			}
			select {
			case <-gate:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}, nil)
		names := map[string]jobs.Overlap{"skip": jobs.OverlapSkip, "allow": jobs.OverlapAllow, "queue": jobs.OverlapQueue, "replace": jobs.OverlapReplace}
		for name, overlap := range names {
			require.NoError(t, r.Schedule(name, jobs.Every(time.Hour), note{Text: name}, &jobs.ScheduleOptions{Overlap: overlap}))
		}
		b.run(r)
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_job_schedules`) == 4 }, "registered")
		ticker := b.runner(func(cfg *jobs.Config) { cfg.NoWorkers = true })
		tick := func(ago time.Duration) {
			for name := range names {
				b.dueSince(name, time.Hour, ago)
			}
			_, err := ticker.Tick(t.Context())
			require.NoError(t, err)
		}
		count := func(name, state string) int {
			n := 0
			for _, err := range r.List(t.Context(), jobs.Filter{Schedule: name, States: []string{state}}) {
				require.NoError(t, err)
				n++
			}
			return n
		}
		// A slot long ago, which as the latest of those due runs alone: the clock of the rule goes on from there.
		b.exec(`UPDATE nines_job_schedules SET next_us=?`, time.Now().Truncate(time.Hour).UnixMicro())
		_, err := ticker.Tick(t.Context())
		require.NoError(t, err)
		eventually(t, func() bool { return running.Load() == 4 }, "the first slot of each runs")
		// The next slot is made due by moving the first into the past.
		b.exec(`UPDATE nines_jobs SET due_us=due_us-3600000000`)
		tick(0)
		eventually(t, func() bool { return count("allow", "running") == 2 }, "allow: both at once")
		eventually(t, func() bool { return count("replace", "cancelled") == 1 && count("replace", "running") == 1 }, "replace: the old one ends, then the new one runs")
		require.Equal(t, 1, count("skip", "skipped"))
		require.Equal(t, 1, count("skip", "running"))
		require.Equal(t, 1, count("queue", "running"))
		require.Equal(t, 1, count("queue", "pending"))
		close(gate)
		eventually(t, func() bool { return count("queue", "succeeded") == 2 && count("allow", "succeeded") == 2 }, "the queued one follows")
	})
}
