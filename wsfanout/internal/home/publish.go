package home

import (
	"slices"
	"time"
	"unicode/utf8"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// A lead is what the home of a partition keeps beside its copy.
type lead struct {
	interest  map[string]*interest
	waiting   map[windowID][]string // origins of records that are not committed
	questions []question            // subscriptions that wait for a CONFIRM
	number    uint64                // of the newest CONFIRM
	doubt     bool                  // after a pause: answer nothing before a CONFIRM (R23)
	returns   []giving
	held      []heldSub
	whole     bool     // the replica has all older records
	late      []func() // for a test that takes out a rule
}

func newLead() *lead {
	return &lead{interest: map[string]*interest{}, waiting: map[windowID][]string{}}
}

// giving is a RETURN whose reports are not committed yet.
type giving struct {
	from string
	at   map[string]uint64 // topic → offset
}

// A pending is a publish of this node that has not been acknowledged (R11).
type pending struct {
	part    *part
	key     windowID
	data    []byte
	handles []waiter
	asked   bool // sent to a home that has not answered
	doubt   bool // sent to a home that went away without an answer
	refused bool // the last answer was that there is no replica
}

type waiter struct {
	handle   Handle
	deadline time.Duration
}

// publish begins a publish (R11).
func (n *Node) publish(q Publish) (Handle, error) {
	if q.Topic == "" || len(q.Topic) > 255 {
		return 0, errTopic
	}
	if len(q.ID) > 255 || !utf8.ValidString(q.ID) || q.ID != "" && q.ID[0] == 0 {
		return 0, errID
	}
	n.handles++
	h := n.handles
	p := n.partOf(q.Topic)
	if q.Ephemeral {
		if !p.active.Term.IsZero() {
			p.send(p.active.Term.Node, &wire.Pub{P: p.head(), Topic: q.Topic, ID: q.ID, Data: q.Data, Ephemeral: true})
		}
		n.out.Acks = append(n.out.Acks, Ack{Handle: h, Topic: q.Topic, ID: q.ID})
		return h, nil
	}
	if q.ID == "" {
		q.ID = n.cfg.ID + "/" + uitoa(uint64(h))
	}
	key := windowKey(q.Topic, wire.Data, q.ID)
	b := n.pubs[key]
	w := waiter{h, n.now + n.cfg.Uncertain}
	n.byHandle[h] = key
	if b != nil {
		b.handles = append(b.handles, w)
		return h, nil
	}
	b = &pending{part: p, key: key, data: q.Data, handles: []waiter{w}}
	n.pubs[key] = b
	p.pubs = append(p.pubs, b)
	p.request(b)
	return h, nil
}

// request sends a publish to the home, if there is one.
func (p *part) request(b *pending) {
	if p.active.Term.IsZero() {
		return
	}
	b.doubt = b.doubt || b.asked
	b.asked, b.refused = true, false
	p.send(p.active.Term.Node, &wire.Pub{P: p.head(), Topic: b.key.topic, ID: b.key.id, Data: b.data})
}

func (n *Node) forget(b *pending) {
	delete(n.pubs, b.key)
	b.part.pubs = slices.DeleteFunc(b.part.pubs, func(x *pending) bool { return x == b })
}

func (n *Node) cancel(h Handle) {
	key, ok := n.byHandle[h]
	if !ok {
		return
	}
	delete(n.byHandle, h)
	b := n.pubs[key]
	b.handles = slices.DeleteFunc(b.handles, func(w waiter) bool { return w.handle == h })
	if len(b.handles) == 0 {
		n.forget(b)
	}
}

func (p *part) onPubAck(m *wire.PubAck) {
	n := p.n
	b := n.pubs[windowKey(m.Topic, wire.Data, m.ID)]
	if b == nil {
		return
	}
	b.asked = false
	if m.NoReplica {
		b.refused = true
		return
	}
	n.forget(b)
	for _, w := range b.handles {
		delete(n.byHandle, w.handle)
		n.out.Acks = append(n.out.Acks, Ack{Handle: w.handle, Topic: m.Topic, ID: m.ID, At: m.At, Copies: m.Copies})
	}
}

// expire ends publishes that have waited too long.
func (b *pending) expire(n *Node) {
	for len(b.handles) > 0 && b.handles[0].deadline <= n.now {
		err := ErrUncertain
		if b.refused && !b.doubt {
			err = ErrNoReplica
		}
		h := b.handles[0].handle
		n.cancel(h)
		n.out.Acks = append(n.out.Acks, Ack{Handle: h, Topic: b.key.topic, ID: b.key.id, Err: err})
	}
}

// onPub is R12.
func (p *part) onPub(from string, m *wire.Pub) {
	n := p.n
	if p.role != leading {
		if !p.active.Term.IsZero() && p.active.Term.Node != n.cfg.ID {
			p.send(from, &wire.Active{P: p.head(), G: p.active.Term, Replica: p.active.Replica})
		}
		return
	}
	if m.Ephemeral {
		p.live(m.Topic, Term{}, &Record{Kind: wire.Ephemeral, ID: m.ID, Data: m.Data})
		return
	}
	key := windowKey(m.Topic, wire.Data, m.ID)
	if at, ok := p.cp.window.find(key); ok {
		switch l := p.cp.topics[m.Topic]; {
		case l != nil && at.Offset > l.committed:
			p.await(key, from)
		case p.copies() >= n.cfg.MinCopies:
			p.send(from, &wire.PubAck{P: p.head(), Topic: m.Topic, ID: m.ID, At: at, Copies: p.copies()})
		}
		return
	}
	if p.copies() < n.cfg.MinCopies {
		p.send(from, &wire.PubAck{P: p.head(), Topic: m.Topic, ID: m.ID, NoReplica: true})
		return
	}
	p.await(key, from)
	n.stats.Appended++
	p.appendRecord(m.Topic, wire.Data, m.ID, m.Data)
}

func (p *part) await(key windowID, origin string) {
	if !slices.Contains(p.lead.waiting[key], origin) {
		p.lead.waiting[key] = append(p.lead.waiting[key], origin)
	}
}

// copies is on how many nodes a committed record of this home is.
func (p *part) copies() int {
	if p.replica == "" {
		return 1
	}
	return 2
}

// appendRecord writes a record as the home and replicates it; alone, it is committed at once.
func (p *part) appendRecord(topic string, kind wire.Kind, id string, data []byte) Position {
	prev, r := p.write(topic, kind, id, data)
	if p.replica != "" {
		p.send(p.replica, &wire.Rep{P: p.head(), G: p.g, Topic: topic, Prev: prev, Record: r})
	}
	if p.replica == "" || !p.n.on(ruleReplicateFirst) {
		p.commit(topic, r.Offset)
	}
	return r.Position
}

// onRep is R13.
func (p *part) onRep(from string, m *wire.Rep) {
	n := p.n
	fenced := p.cp == nil || p.cp.acc != m.G || p.promised.Term != m.G
	if !n.on(ruleFence) {
		fenced = p.cp == nil
	}
	if fenced {
		p.send(from, &wire.Nack{P: p.head(), Refused: m.G, Promised: p.highestPromised()})
		return
	}
	if l := p.cp.topics[m.Topic]; l != nil && m.Record.Offset <= l.last() && m.Prev.Offset < l.last() && !n.on(ruleFence) {
		return
	}
	before := 0
	if l := p.cp.topics[m.Topic]; l != nil {
		before = l.bytes
	}
	l := p.cp.accept(m.Topic, m.Prev, m.Record, n.now)
	p.grow(l.bytes - before)
	l.committed = l.last() // for all that this node knows: once acknowledged here, it may be acknowledged to the origin
	if n.on(ruleWindowCopied) {
		p.cp.window.add(windowKey(m.Topic, m.Record.Kind, m.Record.ID), m.Record.Position, n.now)
	}
	p.send(from, &wire.RepAck{P: p.head(), G: m.G, Topic: m.Topic, Offset: m.Record.Offset})
}

// onRepAck is R14.
func (p *part) onRepAck(from string, m *wire.RepAck) {
	if p.role == leading && m.G == p.g && from == p.replica {
		p.commit(m.Topic, m.Offset)
	}
}

// commit shows and acknowledges the records of a topic up to an offset.
func (p *part) commit(topic string, to uint64) {
	l := p.cp.topics[topic]
	if l == nil {
		return
	}
	for to = min(to, l.last()); l.committed < to; {
		prev := l.at(l.committed)
		l.committed++
		r := l.recs[l.committed-l.base.Offset-1]
		p.live(topic, prev.Epoch, r)
		key := windowKey(topic, r.Kind, r.ID)
		if origins, ok := p.lead.waiting[key]; ok {
			delete(p.lead.waiting, key)
			for _, o := range origins {
				p.send(o, &wire.PubAck{P: p.head(), Topic: topic, ID: r.ID, At: r.Position, Copies: p.copies()})
			}
		}
	}
	p.settleReturns()
}

// live sends a record to every node that has subscribers.
func (p *part) live(topic string, prev Term, r *Record) {
	i := p.lead.interest[topic]
	if i == nil {
		return
	}
	for _, x := range i.nodes {
		p.send(x.node, &wire.Live{P: p.head(), G: p.g, Topic: topic, Prev: prev, Record: r})
	}
}

// onReturn is the home's side of R8.
func (p *part) onReturn(from string, m *wire.Return) {
	if p.role != leading || m.G != p.g {
		return
	}
	at := map[string]uint64{}
	for _, t := range m.Tips {
		if p.cp.has(t) {
			continue
		}
		pos, ok := p.cp.window.fork(t.Topic, t.At)
		if !ok {
			p.n.stats.Gaps++
			pos = p.appendRecord(t.Topic, wire.Gap, forkID(t.At), []byte(ReasonFork))
		}
		at[t.Topic] = max(at[t.Topic], pos.Offset)
	}
	p.lead.returns = append(p.lead.returns, giving{from, at})
	p.settleReturns()
}

func (p *part) settleReturns() {
	if len(p.lead.returns) == 0 {
		return
	}
	p.lead.returns = slices.DeleteFunc(p.lead.returns, func(r giving) bool {
		if p.cp.owesTo(r.from) && p.n.on(ruleSourceKept) {
			return false // its copy is still needed
		}
		for topic, o := range r.at {
			if l := p.cp.topics[topic]; l != nil && l.committed < o {
				return false
			}
		}
		p.send(r.from, &wire.ReturnOK{P: p.head(), G: p.g})
		return true
	})
}

// loseReplica goes on without a replica in the same term: only for a test that takes out a rule.
func (p *part) loseReplica() {
	p.replica = ""
	for topic, l := range p.cp.topics {
		p.commit(topic, l.last())
	}
}
