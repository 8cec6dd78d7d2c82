package jobs

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Spec says when the slots of a schedule are due: Cron, Every or Daily. A fault in it is reported by Schedule.
type Spec struct {
	text  string // as kept in the database: "cron 0 3 * * *", "every 10m0s"
	cron  *cron
	every time.Duration
	err   error
}

const maxCron = 180 // bytes: the column's width on MySQL, less its prefix

// Cron is a rule of five fields, minute hour day-of-month month day-of-week, as in crontab(5): lists, ranges, steps (*/5), names (mon,
// jan), 7 for Sunday, and @hourly, @daily, @weekly, @monthly, @yearly. When neither day field begins with *, one of them has to match.
//
// Daylight saving: a clock time that does not exist on its day is due at the first instant that does, one that occurs twice only the
// first time. A rule of every hour ("*/10 * * * *") names no clock time and follows the hours that pass.
func Cron(expr string) Spec {
	c, err := parseCron(expr)
	if err == nil && len(expr) > maxCron {
		err = fmt.Errorf("it has %d bytes: use at most %d", len(expr), maxCron)
	}
	if err != nil {
		err = fmt.Errorf("cron expression %q: %w", expr, err)
	}
	return Spec{text: "cron " + strings.Join(strings.Fields(expr), " "), cron: c, err: err}
}

// Every is a rule of one slot each d, at the multiples of d since 1970 in UTC, so that all nodes mean the same slots: Every(10*time.Minute)
// is due at :00, :10, :20. d is at least one second and a whole number of milliseconds.
func Every(d time.Duration) Spec {
	s := Spec{text: "every " + d.String(), every: d}
	if d < time.Second || d%time.Millisecond != 0 {
		s.err = fmt.Errorf("interval %v: use at least 1s, in whole milliseconds", d)
	}
	return s
}

// Daily is a rule of one slot a day at a clock time, "03:00", in the schedule's time zone. Daylight saving is as with Cron.
func Daily(clock string) Spec {
	t, err := time.Parse("15:04", clock)
	if err != nil {
		return Spec{err: fmt.Errorf("clock time %q: use hours and minutes as 03:00", clock)}
	}
	return Cron(fmt.Sprintf("%d %d * * *", t.Minute(), t.Hour()))
}

// parseSpec reads what Spec.text says.
func parseSpec(text string) (Spec, error) {
	var s Spec
	switch kind, rest, _ := strings.Cut(text, " "); kind {
	case "cron":
		s = Cron(rest)
	case "every":
		d, err := time.ParseDuration(rest)
		if err != nil {
			return s, err
		}
		s = Every(d)
	default:
		return s, errors.New("spec " + text + " is of a newer version")
	}
	return s, s.err
}

// next returns the first slot after t, or the zero time when there is none.
func (s Spec) next(t time.Time, loc *time.Location) time.Time {
	if s.cron != nil {
		return s.cron.next(t, loc)
	}
	us, d := t.UnixMicro(), s.every.Microseconds()
	n := us / d
	if us < 0 && us%d != 0 {
		n--
	}
	return time.UnixMicro((n + 1) * d)
}
