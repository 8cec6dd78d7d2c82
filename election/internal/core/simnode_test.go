package core_test

import (
	"fmt"
	"time"

	"github.com/nines-go/nines/election/internal/core"
)

// simNode is one process.
type simNode struct {
	s        *sim
	i        int
	id       string
	m        *core.Lease
	life     int // number of the process
	alive    bool
	eligible bool
	rate     float64       // of its clock
	wall     time.Duration // steps of its wall clock
	paused   time.Duration // until
	cutUntil time.Duration // from the database
	held     []core.Event  // that came while it was paused
	sees     map[string]string
	had      []simHeld
	mine     uint64
	timer    int
}

type simHeld struct {
	term   uint64
	holder string
}

func (n *simNode) boot() {
	s := n.s
	n.life++
	n.alive, n.paused, n.held, n.mine = true, 0, nil, 0
	clear(n.sees)
	n.m = core.NewLease(core.Config{
		TTL: simTTL, Margin: simTTL / 6, Renew: simTTL / 3, Look: 200*time.Millisecond + time.Duration(n.i)*37*time.Millisecond,
		Stagger: simTTL / 5, StableFor: 10 * time.Second, Nonce: fmt.Sprint(n.life), Proven: s.kind.proven,
	})
	n.later(s.upTo(time.Second), func() { n.feed(core.Tick{}) })
	if n.life == 1 {
		n.work()
	}
}

// later runs fn unless the process has died by then.
func (n *simNode) later(d time.Duration, fn func()) {
	life := n.life
	n.s.after(d, func() {
		if n.alive && n.life == life {
			fn()
		}
	})
}

func (n *simNode) clock() core.Now {
	mono := time.Duration(float64(n.s.now) * n.rate)
	return core.Now{Mono: mono, Wall: mono + n.wall}
}

func (n *simNode) cut() bool { return n.s.now < n.cutUntil }

func (n *simNode) view() core.View {
	v := core.View{Me: n.id}
	for _, o := range n.s.nodes {
		if fate := n.sees[o.id]; fate == "" || fate == "suspect" || o == n {
			v.Members = append(v.Members, core.Member{ID: o.id, Eligible: o.eligible, Suspect: fate == "suspect" && o != n})
		}
	}
	if id := core.HolderID(n.m.Holder()); id != n.id && n.sees[id] == "dead" {
		v.Gone = id
	}
	if id := n.m.Before(); id != n.id && n.sees[id] == "dead" {
		v.Dead = id
	}
	return v
}

// feed hands an event to the machine, now or when the process goes on.
func (n *simNode) feed(ev core.Event) {
	if n.s.now < n.paused {
		n.held = append(n.held, ev)
		return
	}
	for _, ev := range []core.Event{core.Saw{View: n.view()}, ev, core.Idle{}} {
		for _, a := range n.m.Step(n.clock(), ev) {
			n.do(a)
		}
	}
	if st := n.m.Status(n.clock()); st.Mine != n.mine {
		if n.mine = st.Mine; st.Mine != 0 {
			n.had = append(n.had, simHeld{st.Mine, st.Holder})
			n.s.sessions++
			session := fmt.Sprintf("s%d#%d", n.s.identity, n.s.sessions)
			n.later(5*time.Millisecond, func() { n.feed(core.LockTaken{Term: st.Mine, Session: session}) })
		}
	}
	n.timer++
	timer := n.timer
	n.later(n.m.Next(n.clock())+time.Millisecond, func() {
		if timer == n.timer {
			n.feed(core.Tick{})
		}
	})
}

// do sends a statement: it takes effect later, if at all, and is answered later, if at all.
func (n *simNode) do(a core.Action) {
	s, sent := n.s, n.clock()
	there, back := s.upTo(5*time.Millisecond), s.upTo(5*time.Millisecond)
	if s.faults && s.rng.IntN(20) == 0 {
		there = s.upTo(2 * time.Second)
	}
	if s.faults && s.rng.IntN(20) == 0 {
		back = s.upTo(2 * time.Second)
	}
	reach := !s.faults || s.rng.IntN(40) > 0
	reply := !s.faults || s.rng.IntN(40) > 0
	if n.cut() {
		reach, back = false, s.upTo(time.Second)
	}
	s.slow = max(s.slow, s.now+there+back)
	switch a := a.(type) {
	case core.Ask:
		n.later(there, func() { n.feed(core.Answer{To: a.To, Willing: reach && n.sees[a.To] == ""}) })
		return
	case core.Confirm:
		yes := false
		for _, o := range s.nodes {
			yes = yes || o != n && o.alive && o.sees[a.ID] == "dead"
		}
		n.later(there+back, func() { n.feed(core.Confirmed{ID: a.ID, Yes: yes}) })
		return
	case core.Nominate:
		for _, o := range s.nodes {
			if reach && o.id == a.To {
				o.later(there, func() { o.feed(core.Nominated{Term: a.Term}) })
			}
		}
		return
	}
	answer := func(ev core.Event) {
		s.slow = max(s.slow, s.now+back)
		n.later(back, func() {
			if l, ok := ev.(core.Looked); ok {
				l.At = n.clock()
				ev = l
			}
			n.feed(ev)
		})
	}
	s.after(there, func() { // also when its process is dead by then
		ev, failed := prepare(a, sent)
		if !reach || s.now < s.away {
			answer(failed())
			return
		}
		n.apply(a, ev, func(ev core.Event) {
			if !reply {
				got, ok := ev.(core.Acquired)
				if ev = failed(); ok && got.Outcome == core.Granted { // COMMIT was sent, and nobody answered
					got.Outcome, got.Err = core.Unknown, "connection lost"
					ev = got
				}
			}
			answer(ev)
		}, failed)
	})
}

// prepare returns what a statement may be answered with.
func prepare(a core.Action, sent core.Now) (done core.Event, failed func() core.Event) {
	const lost = "connection lost"
	switch a := a.(type) {
	case core.Look:
		return core.Looked{}, func() core.Event { return core.Looked{Err: lost} }
	case core.Acquire:
		return core.Acquired{Sent: sent}, func() core.Event { return core.Acquired{Sent: sent, Outcome: core.Failed, Err: lost} }
	case core.Renew:
		return core.Renewed{Term: a.Term, Sent: sent, Lock: a.Lock}, func() core.Event {
			return core.Renewed{Term: a.Term, Sent: sent, Lock: a.Lock, Outcome: core.Failed, Err: lost}
		}
	case core.Release:
		return core.Released{}, func() core.Event { return core.Released{Err: lost} }
	default:
		return core.Took{}, func() core.Event { return core.Took{Err: lost} }
	}
}

func (n *simNode) pause(d time.Duration) {
	n.paused = n.s.now + d
	n.later(d, n.goOn)
}

func (n *simNode) goOn() {
	if n.s.now < n.paused {
		return // stopped again
	}
	held := n.held
	n.held = nil
	for _, ev := range append([]core.Event{core.Tick{}}, held...) {
		n.feed(ev)
	}
}

// kill ends the process; the others find out, with proof or without, and who waits for its session learns of its end.
func (n *simNode) kill(fate string) {
	s := n.s
	n.alive = false
	row := s.db.row
	for _, o := range s.nodes {
		if o == n {
			continue
		}
		o.later(s.upTo(1500*time.Millisecond), func() {
			if !n.alive {
				o.sees[n.id] = fate
				o.feed(core.Tick{})
			}
		})
		if core.HolderID(row.Holder) == n.id && row.LockSession != "" && o.alive && o.m.Status(o.clock()).Lock.Session == row.LockSession {
			o.later(s.upTo(5*time.Millisecond), func() { o.feed(core.Evidence{Term: row.Term, Session: row.LockSession}) })
		}
	}
	s.after(s.upTo(5*time.Second), n.rise)
}

// rise starts the process again.
func (n *simNode) rise() {
	if n.alive {
		return
	}
	n.s.log("%s is started again", n.id)
	n.boot()
	for _, o := range n.s.nodes {
		if o.alive {
			delete(o.sees, n.id)
		} else {
			n.sees[o.id] = "failed"
		}
	}
}

const simFaults = 13

// fault is what goes wrong, at random.
func (s *sim) fault() {
	if !s.faults {
		return
	}
	s.after(100*time.Millisecond+s.upTo(2*time.Second), s.fault)
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	if holder := core.HolderID(s.db.row.Holder); holder != "" && s.rng.IntN(2) == 0 {
		n = s.nodes[holder[0]-'a'] // mostly the leader
	}
	o := s.nodes[(n.i+1+s.rng.IntN(2))%3]
	if !n.alive {
		return
	}
	what := s.rng.IntN(simFaults)
	for s.without[what] {
		what = s.rng.IntN(simFaults)
	}
	switch what {
	case 0, 1:
		d := s.upTo(2 * simTTL)
		s.log("%s pauses for %v", n.id, d.Round(time.Millisecond))
		n.pause(d)
	case 2:
		fate := []string{"dead", "failed"}[s.rng.IntN(2)]
		s.log("%s is killed: %s", n.id, fate)
		n.kill(fate)
	case 3: // a proof that is false
		if s.kind.proven {
			return
		}
		s.log("%s holds %s for dead", o.id, n.id)
		o.sees[n.id] = "dead"
		s.after(s.upTo(2*time.Second), func() { s.mend(o, n) })
	case 4:
		if m := n.m.Status(n.clock()).Mine; m != 0 && s.now >= n.paused {
			s.log("%s is asked to resign", n.id)
			n.feed(core.Asked{To: s.nodes[s.rng.IntN(3)].id})
		}
	case 5:
		s.identity++
		s.log("the server restarts as s%d", s.identity)
		s.away, s.locked = s.now+s.upTo(time.Second), false
		clear(s.open)
	case 6:
		s.identity++
		if k := len(s.history); k > 0 {
			s.db = s.history[k-1-s.rng.IntN(min(k, 2+6*s.rng.IntN(2)))]
		}
		for _, n := range s.nodes { // each finds the new master in its own time
			if s.rng.IntN(2) == 0 {
				n.cutUntil = max(n.cutUntil, s.now+s.upTo(simTTL))
			}
		}
		s.history, s.locked = nil, false
		clear(s.open)
		s.away = s.now + s.upTo(time.Second)
		s.log("fail-over to s%d: the row is %+v", s.identity, s.db.row)
	case 7:
		n.wall += s.upTo(8*time.Second) - 4*time.Second
		s.log("the wall clock of %s is set", n.id)
	case 8: // evidence that is false: the session is gone, its process is not
		if row := s.db.row; row.LockSession != "" && core.HolderID(row.Holder) != o.id && o.alive {
			s.log("%s is told that the session has ended", o.id)
			o.feed(core.Evidence{Term: row.Term, Session: row.LockSession})
		}
	case 9:
		n.cutUntil = s.now + s.upTo(2*simTTL)
		s.log("%s is cut off from the database", n.id)
		if row := s.db.row; core.HolderID(row.Holder) == n.id && row.LockSession != "" && s.rng.IntN(2) == 0 {
			for _, o := range s.nodes { // the server's side of its session was reset
				if o != n && o.alive && o.m.Status(o.clock()).Lock.Session == row.LockSession {
					o.feed(core.Evidence{Term: row.Term, Session: row.LockSession})
				}
			}
		}
	case 10:
		s.log("%s and %s are cut off from each other", n.id, o.id)
		n.sees[o.id], o.sees[n.id] = "failed", "failed"
		s.after(s.upTo(4*time.Second), func() { s.mend(n, o); s.mend(o, n) })
	case 11:
		s.log("%s drains", n.id)
		n.eligible = false
		s.after(s.upTo(3*time.Second), func() { n.eligible = true })
	case 12:
		s.away = s.now + s.upTo(4*time.Second)
		s.log("the database is away until %v", s.away.Round(time.Millisecond))
	}
}

// mend lets n see what o is.
func (s *sim) mend(n, o *simNode) {
	if o.alive {
		delete(n.sees, o.id)
	}
}

// heal ends all faults.
func (s *sim) heal() {
	s.log("the faults end")
	s.faults, s.away = false, 0
	clear(s.open)
	for _, n := range s.nodes {
		n.eligible, n.cutUntil = true, 0
		n.rise()
	}
	for _, n := range s.nodes {
		clear(n.sees)
		n.paused = s.now
		n.goOn()
	}
}
