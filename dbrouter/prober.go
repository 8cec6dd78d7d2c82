package dbrouter

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

const (
	probeTimeout = 500 * time.Millisecond
	goodProbes   = 2 // that a source needs to come back
	maxLeft      = 8 // connections of probes that a frozen server still holds
)

var (
	errLags     = errors.New("it trails the master by more than MaxLag")
	errPromoted = errors.New("it was a replica and now accepts writes: its data may have parted from the master's; Reconfigure when that is meant")
	errWritable = errors.New("it accepts writes, and behind a pooler reads there cannot be made read only: give the data source of a real replica, or a user who may only read")
)

// watch probes one source until ctx ends.
func (r *Router) watch(ctx context.Context, t *topology, s *source) {
	timer := time.NewTimer(rand.N(t.cfg.MonitorInterval/4 + 1)) // not all at once
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.kick:
		}
		again := r.examine(ctx, t, s)
		if ctx.Err() != nil {
			return
		}
		timer.Reset(again)
	}
}

// examine probes a source once, acts on what it saw, and returns the time until the next probe.
func (r *Router) examine(ctx context.Context, t *topology, s *source) time.Duration {
	interval := t.cfg.MonitorInterval
	pause := interval - interval/8 + rand.N(interval/4+1)
	s.mu.Lock()
	plain := s.plain
	s.mu.Unlock()
	pctx, cancel := context.WithTimeout(ctx, probeTimeout)
	o, err := observe(pctx, s.probe, t.dialect, plain)
	cancel()
	if ctx.Err() != nil {
		return pause
	}
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded) && s.miss() < s.patience():
		return 0 // our own process may have been starved
	case errors.Is(err, context.DeadlineExceeded) || t.classify(err) == FaultConnection:
		r.down(t, s, err, true)
		return pause
	case t.classify(err) == FaultBusy:
		s.note(err) // it lives
		return pause
	default:
		s.mu.Lock()
		s.plain = true
		s.mu.Unlock()
		if plain {
			r.down(t, s, err, true)
		} else {
			r.log(t).Warn("data source does not tell its position: its lag is unknown", "source", s.name, "error", redactIn(err.Error(), s.dsn))
			s.suspect()
		}
		return pause
	}
	if why := r.assess(t, s, o); why != nil {
		r.down(t, s, why, false)
		return pause
	}
	if !r.up(t, s) {
		return interval / 4 // more good probes are wanted
	}
	return pause
}

// assess records what a probe saw and returns why the source should serve no reads.
func (r *Router) assess(t *topology, s *source, o observation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.last, s.state.lag = o, -1
	s.misses = 0
	if s.role == roleMaster {
		if o.position >= 0 && !o.standby {
			r.written.Store(o.position)
		}
		if o.standby {
			s.state.err, s.state.errAt = errors.New("it is a replica, or read only: it accepts no writes; Reconfigure with the data source of the master"), time.Now()
		} else {
			s.state.err = nil
			r.renewals.Store(0)
		}
		if o.standby {
			r.renew()
		}
		return nil
	}
	if s.standby && !o.standby && t.dialect == dialect.Postgres {
		return errPromoted
	}
	s.standby = s.standby || o.standby
	if !o.standby && t.cfg.Pooler {
		return errWritable
	}
	if o.position >= 0 && o.standby {
		end := max(r.written.Load(), o.received)
		s.state.lag = max(end-o.position, 0)
		bound := t.cfg.MaxLag.Bytes
		if !s.healthy && errors.Is(s.state.err, errLags) {
			bound /= 2
		}
		if t.cfg.MaxLag.Bytes > 0 && s.state.lag > bound {
			return errLags
		}
	}
	return nil
}

// miss counts the probes in a row that got no answer in time.
func (s *source) miss() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.misses++
	return s.misses
}

// patience is how many of them say that a source is hung. Nothing is gained by calling the master so early: nobody else can write.
func (s *source) patience() int {
	if s.role == roleMaster {
		return 4
	}
	return 2
}

func (s *source) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.err, s.state.errAt = err, time.Now()
}

// condemn is the answer to a failed call: a replica is out of use until probes say otherwise; the master is only looked at.
func (r *Router) condemn(s *source, err error) {
	t := r.top.Load()
	if s.role == roleMaster || s.role == roleRead {
		s.note(err)
	} else {
		r.down(t, s, err, false)
	}
	s.suspect()
}

// down takes a source out of use. hung says that it does not answer: reads in flight are moved, and idle connections dropped.
func (r *Router) down(t *topology, s *source, err error, hung bool) {
	s.mu.Lock()
	was := s.healthy
	s.healthy, s.good = false, 0
	s.state.err, s.state.errAt = err, time.Now()
	if was {
		s.state.downSince = time.Now()
	}
	end := s.endLife
	if hung {
		s.life, s.endLife = context.WithCancelCause(context.Background())
	}
	s.mu.Unlock()
	if hung {
		end(errHung)
	}
	if was {
		r.choose(s)
		r.log(t).Warn("data source out of use", "role", string(s.role), "source", s.name, "error", redactIn(err.Error(), s.dsn))
		if !errors.Is(err, errLags) && !errors.Is(err, errPromoted) {
			s.dropIdle(t.cfg)
		}
	}
}

// up counts a good probe, and reports whether the source is in use.
func (r *Router) up(t *topology, s *source) bool {
	s.mu.Lock()
	if s.healthy {
		s.mu.Unlock()
		return true
	}
	s.good++
	if s.good < goodProbes {
		s.mu.Unlock()
		return false
	}
	s.mu.Unlock()
	s.dropIdle(t.cfg) // opened while it was failing
	s.mu.Lock()
	s.healthy = true
	out := time.Since(s.state.downSince)
	if s.role != roleMaster {
		s.state.err = nil
	}
	s.mu.Unlock()
	r.choose(s)
	r.log(t).Info("data source in use again", "role", string(s.role), "source", s.name, "after", out.Round(time.Millisecond))
	return true
}

// choose publishes a topology in which the health of s counts.
func (r *Router) choose(s *source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.top.Load(); !t.closed && !s.retired.Load() {
		r.top.Store(t.choices())
	}
}
