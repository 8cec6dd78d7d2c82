package dbrouter

import (
	"errors"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// WhenLagging says what reads do when every replica that answers trails by more than MaxLag.
type WhenLagging int

// The policies.
const (
	// LaggingMaster sends the reads to the master, up to MaxExtraReads at once; more go to the replica that trails least, so that the
	// master is not overrun by what the replicas used to carry.
	LaggingMaster WhenLagging = iota
	// LaggingLeast sends the reads to the replica that trails least.
	LaggingLeast
	// LaggingError fails the reads with ErrLagging.
	LaggingError
)

// sample is where the master was at a moment.
type sample struct {
	sent time.Time
	at   position
}

// history remembers where the master has been, to tell how long ago it was where a replica is now. It needs no rights on the server, no clock but
// ours, and does not take an idle master for a lagging replica.
type history struct {
	mu      sync.Mutex
	samples []sample // oldest first
}

const maxSamples = 600

func (h *history) add(d dialect.Dialect, o observation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.samples); n > 0 && o.sent.Before(h.samples[n-1].sent) {
		return
	}
	if n := len(h.samples); n > 0 && !o.at.covers(d, h.samples[n-1].at) {
		h.samples = h.samples[:0] // a new master that never had what the old one wrote last
	}
	if len(h.samples) == maxSamples {
		h.samples = append(h.samples[:0], h.samples[maxSamples/3:]...)
	}
	h.samples = append(h.samples, sample{o.sent, o.at})
}

// latest is where the master was when last seen; nil when it never was.
func (h *history) latest() position {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.samples) == 0 {
		return nil
	}
	return h.samples[len(h.samples)-1].at
}

// age is how long ago the master was first seen beyond at: 0 when it never was. -1 when it cannot be told.
func (h *history) age(d dialect.Dialect, at position) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at == nil || len(h.samples) == 0 {
		return -1
	}
	// What is covered comes before what is not.
	low, high := 0, len(h.samples)
	for low < high {
		if mid := (low + high) / 2; at.covers(d, h.samples[mid].at) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(h.samples) {
		return 0
	}
	return time.Since(h.samples[low].sent)
}

// ago returns a position that covers everything the master had at the moment d ago, when one has been seen.
func (h *history) ago(d time.Duration) (position, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.samples {
		if time.Since(s.sent) <= d {
			return s.at, true
		}
	}
	return nil, false
}

var (
	errLags     = errors.New("it trails the master by more than MaxLag")
	errPromoted = errors.New("it was a replica and now accepts writes: its data may have parted from the master's; Reconfigure when that is meant")
	errMute     = errors.New("it does not tell whether it is a replica, which FollowMaster and Pooler need to know: see the rights in the documentation, or leave it out")
	errWritable = errors.New("it accepts writes, and behind a pooler reads there cannot be made read only: give the data source of a real replica, or a user who may only read")
)

// assess records what a probe saw and returns why the source should serve no reads.
func (r *Router) assess(t *topology, s *source, o observation) error {
	s.learn(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.last, s.state.lag, s.state.age = o, -1, -1
	s.misses = 0
	if s.role == roleMaster {
		if o.known {
			s.plain = 0
		}
		if o.standby {
			s.state.err, s.state.errAt = errNoMaster, time.Now()
			return nil
		}
		s.state.err = nil
		if o.at != nil {
			r.past.add(t.dialect, o)
		}
		return nil
	}
	if !o.known {
		if t.cfg.FollowMaster || t.cfg.Pooler {
			return errMute
		}
		return nil
	}
	s.plain = 0
	if s.standby && !o.standby {
		return errPromoted
	}
	s.standby = s.standby || o.standby
	s.deposed = s.deposed && !o.standby
	if !o.standby && t.cfg.Pooler {
		return errWritable
	}
	if o.at == nil {
		return nil
	}
	s.state.age = r.past.age(t.dialect, o.at)
	if t.dialect == dialect.Postgres && o.standby {
		s.state.lag = max(o.at.behind(t.dialect, r.past.latest()), o.received-int64(o.at[0].seq), 0)
	}
	bytes, age := t.cfg.MaxLag.Bytes, t.cfg.MaxLag.Time
	if !s.healthy && errors.Is(s.state.err, errLags) {
		bytes, age = bytes/2, age/2 // it comes back when it has clearly caught up
	}
	if t.cfg.MaxLag.Bytes > 0 && s.state.lag > bytes || t.cfg.MaxLag.Time > 0 && s.state.age > age {
		return errLags
	}
	return nil
}
