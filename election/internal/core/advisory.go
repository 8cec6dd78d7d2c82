package core

import (
	"fmt"
	"time"
)

// Advisory is the machine for leadership without a database. Members announce claims; the lowest eligible one claims when nobody
// else does, and of two that claim, the higher ID gives way. Nothing excludes a second leader on the other side of a partition, or
// while claims are on their way.
type Advisory struct {
	cfg      Config
	view     View
	term     uint64 // of the claim, 0 none
	clock    uint64
	last     uint64 // the highest term that was seen
	since    Now
	freeFrom time.Duration // since when this process could claim; below 0: it could not
	running  int
	holdOff  time.Duration
	nominate time.Duration
	giving   *giving
	lower    lower
	reason   string
}

// NewAdvisory returns a machine that has seen nothing.
func NewAdvisory(cfg Config) *Advisory { return &Advisory{cfg: cfg, lower: lower{}, freeFrom: -1} }

// Clock sets the least number of a new term, so that terms go on rising when all members restart.
func (m *Advisory) Clock(c uint64) { m.clock = c }

// Step handles one event.
func (m *Advisory) Step(now Now, ev Event) []Action {
	switch ev := ev.(type) {
	case Saw:
		m.view = ev.View
		for _, x := range m.view.Members {
			m.last = max(m.last, x.Claim)
			if x.Claim > 0 && x.ID != m.view.Me {
				m.holdOff = 0
			}
		}
		if m.term != 0 {
			m.lower.update(now, m.view)
		}
	case Idle:
		m.running = ev.Running
	case Asked:
		if m.term != 0 && (m.giving == nil || !m.giving.stepping) {
			m.step(now, ev.To, "resigned")
		}
	case Answer:
		m.answer(now, ev)
	case Nominated:
		m.nominate, m.holdOff = now.Mono+m.cfg.TTL, 0
	}
	return m.plan(now)
}

func (m *Advisory) step(now Now, to, why string) {
	m.running = unknownRunning
	m.giving = &giving{to: to, stepping: true, until: now.Mono + m.cfg.Renew, why: why}
}

func (m *Advisory) answer(now Now, ev Answer) {
	g := m.giving
	if m.term == 0 || g == nil || g.stepping || len(g.asking) == 0 || g.asking[0] != ev.To {
		return
	}
	if ev.Willing {
		m.step(now, ev.To, g.why)
		return
	}
	m.giving = nil
	m.lower.again(now)
}

func (m *Advisory) end(now Now, why string) []Action {
	give, term := m.giving, m.term
	m.term, m.giving, m.lower, m.reason, m.freeFrom = 0, nil, lower{}, why, -1
	out := []Action{Claim{}}
	if give != nil {
		m.holdOff = now.Mono + m.cfg.TTL + m.cfg.Renew
		if give.to != "" {
			out = append(out, Nominate{To: give.to, Term: term})
		}
	}
	return out
}

// majority reports whether enough members are here for a leader.
func (m *Advisory) majority() bool { return m.cfg.Quorum == 0 || len(m.view.Members) > m.cfg.Quorum/2 }

// claimant is the member whose claim counts: the lowest of those that claim.
func (m *Advisory) claimant() (Member, bool) {
	for _, x := range m.view.Members {
		if x.ID == m.view.Me {
			x.Claim = m.term
		}
		if x.Claim > 0 && m.majority() {
			return x, true
		}
	}
	return Member{}, false
}

func (m *Advisory) plan(now Now) []Action {
	if len(m.view.Members) == 0 {
		return nil
	}
	me, ok := m.view.find(m.view.Me)
	eligible := ok && me.Eligible && !m.cfg.NonCandidate
	if m.term != 0 {
		if !m.majority() {
			return m.end(now, "fewer members than a majority are here")
		}
		if x, _ := m.claimant(); x.ID != m.view.Me {
			return m.end(now, fmt.Sprintf("%s, a lower ID, leads too", x.ID))
		}
		if m.last > m.term && m.giving == nil { // a partition has ended: the other side's term was higher, and terms have to rise
			m.term = m.last + 1
			m.last = m.term
			return []Action{Claim{Term: m.term}}
		}
		if give := m.giving; give != nil && give.stepping {
			if m.running == 0 || now.Mono >= give.until {
				return m.end(now, give.why)
			}
			return nil
		}
		if m.giving == nil && !eligible {
			to := ""
			if line := m.view.candidates(m.view.Me); len(line) > 0 {
				to = line[0]
			}
			m.step(now, to, "this member is not eligible any more")
			return m.plan(now)
		}
		if m.giving == nil {
			if id := m.lower.stable(now, m.cfg.StableFor); id != "" {
				m.giving = &giving{to: id, asking: []string{id}, optional: true, why: fmt.Sprintf("handed over to %s, the lower ID", id)}
				return []Action{Ask{To: id}}
			}
		}
		return nil
	}
	_, claimed := m.claimant()
	line := m.view.candidates("")
	if claimed || !eligible || !m.majority() || len(line) == 0 || len(m.view.Members) > 1 && now.Mono < m.holdOff {
		m.freeFrom = -1
		return nil
	}
	if line[0] != m.view.Me && now.Mono >= m.nominate {
		m.freeFrom = -1
		return nil
	}
	if m.freeFrom < 0 {
		m.freeFrom = now.Mono
	}
	wait := m.cfg.Look // claims of others may still be on their way
	if len(m.view.Members) == 1 || now.Mono < m.nominate {
		wait = 0
	}
	if now.Mono-m.freeFrom < wait {
		return nil
	}
	m.term = max(m.last+1, m.clock)
	m.last, m.since, m.nominate, m.holdOff = m.term, now, 0, 0
	m.lower = lower{}
	m.lower.begin(now, m.view)
	m.reason = "the lowest eligible ID of those alive"
	return []Action{Claim{Term: m.term}}
}

// Status tells what holds at a time.
func (m *Advisory) Status(now Now) Status {
	s := Status{Reason: m.reason, Resigned: now.Mono < m.holdOff}
	switch x, ok := m.claimant(); {
	case len(m.view.Members) == 0:
		s.Reason = "the cluster's view is not settled yet"
	case m.giving != nil && m.giving.stepping:
		s.Known, s.Stepping, s.Term, s.Reason = true, true, m.term, m.giving.why
	case ok && x.ID == m.view.Me:
		s.Known, s.LeaderID, s.Term, s.Mine, s.Unfenced = true, x.ID, m.term, m.term, true
	case ok:
		s.Known, s.LeaderID, s.Term, s.Reason = true, x.ID, x.Claim, "it claims to lead"
	case !m.majority():
		s.Known, s.Term, s.Reason = true, m.last, "fewer members than a majority are here"
	default:
		s.Known, s.Term, s.Reason = true, m.last, "nobody leads"
	}
	return s
}

// Willing reports whether this process would lead if nobody did.
func (m *Advisory) Willing(Now) bool {
	me, ok := m.view.find(m.view.Me)
	return ok && me.Eligible && !m.cfg.NonCandidate
}

// Next is how long the machine can be left alone.
func (m *Advisory) Next(now Now) time.Duration {
	next := m.cfg.TTL
	if m.freeFrom >= 0 && m.term == 0 {
		next = min(next, m.freeFrom+m.cfg.Look-now.Mono)
	}
	if m.giving != nil && m.giving.stepping {
		next = min(next, m.giving.until-now.Mono)
	}
	if now.Mono < m.holdOff {
		next = min(next, m.holdOff-now.Mono)
	}
	if at := m.lower.next(now, m.cfg.StableFor); at > 0 && m.giving == nil {
		next = min(next, at)
	}
	return max(0, next)
}

// Busy is false: claims are not statements.
func (m *Advisory) Busy() bool { return false }

// Fault is "": there is no database.
func (m *Advisory) Fault() string { return "" }

// Holder is "": there is no row.
func (m *Advisory) Holder() string { return "" }
