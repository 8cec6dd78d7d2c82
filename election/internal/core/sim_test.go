package core_test

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/stretchr/testify/require"
)

// sim runs several machines against one database, in simulated time: statements take time and get lost on either way, processes pause,
// die and come back, views are wrong, proofs of death are false, clocks run fast and slow and are set, the server restarts and fails over
// to a copy that lacks the newest writes. Beside the machines, each process commits fenced transactions under every term that it ever had.
type sim struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Duration
	queue queue
	n     int
	nodes []*simNode
	kind  simKind

	without [simFaults]bool // what does not happen in this history: some accidents need others to stay away

	db       simDB
	identity int
	sessions int
	history  []simDB // states, oldest first, since the last fail-over
	away     time.Duration
	locked   bool // the row of beats, by an acquire that waits for fenced transactions
	open     map[*simTx]bool

	terms   map[uint64]string
	highest uint64
	wins    int
	commits int
	slow    time.Duration // until when statements of the time of faults may be on their way
	trace   []string
	faults  bool
}

// simKind is what a history is about.
type simKind struct {
	skew   float64 // clock rates are within ±
	proven bool    // EarlyLead Proven, with proofs that are true
	queued bool    // fences look at the terms alone, as on MariaDB
}

// exclusive says that no two may act unfenced: the rates of clocks agree within 16 %.
func (k simKind) exclusive() bool { return k.skew <= 0.07 }

// simDB is what is in the database: both rows, and the highest term of a commit.
type simDB struct {
	row       core.Row
	term      uint64
	holder    string
	committed uint64
}

// simTx is a fenced transaction between its fence and its COMMIT: it holds off every acquire.
type simTx struct{ term uint64 }

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
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), terms: map[uint64]string{}, faults: true, open: map[*simTx]bool{}}
	s.kind = []simKind{{skew: 0.07}, {skew: 0.10}, {skew: 0.07, queued: true}, {skew: 0.07, proven: true}}[seed%4]
	for i := range s.without {
		s.without[i] = i != int(seed/4%simFaults) && s.rng.IntN(5) < 3
	}
	s.db.row = core.Row{Server: "s0", Identity: "s0"}
	for i := range 3 {
		n := &simNode{s: s, i: i, id: string(rune('a' + i)), rate: 1 + (2*s.rng.Float64()-1)*s.kind.skew, sees: map[string]string{}, eligible: true}
		s.nodes = append(s.nodes, n)
		n.boot()
	}
	s.after(s.upTo(time.Second), s.fault)
	return s
}

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

func (s *sim) write() {
	s.db.row.Beat++
	s.history = append(s.history, s.db)
}

// apply runs a statement on the database, when it can have the row.
func (n *simNode) apply(a core.Action, ev core.Event, done func(core.Event), failed func() core.Event) {
	s := n.s
	if _, look := a.(core.Look); s.locked && !look {
		s.after(10*time.Millisecond, func() { n.apply(a, ev, done, failed) })
		return
	}
	row := &s.db.row
	row.Identity = fmt.Sprintf("s%d", s.identity)
	switch a := a.(type) {
	case core.Look:
		done(core.Looked{Row: *row})
	case core.Acquire:
		n.acquire(a, ev.(core.Acquired), done, failed)
	case core.Renew:
		e := ev.(core.Renewed)
		if e.Outcome = core.Lost; row.Term == a.Term && row.Holder == a.Holder {
			e.Outcome, e.Identity, row.Server, row.LockSession = core.Granted, row.Identity, row.Identity, a.Lock
			s.write()
		}
		done(e)
	case core.Release:
		if row.Term == a.Term && row.Holder == a.Holder && row.Server == row.Identity {
			row.Holder, row.LockSession = a.Mark, ""
			s.write()
			s.log("%s released %d with %q", n.id, a.Term, a.Mark)
		}
		done(core.Released{})
	case core.Revoke:
		if row.Term == a.Row.Term && row.Holder == a.Row.Holder && row.Beat == a.Row.Beat {
			row.Holder, row.Server, row.LockSession = core.Revoked, row.Identity, ""
			s.write()
			s.log("%s revoked %d of %s", n.id, row.Term, a.Row.Holder)
			done(core.Took{Done: true})
			return
		}
		done(core.Took{})
	}
}

// acquire compares, and then waits for the transactions that are fenced, for a second at most.
func (n *simNode) acquire(a core.Acquire, e core.Acquired, done func(core.Event), failed func() core.Event) {
	s, row := n.s, &n.s.db.row
	if e.Outcome = core.Lost; row.Term != a.Row.Term || row.Holder != a.Row.Holder || row.Beat != a.Row.Beat || row.Identity != a.Row.Identity {
		done(e)
		return
	}
	began, run := s.now, s.identity
	s.locked = true
	var wait func()
	wait = func() {
		switch {
		case run != s.identity: // the server ended the transaction
			done(failed())
			return
		case len(s.open) > 0 && a.Escalate && s.now-began >= 100*time.Millisecond:
			s.log("%s ended %d fenced transactions", n.id, len(s.open))
			clear(s.open)
		case len(s.open) > 0 && s.now-began >= time.Second:
			s.locked = false
			e.Outcome, e.Err = core.Blocked, "lock timeout"
			done(e)
			return
		}
		if len(s.open) > 0 {
			s.after(10*time.Millisecond, wait)
			return
		}
		s.locked = false
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
		s.db.term, s.db.holder = e.Term, a.Holder
		s.wins++
		s.write()
		s.log("%s acquired %d", a.Holder, e.Term)
		done(e)
	}
	wait()
}

// work commits under a term, whether or not the process still believes in it.
func (n *simNode) work() {
	s := n.s
	s.after(s.upTo(600*time.Millisecond), n.work)
	if len(n.had) == 0 || !n.alive || n.cut() || s.now < s.away || s.now < n.paused {
		return
	}
	h := n.had[len(n.had)-1-s.rng.IntN(min(len(n.had), 2))]
	s.after(s.upTo(3*time.Millisecond), func() {
		row := s.db.row
		if s.db.term != h.term || s.db.holder != h.holder || !s.kind.queued && (row.Term != h.term || row.Holder != h.holder) {
			return // refused
		}
		if s.kind.queued && s.locked {
			return // it queues behind the acquire, and is refused afterwards
		}
		tx := &simTx{term: h.term}
		s.open[tx] = true
		d := s.upTo(20 * time.Millisecond)
		if s.faults && s.rng.IntN(15) == 0 {
			d = s.upTo(5 * time.Second)
		}
		s.after(min(d, 3*time.Second), func() {
			open := s.open[tx]
			if delete(s.open, tx); !open || d >= 3*time.Second { // ended by the server
				return
			}
			s.commits++
			if s.db.committed > h.term {
				s.fail("a commit of term %d after one of term %d", h.term, s.db.committed)
			}
			s.db.committed = h.term
		})
	})
}

func (s *sim) fail(format string, args ...any) {
	s.t.Helper()
	from := max(0, len(s.trace)-40)
	for _, l := range s.trace[from:] {
		s.t.Log(l)
	}
	s.t.Fatalf(format, args...)
}

// check is what must hold at each time: nobody can act unfenced beside another. A paused process does not act, and its clocks decide
// at once when it goes on.
func (s *sim) check() {
	if !s.kind.exclusive() {
		return
	}
	var who []string
	for _, n := range s.nodes {
		if s.now < n.paused || !n.alive {
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

func (s *sim) run(d time.Duration, until func() bool) (took time.Duration) {
	began, end := s.now, s.now+d
	for len(s.queue) > 0 {
		x := heap.Pop(&s.queue).(item)
		if x.at > end {
			s.n++
			heap.Push(&s.queue, x)
			s.now = end
			return d
		}
		s.now = x.at
		x.run()
		s.check()
		if until != nil && until() {
			return s.now - began
		}
	}
	return d
}

func (s *sim) leading(unfenced bool) (count int) {
	for _, n := range s.nodes {
		if st := n.m.Status(n.clock()); n.alive && st.Mine != 0 && (st.Unfenced || !unfenced) {
			count++
		}
	}
	return count
}

type simResult struct {
	wins, commits    int
	fenced, unfenced time.Duration // from the end of the faults to a leader
}

// bound is the TTL and a second, by the slowest clock.
const bound = (simTTL + time.Second) * 10 / 9

func simulate(t *testing.T, seed uint64) simResult {
	s := newSim(t, seed)
	s.run(2*time.Minute, nil)
	s.heal()
	s.run(max(0, s.slow-s.now), nil)
	r := simResult{}
	r.fenced = s.run(2*simTTL, func() bool { return s.leading(false) > 0 })
	r.unfenced = r.fenced + s.run(2*simTTL, func() bool { return s.leading(true) > 0 })
	if r.unfenced > bound {
		s.fail("nobody led for %v after the last fault (fenced: %v); the row is %+v", r.unfenced, r.fenced, s.db.row)
	}
	s.run(20*time.Second, nil)
	if n := s.leading(true); n != 1 {
		s.fail("20 s after the last fault %d lead; the row is %+v", n, s.db.row)
	}
	r.wins, r.commits = s.wins, s.commits
	return r
}

var histories = flag.Int("histories", 0, "how many random histories TestSimulation runs; 0 is 250, or 10,000 with NINES_CHAOS")

// TestSimulation runs random histories. A failure prints the seed.
func TestSimulation(t *testing.T) {
	count := *histories
	if count == 0 {
		count = 250
		if os.Getenv("NINES_CHAOS") != "" {
			count = 10_000
		}
	}
	base := uint64(time.Now().UnixNano())
	var all simResult
	for i := range uint64(count) {
		ok := t.Run(fmt.Sprintf("seed=%d", base+i), func(t *testing.T) {
			r := simulate(t, base+i)
			all.wins += r.wins
			all.commits += r.commits
			all.fenced, all.unfenced = max(all.fenced, r.fenced), max(all.unfenced, r.unfenced)
		})
		if !ok {
			return
		}
	}
	t.Logf("%d histories from seed %d: %d terms, %d fenced commits; a leader at most %v after the faults, unfenced %v",
		count, base, all.wins, all.commits, all.fenced.Round(time.Millisecond), all.unfenced.Round(time.Millisecond))
	require.Greater(t, all.wins, count/2)
	require.Greater(t, all.commits, 10*count)
}

func FuzzSimulation(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { simulate(t, seed) })
}
