package home

import (
	"slices"
	"strings"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// An interest is who wants a topic's records.
type interest struct{ nodes []registration }

type registration struct {
	node    string
	request uint64
}

func (i *interest) set(node string, request uint64, newer bool) {
	k, ok := slices.BinarySearchFunc(i.nodes, node, func(r registration, s string) int { return strings.Compare(r.node, s) })
	if !ok {
		i.nodes = slices.Insert(i.nodes, k, registration{node, request})
	} else if request > i.nodes[k].request || !newer {
		i.nodes[k].request = request
	}
}

// drop ends a registration, unless it was made by a newer request.
func (i *interest) drop(node string, request uint64) {
	i.nodes = slices.DeleteFunc(i.nodes, func(r registration) bool { return r.node == node && r.request <= request })
}

// A question is a subscription that is not answered before the replica has confirmed that this is still the home.
type question struct {
	from   string
	sub    *wire.Sub
	number uint64
}

// onSub is R16.
func (p *part) onSub(from string, m *wire.Sub) {
	n := p.n
	if p.role != leading || m.G != p.g && n.on(ruleExactTerm) {
		if m.G.Compare(p.active.Term) < 0 {
			p.send(from, &wire.Active{P: p.head(), G: p.active.Term, Replica: p.active.Replica})
		}
		return
	}
	if !p.answer(from, m, false) {
		p.lead.number++
		p.lead.questions = append(p.lead.questions, question{from, m, p.lead.number})
		p.send(p.replica, &wire.Confirm{P: p.head(), G: p.g, Number: p.lead.number})
	}
}

// answer chooses where a subscription begins, registers it and answers, all in one step. It reports false when the
// replica has to be asked first.
func (p *part) answer(from string, m *wire.Sub, confirmed bool) bool {
	return p.respond(from, m, confirmed, false)
}

// respond is answer; waited says that the subscription does not wait for older records any more.
func (p *part) respond(from string, m *wire.Sub, confirmed, waited bool) bool {
	n, c := p.n, p.cp
	confirmed = confirmed || p.replica == "" || !n.on(ruleConfirm)
	if p.lead.doubt && !confirmed {
		return false
	}
	ok := &wire.SubOK{P: p.head(), G: m.G, Request: m.Request, Topic: m.Topic, Only: m.Only}
	at, v := c.match(m.Topic, m.Cursor.Pos, toCommitted, n.on(ruleEpochCompared))
	empty := m.Cursor.IsZero()
	if v != present && !empty && !confirmed {
		return false
	}
	if v == trimmed && !waited && p.hold(from, m) {
		return true
	}
	l := c.topic(m.Topic, n.now)
	l.touched = n.now
	switch {
	case empty:
		ok.Answer, ok.Start = wire.Fresh, c.position(l, l.committed)
		if l.unborn() && !n.on(ruleEmptyPosition) {
			ok.Start = Position{}
		}
	case v == present:
		ok.Answer, ok.Start = wire.Resumed, at
	default:
		ok.Answer, ok.Reason, ok.Start = wire.GapAnswer, ReasonEpoch, c.begin(l, &m.Cursor)
		if v == trimmed {
			ok.Reason = ReasonRing
		}
		n.stats.Gaps++
	}
	ok.Records = slices.Clone(l.after(ok.Start.Offset, l.committed))
	if ok.Start.IsZero() {
		ok.Records = nil
	}
	if !m.Only {
		register := func() {
			i := p.lead.interest[m.Topic]
			if i == nil {
				i = &interest{}
				p.lead.interest[m.Topic] = i
			}
			i.set(from, m.Request, n.on(ruleNewerRequest))
		}
		if n.on(ruleOneStep) {
			register()
		} else {
			p.lead.late = append(p.lead.late, register)
		}
	}
	p.send(from, ok)
	return true
}

// begin chooses where a client goes on that this log cannot resume: at the newest record of an epoch that it knows and
// has seen, else where the ring begins.
func (c *copyLog) begin(l *topicLog, cur *Cursor) Position {
	for _, p := range append([]Position{cur.Pos}, cur.Seen...) {
		for o := min(p.Offset, l.committed); o > l.base.Offset && o <= l.last(); o-- {
			if l.at(o).Epoch == p.Epoch {
				return l.at(o)
			}
		}
		if l.base.Epoch == p.Epoch && l.base.Offset <= p.Offset {
			return c.position(l, l.base.Offset)
		}
	}
	return c.position(l, l.base.Offset)
}

func (p *part) onUnsub(from string, m *wire.Unsub) {
	if p.role != leading || m.G != p.g {
		return
	}
	if i := p.lead.interest[m.Topic]; i != nil {
		i.drop(from, m.Request)
		if len(i.nodes) == 0 {
			delete(p.lead.interest, m.Topic)
		}
	}
}

func (p *part) onConfirm(from string, m *wire.Confirm) {
	if p.cp == nil || p.cp.acc != m.G || p.promised.Term != m.G {
		p.send(from, &wire.Nack{P: p.head(), Refused: m.G, Promised: p.highestPromised()})
		return
	}
	p.send(from, &wire.Confirmed{P: p.head(), G: m.G, Number: m.Number})
}

func (p *part) onConfirmed(from string, m *wire.Confirmed) {
	if p.role != leading || m.G != p.g || from != p.replica {
		return
	}
	p.lead.doubt = false
	qs := p.lead.questions
	k := 0
	for k < len(qs) && qs[k].number <= m.Number {
		k++
	}
	p.lead.questions = qs[k:]
	for _, q := range qs[:k] {
		p.answer(q.from, q.sub, true)
	}
}

// doubt is R23: after a pause nothing is answered before the replica has confirmed.
func (p *part) doubt() {
	if p.role != leading || p.replica == "" {
		return
	}
	p.lead.doubt = true
	p.lead.number++
	p.send(p.replica, &wire.Confirm{P: p.head(), G: p.g, Number: p.lead.number})
}

// onDigest compares what an edge takes for its subscriptions with what is registered.
func (p *part) onDigest(from string, m *wire.Digest) {
	if p.role != leading || m.G != p.g {
		return
	}
	var sum uint64
	for topic, i := range p.lead.interest {
		if slices.ContainsFunc(i.nodes, func(r registration) bool { return r.node == from }) {
			sum += mix(fnv1a(topic))
		}
	}
	if sum != m.Hash {
		p.send(from, &wire.Resub{P: p.head(), G: p.g})
	}
}
