package cluster

import (
	"sync/atomic"
	"time"
)

var processStart = time.Now()

// pauseTick is how often the watch looks at the clock.
const pauseTick = 100 * time.Millisecond

// pauseWatch finds out that this process did not run for a while: it was stopped, its machine slept, or nothing was scheduled. A process
// gets no event when that happens; its view just has not changed, and its timers all fire at once when it comes back.
type pauseWatch struct {
	clock func() time.Duration
	limit time.Duration
	last  atomic.Int64 // clock at the last look
	count atomic.Int64
}

func newPauseWatch(limit time.Duration, network Network) *pauseWatch {
	p := &pauseWatch{limit: limit, clock: boottime}
	if b, ok := network.(interface{ Boottime() time.Duration }); ok {
		p.clock = b.Boottime
	}
	p.reset()
	return p
}

// reset starts an interval.
func (p *pauseWatch) reset() { p.last.Store(int64(p.clock())) }

// look returns the length of a pause since the last look, 0 when there was none. Of many callers one gets it.
func (p *pauseWatch) look() time.Duration {
	now := int64(p.clock())
	last := p.last.Load()
	gap := time.Duration(now - last)
	if gap < p.limit {
		return 0
	}
	if !p.last.CompareAndSwap(last, now) {
		return 0
	}
	p.count.Add(1)
	return gap
}

// tick looks and starts the next interval.
func (p *pauseWatch) tick() time.Duration {
	gap := p.look()
	p.reset()
	return gap
}
