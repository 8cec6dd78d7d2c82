package home

import (
	"slices"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// A prep is a proposal that asks for promises (R4).
type prep struct {
	asked   map[string]bool
	answers map[string]*promised
	terms   []wire.Open // all that were heard of, for the check of R5
}

// promised is what one member answered.
type promised struct {
	view   []string
	beyond []string            // those of view that are not members here
	at     uint64              // Node.views when beyond was found
	holder bool                // it has a copy
	tips   map[string]Position // ends of its topics
}

// nudge looks whether this node has to propose, or to tell another that it should (R1).
func (p *part) nudge() {
	n := p.n
	if p.role != idle || !n.view.settled {
		return
	}
	p.look = n.now + n.cfg.Retry
	t := p.highest()
	gone := t.Term.IsZero() || t.Term.Node == n.cfg.ID || !n.isEligible(t.Term.Node)
	switch {
	case p.first == n.cfg.ID:
		switch {
		case gone:
			p.propose()
		case n.on(ruleOffer) && p.offered.Compare(t.Term) >= 0:
			p.move()
		}
	case gone && !t.Term.IsZero() && n.on(ruleOffer):
		p.send(p.first, &wire.Offer{P: p.head(), T: t})
	}
}

// propose begins a term (R2). It reports false when there must be none now: the members are too few, or this node
// sees nobody and has not waited long enough.
func (p *part) propose() bool {
	n := p.n
	if !n.view.settled || len(n.members) < n.cfg.MinMembers || n.mustWaitAlone() {
		return false
	}
	before := slices.Clone(p.open)
	p.lead = nil
	p.role = preparing
	p.g = Term{N: max(p.promised.Term.N, p.active.Term.N) + 1, Node: n.cfg.ID}
	p.replica = p.second
	p.promise(wire.Open{Term: p.g, Replica: p.replica, Known: true})
	p.prep = &prep{asked: map[string]bool{n.cfg.ID: true}, answers: map[string]*promised{n.cfg.ID: {}}}
	p.prep.hear(before)
	p.prep.hear([]wire.Open{p.active})
	p.advance()
	return true
}

func (q *prep) hear(terms []wire.Open) {
	for _, t := range terms {
		if t.Term.IsZero() {
			continue
		}
		i := slices.IndexFunc(q.terms, func(o wire.Open) bool { return o.Term == t.Term })
		if i < 0 {
			q.terms = append(q.terms, t)
			continue
		}
		if o := &q.terms[i]; t.Known && !o.Known {
			o.Replica, o.Known = t.Replica, true
		}
		q.terms[i].Left = q.terms[i].Left || t.Left
	}
}

// advance asks whom it has not asked, and ends the proposal when everyone has answered (R4).
func (p *part) advance() {
	n, q := p.n, p.prep
	required := n.members
	if n.on(ruleClosure) {
		if beyond := n.beyond(q); len(beyond) > 0 {
			required = slices.Concat(n.members, beyond)
			slices.Sort(required)
			required = slices.Compact(required)
		}
	}
	complete, answered := true, 0
	for _, id := range required {
		if id != n.cfg.ID && n.isGone(id) {
			continue
		}
		if !q.asked[id] {
			q.asked[id] = true
			p.send(id, &wire.Prepare{P: p.head(), G: p.g, Replica: p.replica})
		}
		if q.answers[id] == nil {
			complete = false
		} else {
			answered++
		}
	}
	if !complete || answered < n.cfg.MinMembers || n.mustWaitAlone() {
		return
	}
	if p.second != p.replica {
		p.propose()
		return
	}
	p.install()
}

// beyond returns who is named by the views of the members that have answered, and is not a member here. Mostly nobody is.
func (n *Node) beyond(q *prep) []string {
	var all []string
	for id, a := range q.answers {
		if a.at != n.views {
			a.at, a.beyond = n.views, nil
			for _, x := range a.view {
				if !n.isMember(x) {
					a.beyond = append(a.beyond, x)
				}
			}
		}
		if len(a.beyond) > 0 && n.isMember(id) {
			all = append(all, a.beyond...)
		}
	}
	return all
}

func (p *part) onPrepare(from string, m *wire.Prepare) {
	n := p.n
	if m.G.Compare(p.promised.Term) < 0 {
		p.send(from, &wire.Nack{P: p.head(), Refused: m.G, Promised: p.highestPromised()})
		return
	}
	p.stepDown()
	answer := &wire.Promise{
		P: p.head(), G: m.G, Open: slices.Clone(p.open), Active: p.active.Term, Replica: p.active.Replica, View: n.members,
	}
	p.promise(wire.Open{Term: m.G, Replica: m.Replica, Known: true})
	if p.cp != nil {
		answer.Copy = p.cp.snapshot(nil, n.cfg.HotBytes)
		if !n.on(ruleWindowCopied) {
			answer.Copy.Window = nil
		}
		if n.on(ruleTokenLeaves) {
			p.cp.token = false
		}
	}
	p.send(from, answer)
}

func (p *part) highestPromised() wire.Open {
	for _, o := range p.open {
		if o.Term == p.promised.Term {
			return o
		}
	}
	if p.active.Term == p.promised.Term {
		return p.active
	}
	return p.promised
}

func (p *part) onPromise(from string, m *wire.Promise) {
	n := p.n
	current := p.role == preparing && m.G == p.g
	late := m.G.Node == n.cfg.ID && m.G != p.g && (p.role == preparing || p.role == idle) && n.on(ruleLatePromise)
	if !current && !late {
		return
	}
	if m.Copy != nil && p.cp.worseThan(m.Copy) {
		p.replaceCopy(restore(m.Copy, p.cp, from, n.now))
	}
	if late {
		if p.role == idle {
			p.giveBack()
		}
		return
	}
	a := &promised{view: m.View, holder: m.Copy != nil, tips: map[string]Position{}}
	if m.Copy != nil {
		for _, t := range m.Copy.Topics {
			if k := len(t.Records); k > 0 {
				a.tips[t.Name] = t.Records[k-1].Position
			} else {
				a.tips[t.Name] = t.Base
			}
		}
	}
	p.prep.answers[from] = a
	p.prep.hear(m.Open)
	p.prep.hear([]wire.Open{{Term: m.Active, Replica: m.Replica, Known: true}})
	p.advance()
}

func (p *part) onViewUpdate(from string, m *wire.ViewUpdate) {
	if p.role != preparing || m.G != p.g {
		return
	}
	if a := p.prep.answers[from]; a != nil {
		a.view, a.at = m.View, 0
		p.advance()
	}
}

func (p *part) onNack(m *wire.Nack) {
	if p.role == idle || m.Refused != p.g {
		return
	}
	if p.role == leading && !p.n.on(ruleNackStops) {
		p.loseReplica()
		return
	}
	p.stepDown()
	p.promise(m.Promised)
	p.nudge()
}

func (p *part) onOffer(m *wire.Offer) {
	p.promise(m.T)
	if m.T.Term.Compare(p.offered) > 0 {
		p.offered = m.T.Term
	}
	if p.role != idle && p.g.Compare(m.T.Term) < 0 {
		p.stepDown()
	}
	p.nudge()
}

// viewChanged is run when members or eligible members have changed, after first and second were computed anew.
func (p *part) viewChanged(added []string) {
	n := p.n
	if p.promised.Term.Compare(p.active.Term) > 0 && p.promised.Term.Node != n.cfg.ID {
		p.send(p.promised.Term.Node, &wire.ViewUpdate{P: p.head(), G: p.promised.Term, View: n.members})
	}
	switch p.role {
	case idle:
		p.nudge()
	case preparing:
		p.advance()
	case installing:
		p.check(false)
	case leading:
		for _, id := range added {
			p.send(id, &wire.Active{P: p.head(), G: p.g, Replica: p.replica})
		}
		p.check(true)
	}
}

// check is R1 for a home or installer: does it still have its replica, is it still first?
func (p *part) check(offer bool) {
	n := p.n
	switch {
	case p.replica != "" && !n.isMember(p.replica):
		if n.on(ruleReplicaGone) {
			p.propose()
		} else if p.role == leading {
			p.loseReplica()
		}
	case p.role != leading:
	case p.first == n.cfg.ID:
		if p.replica != p.second && n.on(ruleReplicaGone) {
			p.move()
		}
	case offer && n.on(ruleOffer):
		p.send(p.first, &wire.Offer{P: p.head(), T: wire.Open{Term: p.g, Replica: p.replica, Known: true}})
	}
}
