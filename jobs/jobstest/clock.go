package jobstest

import (
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/jobs"
)

// Clock is the time that a simulated database tells. It stands still until it is set. It is safe for concurrent use.
type Clock struct{ us atomic.Int64 }

// NewClock returns a clock that shows start.
func NewClock(start time.Time) *Clock {
	c := &Clock{}
	c.Set(start)
	return c
}

// Now is what the clock shows, in UTC and whole microseconds.
func (c *Clock) Now() time.Time { return time.UnixMicro(c.us.Load()).UTC() }

// Set makes the clock show a time, also an earlier one.
func (c *Clock) Set(now time.Time) { c.us.Store(now.UnixMicro()) }

// Add lets time pass, or takes it back when d is negative.
func (c *Clock) Add(d time.Duration) { c.us.Add(d.Microseconds()) }

type clocked struct {
	jobs.DB
	clock *Clock
}

// NowUS is what jobs asks instead of the database's clock.
func (d clocked) NowUS() int64 { return d.clock.us.Load() }

// DB returns db with another clock: for a jobs.Runner that steps, or runs, in simulated time.
func DB(db jobs.DB, clock *Clock) jobs.DB { return clocked{db, clock} }
