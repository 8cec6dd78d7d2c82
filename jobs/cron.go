package jobs

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// cron is a parsed cron expression: one bit for each value that a field allows.
type cron struct {
	minute, hour, dom, month, dow uint64
	domStar, dowStar              bool // the field began with *: then both day fields must match, else one of them
}

const everyHour = 1<<24 - 1

var macros = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

var (
	monthNames = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	dayNames   = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

// parseCron reads the five fields of crontab(5): lists, ranges, steps, names of months and days, 7 for Sunday, and the macros.
func parseCron(expr string) (*cron, error) {
	expr = strings.TrimSpace(expr)
	if strings.HasPrefix(expr, "TZ=") || strings.HasPrefix(expr, "CRON_TZ=") {
		return nil, errors.New("a zone does not belong in the expression: set ScheduleOptions.TimeZone")
	}
	if strings.HasPrefix(expr, "@") {
		full, ok := macros[strings.ToLower(expr)]
		if !ok {
			return nil, fmt.Errorf("macro %q is not known: use @hourly, @daily, @weekly, @monthly or @yearly", expr)
		}
		expr = full
	}
	f := strings.Fields(expr)
	if len(f) != 5 {
		return nil, fmt.Errorf("it has %d fields: use five, minute hour day-of-month month day-of-week", len(f))
	}
	c := &cron{domStar: star(f[2]), dowStar: star(f[4])}
	for i, p := range []struct {
		name     string
		to       *uint64
		min, max int
		names    []string
	}{
		{"minute", &c.minute, 0, 59, nil},
		{"hour", &c.hour, 0, 23, nil},
		{"day of month", &c.dom, 1, 31, nil},
		{"month", &c.month, 1, 12, monthNames},
		{"day of week", &c.dow, 0, 7, dayNames},
	} {
		set, err := parseField(f[i], p.min, p.max, p.names)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", p.name, f[i], err)
		}
		*p.to = set
	}
	if c.dow&(1<<7) != 0 {
		c.dow = c.dow&^(1<<7) | 1
	}
	if !c.possible() {
		return nil, errors.New("no day matches it: it would never run")
	}
	return c, nil
}

func star(field string) bool { return strings.HasPrefix(field, "*") || strings.HasPrefix(field, "?") }

func parseField(field string, low, high int, names []string) (uint64, error) {
	var set uint64
	for item := range strings.SplitSeq(field, ",") {
		span, stepText, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 || n > high {
				return 0, fmt.Errorf("step %q: use a number from 1 to %d", stepText, high)
			}
			step = n
		}
		from, to := low, high
		if span != "*" && span != "?" {
			a, b, ranged := strings.Cut(span, "-")
			var err error
			if from, err = value(a, low, high, names); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if to, err = value(b, low, high, names); err != nil {
					return 0, err
				}
				if to < from {
					return 0, fmt.Errorf("range %q runs backwards: write it as two", span)
				}
			case !stepped:
				to = from
			}
		} else if names != nil && high == 7 {
			to = 6 // Sunday once, or a step would count it twice
		}
		for v := from; v <= to; v += step {
			set |= 1 << v
		}
	}
	return set, nil
}

func value(text string, low, high int, names []string) (int, error) {
	for i, name := range names {
		if strings.EqualFold(text, name) {
			return i + low, nil
		}
	}
	// Atoi would take a sign.
	for _, r := range text {
		if r < '0' || r > '9' {
			return 0, fmt.Errorf("%q is not a value of this field: use %d to %d", text, low, high)
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is not a value of this field: use %d to %d", text, low, high)
	}
	return n, nil
}

// possible reports whether any day of the calendar matches: all its shapes come within eight years, and 29 February 2096 to 2104 is the longest wait.
func (c *cron) possible() bool {
	day := time.Date(2096, 1, 1, 0, 0, 0, 0, time.UTC)
	for ; day.Year() < 2105; day = day.AddDate(0, 0, 1) {
		if c.day(day) {
			return true
		}
	}
	return false
}

// day reports whether the date of t matches.
func (c *cron) day(t time.Time) bool {
	if c.month&(1<<t.Month()) == 0 {
		return false
	}
	dom, dow := c.dom&(1<<t.Day()) != 0, c.dow&(1<<t.Weekday()) != 0
	if c.domStar || c.dowStar {
		return dom && dow
	}
	return dom || dow
}

// next returns the first slot after t. A clock time that does not exist on its day is due at the first instant that does, one that
// occurs twice at its first. An expression of every hour has no clock time, only minutes: it follows the hours that pass, so that an
// hour that occurs twice has its slots twice and one that is left out has none.
func (c *cron) next(t time.Time, loc *time.Location) time.Time {
	if c.hour == everyHour {
		return c.nextPassing(t.In(loc))
	}
	// The wall clock as if its zone were UTC: there every clock time exists once. resolve never decreases, so that no
	// clock time up to that of t can be due after t.
	local := t.In(loc)
	wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC).Add(time.Minute)
	for {
		var ok bool
		if wall, ok = c.match(wall); !ok {
			return time.Time{}
		}
		if due := resolve(wall, loc); due.After(t) {
			return due
		}
		wall = wall.Add(time.Minute)
	}
}

// match returns the first clock time at or after wall that the fields allow.
func (c *cron) match(wall time.Time) (time.Time, bool) {
	for limit := wall.AddDate(9, 0, 0); wall.Before(limit); {
		if !c.day(wall) {
			wall = time.Date(wall.Year(), wall.Month(), wall.Day()+1, 0, 0, 0, 0, time.UTC)
			continue
		}
		h := lowest(c.hour, wall.Hour())
		if h < 0 {
			wall = time.Date(wall.Year(), wall.Month(), wall.Day()+1, 0, 0, 0, 0, time.UTC)
			continue
		}
		m := 0
		if h == wall.Hour() {
			m = wall.Minute()
		}
		if m = lowest(c.minute, m); m < 0 {
			wall = time.Date(wall.Year(), wall.Month(), wall.Day(), h+1, 0, 0, 0, time.UTC)
			continue
		}
		return time.Date(wall.Year(), wall.Month(), wall.Day(), h, m, 0, 0, time.UTC), true
	}
	return time.Time{}, false
}

// lowest returns the smallest value of set that is at least from, or -1.
func lowest(set uint64, from int) int {
	if set = set >> from << from; set == 0 {
		return -1
	}
	return bits.TrailingZeros64(set)
}

func (c *cron) nextPassing(t time.Time) time.Time {
	limit := t.AddDate(9, 0, 0)
	t = t.Add(time.Minute - time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond()))
	for t.Before(limit) {
		var to time.Time
		if !c.day(t) {
			to = resolve(time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, time.UTC), t.Location())
			if !to.After(t) { // clocks set back over midnight: it was there before
				to = t.Add(time.Duration(60-t.Minute()) * time.Minute)
			}
		} else if m := lowest(c.minute, t.Minute()); m == t.Minute() {
			return t
		} else if m > 0 {
			to = t.Add(time.Duration(m-t.Minute()) * time.Minute)
		} else {
			to = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		}
		// A change of the offset on the way is a point to look from: the minutes behind it are other ones.
		if _, end := t.ZoneBounds(); !end.IsZero() && end.After(t) && end.Before(to) {
			to = end
		}
		t = to
	}
	return time.Time{}
}

// resolve returns the instant at which the clocks of loc first show wall, which is given as if in UTC; for a clock time that is left
// out, the instant at which they are set forward over it.
func resolve(wall time.Time, loc *time.Location) time.Time {
	near := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
	start, end := near.ZoneBounds()
	shows := func(t time.Time) int64 { _, off := t.Zone(); return t.Unix() + int64(off) }
	var first time.Time
	try := func(t time.Time) { // t: any instant whose offset may be the right one
		_, off := t.Zone()
		at := time.Unix(wall.Unix()-int64(off), 0).In(loc)
		if shows(at) == wall.Unix() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	try(near)
	if !start.IsZero() {
		try(start.Add(-time.Second))
	}
	if !end.IsZero() {
		try(end)
	}
	if !first.IsZero() {
		return first
	}
	for _, t := range []time.Time{start, end} {
		if !t.IsZero() && shows(t.Add(-time.Second)) < wall.Unix() && wall.Unix() < shows(t) {
			return t
		}
	}
	return near // not reached: a clock time is shown, or left out by one of the two changes around it
}
