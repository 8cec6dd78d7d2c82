package core_test

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/stretchr/testify/require"
)

// sim runs several machines against one row, in simulated time: statements take time and get lost on either way, processes pause, views
// are wrong, proofs of death are false, the server restarts and fails over to a copy that lacks the newest writes.
type sim struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Duration
	queue queue
	n     int
	nodes []*simNode

	row      core.Row
	identity int
	history  []core.Row // states of the row, oldest first, since the last fail-over
	away     time.Duration

	terms   map[uint64]string
	highest uint64
	wins    int
	trace   []string
	faults  bool
}

type simNode struct {
	s      *sim
	id     string
	m      *core.Lease
	rate   float64       // of its clock
	wall   time.Duration // steps of its wall clock
	paused time.Duration // until
	held   []core.Event  // that came while it was paused
	gone   bool          // holds the holder for dead
	timer  int
}

type item struct {
	at  time.Duration
	n   int
	run func()
}
type queue []item

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(item)) }
func (q *queue) Pop() any          { o := *q; x := o[len(o)-1]; *q = o[:len(o)-1]; return x }

func (s *sim) after(d time.Duration, run func()) {
	s.n++
	heap.Push(&s.queue, item{s.now + max(d, 0), s.n, run})
}

func (s *sim) log(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf("%v ", s.now.Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

const simTTL = 3 * time.Second

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), terms: map[uint64]string{}, faults: true}
	s.row = core.Row{Server: "s0", Identity: "s0"}
	for i := range 3 {
		n := &simNode{s: s, id: string(rune('a' + i)), rate: 1 + (s.rng.Float64()-0.5)*0.12}
		n.m = core.NewLease(core.Config{
			TTL: simTTL, Margin: simTTL / 6, Renew: simTTL / 3, Look: 200*time.Millisecond + time.Duration(i)*37*time.Millisecond,
			Stagger: simTTL / 5, StableFor: 10 * time.Second, Nonce: "1",
		})
		s.nodes = append(s.nodes, n)
		s.after(s.upTo(time.Second), func() { n.feed(core.Tick{}) })
	}
	s.after(s.upTo(time.Second), s.fault)
	return s
}

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

func (n *simNode) clock() core.Now {
	mono := time.Duration(float64(n.s.now) * n.rate)
	return core.Now{Mono: mono, Wall: mono + n.wall}
}

func (n *simNode) view() core.View {
	v := core.View{Me: n.id}
	for _, o := range n.s.nodes {
		v.Members = append(v.Members, core.Member{ID: o.id, Eligible: true})
	}
	if id := core.HolderID(n.m.Holder()); n.gone && id != n.id {
		v.Gone = id
		v.Members = nil
		for _, o := range n.s.nodes {
			if o.id != id {
				v.Members = append(v.Members, core.Member{ID: o.id, Eligible: true})
			}
		}
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
	n.timer++
	timer := n.timer
	n.s.after(n.m.Next(n.clock())+time.Millisecond, func() {
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
	switch a := a.(type) {
	case core.Ask:
		s.after(there, func() { n.feed(core.Answer{To: a.To, Willing: reach}) })
		return
	case core.Nominate:
		for _, o := range s.nodes {
			if reach && o.id == a.To {
				s.after(there, func() { o.feed(core.Nominated{Term: a.Term}) })
			}
		}
		return
	}
	s.after(there, func() {
		done, failed := n.answers(a, sent)
		ev := done
		switch {
		case !reach || s.now < s.away:
			ev = failed()
		default:
			if ev = n.apply(a, done); !reply {
				got, ok := ev.(core.Acquired)
				if ev = failed(); ok && got.Outcome == core.Granted { // COMMIT was sent, and nobody answered
					got.Outcome, got.Err = core.Unknown, "connection lost"
					ev = got
				}
			}
		}
		s.after(back, func() {
			if l, ok := ev.(core.Looked); ok {
				l.At = n.clock()
				ev = l
			}
			n.feed(ev)
		})
	})
}

// answers prepares what a statement may be answered with.
func (n *simNode) answers(a core.Action, sent core.Now) (done core.Event, failed func() core.Event) {
	const lost = "connection lost"
	switch a := a.(type) {
	case core.Look:
		return core.Looked{}, func() core.Event { return core.Looked{Err: lost} }
	case core.Acquire:
		ev := core.Acquired{Sent: sent}
		return ev, func() core.Event { return core.Acquired{Sent: sent, Outcome: core.Failed, Err: lost} }
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

// apply runs the statement on the row.
func (n *simNode) apply(a core.Action, ev core.Event) core.Event {
	s := n.s
	row := &s.row
	row.Identity = fmt.Sprintf("s%d", s.identity)
	write := func() {
		row.Beat++
		s.history = append(s.history, *row)
	}
	switch a := a.(type) {
	case core.Look:
		return core.Looked{Row: *row}
	case core.Acquire:
		e := ev.(core.Acquired)
		if e.Outcome = core.Lost; row.Term == a.Row.Term && row.Holder == a.Row.Holder && row.Beat == a.Row.Beat && row.Identity == a.Row.Identity {
			e.Outcome, e.Identity = core.Granted, row.Identity
			row.Term = max(row.Term+1, uint64(s.now/time.Millisecond))
			row.Holder, row.Server, row.LockSession = a.Holder, row.Identity, ""
			e.Term = row.Term
			if other, ok := s.terms[e.Term]; ok {
				s.fail("term %d granted to %s and %s", e.Term, other, a.Holder)
			}
			if e.Term <= s.highest {
				s.fail("term %d after %d", e.Term, s.highest)
			}
			s.terms[e.Term], s.highest = a.Holder, e.Term
			s.wins++
			write()
			s.log("%s acquired %d", n.id, e.Term)
		}
		return e
	case core.Renew:
		e := ev.(core.Renewed)
		if e.Outcome = core.Lost; row.Term == a.Term && row.Holder == a.Holder {
			e.Outcome, e.Identity, row.Server = core.Granted, row.Identity, row.Identity
			write()
		}
		return e
	case core.Release:
		if row.Term == a.Term && row.Holder == a.Holder && row.Server == row.Identity {
			row.Holder = a.Mark
			write()
			s.log("%s released %d with %q", n.id, a.Term, a.Mark)
		}
		return core.Released{}
	case core.Revoke:
		if row.Term == a.Row.Term && row.Holder == a.Row.Holder && row.Beat == a.Row.Beat {
			row.Holder, row.Server = core.Revoked, row.Identity
			write()
			s.log("%s revoked %d of %s", n.id, row.Term, a.Row.Holder)
			return core.Took{Done: true}
		}
		return core.Took{}
	}
	return ev
}

// fault is what goes wrong, at random.
func (s *sim) fault() {
	if !s.faults {
		return
	}
	defer s.after(100*time.Millisecond+s.upTo(2*time.Second), s.fault)
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	switch s.rng.IntN(9) {
	case 0, 1, 2:
		d := s.upTo(2 * simTTL)
		n.paused = s.now + d
		s.log("%s pauses for %v", n.id, d.Round(time.Millisecond))
		s.after(d, func() {
			held := n.held
			n.held = nil
			for _, ev := range append([]core.Event{core.Tick{}}, held...) {
				n.feed(ev)
			}
		})
	case 3:
		s.log("%s holds the holder for dead", n.id)
		n.gone = true
		s.after(s.upTo(2*time.Second), func() { n.gone = false })
	case 4:
		if m := n.m.Status(n.clock()).Mine; m != 0 {
			s.log("%s is asked to resign", n.id)
			n.feed(core.Asked{To: s.nodes[s.rng.IntN(3)].id})
		}
	case 5:
		s.identity++
		s.log("the server restarts as s%d", s.identity)
		s.away = s.now + s.upTo(time.Second)
	case 6:
		s.identity++
		if k := len(s.history); k > 0 {
			s.row = s.history[k-1-s.rng.IntN(min(k, 3))]
		}
		s.history = nil
		s.away = s.now + s.upTo(time.Second)
		s.log("fail-over to s%d: the row is %+v", s.identity, s.row)
	case 7:
		n.wall += s.upTo(8*time.Second) - 4*time.Second
		s.log("the wall clock of %s is set", n.id)
	case 8:
		row := s.row
		if id := core.HolderID(row.Holder); id != n.id && id != "" {
			s.log("%s is told that the session has ended", n.id)
			n.feed(core.Evidence{Term: row.Term, Session: row.LockSession})
		}
	}
}

func (s *sim) fail(format string, args ...any) {
	s.t.Helper()
	from := max(0, len(s.trace)-25)
	for _, l := range s.trace[from:] {
		s.t.Log(l)
	}
	s.t.Fatalf(format, args...)
}

// check is what must hold at each time: nobody can act unfenced beside another. A paused process does not act, and its clocks decide
// at once when it goes on.
func (s *sim) check() {
	var who []string
	for _, n := range s.nodes {
		if s.now < n.paused {
			continue
		}
		if st := n.m.Status(n.clock()); st.Mine != 0 && st.Unfenced {
			who = append(who, fmt.Sprintf("%s in %d", n.id, st.Mine))
		}
	}
	if len(who) > 1 {
		s.fail("two act unfenced: %v", who)
	}
}

func (s *sim) run(d time.Duration) {
	for until := s.now + d; len(s.queue) > 0; {
		x := heap.Pop(&s.queue).(item)
		if x.at > until {
			s.n++
			heap.Push(&s.queue, x)
			s.now = until
			return
		}
		s.now = x.at
		x.run()
		s.check()
	}
}

func simulate(t *testing.T, seed uint64) (wins int) {
	s := newSim(t, seed)
	s.run(2 * time.Minute)
	s.faults = false
	s.run(20 * time.Second)
	leading := 0
	for _, n := range s.nodes {
		if st := n.m.Status(n.clock()); st.Mine != 0 && st.Unfenced {
			leading++
		}
	}
	if leading != 1 {
		s.fail("20 s after the last fault %d lead; the row is %+v", leading, s.row)
	}
	return s.wins
}

var histories = flag.Int("histories", 120, "how many random histories TestSimulation runs")

// TestSimulation runs random histories. A failure prints the seed.
func TestSimulation(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	wins := 0
	for i := range uint64(*histories) {
		ok := t.Run(fmt.Sprintf("seed=%d", base+i), func(t *testing.T) { wins += simulate(t, base+i) })
		if !ok {
			return
		}
	}
	t.Logf("%d terms", wins)
	require.Greater(t, wins, 100)
}

func FuzzSimulation(f *testing.F) {
	for seed := range uint64(3) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { simulate(t, seed) })
}
