package home

import (
	"maps"
	"slices"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// install ends a complete proposal: it decides about the epoch and hands the log to the replica (R5, R6).
func (p *part) install() {
	n := p.n
	if p.cp == nil {
		p.setCopy(newCopyLog())
	}
	c := p.cp
	verified := p.verified()
	if !(c.token && verified) && !(!n.on(ruleToken) && len(c.lineage) > 0) {
		c.mint(p.g, verified)
		n.stats.Epochs++
		if !verified && n.on(ruleGapRecord) {
			for _, topic := range slices.Sorted(maps.Keys(c.topics)) {
				p.write(topic, wire.Gap, ReasonUnverified+":"+p.g.String(), []byte(ReasonUnverified))
				n.stats.Gaps++
			}
		}
	}
	for _, t := range c.missing(p.orphans) {
		if _, ok := c.window.fork(t.Topic, t.At); !ok {
			p.write(t.Topic, wire.Gap, forkID(t.At), []byte(ReasonFork))
			n.stats.Gaps++
		}
	}
	if !n.on(ruleOrphansKept) {
		p.orphans = nil
	}
	for topic := range c.owed {
		for _, id := range slices.Sorted(maps.Keys(p.prep.answers)) {
			if p.prep.answers[id].holder {
				c.owe(topic, n.now, id)
			}
		}
	}
	c.acc, c.length = p.g, 0
	p.role = installing
	if p.replica == "" {
		p.activate()
		return
	}
	var known map[string]Position
	if a := p.prep.answers[p.replica]; a != nil {
		known = a.tips
	}
	copied := c.snapshot(known, n.cfg.HotBytes)
	copied.Token = false
	if !n.on(ruleWindowCopied) {
		copied.Window = nil
	}
	p.send(p.replica, &wire.Install{P: p.head(), G: p.g, Copy: copied})
}

// verified reports whether every term that may have been active since the copy was held had one of its pair among those
// that answered (R5).
func (p *part) verified() bool {
	n := p.n
	if !n.on(rulePairCheck) {
		return true
	}
	for _, t := range p.prep.terms {
		if t.Term == p.g || t.Term.Compare(p.cp.acc) <= 0 || p.prep.answers[t.Term.Node] != nil {
			continue
		}
		if t.Known && t.Replica != "" {
			if p.prep.answers[t.Replica] != nil || (t.Left || n.byes[t.Replica]) && n.on(ruleLeftCounts) {
				continue
			}
		}
		return false
	}
	return true
}

// write appends a record to the own copy, as the owner of its epoch.
func (p *part) write(topic string, kind wire.Kind, id string, data []byte) (Position, *Record) {
	prev, r := p.cp.write(topic, kind, id, data, p.n.now)
	p.grow(sizeOf(r))
	return prev, r
}

func (p *part) grow(by int) {
	p.bytes += by
	p.n.ringBytes += by
}

// onInstall makes this node the replica of a term (R7).
func (p *part) onInstall(from string, m *wire.Install) {
	n := p.n
	if m.G.Compare(p.promised.Term) < 0 {
		p.send(from, &wire.Nack{P: p.head(), Refused: m.G, Promised: p.highestPromised()})
		return
	}
	p.stepDown()
	p.promise(wire.Open{Term: m.G, Replica: n.cfg.ID, Known: true})
	c := restore(m.Copy, p.cp, from, n.now)
	c.acc, c.length, c.token = m.G, 0, false
	p.replaceCopy(c)
	for _, l := range c.topics {
		l.committed = l.last()
	}
	p.send(from, &wire.Installed{P: p.head(), G: m.G, Whole: len(c.owed) == 0})
}

func (p *part) onInstalled(from string, m *wire.Installed) {
	if m.G != p.g || from != p.replica {
		return
	}
	if p.role == installing {
		p.activate()
	}
	if p.role == leading && m.Whole {
		p.lead.whole = true
		p.moved()
	}
}

// activate makes this node the home (R7).
func (p *part) activate() {
	n := p.n
	answered := slices.Sorted(maps.Keys(p.prep.answers))
	p.role, p.prep = leading, nil
	p.lead = newLead()
	p.orphans, p.returned = nil, nil
	for _, l := range p.cp.topics {
		l.committed = l.last()
	}
	n.stats.Terms++
	for _, id := range slices.Compact(slices.Sorted(slices.Values(append(answered, n.members...)))) {
		if id != n.cfg.ID {
			p.send(id, &wire.Active{P: p.head(), G: p.g, Replica: p.replica})
		}
	}
	p.learn(wire.Open{Term: p.g, Replica: p.replica, Known: true})
	p.check(n.on(ruleActivationCheck))
	if p.role == leading {
		p.fill()
		p.moved()
	}
}

// onActive is R8.
func (p *part) onActive(from string, m *wire.Active) {
	switch x := m.G.Compare(p.active.Term); {
	case x > 0:
		p.learn(wire.Open{Term: m.G, Replica: m.Replica, Known: true})
		if p.role == idle {
			p.giveBack()
			p.nudge()
			p.fill()
		}
	case x < 0 && from == m.G.Node:
		// A home that does not know that it was deposed.
		p.send(from, &wire.Active{P: p.head(), G: p.active.Term, Replica: p.active.Replica})
	}
}

// learn takes a term for the active one: subscriptions and publishes go to its home.
func (p *part) learn(t wire.Open) {
	p.active = t
	p.promise(t)
	p.open = slices.DeleteFunc(p.open, func(o wire.Open) bool { return o.Term.Compare(t.Term) <= 0 })
	if p.role != idle && p.g.Compare(t.Term) < 0 {
		p.stepDown()
	}
	for _, e := range p.edges {
		e.subscribe()
	}
	for _, b := range p.pubs {
		p.request(b)
	}
}

// giveBack tells the home where the branches ended that this node has to give up: its copy, when it is outside the
// pair, and its orphans (R8).
func (p *part) giveBack() {
	n := p.n
	p.returned = nil // of an older term: no answer to it counts any more
	if p.active.Term.IsZero() || p.active.Term.Node == n.cfg.ID {
		return
	}
	outside := p.active.Replica != n.cfg.ID
	if !(outside && p.cp != nil) && len(p.orphans) == 0 {
		return
	}
	if !n.on(ruleReturn) {
		p.orphans = nil
		if outside && p.promised.Term.Compare(p.active.Term) <= 0 {
			p.setCopy(nil)
		}
		return
	}
	r := &returned{g: p.active.Term, tips: slices.Clone(p.orphans), cp: p.cp}
	tips := slices.Clone(p.orphans)
	if outside && p.cp != nil {
		for _, t := range p.cp.tips() {
			if !slices.Contains(tips, t) {
				tips = append(tips, t)
			}
		}
	}
	p.returned = r
	p.send(p.active.Term.Node, &wire.Return{P: p.head(), G: p.active.Term, Tips: tips})
}

func (p *part) onReturnOK(m *wire.ReturnOK) {
	r := p.returned
	if r == nil || r.g != m.G || m.G != p.active.Term {
		return
	}
	p.returned = nil
	p.orphans = slices.DeleteFunc(p.orphans, func(t wire.Tip) bool { return slices.Contains(r.tips, t) })
	outside := p.active.Replica != p.n.cfg.ID
	if outside && p.role == idle && p.cp == r.cp && p.promised.Term.Compare(p.active.Term) <= 0 {
		p.setCopy(nil)
	}
}
