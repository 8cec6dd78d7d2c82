package jobs_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

func zone(t testing.TB, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

// rules are expressions beside what they mean, written down a second time.
var rules = []struct {
	expr string
	when func(w time.Time) bool
	all  bool // of every hour: follows the hours that pass
}{
	{"30 2 * * *", func(w time.Time) bool { return w.Hour() == 2 && w.Minute() == 30 }, false},
	{"0 0 * * *", func(w time.Time) bool { return w.Hour() == 0 && w.Minute() == 0 }, false},
	{"15,45 0-3 * * *", func(w time.Time) bool { return w.Hour() <= 3 && (w.Minute() == 15 || w.Minute() == 45) }, false},
	{"*/20 */2 * * *", func(w time.Time) bool { return w.Hour()%2 == 0 && w.Minute()%20 == 0 }, false},
	{"10 1 1,15 * *", func(w time.Time) bool { return w.Hour() == 1 && w.Minute() == 10 && (w.Day() == 1 || w.Day() == 15) }, false},
	{"30 1 * * sun", func(w time.Time) bool { return w.Hour() == 1 && w.Minute() == 30 && w.Weekday() == time.Sunday }, false},
	{"5 2 13 * 5", func(w time.Time) bool {
		return w.Hour() == 2 && w.Minute() == 5 && (w.Day() == 13 || w.Weekday() == time.Friday)
	}, false},
	{"0 3 */2 * 1-5", func(w time.Time) bool {
		return w.Hour() == 3 && w.Minute() == 0 && w.Day()%2 == 1 && w.Weekday() >= 1 && w.Weekday() <= 5
	}, false},
	{"59 23 31 dec ?", func(w time.Time) bool {
		return w.Month() == 12 && w.Day() == 31 && w.Hour() == 23 && w.Minute() == 59
	}, false},
	{"0 12 * jan-mar 7", func(w time.Time) bool {
		return w.Month() <= 3 && w.Weekday() == 0 && w.Hour() == 12 && w.Minute() == 0
	}, false},
	{"*/15 * * * *", func(w time.Time) bool { return w.Minute()%15 == 0 }, true},
	{"7 * 25-31 3,10 *", func(w time.Time) bool {
		return w.Minute() == 7 && w.Day() >= 25 && (w.Month() == 3 || w.Month() == 10)
	}, true},
	{"40 0-23 * * 0", func(w time.Time) bool { return w.Minute() == 40 && w.Weekday() == 0 }, true},
}

// TestSlotsAgainstAWalker compares the slots of a year with those that somebody finds who looks at the clock each minute.
func TestSlotsAgainstAWalker(t *testing.T) {
	for _, z := range []struct {
		name   string
		year   int
		months []time.Month // nil: the year
	}{
		{"Europe/Berlin", 2026, nil},
		{"America/New_York", 2026, nil},
		{"Australia/Lord_Howe", 2026, []time.Month{4, 10}}, // half an hour
		{"America/Santiago", 2026, []time.Month{4, 9}},     // at midnight
		{"Africa/Cairo", 2026, []time.Month{4, 10}},
		{"America/St_Johns", 2010, []time.Month{3, 11}}, // one minute past midnight
		{"Pacific/Apia", 2011, []time.Month{4, 9, 12}},  // a day is left out
		{"Africa/Casablanca", 2026, []time.Month{2, 3}},
		{"UTC", 2026, []time.Month{2}},
	} {
		for _, month := range z.months {
			t.Run(fmt.Sprint(z.name, int(month)), func(t *testing.T) {
				from := time.Date(z.year, month, 1, 0, 0, 0, 0, time.UTC).Add(-time.Minute)
				walk(t, zone(t, z.name), from, from.AddDate(0, 1, 5))
			})
		}
		if z.months == nil {
			t.Run(z.name, func(t *testing.T) {
				from := time.Date(z.year, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Minute)
				walk(t, zone(t, z.name), from, from.AddDate(1, 0, 1))
			})
		}
	}
}

func walk(t *testing.T, loc *time.Location, from, to time.Time) {
	want := make([][]int64, len(rules))
	minutes := func(at time.Time) int64 {
		_, offset := at.In(loc).Zone()
		return (at.Unix() + int64(offset)) / 60
	}
	newest := minutes(from) // the latest clock time that was shown so far
	for at := from.Add(time.Minute); at.Before(to); at = at.Add(time.Minute) {
		wall := minutes(at)
		w := time.Unix(wall*60, 0).UTC()
		for i, rule := range rules {
			due := (wall > newest || rule.all) && rule.when(w)
			for w := newest + 1; !rule.all && !due && w < wall; w++ { // left out just now
				due = rule.when(time.Unix(w*60, 0).UTC())
			}
			if due {
				want[i] = append(want[i], at.Unix())
			}
		}
		newest = max(newest, wall)
	}
	for i, rule := range rules {
		spec := jobs.Cron(rule.expr)
		var got []int64
		for at := from; ; {
			at = spec.Next(at, loc)
			if at.IsZero() || !at.Before(to) {
				break
			}
			got = append(got, at.Unix())
		}
		if !equal(want[i], got) {
			for n := range max(len(want[i]), len(got)) {
				if n >= len(want[i]) || n >= len(got) || want[i][n] != got[n] {
					t.Errorf("%q: slot %d of %d and %d differs: %v, the walker says %v", rule.expr, n, len(got), len(want[i]), at(got, n, loc), at(want[i], n, loc))
					break
				}
			}
		}
	}
}

func at(slots []int64, n int, loc *time.Location) any {
	if n >= len(slots) {
		return nil
	}
	return time.Unix(slots[n], 0).In(loc)
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestDaylightSaving(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	next := func(s jobs.Spec, from string) string {
		at, err := time.ParseInLocation("2006-01-02 15:04:05", from, berlin)
		require.NoError(t, err)
		return s.Next(at, berlin).In(berlin).Format("2006-01-02 15:04 MST")
	}
	require.Equal(t, "2026-03-29 03:00 CEST", next(jobs.Daily("02:30"), "2026-03-29 00:00:00"))
	require.Equal(t, "2026-03-30 02:30 CEST", next(jobs.Daily("02:30"), "2026-03-29 03:00:00"))
	require.Equal(t, "2026-10-25 02:30 CEST", next(jobs.Daily("02:30"), "2026-10-25 00:00:00"))
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)
	for _, d := range []time.Duration{0, time.Minute, time.Hour, 90 * time.Minute} {
		require.Equal(t, time.Date(2026, 10, 26, 1, 30, 0, 0, time.UTC), jobs.Daily("02:30").Next(first.Add(d), berlin).UTC(), "once, asked %v after it", d)
	}
	require.Equal(t, time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC), jobs.Cron("0 0 29 2 *").Next(first, time.UTC))
}

func TestEveryIsAligned(t *testing.T) {
	s := jobs.Every(10 * time.Minute)
	at := time.Date(2026, 1, 1, 12, 3, 4, 5, time.UTC)
	require.Equal(t, time.Date(2026, 1, 1, 12, 10, 0, 0, time.UTC), s.Next(at, time.UTC).UTC())
	require.Equal(t, time.Date(2026, 1, 1, 12, 20, 0, 0, time.UTC), s.Next(s.Next(at, time.UTC), time.UTC).UTC())
	require.Equal(t, int64(-600), s.Next(time.Unix(-601, 0), time.UTC).Unix())
	require.Equal(t, int64(0), s.Next(time.Unix(-600, 0), time.UTC).Unix())
}

var wrong = []string{
	"", "* * * *", "* * * * * *", "TZ=UTC", "TZ=UTC * * * * *", "CRON_TZ=Europe/Berlin 0 0 * * *", "@every 5m", "@reboot", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
	"* * * 13 *", "* * * * 8", "-1 * * * *", "+1 * * * *", "1-0 * * * *", "*/0 * * * *", "*/61 * * * *", "a * * * *", "1,,2 * * * *", "1- * * * *", "* * L * *", "* * * * 1#2", "0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "1/ * * * *", "*5 * * * *", "sun * * * *",
}

func TestWrongSpecs(t *testing.T) {
	r := (&bench{t: t, driver: "sqlite", dsn: ":memory:"}).idle()
	for _, expr := range wrong {
		require.Error(t, r.Schedule("x", jobs.Cron(expr), note{}, nil), expr)
	}
	for _, clock := range []string{"", "24:00", "3", "03:60", "3am"} {
		require.Error(t, r.Schedule("x", jobs.Daily(clock), note{}, nil), clock)
	}
	for _, d := range []time.Duration{0, -time.Hour, time.Millisecond, time.Second + time.Microsecond} {
		require.Error(t, r.Schedule("x", jobs.Every(d), note{}, nil), d)
	}
	for _, o := range []jobs.ScheduleOptions{
		{TimeZone: "Local"}, {TimeZone: "Europe/Atlantis"}, {CatchUp: jobs.All(0)}, {CatchUp: jobs.All(-1)}, {CatchUp: jobs.All(1001)}, {CatchUp: jobs.All(2)}, {Overlap: 9},
		{Jitter: -1}, {Jitter: 25 * time.Hour}, {StartDeadline: 1}, {Queue: "two words"}, {MaxAttempts: -1},
	} {
		require.Error(t, r.Schedule("x", jobs.Daily("03:00"), note{}, &o), "%+v", o)
	}
	err := r.Schedule("", jobs.Cron("60 * * * *"), nil, &jobs.ScheduleOptions{TimeZone: "Local"})
	for _, part := range []string{"name", `minute "60"`, "Local", "args are nil"} {
		require.ErrorContains(t, err, part, "all faults at once")
	}
	require.NoError(t, r.Schedule("x", jobs.Cron("@daily"), note{}, nil))
	require.Error(t, r.Schedule("x", jobs.Cron("@daily"), note{}, nil), "twice")
}

// FuzzCron: what is accepted has slots, each later than the one before, on a whole minute.
func FuzzCron(f *testing.F) {
	for _, rule := range rules {
		f.Add(rule.expr, int64(1_700_000_000))
	}
	for _, expr := range wrong {
		f.Add(expr, int64(0))
	}
	r := (&bench{driver: "sqlite", dsn: ":memory:"}).idle()
	loc := zone(f, "America/New_York")
	f.Fuzz(func(t *testing.T, expr string, unix int64) {
		if unix < 0 || unix > 4_000_000_000 {
			return
		}
		spec := jobs.Cron(expr)
		if r.Schedule(" ", spec, note{}, nil).Error() != `jobs: schedule " ": the name: use printable ASCII without spaces` {
			return // the expression is wrong too
		}
		at := time.Unix(unix, 0)
		for range 5 {
			next := spec.Next(at, loc)
			require.Truef(t, next.After(at), "%q after %v is %v", expr, at, next)
			require.Zero(t, next.Second())
			at = next
		}
	})
}

func TestPlan(t *testing.T) {
	at := func(h, m int) time.Time { return time.Date(2026, 1, 5, h, m, 0, 0, time.UTC) }
	hourly := jobs.Every(time.Hour)
	for _, c := range []struct {
		name            string
		catchUp         jobs.CatchUp
		deadline        time.Duration
		next, now       time.Time
		run, skipped    []time.Time
		passed          int
		newNext         time.Time
		wantMore, quiet bool
	}{
		{name: "on time", next: at(3, 0), now: at(3, 0), run: []time.Time{at(3, 0)}, newNext: at(4, 0)},
		{name: "not due", next: at(3, 0), now: at(2, 59), newNext: at(3, 0)},
		{name: "latest", next: at(3, 0), now: at(6, 30), run: []time.Time{at(6, 0)}, skipped: []time.Time{at(3, 0), at(4, 0), at(5, 0)}, newNext: at(7, 0)},
		{name: "all", catchUp: jobs.All(2), next: at(3, 0), now: at(6, 30), run: []time.Time{at(5, 0), at(6, 0)}, skipped: []time.Time{at(3, 0), at(4, 0)}, newNext: at(7, 0)},
		{name: "all, none missed", catchUp: jobs.All(9), next: at(3, 0), now: at(4, 0), run: []time.Time{at(3, 0), at(4, 0)}, newNext: at(5, 0)},
		{name: "skip, late", catchUp: jobs.Skip, next: at(3, 0), now: at(3, 2), skipped: []time.Time{at(3, 0)}, newNext: at(4, 0)},
		{name: "skip, a little late", catchUp: jobs.Skip, next: at(2, 0), now: at(3, 1), run: []time.Time{at(3, 0)}, skipped: []time.Time{at(2, 0)}, newNext: at(4, 0)},
		{name: "deadline", deadline: 10 * time.Minute, next: at(3, 0), now: at(3, 11), skipped: []time.Time{at(3, 0)}, newNext: at(4, 0)},
		{name: "skip within the deadline", catchUp: jobs.Skip, deadline: 10 * time.Minute, next: at(3, 0), now: at(3, 9), run: []time.Time{at(3, 0)}, newNext: at(4, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			run, skipped, passed, next, more := jobs.Plan(hourly, time.UTC, c.catchUp, c.deadline, c.next, c.now)
			utc := func(in []time.Time) []time.Time {
				var out []time.Time
				for _, x := range in {
					out = append(out, x.UTC())
				}
				return out
			}
			require.Equal(t, c.run, utc(run))
			require.Equal(t, c.skipped, utc(skipped))
			require.Equal(t, c.passed, passed)
			require.Equal(t, c.newNext, next.UTC())
			require.False(t, more)
		})
	}
}

// TestPlanOfALongAbsence: a week of seconds is walked in several ticks and comes to the same as one.
func TestPlanOfALongAbsence(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start.Add(7*24*time.Hour + 500*time.Millisecond)
	next, total, ticks := start, 0, 0
	var ran []time.Time
	for more := true; more; ticks++ {
		run, skipped, passed, n, m := jobs.Plan(jobs.Every(time.Second), time.UTC, jobs.All(50), 0, next, now)
		require.LessOrEqual(t, len(skipped), 100)
		total += len(run) + len(skipped) + passed
		ran, next, more = append(ran, run...), n, m
	}
	require.Equal(t, 7*24*3600+1, total)
	require.Len(t, ran, 50)
	require.True(t, ran[49].Equal(now.Truncate(time.Second)))
	require.True(t, next.Equal(now.Truncate(time.Second).Add(time.Second)))
	require.Greater(t, ticks, 10)
}
