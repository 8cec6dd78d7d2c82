package home

import (
	"strconv"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// A Node is the part that one process plays in all partitions. It is not safe for concurrent use: the shell locks.
// now is monotonic and never goes back; only differences count.
type Node struct {
	cfg   Config
	off   uint64   // rules taken out by a test
	order []string // rendezvous order given by a test
	now   time.Duration
	parts []part

	view
	draining bool
	byes     map[string]bool // processes that left after handing everything over

	out    Output
	frames map[string]int // peer → index in out.Frames
	loop   []Message      // to this node itself

	edges    map[string]*edge
	requests uint64
	pubs     map[windowID]*pending
	byHandle map[Handle]windowID
	handles  Handle

	moves    int  // planned moves under way
	queued   int  // partitions that wait for their turn
	fetches  int  // FETCHes that are not answered
	unfilled bool // one has been: others may be asked

	nextAnnounce time.Duration
	nextTrim     int
	ringBytes    int
	stats        Stats
}

// New returns a Node that does nothing until its first settled View.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:      cfg,
		parts:    make([]part, cfg.Partitions),
		byes:     map[string]bool{},
		frames:   map[string]int{},
		edges:    map[string]*edge{},
		pubs:     map[windowID]*pending{},
		byHandle: map[Handle]windowID{},
	}
	n.view.init()
	for i := range n.parts {
		n.parts[i].n, n.parts[i].id = n, i
	}
	return n, nil
}

func uitoa(u uint64) string { return strconv.FormatUint(u, 10) }

func (n *Node) partOf(topic string) *part { return &n.parts[PartitionOf(topic, len(n.parts))] }

// begin starts an input.
func (n *Node) begin(now time.Duration) { n.now = max(n.now, now) }

// send queues a message for a peer, or for this node itself.
func (n *Node) send(to string, m Message) {
	if to == n.cfg.ID {
		n.loop = append(n.loop, m)
		return
	}
	if to == "" {
		return
	}
	i, ok := n.frames[to]
	if !ok {
		i = len(n.out.Frames)
		n.frames[to] = i
		n.out.Frames = append(n.out.Frames, Frame{To: to})
	}
	f := &n.out.Frames[i]
	if a, ok := m.(*wire.RepAck); ok && len(f.Messages) > 0 {
		// Acknowledgements are cumulative.
		if b, ok := f.Messages[len(f.Messages)-1].(*wire.RepAck); ok && b.Part == a.Part && b.Topic == a.Topic && b.G == a.G {
			b.Offset = a.Offset
			return
		}
	}
	f.Messages = append(f.Messages, m)
}

// sendBulk queues a message for the bulk lane.
func (n *Node) sendBulk(to string, m Message) {
	if to == n.cfg.ID {
		n.loop = append(n.loop, m)
		return
	}
	n.out.Frames = append(n.out.Frames, Frame{To: to, Bulk: true, Messages: []Message{m}})
}

// settle handles what this node has sent to itself, until nothing is left, and begins what waited for its turn.
func (n *Node) settle() {
	for {
		for i := 0; i < len(n.loop); i++ {
			m := n.loop[i]
			n.handle(n.cfg.ID, m)
		}
		clear(n.loop)
		n.loop = n.loop[:0]
		n.fillOn()
		if !n.moveOn() && len(n.loop) == 0 {
			return
		}
	}
}

// SetView tells the Node what this process thinks of the membership: at the start, and after each change of
// members or fates.
func (n *Node) SetView(now time.Duration, v View) {
	n.begin(now)
	n.setView(v)
	n.settle()
}

// Receive gives the Node what wire.Decode read from one frame of the process from.
func (n *Node) Receive(now time.Duration, from string, messages []Message) {
	n.begin(now)
	for _, m := range messages {
		n.handle(from, m)
		n.settle()
	}
}

// handle is the one place where messages come in.
func (n *Node) handle(from string, m Message) {
	if b, ok := m.(*wire.Bye); ok {
		n.onBye(from, b)
		return
	}
	if m.Partition() < 0 || m.Partition() >= len(n.parts) {
		return
	}
	p := &n.parts[m.Partition()]
	switch m := m.(type) {
	case *wire.Prepare:
		n.contact(from)
		if m.Replica != "" && n.fateOf(m.Replica) == Unknown {
			n.contact(m.Replica) // its proposer may die before anyone else hears of it
		}
		p.onPrepare(from, m)
	case *wire.Promise:
		p.onPromise(from, m)
	case *wire.ViewUpdate:
		p.onViewUpdate(from, m)
	case *wire.Nack:
		p.onNack(m)
	case *wire.Install:
		n.contact(from)
		p.onInstall(from, m)
	case *wire.Installed:
		p.onInstalled(from, m)
	case *wire.Active:
		n.contact(from)
		p.onActive(from, m)
	case *wire.Offer:
		p.onOffer(m)
	case *wire.Pub:
		p.onPub(from, m)
	case *wire.PubAck:
		p.onPubAck(m)
	case *wire.Rep:
		p.onRep(from, m)
	case *wire.RepAck:
		p.onRepAck(from, m)
	case *wire.Sub:
		p.onSub(from, m)
	case *wire.SubOK:
		p.onSubOK(m)
	case *wire.Live:
		p.onLive(m)
	case *wire.Confirm:
		p.onConfirm(from, m)
	case *wire.Confirmed:
		p.onConfirmed(from, m)
	case *wire.Return:
		p.onReturn(from, m)
	case *wire.ReturnOK:
		p.onReturnOK(m)
	case *wire.Unsub:
		p.onUnsub(from, m)
	case *wire.Digest:
		p.onDigest(from, m)
	case *wire.Resub:
		p.onResub(m)
	case *wire.Fetch:
		p.onFetch(from, m)
	case *wire.Backfill:
		p.onBackfill(m)
	}
}

// Tick lets time pass. The shell calls it every 100 ms or so (at least four times per Config.Retry).
func (n *Node) Tick(now time.Duration) {
	n.begin(now)
	n.tick()
	n.settle()
}

// Publish begins a publish; an Ack with the handle ends it, unless Cancel does. Its error is about the arguments only.
func (n *Node) Publish(now time.Duration, p Publish) (Handle, error) {
	n.begin(now)
	h, err := n.publish(p)
	n.settle()
	return h, err
}

// Cancel forgets a publish: it may or may not appear, and no Ack follows.
func (n *Node) Cancel(h Handle) { n.cancel(h) }

// Attach subscribes a local client to a topic from its cursor (zero: from now on). One Answer follows, as soon as
// the topic's home can be asked. A client that is attached already is attached anew.
func (n *Node) Attach(now time.Duration, client ClientID, topic string, c Cursor) {
	n.begin(now)
	n.attach(client, topic, c)
	n.settle()
}

// Detach ends a subscription, answered or not.
func (n *Node) Detach(now time.Duration, client ClientID, topic string) {
	n.begin(now)
	n.detach(client, topic)
}

// Since returns the records after a position from what this node has of a topic with local clients, for a client
// that was answered and then fell behind: those that buf has room for, or all when it has none. False: not all of them are
// here; attach the client anew with its cursor.
func (n *Node) Since(topic string, at Position, buf []*Record) ([]*Record, bool) {
	e := n.edges[topic]
	if e == nil || !e.holds(at) {
		return nil, false
	}
	end := e.log.last()
	if cap(buf) > 0 {
		end = min(end, at.Offset+uint64(cap(buf)))
	}
	return append(buf[:0], e.log.after(at.Offset, end)...), true
}

// At returns where this node stands in a topic, and whether it is subscribed.
func (n *Node) At(topic string) (Position, bool) {
	e := n.edges[topic]
	if e == nil || !e.has {
		return Position{}, false
	}
	return e.cur.Pos, true
}

// Drain makes this node take no new homes and hand over those that it has. The membership must say draining too.
func (n *Node) Drain(now time.Duration) {
	n.begin(now)
	n.draining = true
	n.lookAround()
	n.settle()
}

// Paused tells the Node that this process did not run for a while (its monotonic clock jumped by gap, more than the
// suspicion time). The shell reports not ready, and calls it before any other input.
func (n *Node) Paused(now, gap time.Duration) {
	n.begin(now)
	n.alone = n.now
	n.pausedUntil = n.now + n.cfg.SoloDelay
	for i := range n.parts {
		n.parts[i].doubt()
	}
	n.settle()
}

// Take returns what has been asked for since the last Take. Call it after each input, in the same critical section, and
// act on it in the order of the Takes.
func (n *Node) Take() Output {
	o := n.out
	n.out = Output{}
	clear(n.frames)
	return o
}

// HomeTerm returns the term of a topic's home, as far as this node knows; zero while it knows none that is a member.
func (n *Node) HomeTerm(topic string) Term {
	a := n.partOf(topic).active
	if a.Term.IsZero() || !n.isMember(a.Term.Node) {
		return Term{}
	}
	return a.Term
}

// HomeOf returns the process that this node takes for the home of a topic; false when it knows none.
func (n *Node) HomeOf(topic string) (string, bool) {
	p := n.partOf(topic)
	return p.active.Term.Node, !p.active.Term.IsZero()
}
