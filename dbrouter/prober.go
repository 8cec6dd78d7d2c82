package dbrouter

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	probeTimeout = 500 * time.Millisecond
	probeAgain   = 250 * time.Millisecond // after one that got no answer in time
	probeGap     = 10 * time.Millisecond  // between two that somebody asked for
	goodProbes   = 2                      // that a source needs to come back
	fullWeight   = 8                      // good probes after which it has all of its share
	maxLeft      = 8                      // connections of probes that a frozen server still holds
)

var errNoMaster = errors.New("it is a replica, or read only: it accepts no writes; Reconfigure with the data source of the master")

// watch probes one source until ctx ends.
func (r *Router) watch(ctx context.Context, s *source) {
	timer := time.NewTimer(rand.N(r.top.Load().cfg.MonitorInterval/4 + 1)) // not all at once
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.kick:
		}
		began := time.Now()
		again := r.examine(ctx, s)
		if gap := probeGap - time.Since(began); gap > 0 && again > 0 {
			// Those who ask for probes may be many.
			select {
			case <-ctx.Done():
				return
			case <-time.After(gap):
			}
		}
		if ctx.Err() != nil {
			return
		}
		timer.Reset(again)
	}
}

// examine probes a source once, acts on what it saw, and returns the time until the next probe.
func (r *Router) examine(ctx context.Context, s *source) time.Duration {
	t := r.top.Load()
	interval := t.cfg.MonitorInterval
	pause := interval - interval/8 + rand.N(interval/4+1)
	timeout := probeTimeout
	switch s.missed() {
	case 0:
	case 1:
		timeout = probeAgain
	default: // it is out: a new connection may take its time on a busy machine, and nobody waits
		timeout = 2 * probeTimeout
	}
	pctx, cancel := context.WithTimeout(ctx, timeout)
	o, err := s.observe(pctx)
	cancel()
	if ctx.Err() != nil {
		return pause
	}
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(pctx.Err(), context.DeadlineExceeded)
	switch {
	case err == nil:
	case late && s.miss() < s.patience():
		return 0 // our own process may have been starved
	case late || t.classify(err) == FaultConnection:
		r.down(t, s, err, true)
		return pause
	case t.classify(err) == FaultBusy, t.classify(err) == FaultRetry:
		s.note(err) // it lives
		return pause
	case s.simpler():
		return 0
	default:
		r.down(t, s, err, true)
		return pause
	}
	if !o.known && s.unknown() {
		r.log(t).Warn("data source does not tell its role and position", "role", string(s.role), "source", s.name)
	}
	if why := r.assess(t, s, o); why != nil {
		r.down(t, s, why, false)
		if errors.Is(why, errPromoted) && t.cfg.FollowMaster {
			r.hunt()
		}
		return pause
	}
	if s.role == roleMaster && o.standby {
		r.hunt()
	}
	if !r.up(t, s) {
		return interval / 4 // more good probes are wanted
	}
	if r.top.Load().lagging {
		r.choose(s) // who trails least may have changed
	}
	return pause
}

// miss counts the probes in a row that got no answer in time.
func (s *source) miss() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.misses++
	return s.misses
}

func (s *source) missed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// condemn is the answer to a failed call: a replica is out of use until probes say otherwise; the master is looked at, and looked for.
func (r *Router) condemn(s *source, err error) {
	if s.retired.Load() {
		return
	}
	if s.role == roleMaster || s.role == roleRead {
		s.note(err)
		if s.role == roleMaster {
			r.hunt()
		}
	} else {
		r.down(r.top.Load(), s, err, false)
	}
	s.suspect()
}

// down takes a source out of use. hung says that it does not answer: reads in flight are moved, and idle connections dropped.
func (r *Router) down(t *topology, s *source, err error, hung bool) {
	s.mu.Lock()
	was, lags := s.healthy, errors.Is(err, errLags)
	changed := was || lags != s.lags
	s.healthy, s.lags, s.good, s.weight = false, lags, 0, 1
	s.state.err, s.state.errAt = err, time.Now()
	if was {
		s.state.downSince = time.Now()
	}
	s.mu.Unlock()
	if hung && s.role != roleMaster {
		s.flights.abort(errHung)
	}
	if changed || lags {
		r.choose(s)
	}
	if was {
		r.log(t).Warn("data source out of use", "role", string(s.role), "source", s.name, "error", redactIn(err.Error(), s.dsn))
		if !lags && !errors.Is(err, errPromoted) {
			s.dropIdle(t.cfg)
		}
	}
	if s.role == roleMaster {
		r.hunt()
	}
}

// up counts a good probe, and reports whether the source is in use.
func (r *Router) up(t *topology, s *source) bool {
	s.mu.Lock()
	if s.healthy {
		ramp := s.weight < fullWeight
		if ramp {
			s.weight++
		}
		s.mu.Unlock()
		if ramp {
			r.choose(s)
		}
		return true
	}
	s.good++
	if s.good < goodProbes {
		s.mu.Unlock()
		return false
	}
	lagged := s.lags
	s.mu.Unlock()
	if !lagged {
		s.dropIdle(t.cfg) // opened while it was failing
	}
	s.mu.Lock()
	s.healthy, s.lags, s.weight = true, false, 1
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
