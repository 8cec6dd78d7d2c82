package home_test

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// A sim runs nodes over a simulated network: one event at a time, in an order that its seed alone decides. Links are in order
// for each pair and never lose anything but what a crashed process had sent. Memberships are opinions: each node's view
// is changed on its own.
type sim struct {
	rng   *rand.Rand
	cfg   simConfig
	now   time.Duration
	seq   uint64
	queue eventQueue

	nodes    map[string]*process
	fates    map[string]map[string]home.Fate // observer → process → fate
	links    map[[2]string]*link
	born     int
	clients  []*subscriber
	messages []*message
	topics   []string

	truth    map[place]string // topic and position → record
	prev     map[place]cursor.Position
	err      error
	trace    []string
	crashed  map[string]time.Duration
	leaving  map[string]bool
	quiet    bool // no more faults
	nextConn home.ClientID
}

type simConfig struct {
	nodes      int
	partitions int
	topics     int
	messages   int
	clients    int
	off        []home.Rule
	slowLinks  float64 // share of messages that are slow
	faults     func(s *sim)
	noGap      bool // any gap is a failure
	oneEpoch   bool // so is a second epoch
	node       home.Config
	span       time.Duration // over which messages are published
	verbose    bool
	oneCopyMay bool // an acknowledgement with one copy may be lost silently
	pairMay    bool // so may one whose home and replica both crashed
}

type place struct {
	topic string
	at    cursor.Position
}

// A process is one node.
type process struct {
	id      string
	n       *home.Node
	alive   []string
	settled bool
	paused  bool
	stopped bool
	inbox   []func()
	acks    map[home.Handle]*message
	conns   map[home.ClientID]*subscriber
	pauseAt time.Duration
}

type link struct {
	last time.Duration // when the last message arrives
	cut  bool
	held []heldFrame
	gen  int
}

type heldFrame struct{ frame []byte }

// A subscriber is a client of one topic that survives everything.
type subscriber struct {
	name    string
	topic   string
	cur     cursor.Cursor
	node    string // "" while it has none
	conn    home.ClientID
	last    time.Duration // when its last event arrives
	gen     int
	shown   map[string]int // publish ID → reports before it was shown
	reports int
	since   time.Duration // when it was first answered; -1: never
	answers int
	gapAt   time.Duration // of the newest report
}

// A message is one publish, retried until it is acknowledged.
type message struct {
	id      string
	topic   string
	began   time.Duration
	acked   bool
	at      cursor.Position
	ackedAt time.Duration
	copies  int
	node    string
	handle  home.Handle
	tries   int
	home    string // pair that acknowledged
	replica string
}

type simEvent struct {
	at  time.Duration
	seq uint64
	f   func()
}

type eventQueue []simEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *eventQueue) Pop() any {
	o := *q
	e := o[len(o)-1]
	*q = o[:len(o)-1]
	return e
}

func newSim(seed uint64, cfg simConfig) *sim {
	s := &sim{
		rng: rand.New(rand.NewPCG(seed, 0)), cfg: cfg,
		nodes: map[string]*process{}, fates: map[string]map[string]home.Fate{}, links: map[[2]string]*link{},
		truth: map[place]string{}, prev: map[place]cursor.Position{},
		crashed: map[string]time.Duration{}, leaving: map[string]bool{},
	}
	for i := range cfg.topics {
		s.topics = append(s.topics, fmt.Sprintf("t%d", i))
	}
	return s
}

func (s *sim) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{s.now + d, s.seq, f})
}

func (s *sim) log(format string, args ...any) {
	if s.cfg.verbose {
		s.trace = append(s.trace, fmt.Sprintf("%9.3f ", s.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (s *sim) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("at %v: "+format, append([]any{s.now}, args...)...)
		s.log("FAIL %v", s.err)
	}
}

// between returns a random duration.
func (s *sim) between(a, b time.Duration) time.Duration {
	return a + time.Duration(s.rng.Int64N(int64(b-a)+1))
}

// delay is that of one message.
func (s *sim) delay() time.Duration {
	if !s.quiet && s.rng.Float64() < s.cfg.slowLinks {
		return s.between(0, 3*time.Second)
	}
	return s.between(100*time.Microsecond, 5*time.Millisecond)
}

// run runs until a time or a failure.
func (s *sim) run(until time.Duration) {
	for s.err == nil && len(s.queue) > 0 && s.queue[0].at <= until {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.f()
	}
	if s.err == nil {
		s.now = until
	}
}

// start starts a process whose first settled view comes after a while.
func (s *sim) start(settle time.Duration) *process {
	s.born++
	id := string(rune('A'+(s.born-1)%26)) + strings.Repeat("'", (s.born-1)/26)
	cfg := s.cfg.node
	cfg.ID, cfg.Partitions = id, s.cfg.partitions
	n, err := home.New(cfg)
	if err != nil {
		panic(err)
	}
	n.Without(s.cfg.off...)
	p := &process{id: id, n: n, acks: map[home.Handle]*message{}, conns: map[home.ClientID]*subscriber{}}
	s.nodes[id] = p
	s.fates[id] = map[string]home.Fate{}
	p.alive = []string{id}
	s.log("start %s", id)
	s.after(settle, func() {
		if !s.running(p) {
			return
		}
		p.settled = true
		s.view(p)
	})
	s.tick(p)
	return p
}

func (s *sim) running(p *process) bool { return !p.stopped && s.nodes[p.id] == p }

func (s *sim) tick(p *process) {
	s.after(s.between(80*time.Millisecond, 120*time.Millisecond), func() {
		if p.stopped {
			return
		}
		if !p.paused {
			p.n.Tick(s.now)
			s.take(p)
		}
		s.tick(p)
	})
}

// do runs an input of a process now, or when it wakes.
func (s *sim) do(p *process, f func()) {
	if p.stopped {
		return
	}
	if p.paused {
		p.inbox = append(p.inbox, f)
		return
	}
	f()
	s.take(p)
}

// view tells a process its membership.
func (s *sim) view(p *process) {
	s.do(p, func() {
		alive := slices.Clone(p.alive)
		s.log("%s sees %v settled %v", p.id, alive, p.settled)
		p.n.SetView(s.now, home.View{Settled: p.settled, Alive: alive, Fate: func(id string) home.Fate {
			if f, ok := s.fates[p.id][id]; ok {
				return f
			}
			return home.Unknown
		}})
	})
}

// sees changes one node's opinion of another.
func (s *sim) sees(p *process, id string, f home.Fate) {
	if p.stopped || p.id == id && f != home.Draining && f != home.Alive {
		return
	}
	old := s.fates[p.id][id]
	if old == home.Left || old == home.Dead {
		return
	}
	if id != p.id && s.nodes[id] == nil && (f == home.Alive || f == home.Draining) {
		return // too late: it is gone
	}
	if old == f {
		return
	}
	s.fates[p.id][id] = f
	p.alive = slices.DeleteFunc(p.alive, func(x string) bool { return x == id })
	switch f {
	case home.Alive, home.Suspect, home.Draining:
		p.alive = append(p.alive, id)
		slices.Sort(p.alive)
	}
	s.log("%s: %s is %v", p.id, id, f)
	s.view(p)
}

// living returns the running processes in order.
func (s *sim) living() []*process {
	var ps []*process
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		ps = append(ps, s.nodes[id])
	}
	return ps
}

func (s *sim) pick(except ...string) *process {
	ps := slices.DeleteFunc(s.living(), func(p *process) bool { return slices.Contains(except, p.id) })
	if len(ps) == 0 {
		return nil
	}
	return ps[s.rng.IntN(len(ps))]
}

func (s *sim) link(from, to string) *link {
	k := [2]string{from, to}
	l := s.links[k]
	if l == nil {
		l = &link{}
		s.links[k] = l
	}
	return l
}

// take carries out what a node has asked for, and looks at its state.
func (s *sim) take(p *process) {
	for {
		o := p.n.Take()
		if len(o.Frames)+len(o.Acks)+len(o.Events) == 0 {
			break
		}
		for _, f := range o.Frames {
			for _, m := range f.Messages {
				s.log("%s → %s %s", p.id, f.To, show(m))
			}
			for _, frame := range wire.Encode(f.Messages) {
				if f.Bulk {
					s.postBulk(p.id, f.To, frame)
				} else {
					s.post(p.id, f.To, frame)
				}
			}
		}
		for _, a := range o.Acks {
			s.acked(p, a)
		}
		for _, e := range o.Events {
			s.event(p, e)
		}
	}
	s.look(p)
}

func (s *sim) post(from, to string, frame []byte) {
	if s.nodes[to] == nil {
		return
	}
	l := s.link(from, to)
	if l.cut {
		l.held = append(l.held, heldFrame{frame})
		return
	}
	l.last = max(l.last, s.now+s.delay())
	gen := l.gen
	s.after(l.last-s.now, func() {
		if l.gen == gen {
			s.arrive(from, to, frame)
		}
	})
}

// postBulk has no order, and loses what meets a cut.
func (s *sim) postBulk(from, to string, frame []byte) {
	l := s.link(from, to)
	if s.nodes[to] == nil || l.cut {
		return
	}
	gen := l.gen
	s.after(s.delay(), func() {
		if l.gen == gen && !l.cut {
			s.arrive(from, to, frame)
		}
	})
}

func (s *sim) arrive(from, to string, frame []byte) {
	p := s.nodes[to]
	if p == nil {
		return
	}
	ms, err := wire.Decode(frame)
	if err != nil {
		s.fail("frame from %s to %s: %v", from, to, err)
		return
	}
	s.do(p, func() {
		for _, m := range ms {
			s.log("%s ← %s %s", to, from, show(m))
		}
		p.n.Receive(s.now, from, ms)
	})
}

// acked is the end of a publish at its origin.
func (s *sim) acked(p *process, a home.Ack) {
	m := p.acks[a.Handle]
	delete(p.acks, a.Handle)
	if m == nil || m.handle != a.Handle || m.node != p.id {
		if m == nil {
			return
		}
		// A retry is under way elsewhere; an acknowledgement is one all the same.
	}
	if a.Err != nil {
		s.log("%s publish %s: %v", p.id, m.id, a.Err)
		s.after(s.between(0, time.Second), func() { s.publish(m) })
		return
	}
	if k := (place{m.topic, a.At}); s.truth[k] != "" && s.truth[k] != "d "+m.id {
		s.fail("%s was acknowledged at %v, where %s is", m.id, a.At, s.truth[k])
	}
	if !m.acked {
		s.log("%s acknowledged at %v copies %d", m.id, a.At, a.Copies)
		m.acked, m.at, m.copies, m.ackedAt = true, a.At, a.Copies, s.now
		part := home.PartitionOf(m.topic, s.cfg.partitions)
		st := p.n.State(part)
		m.home, m.replica = st.Active.Node, st.Replica
	} else if a.At != m.at && s.cfg.noGap {
		s.fail("%s was acknowledged at %v and at %v", m.id, m.at, a.At)
	}
}

// publish sends a message from some node, and again from another when that one dies or loses patience.
func (s *sim) publish(m *message) {
	if m.acked {
		return
	}
	p := s.pick()
	if p == nil {
		s.after(time.Second, func() { s.publish(m) })
		return
	}
	m.tries++
	s.log("publish %s on %s at %s", m.id, m.topic, p.id)
	s.do(p, func() {
		h, err := p.n.Publish(s.now, home.Publish{Topic: m.topic, ID: m.id, Data: []byte("data of " + m.id)})
		if err != nil {
			s.fail("publish: %v", err)
			return
		}
		m.node, m.handle = p.id, h
		p.acks[h] = m
	})
	patience := s.between(2*time.Second, 40*time.Second)
	try := m.tries
	var watch func()
	watch = func() {
		if m.acked || m.tries != try {
			return
		}
		if p.stopped || patience <= 0 {
			s.publish(m)
			return
		}
		patience -= 500 * time.Millisecond
		s.after(500*time.Millisecond, watch)
	}
	s.after(100*time.Millisecond, watch)
}

// same checks that there is one record at a position, for ever.
func (s *sim) same(topic string, r *home.Record) {
	k := place{topic, r.Position}
	text := "d "
	if r.Kind == wire.Gap {
		text = "g "
	}
	text += r.ID
	if was := s.truth[k]; was == "" {
		s.truth[k] = text
	} else if was != text {
		s.fail("two records at %s %v: %s and %s", topic, r.Position, was, text)
	}
}

// look checks a node's copies after an input.
func (s *sim) look(p *process) {
	if s.err != nil {
		return
	}
	for i := range s.cfg.partitions {
		st := p.n.State(i)
		if !st.HasCopy {
			continue
		}
		for name, l := range st.Topics {
			before := l.Base
			for _, r := range l.Records {
				if r.Offset != before.Offset+1 {
					s.fail("%s: the log of %s has %v after %v", p.id, name, r.Position, before)
				}
				s.same(name, r)
				k := place{name, r.Position}
				if was, ok := s.prev[k]; !ok {
					s.prev[k] = before
				} else if was != before {
					s.fail("%s: %s %v follows %v, elsewhere %v", p.id, name, r.Position, before, was)
				}
				before = r.Position
			}
			if last := l.Base.Offset + uint64(len(l.Records)); l.Committed > last {
				s.fail("%s: %s committed %d of %d", p.id, name, l.Committed, last)
			}
		}
	}
	if err := p.n.BooksBalance(); err != nil {
		s.fail("%s: %v", p.id, err)
	}
}
