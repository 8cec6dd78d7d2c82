package home

import (
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// An edge is this node's subscription to a topic: it stands for all local clients, which share its ring.
type edge struct {
	p     *part
	topic string

	state   edgeState
	term    Term   // of the outstanding or answered request
	request uint64 // likewise
	primary ClientID

	has  bool      // cur and log are set
	cur  Cursor    // where this node stands
	log  *topicLog // its ring
	size int       // log.bytes as counted in the node's books

	clients map[ClientID]*client
	joined  []ClientID // answered: at cur.Pos
	waiting []ClientID // not answered, in order
	until   time.Duration

	questions []edgeQuestion // to the home, for clients whose position is not in the ring
	parallel  int            // how many of them may be under way
}

// A edgeQuestion asks the home for one cursor, on behalf of all clients that wait with it.
type edgeQuestion struct {
	request uint64
	cursor  Cursor
}

// maxQuestions bounds the questions of one topic that are under way.
const maxQuestions = 64

type edgeState uint8

const (
	unasked edgeState = iota
	asked
	subscribed
)

// A client is a local subscriber of one topic.
type client struct {
	cursor Cursor
	index  int // in joined; -1 while it waits
}

func (n *Node) attach(id ClientID, topic string, c Cursor) {
	n.detach(id, topic)
	p := n.partOf(topic)
	e := n.edges[topic]
	if e == nil {
		e = &edge{p: p, topic: topic, clients: map[ClientID]*client{}}
		n.edges[topic] = e
		p.edges = append(p.edges, e)
	}
	e.until = 0
	e.clients[id] = &client{cursor: c, index: -1}
	e.waiting = append(e.waiting, id)
	switch e.state {
	case unasked:
		e.subscribe()
	case subscribed:
		e.serve()
	}
}

func (n *Node) detach(id ClientID, topic string) {
	e := n.edges[topic]
	if e == nil || e.clients[id] == nil {
		return
	}
	c := e.clients[id]
	delete(e.clients, id)
	if c.index < 0 {
		e.waiting = slices.DeleteFunc(e.waiting, func(x ClientID) bool { return x == id })
	} else {
		last := len(e.joined) - 1
		moved := e.joined[last]
		e.joined[c.index] = moved
		e.joined = e.joined[:last]
		if moved != id {
			e.clients[moved].index = c.index
		}
	}
	if len(e.clients) == 0 {
		e.until = n.now + n.cfg.Linger
	}
}

// subscribe asks the home, with this node's own position, or the first client's when it has none (R16, R17).
func (e *edge) subscribe() {
	p, n := e.p, e.p.n
	if p.active.Term.IsZero() {
		return
	}
	n.requests++
	e.state, e.term, e.request, e.primary = asked, p.active.Term, n.requests, 0
	e.questions, e.parallel = nil, 1
	var cur Cursor
	switch {
	case e.has:
		cur = e.cur.Clone()
		cur.Last = ""
	case len(e.waiting) > 0:
		e.primary = e.waiting[0]
		cur = e.clients[e.primary].cursor
	}
	p.send(e.term.Node, &wire.Sub{P: p.head(), G: e.term, Request: e.request, Topic: e.topic, Cursor: cur})
}

func (p *part) onSubOK(m *wire.SubOK) {
	n := p.n
	e := n.edges[m.Topic]
	if e == nil {
		return
	}
	if m.Only {
		e.onAnswerFor(m)
		return
	}
	if e.state != asked || n.on(ruleExactTerm) && (m.G != e.term || m.Request != e.request) {
		return
	}
	e.state = subscribed
	from := e.cur.Pos
	first := !e.has
	switch {
	case first:
		e.has = true
		e.log = newTopicLog(0, Term{}, n.now)
		e.cur = Cursor{}
		e.log.reset(m.Start)
		if c := e.clients[e.primary]; c != nil {
			e.cur.Seen = slices.Clone(c.cursor.Seen)
		}
	case m.Answer != wire.Resumed:
		e.log.reset(m.Start)
	case len(e.log.recs) == 0:
		e.log.base = m.Start
	}
	e.cur.Start(m.Start)
	e.take(m.Records)
	if c := e.clients[e.primary]; first && c != nil {
		e.waiting = slices.DeleteFunc(e.waiting, func(id ClientID) bool { return id == e.primary })
		e.say(e.primary, c, &Answer{Kind: m.Answer, Reason: m.Reason, Start: m.Start, Records: m.Records})
	}
	if !first && len(e.joined) > 0 && (m.Answer != wire.Resumed || len(m.Records) > 0) {
		d := &Deliver{Topic: e.topic, Records: slices.Clone(m.Records), Clients: e.joined}
		if m.Answer != wire.Resumed {
			d.Gap = &Gap{Reason: m.Reason, From: from, Start: m.Start}
		}
		n.stats.Delivered += uint64(len(m.Records))
		n.out.Events = append(n.out.Events, d)
	}
	e.serve()
}

// take puts records into the ring; they follow each other and the position.
func (e *edge) take(records []*Record) {
	n := e.p.n
	for _, r := range records {
		e.log.append(r, n.now)
		if _, err := e.cur.Take(r.Position, r.Kind == wire.Gap, r.ID); err != nil {
			e.cur.Pos = r.Position
		}
	}
	e.log.committed = e.log.last()
	e.count()
}

// count brings the node's books up to date.
func (e *edge) count() {
	b := 0
	if e.log != nil {
		b = e.log.bytes
	}
	e.p.n.ringBytes += b - e.size
	e.size = b
}

// serve answers the clients that wait, from the ring where that is possible, else by asking the home with a client's
// own cursor (R18). One question is asked for all that wait with the same cursor. It begins with the lowest: its answer
// extends the ring downwards, so that mostly no other has to follow. Where it does not help, more are asked at a time.
func (e *edge) serve() {
	p, n := e.p, e.p.n
	if e.state != subscribed || len(e.waiting) == 0 {
		return
	}
	waiting := e.waiting
	e.waiting = e.waiting[:0]
	for _, id := range waiting {
		c := e.clients[id]
		if c.cursor.IsZero() {
			e.say(id, c, &Answer{Kind: wire.Fresh, Start: e.cur.Pos})
		} else if records, ok := e.since(c.cursor.Pos); ok {
			e.say(id, c, &Answer{Kind: wire.Resumed, Start: c.cursor.Pos, Records: records})
		} else {
			e.waiting = append(e.waiting, id)
		}
	}
	for len(e.questions) < e.parallel {
		var next *client
		for _, id := range e.waiting {
			if c := e.clients[id]; (next == nil || c.cursor.Pos.Offset < next.cursor.Pos.Offset) && !e.isAsked(&c.cursor) {
				next = c
			}
		}
		if next == nil {
			return
		}
		n.requests++
		e.questions = append(e.questions, edgeQuestion{n.requests, next.cursor.Clone()})
		p.send(e.term.Node, &wire.Sub{
			P: p.head(), G: e.term, Request: n.requests, Topic: e.topic, Cursor: next.cursor, Only: true,
		})
	}
}

func (e *edge) isAsked(c *Cursor) bool {
	return slices.ContainsFunc(e.questions, func(q edgeQuestion) bool { return sameCursor(&q.cursor, c) })
}

// sameCursor reports whether a home would answer both alike.
func sameCursor(a, b *Cursor) bool { return a.Pos == b.Pos && slices.Equal(a.Seen, b.Seen) }

// since returns the ring's records after a position that is in it.
func (e *edge) since(at Position) ([]*Record, bool) {
	if !e.holds(at) {
		return nil, false
	}
	return slices.Clone(e.log.after(at.Offset, e.log.last())), true // trimming writes to the ring
}

func (e *edge) holds(at Position) bool {
	l := e.log
	return l != nil && at.Offset >= l.base.Offset && at.Offset <= l.last() && l.at(at.Offset) == at
}

// onAnswerFor is the home's answer for one cursor. Links are in order, so it ends where this node stands.
func (e *edge) onAnswerFor(m *wire.SubOK) {
	i := slices.IndexFunc(e.questions, func(q edgeQuestion) bool { return q.request == m.Request })
	if i < 0 || e.state != subscribed || m.G != e.term {
		return
	}
	q := e.questions[i]
	e.questions = slices.Delete(e.questions, i, i+1)
	e.parallel = min(2*e.parallel, maxQuestions)
	end := m.Start
	if k := len(m.Records); k > 0 {
		end = m.Records[k-1].Position
	}
	if end != e.cur.Pos {
		e.repair()
		return
	}
	if e.log.extend(m.Start, m.Records, e.p.n.now) {
		e.count()
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(id ClientID) bool {
		c := e.clients[id]
		if !sameCursor(&c.cursor, &q.cursor) {
			return false
		}
		e.say(id, c, &Answer{Kind: m.Answer, Reason: m.Reason, Start: m.Start, Records: m.Records})
		return true
	})
	e.serve()
}

// extend puts older records before those of a ring, and reports whether there were any. records go from start to the
// end of the ring.
func (l *topicLog) extend(start Position, records []*Record, now time.Duration) bool {
	if start.Offset >= l.base.Offset || l.last() != start.Offset+uint64(len(records)) {
		return false
	}
	older := records[:l.base.Offset-start.Offset]
	if older[len(older)-1].Position != l.base {
		return false
	}
	times := make([]time.Duration, len(older), len(older)+len(l.times))
	for i, r := range older {
		times[i] = now
		l.bytes += sizeOf(r)
	}
	l.base, l.recs, l.times = start, append(slices.Clone(older), l.recs...), append(times, l.times...)
	return true
}

// say answers a client and lets it join. The caller takes it from those that wait.
func (e *edge) say(id ClientID, c *client, a *Answer) {
	n := e.p.n
	a.Client, a.Topic = id, e.topic
	if a.Kind == wire.GapAnswer {
		a.From = c.cursor.Pos
	}
	c.cursor = Cursor{}
	c.index = len(e.joined)
	e.joined = append(e.joined, id)
	n.out.Events = append(n.out.Events, a)
}

// repair subscribes again because something does not follow: the only way to close a hole (R17).
func (e *edge) repair() {
	e.p.n.stats.Repairs++
	e.subscribe()
}

// onLive is R17.
func (p *part) onLive(m *wire.Live) {
	n := p.n
	e := n.edges[m.Topic]
	if e == nil {
		return
	}
	if n.on(ruleSameTerm) && (e.state != subscribed || m.G != e.term) {
		return
	}
	r := m.Record
	if r.Kind == wire.Ephemeral {
		e.deliver(r)
		return
	}
	if !e.has {
		return
	}
	if n.on(rulePredecessor) && (r.Offset != e.cur.Pos.Offset+1 || m.Prev != e.cur.Pos.Epoch) {
		e.repair()
		return
	}
	e.take([]*Record{r})
	e.deliver(r)
}

func (e *edge) deliver(r *Record) {
	n := e.p.n
	if len(e.joined) == 0 {
		return
	}
	n.stats.Delivered++
	if k := len(n.out.Events); k > 0 {
		// Records that come in one frame are delivered together.
		if d, ok := n.out.Events[k-1].(*Deliver); ok && d.Topic == e.topic && len(d.Clients) == len(e.joined) {
			d.Records = append(d.Records, r)
			return
		}
	}
	n.out.Events = append(n.out.Events, &Deliver{Topic: e.topic, Records: []*Record{r}, Clients: e.joined})
}

func (p *part) onResub(m *wire.Resub) {
	for _, e := range p.edges {
		if e.state == subscribed && e.term == m.G {
			e.repair()
		}
	}
}

// digest tells the home which topics this node takes itself to be subscribed to.
func (p *part) digest() {
	if len(p.edges) == 0 || p.active.Term.IsZero() {
		return
	}
	var sum uint64
	for _, e := range p.edges {
		if e.state != subscribed || e.term != p.active.Term {
			return
		}
		sum += mix(fnv1a(e.topic))
	}
	p.send(p.active.Term.Node, &wire.Digest{P: p.head(), G: p.active.Term, Hash: sum})
}

// leaveIdle ends subscriptions whose last client left a while ago.
func (p *part) leaveIdle() {
	n := p.n
	p.edges = slices.DeleteFunc(p.edges, func(e *edge) bool {
		if e.until == 0 || e.until > n.now {
			return false
		}
		if e.state != unasked {
			p.send(e.term.Node, &wire.Unsub{P: p.head(), G: e.term, Request: e.request, Topic: e.topic})
		}
		n.ringBytes -= e.size
		delete(n.edges, e.topic)
		return true
	})
}
