package jobs_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/jobs/jobstest"
)

// zones have their clocks set at the hour of the rule, or over it, on two days of 2026.
var zones = []struct {
	name, clock string
	hour, min   int
	changes     [2]string
}{
	{"Europe/Berlin", "02:30", 2, 30, [2]string{"2026-03-29", "2026-10-25"}},
	{"America/New_York", "02:30", 2, 30, [2]string{"2026-03-08", "2026-11-01"}},
	{"Australia/Lord_Howe", "02:15", 2, 15, [2]string{"2026-04-05", "2026-10-04"}},
	{"America/Santiago", "00:30", 0, 30, [2]string{"2026-04-05", "2026-09-06"}},
	{"Africa/Cairo", "00:30", 0, 30, [2]string{"2026-04-24", "2026-10-30"}},
}

// watcher is somebody who looks at the clock each minute and knows what a daily slot is: due when the clock shows its time first, or would
// have if it had not been set forward.
type watcher struct {
	loc       *time.Location
	hour, min int
	newest    int64 // the latest clock time that was shown
}

func (w *watcher) looks(at time.Time) (due bool) {
	_, offset := at.In(w.loc).Zone()
	wall := (at.Unix() + int64(offset)) / 60
	for m := w.newest + 1; m <= wall && w.newest > 0; m++ {
		shown := time.Unix(m*60, 0).UTC()
		due = due || shown.Hour() == w.hour && shown.Minute() == w.min
	}
	w.newest = max(w.newest, wall)
	return due
}

// model is one schedule as the documentation has it.
type model struct {
	name     string
	catchUp  int // 0 latest, -1 skip, n all
	overlap  jobs.Overlap
	missed   []time.Time // slots that nobody was there for yet
	live     []*modelJob // oldest first
	outcomes map[int64]string
}

type modelJob struct {
	slot    time.Time
	end     time.Time
	started bool
}

// takes is how long the job of a slot takes: none, some hours, or days.
func takes(name string, slot time.Time) time.Duration {
	h := fnv.New32a()
	fmt.Fprint(h, name, slot.Unix())
	return []time.Duration{0, 0, 7 * time.Hour, 31 * time.Hour, 60 * time.Hour}[h.Sum32()%5] + 7*time.Second
}

// complete ends what has ended before or at a time, and starts what waited for it: at that moment, or now when nobody was there then.
func (m *model) complete(now time.Time, strictly, woken bool) {
	for again := true; again; {
		again = false
		for i, j := range m.live {
			if !j.started && (m.overlap != jobs.OverlapQueue || i == 0) {
				j.started, j.end = true, now.Add(takes(m.name, j.slot))
			}
			if j.started && (j.end.Before(now) || !strictly && j.end.Equal(now)) {
				m.outcomes[j.slot.Unix()] = "succeeded"
				if i+1 < len(m.live) && !m.live[i+1].started {
					next, at := m.live[i+1], j.end
					if woken {
						at = now
					}
					next.started, next.end = true, at.Add(takes(m.name, next.slot))
				}
				m.live = slices.Delete(m.live, i, i+1)
				again = true
				break
			}
		}
	}
}

// tick does what is due.
func (m *model) tick(now time.Time) {
	due := m.missed
	m.missed = nil
	keep := max(m.catchUp, 1)
	var run []time.Time
	for i, slot := range due {
		if len(due)-i > keep || m.catchUp < 0 && now.Sub(slot) > time.Minute {
			m.outcomes[slot.Unix()] = "skipped"
		} else {
			run = append(run, slot)
		}
	}
	if len(run) > 0 && len(m.live) > 0 {
		switch m.overlap {
		case jobs.OverlapSkip:
			for _, slot := range run {
				m.outcomes[slot.Unix()] = "skipped"
			}
			run = nil
		case jobs.OverlapReplace:
			for _, j := range m.live {
				m.outcomes[j.slot.Unix()] = "cancelled"
			}
			m.live = nil
		}
	}
	for _, slot := range run {
		m.outcomes[slot.Unix()] = "pending"
		m.live = append(m.live, &modelJob{slot: slot})
	}
}

// TestYear: a year of nights in five zones whose clocks are set at that hour, with every catch-up and overlap policy, jobs that take from
// seconds to days, and outages of minutes to days. What becomes of each slot is what somebody finds who looks at the clock each minute and knows
// the policies. Without NINES_CHAOS it is the weeks around the changes of the year.
func TestYear(t *testing.T) {
	t.Parallel()
	for _, z := range zones {
		var spans [][2]time.Time
		for _, day := range z.changes {
			at, err := time.Parse(time.DateOnly, day)
			require.NoError(t, err)
			spans = append(spans, [2]time.Time{at.AddDate(0, 0, -12), at.AddDate(0, 0, 12)})
		}
		if chaos {
			spans = [][2]time.Time{{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}}
		}
		for _, span := range spans {
			t.Run(z.name+span[0].Format(" 2006-01-02"), func(t *testing.T) {
				t.Parallel()
				seed := uint64(time.Now().UnixNano())
				if s := os.Getenv("NINES_SEED"); s != "" {
					var err error
					seed, err = strconv.ParseUint(s, 10, 64)
					require.NoError(t, err)
				}
				t.Logf("NINES_SEED=%d", seed)
				simulate(t, z.name, z.clock, watcher{loc: zone(t, z.name), hour: z.hour, min: z.min}, span[0], span[1], rand.New(rand.NewPCG(seed, 7)))
			})
		}
	}
}

func simulate(t *testing.T, zoneName, clock string, eye watcher, from, to time.Time, rng *rand.Rand) {
	driver, dsn := lab.SQLite(t)
	sim := jobstest.New(t, open(t, driver, dsn+"&_pragma=synchronous(off)"), from, &jobs.Config{Keep: 10000 * time.Hour})
	addNote(t, sim.Runner, func(ctx context.Context, job *jobs.Job[note]) error {
		var slept bool
		if _, err := job.Resume(&slept); err != nil || slept {
			return err
		}
		if err := job.Save(ctx, true); err != nil {
			return err
		}
		return jobs.Snooze(takes(job.Args.Text, job.Slot))
	}, nil)
	var models []*model
	for _, c := range []struct {
		catchUp jobs.CatchUp
		n       int
	}{{jobs.Latest, 0}, {jobs.Skip, -1}, {jobs.All(3), 3}} {
		for _, o := range []jobs.Overlap{jobs.OverlapSkip, jobs.OverlapAllow, jobs.OverlapQueue, jobs.OverlapReplace} {
			if c.n > 1 && (o == jobs.OverlapSkip || o == jobs.OverlapReplace) {
				continue
			}
			name := fmt.Sprint(c.n, "/", o)
			require.NoError(t, sim.Runner.Schedule(name, jobs.Daily(clock), note{Text: name}, &jobs.ScheduleOptions{TimeZone: zoneName, CatchUp: c.catchUp, Overlap: o}))
			models = append(models, &model{name: name, catchUp: c.n, overlap: o, outcomes: map[int64]string{}})
		}
	}
	sim.Tick()
	eye.looks(from)
	awake, slots := true, 0
	turn := from.Add(time.Duration(1 + rng.Int64N(int64(100*time.Hour)))).Truncate(time.Minute).Add(time.Minute)
	for at := from.Add(time.Minute); at.Before(to); at = at.Add(time.Minute) {
		due := eye.looks(at)
		if due {
			slots++
		}
		for _, m := range models {
			if due {
				m.missed = append(m.missed, at)
			}
		}
		if at.Equal(turn) {
			lengths := []time.Duration{3 * time.Minute, 50 * time.Minute, 9 * time.Hour, 30 * time.Hour, 100 * time.Hour}
			if awake {
				sim.Advance(at.Add(-time.Second).Sub(sim.Clock.Now()))
				for _, m := range models {
					m.complete(at.Add(-time.Second), false, false)
				}
				turn = at.Add(lengths[rng.IntN(len(lengths))])
			} else {
				sim.Clock.Set(at)
				sim.Tick()
				for _, m := range models {
					m.tick(at)
					m.complete(at, false, true)
				}
				turn = at.Add(lengths[rng.IntN(len(lengths))] * 2)
			}
			awake = !awake
			continue
		}
		if awake {
			for _, m := range models {
				m.complete(at, true, false)
				m.tick(at)
				m.complete(at, false, false)
			}
		}
	}
	if awake {
		sim.Advance(to.Add(-time.Minute).Sub(sim.Clock.Now()))
	}
	for _, m := range models {
		got := map[int64]string{}
		for _, i := range sim.Jobs(jobs.Filter{Schedule: m.name}) {
			require.NotContains(t, got, i.Slot.Unix(), "each slot once")
			got[i.Slot.Unix()] = i.State
		}
		for _, at := range slices.Sorted(maps.Keys(m.outcomes)) {
			require.Equal(t, m.outcomes[at], got[at], "%s: slot %v", m.name, time.Unix(at, 0).In(eye.loc))
		}
		require.Len(t, got, len(m.outcomes), m.name)
	}
	t.Logf("%d slots of %d schedules", slots, len(models))
	require.Greater(t, slots, int(to.Sub(from).Hours()/24)-2)
}

// TestDeployEachMinute: each minute another process is started, lives for a moment and is gone. Nothing starves: each slot has its one row, and its
// job runs within the minute.
func TestDeployEachMinute(t *testing.T) {
	t.Parallel()
	driver, dsn := lab.SQLite(t)
	db := open(t, driver, dsn+"&_pragma=synchronous(off)")
	start := time.Date(2026, 3, 28, 22, 0, 30, 0, time.UTC) // the night in which Berlin's clocks are set forward
	clock := jobstest.NewClock(start)
	specs := map[string]jobs.Spec{
		"ten-minutes": jobs.Every(10 * time.Minute), "hour": jobs.Every(time.Hour), "seven-hours": jobs.Every(7 * time.Hour), "day": jobs.Every(24 * time.Hour), "night": jobs.Daily("02:30"), "weekly": jobs.Cron("0 12 * * sun"),
	}
	last := map[string]time.Time{}
	ran := map[string]int{}
	minutes := 24 * 60
	for range minutes {
		r, err := jobs.New(jobs.Config{DB: jobstest.DB(db, clock), Logger: logger(t)})
		require.NoError(t, err)
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			require.LessOrEqual(t, clock.Now().Sub(job.Slot), 90*time.Second)
			require.True(t, job.Slot.After(last[job.Args.Text]), "%s: %v once", job.Args.Text, job.Slot)
			last[job.Args.Text] = job.Slot
			ran[job.Args.Text]++
			return nil
		}, nil)
		for name, spec := range specs {
			o := &jobs.ScheduleOptions{}
			if name == "night" || name == "weekly" {
				o.TimeZone = "Europe/Berlin"
			}
			require.NoError(t, r.Schedule(name, spec, note{Text: name}, o))
		}
		_, err = r.Step(t.Context())
		require.NoError(t, err)
		clock.Set(clock.Now().Truncate(time.Minute).Add(time.Minute + rand.N(30*time.Second)))
	}
	passed := clock.Now().Sub(start)
	t.Logf("%v simulated, %v", passed.Round(time.Minute), ran)
	for name, want := range map[string]int{"ten-minutes": int(passed / (10 * time.Minute)), "hour": int(passed / time.Hour), "seven-hours": 3, "day": 1, "night": 1, "weekly": 1} {
		require.InDelta(t, want, ran[name], 1, name)
		require.NotZero(t, ran[name], name)
	}
}
