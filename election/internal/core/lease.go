package core

import (
	"fmt"
	"slices"
	"time"
)

// Lease is the machine for leadership by a row of a database.
type Lease struct {
	cfg  Config
	view View

	busy bool // a statement is under way

	row      Row
	seen     bool // row holds an observation
	since    Now  // first answer that showed row
	base     Now  // first answer that showed the last beat of whoever may still be acting, or a later state
	answered Now  // last answer of a look
	looked   bool
	fault    string
	nextLook time.Duration // by Mono

	grant    *grant
	pending  *grant // an acquire that nobody answered
	identity string // of the last write of mine that was accepted
	running  int    // unfenced callbacks

	evidence   *Evidence
	evidenceAt time.Duration
	goneAt     time.Duration
	dead       map[string]uint64 // members proven dead, and the term that the row named then
	before     *before           // whom this process revoked, with proof; only with cfg.Proven
	width      int               // members while the holder was one of them
	termAt     Now               // first answer that showed the term of row
	hinted     bool              // during a look
	escalate   bool              // the next acquire ends the sessions that hold it off
	blocked    Row               // at which an acquire was held off
	revoked    Row               // that this process revoked
	nominated  time.Duration     // until
	holdOff    time.Duration     // until
	giving     *giving
	lower      lower
	reason     string
}

type grant struct {
	term      uint64
	sent      Now
	quietAt   time.Duration // by Mono: when the trust of whoever was before must have ended, unless it was renewed on a copy of the row
	quiet     bool          // a write of mine that was sent after quietAt was accepted: it was not
	nextRenew time.Duration
	lock      string // session of the lock that is held
	written   string // session that the row names
	lockLost  bool   // and the row still names it
	how       string
	after     *before // whom it followed, with proof
}

// giving is the way out of a leadership.
type giving struct {
	to       string
	asking   []string // members still to ask, the first is being asked
	optional bool     // nobody willing: stay
	stepping bool     // contexts have ended; released when callbacks have returned, or at until
	until    time.Duration
	why      string
}

// NewLease returns a machine that has seen nothing.
func NewLease(cfg Config) *Lease { return &Lease{cfg: cfg, lower: lower{}, dead: map[string]uint64{}} }

func (m *Lease) holder() string { return m.view.Me + "/" + m.cfg.Nonce }

func (m *Lease) settled() bool { return len(m.view.Members) > 0 }

// Step handles one event.
func (m *Lease) Step(now Now, ev Event) []Action {
	m.lapse(now)
	var out []Action
	switch ev := ev.(type) {
	case Saw:
		m.saw(now, ev.View)
	case Looked:
		m.busy = false
		out = m.lookedAt(now, ev)
	case Acquired:
		m.busy = false
		m.acquired(now, ev)
	case Renewed:
		if !ev.Fenced {
			m.busy = false
		}
		m.renewed(now, ev)
	case Released:
		m.busy = false
		out = m.released(now, ev)
	case Took:
		m.busy = false
		m.nextLook = now.Mono
		if ev.Err != "" {
			m.fault, m.nextLook = ev.Err, now.Mono+m.cfg.Look
		} else if ev.Done {
			// What the row is now needs no look; whoever was superseded was superseded at the beat before, so base stays.
			m.revoked = m.row
			m.row.Holder, m.row.Beat, m.row.LockSession, m.row.Server = Revoked, m.row.Beat+1, "", m.row.Identity
			m.since = now
			out = m.consider(now)
		}
	case LockTaken:
		if m.grant != nil && m.grant.term == ev.Term {
			m.grant.lock = ev.Session
			m.grant.nextRenew = min(m.grant.nextRenew, now.Mono)
		}
	case LockLost:
		if m.grant != nil && m.grant.term == ev.Term && m.grant.lock != "" {
			m.grant.lock, m.grant.lockLost = "", true
			m.grant.nextRenew = min(m.grant.nextRenew, now.Mono)
		}
	case Evidence:
		m.evidence, m.evidenceAt, m.nextLook = &ev, now.Mono, now.Mono
		m.before.ended(ev, m.row.Identity)
	case Doubt:
		if m.grant != nil && m.grant.term == ev.Term {
			m.grant.nextRenew = min(m.grant.nextRenew, now.Mono)
		}
	case Idle:
		m.running = ev.Running
	case Hinted:
		m.hinted, m.nextLook = m.busy, now.Mono
	case Confirmed:
		m.before.confirmed(now, ev, m.cfg.Look)
	case Asked:
		if m.grant != nil && (m.giving == nil || !m.giving.stepping) {
			m.step(now, ev.To, "resigned")
		}
	case Answer:
		m.answer(now, ev)
	case Nominated:
		m.nominated, m.nextLook, m.holdOff = now.Mono+m.cfg.TTL, now.Mono, 0
	}
	return append(out, m.plan(now)...)
}

// lapse ends a leadership whose trust has ended. It is not renewed: a new term has to be won.
func (m *Lease) lapse(now Now) {
	if m.grant != nil && now.Trusted(m.grant.sent) >= m.cfg.TTL-m.cfg.Margin {
		m.end(now, "the lease was not renewed in time")
	}
	if m.pending != nil && now.Trusted(m.pending.sent) >= m.cfg.TTL-m.cfg.Margin {
		m.pending = nil
	}
}

func (m *Lease) end(now Now, why string) {
	m.row, m.seen = Row{Term: m.grant.term}, false // what was seen before it is of no use any more
	m.grant, m.giving, m.before, m.reason, m.nextLook = nil, nil, nil, why, now.Mono
	m.lower = lower{}
}

func (m *Lease) saw(now Now, v View) {
	for _, x := range v.Members {
		delete(m.dead, x.ID)
	}
	if _, known := m.dead[v.Gone]; v.Gone != "" && !known {
		m.dead[v.Gone] = m.row.Term
		m.goneAt, m.nextLook = now.Mono, now.Mono
	}
	m.view = v
	m.before.saw(v)
	m.widen()
	if m.grant != nil {
		m.lower.update(now, v)
	}
}

// lookedAt takes an observation and decides what may be done with it.
func (m *Lease) lookedAt(now Now, ev Looked) []Action {
	m.nextLook = now.Mono + m.cfg.Look
	if m.hinted {
		m.hinted, m.nextLook = false, now.Mono
	}
	if ev.Err != "" {
		m.fault = ev.Err
		return nil
	}
	m.fault = ""
	if ev.Row.Identity == Standby {
		m.seen, m.looked, m.fault = false, false, "the database takes no writes: it is a standby"
		return nil
	}
	m.looked, m.answered = true, ev.At
	if !m.seen || !m.row.same(ev.Row) {
		// A revoke changes nothing but the mark: whoever was superseded by it was superseded at the beat before.
		byRevoke := m.seen && ev.Row.Holder == Revoked && ev.Row.Term == m.row.Term && ev.Row.Beat == m.row.Beat+1 && ev.Row.Identity == m.row.Identity
		if !byRevoke {
			m.base = ev.At
		}
		if !m.seen || ev.Row.Term != m.row.Term || ev.Row.Identity != m.row.Identity {
			m.termAt = ev.At
		}
		m.since = ev.At
	}
	m.row, m.seen = ev.Row, true
	m.widen()
	if HolderID(m.row.Holder) != "" && m.row.Holder != m.holder() {
		m.holdOff = 0
	}
	return m.consider(now)
}

func (m *Lease) consider(now Now) []Action {
	if m.grant != nil || !m.settled() {
		return nil
	}
	row, here := m.row, m.row.Server == m.row.Identity && !m.row.Fresh
	if row.Holder == m.holder() {
		if p := m.pending; p != nil && p.term == row.Term && m.identity == row.Identity && here {
			return m.run(Renew{Term: row.Term, Holder: row.Holder})
		}
		if m.identity == row.Identity && here {
			return m.run(Release{Term: row.Term, Holder: row.Holder, Mark: Revoked}) // it lapsed
		}
	}
	silent := now.Observed(m.since) >= m.cfg.TTL
	free := here && (row.Holder == "" || row.Holder == Revoked)
	switch {
	case free:
		if m.rightful(now, "", m.since.Mono) {
			return m.acquire()
		}
	case silent:
		if m.rightful(now, HolderID(row.Holder), m.since.Mono+m.cfg.TTL) {
			if m.blocked.same(row) && HolderID(row.Holder) != "" {
				return m.run(Revoke{Row: row}) // a holder that goes on fencing could starve the takeover: first let it fence no more
			}
			return m.acquire()
		}
	case HolderID(row.Holder) == "":
	case m.ended(row):
		if m.rightful(now, HolderID(row.Holder), max(m.evidenceAt, m.since.Mono)) {
			return m.revoke(now)
		}
	case m.view.Gone == HolderID(row.Holder) && m.dead[m.view.Gone] == row.Term: // who acquires after its death was not dead
		if patience := m.cfg.TTL / 60; m.cfg.Proven && row.LockSession != "" && now.Mono-m.goneAt < patience {
			m.nextLook = now.Mono + patience/5 // the other half of the proof is on its way: after the revoke nobody waits for it any more
		} else if m.rightful(now, HolderID(row.Holder), max(m.goneAt, m.since.Mono)) {
			return m.revoke(now)
		}
	}
	return nil
}

// ended reports whether the session that the row names is known to have ended on the server that names it.
func (m *Lease) ended(row Row) bool {
	return m.evidence != nil && row.LockSession != "" && m.evidence.Session == row.LockSession && m.evidence.Term == row.Term &&
		row.Server == row.Identity && sessionServer(row.LockSession) == row.Identity
}

// rightful reports whether this process is the one to try. The row decides between those who do; this only keeps them from colliding,
// so the next in line may step in when the lease has been free for long enough: the first may have no elector, or no database.
func (m *Lease) rightful(now Now, without string, freeSince time.Duration) bool {
	me, ok := m.view.find(m.view.Me)
	if !ok || !me.Eligible || m.cfg.NonCandidate {
		return false
	}
	if without == m.view.Me {
		without = ""
	}
	line := m.view.candidates(without)
	rank, before := 0, 0
	for _, id := range line {
		if id < m.view.Me {
			rank++
		}
		if id != m.view.Me {
			before++
		}
	}
	if now.Mono < m.holdOff && before > 0 {
		return false
	}
	if now.Mono < m.nominated || m.mine() {
		return true
	}
	wait := time.Duration(rank) * m.cfg.Stagger
	if m.row.Term > 0 && before > 0 && HolderID(m.row.Holder) == "" {
		wait += m.cfg.Look + m.cfg.Look/4 // whoever was named as successor comes first
	}
	return now.Mono-freeSince >= wait
}

// mine reports whether the row is as this process left it by a revoke.
func (m *Lease) mine() bool {
	return m.row.Holder == Revoked && m.row.Term == m.revoked.Term && m.row.Beat == m.revoked.Beat+1
}

func (m *Lease) acquire() []Action {
	esc := m.escalate
	m.escalate = false
	return m.run(Acquire{Row: m.row, Holder: m.holder(), Escalate: esc})
}

func (m *Lease) run(a Action) []Action {
	if m.busy {
		return nil
	}
	m.busy = true
	return []Action{a}
}

func (m *Lease) acquired(now Now, ev Acquired) {
	m.nextLook = now.Mono + m.cfg.Look
	g := &grant{term: ev.Term, sent: ev.Sent, nextRenew: ev.Sent.Mono + m.cfg.Renew}
	switch {
	case m.row.Holder == "" && m.row.Server == m.row.Identity && !m.row.Fresh:
		g.quietAt, g.how = ev.Sent.Mono, "the lease was free"
	case m.row.Holder == Revoked:
		g.quietAt, g.how = m.base.Mono+m.cfg.TTL, "the lease was revoked"
		if m.mine() {
			g.after = m.before
		}
	default:
		g.quietAt, g.how = m.since.Mono+m.cfg.TTL, "the lease was silent"
	}
	g.accepted(ev.Sent)
	switch ev.Outcome {
	case Granted:
		m.fault = ""
		m.won(now, g, ev.Identity)
	case Unknown:
		m.fault, m.pending, m.identity, m.nextLook = ev.Err, g, ev.Identity, now.Mono
	case Blocked:
		m.fault = ev.Err
		// A lease that was given back is waited for: what its holder still has to commit is in order.
		m.escalate, m.blocked, m.nextLook = m.row.Holder != "", m.row, now.Mono
	case Lost:
		m.nextLook = now.Mono + m.cfg.Look/5
	default:
		m.fault = ev.Err
	}
}

// accepted takes note of a write that was accepted. A holder that was revoked has not lapsed yet: when the database then fails over to a
// copy that lacks the revoke, it goes on renewing there, and a term that was won meanwhile is lost without its holder knowing. So the
// passing of time alone does not make a term quiet: the row has to be mine at a time when the one before must have lapsed.
func (g *grant) accepted(sent Now) {
	if sent.Mono >= g.quietAt {
		g.quiet = true
	} else {
		g.nextRenew = min(g.nextRenew, g.quietAt)
	}
}

func (m *Lease) won(now Now, g *grant, identity string) {
	m.grant, m.pending, m.evidence, m.escalate, m.blocked, m.nominated, m.giving = g, nil, nil, false, Row{}, 0, nil
	m.identity, m.reason, m.holdOff = identity, g.how, 0
	m.lower = lower{}
	m.lower.begin(now, m.view)
	m.lapse(now)
}

func (m *Lease) renewed(now Now, ev Renewed) {
	if p := m.pending; m.grant == nil && p != nil && p.term == ev.Term && !ev.Fenced {
		m.pending = nil
		m.nextLook = now.Mono
		if ev.Outcome == Granted {
			p.sent, p.nextRenew = ev.Sent, ev.Sent.Mono+m.cfg.Renew
			p.accepted(ev.Sent)
			m.won(now, p, ev.Identity)
		} else if ev.Outcome != Lost {
			m.pending, m.nextLook, m.fault = p, now.Mono+m.cfg.Look, ev.Err
		}
		return
	}
	g := m.grant
	if g == nil || g.term != ev.Term {
		return
	}
	switch ev.Outcome {
	case Granted:
		m.fault = ""
		if ev.Sent.Mono > g.sent.Mono {
			g.sent = ev.Sent
		}
		g.nextRenew = g.sent.Mono + m.cfg.Renew
		g.accepted(ev.Sent)
		m.identity = ev.Identity
		if !ev.Fenced {
			g.written = ev.Lock
			if ev.Lock == g.lock {
				g.lockLost = false
			} else {
				g.nextRenew = now.Mono
			}
		}
	case Lost:
		m.end(now, "another took the lease")
	default:
		m.fault = ev.Err
		g.nextRenew = now.Mono + m.cfg.Renew/5
	}
}

func (m *Lease) released(now Now, ev Released) []Action {
	g, give := m.grant, m.giving
	if g != nil && give != nil {
		m.end(now, give.why)
		m.holdOff = now.Mono + m.cfg.TTL + m.cfg.Renew
	}
	if m.nextLook = now.Mono; ev.Err != "" {
		m.fault, m.nextLook = ev.Err, now.Mono+m.cfg.Look
		return nil
	}
	if g == nil || give == nil || give.to == "" {
		return nil
	}
	return []Action{Nominate{To: give.to, Term: g.term}}
}

// revoke takes the lease from a holder that is thought to be gone.
func (m *Lease) revoke(now Now) []Action {
	m.before = nil
	if m.cfg.Proven && !m.busy {
		m.before = &before{
			id: HolderID(m.row.Holder), term: m.row.Term, session: m.row.LockSession,
			alone: now.Observed(m.termAt) >= m.cfg.TTL, lock: m.ended(m.row), two: m.width == 2,
		}
		m.before.saw(m.view)
	}
	return m.run(Revoke{Row: m.row})
}

// unknownRunning holds until the shell has ended the contexts and counted what still runs.
const unknownRunning = -1

// step ends the contexts now and the lease as soon as may be.
func (m *Lease) step(now Now, to, why string) {
	m.running = unknownRunning
	m.giving = &giving{to: to, stepping: true, until: now.Mono + m.cfg.Renew, why: why}
}

func (m *Lease) answer(now Now, ev Answer) {
	g := m.giving
	if m.grant == nil || g == nil || g.stepping || len(g.asking) == 0 || g.asking[0] != ev.To {
		return
	}
	switch {
	case ev.Willing:
		m.step(now, ev.To, g.why)
	case len(g.asking) > 1:
		g.asking = g.asking[1:]
		g.to = ""
	case g.optional:
		m.giving = nil
		m.lower.again(now)
	default:
		m.step(now, "", g.why)
	}
}

// plan decides what to do without an event.
func (m *Lease) plan(now Now) []Action {
	if !m.settled() {
		return nil
	}
	out := m.before.confirm(now, m.view)
	if m.grant == nil {
		if now.Mono >= m.nextLook {
			out = append(out, m.run(Look{})...)
		}
		return out
	}
	out = append(out, m.planGiving(now)...)
	g := m.grant
	if g.after.proven() {
		g.quiet = true
	}
	if give := m.giving; give != nil && give.stepping && (m.running == 0 || now.Mono >= give.until) && !m.busy {
		mark := Revoked
		if m.running == 0 && g.quiet {
			mark = ""
		}
		return append(out, m.run(Release{Term: g.term, Holder: m.holder(), Mark: mark})...)
	}
	if now.Mono >= g.nextRenew {
		out = append(out, m.run(Renew{Term: g.term, Holder: m.holder(), Lock: g.lock})...)
	}
	return out
}

// planGiving begins a handover that nobody asked for: this process may no longer lead, or a lower ID has come to stay.
func (m *Lease) planGiving(now Now) []Action {
	me, ok := m.view.find(m.view.Me)
	switch {
	case m.giving == nil && (!ok || !me.Eligible || m.cfg.NonCandidate):
		g := &giving{why: "this member is not eligible any more", asking: slices.Clone(m.view.candidates(m.view.Me))}
		m.giving = g
		if len(g.asking) == 0 {
			m.step(now, "", g.why)
		}
	case m.giving == nil:
		if id := m.lower.stable(now, m.cfg.StableFor); id != "" {
			m.giving = &giving{asking: []string{id}, optional: true, why: fmt.Sprintf("handed over to %s, the lower ID", id)}
		}
	}
	if g := m.giving; g != nil && !g.stepping && g.to == "" && len(g.asking) > 0 {
		g.to = g.asking[0] // being asked
		return []Action{Ask{To: g.to}}
	}
	return nil
}

// Status tells what holds at a time.
func (m *Lease) Status(now Now) Status {
	s := Status{Reason: m.reason, Holder: m.holder(), Resigned: now.Mono < m.holdOff}
	if !m.settled() {
		s.Reason = "the cluster's view is not settled yet"
		return s
	}
	if g := m.grant; g != nil && now.Trusted(g.sent) < m.cfg.TTL-m.cfg.Margin {
		stepping := m.giving != nil && m.giving.stepping
		s.Known, s.LeaderID, s.Term = true, m.view.Me, g.term
		s.Stepping = stepping
		if stepping {
			s.LeaderID, s.Reason = "", m.giving.why
		} else {
			s.Mine, s.Sent = g.term, g.sent
			s.Unfenced = !g.lockLost && g.quiet
		}
		s.Named = g.written != ""
		s.Lock.Hold = g.term // while stepping too: a lock that is freed before the lease would look like a crash
		return s
	}
	if !m.looked || now.Observed(m.answered) >= m.cfg.TTL {
		if s.Reason == "" || m.looked {
			s.Reason = "the lease has not been seen yet"
		}
		if m.fault != "" {
			s.Reason = m.fault
		}
		s.Term = m.row.Term
		return s
	}
	s.Known, s.Term = true, m.row.Term
	if id := HolderID(m.row.Holder); id != "" && m.row.Holder != m.holder() && now.Observed(m.since) < m.cfg.TTL {
		s.LeaderID = id
		s.Reason = "it holds the lease"
		if m.row.LockSession != "" {
			s.Lock.Wait, s.Lock.Session = m.row.Term, m.row.LockSession
		}
	} else if s.Reason == "" {
		s.Reason = "nobody holds the lease"
	}
	return s
}

// Fault is the last error of the database, "" when the last statement went well.
func (m *Lease) Fault() string { return m.fault }

// Holder is who holds the lease as far as was seen, "" when nobody.
func (m *Lease) Holder() string { return m.row.Holder }

// Willing reports whether this process would take the lease if it were free.
func (m *Lease) Willing(now Now) bool {
	me, ok := m.view.find(m.view.Me)
	return ok && me.Eligible && !m.cfg.NonCandidate && m.looked && m.fault == "" && now.Observed(m.answered) < m.cfg.TTL
}

// Busy reports whether a statement is under way.
func (m *Lease) Busy() bool { return m.busy }

// Next is how long the machine can be left alone.
func (m *Lease) Next(now Now) time.Duration {
	if !m.settled() {
		return m.cfg.TTL
	}
	g := m.grant
	if g == nil {
		if m.busy {
			return m.cfg.TTL
		}
		return max(0, m.nextLook-now.Mono)
	}
	next := m.cfg.TTL - m.cfg.Margin - now.Trusted(g.sent)
	if !m.busy {
		next = min(next, g.nextRenew-now.Mono)
	}
	if m.giving != nil && m.giving.stepping && !m.busy {
		next = min(next, m.giving.until-now.Mono)
	}
	if at := m.lower.next(now, m.cfg.StableFor); at > 0 && m.giving == nil {
		next = min(next, at)
	}
	if b := m.before; b != nil && !g.quiet && b.askAt > now.Mono {
		next = min(next, b.askAt-now.Mono)
	}
	return max(0, next)
}
