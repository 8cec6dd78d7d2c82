package home

import (
	"maps"
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// trimSlices is in how many ticks every partition is looked at for records that are too old.
const trimSlices = 64

func (n *Node) tick() {
	if len(n.contacts) > 0 {
		n.forgetContacts()
	}
	for i := range n.parts {
		p := &n.parts[i]
		switch p.role {
		case idle:
			if p.look <= n.now && n.on(ruleTimer) {
				p.nudge()
			}
		case preparing:
			p.advance()
		default:
			if p.look <= n.now {
				p.look = n.now + n.cfg.Retry
				p.check(false)
			}
		}
		if p.lead != nil && len(p.lead.late) > 0 {
			for _, f := range p.lead.late {
				f()
			}
			p.lead.late = nil
		}
		if p.fetch != nil || p.cp != nil && len(p.cp.owed) > 0 {
			p.fill()
			p.serveHeld()
		}
		for _, b := range slices.Clone(p.pubs) {
			b.expire(n)
		}
		if len(p.edges) > 0 {
			p.leaveIdle()
		}
	}
	if n.now >= n.nextAnnounce {
		n.nextAnnounce = n.now + n.cfg.Announce
		for i := range n.parts {
			n.parts[i].announce()
		}
	}
	n.trim()
}

// announce tells everyone who leads, again, and the home what this node is subscribed to.
func (p *part) announce() {
	if p.role == leading {
		for _, id := range p.n.members {
			if id != p.n.cfg.ID {
				p.send(id, &wire.Active{P: p.head(), G: p.g, Replica: p.replica})
			}
		}
	}
	p.digest()
}

// trim drops what is older or more than a ring holds (R21): a slice of the partitions at each tick, and more when the node
// holds too much.
func (n *Node) trim() {
	per := (len(n.parts) + trimSlices - 1) / trimSlices
	for range per {
		n.parts[n.nextTrim].trim()
		n.nextTrim = (n.nextTrim + 1) % len(n.parts)
	}
	if n.ringBytes > n.cfg.NodeBytes {
		n.trimIdlest()
	}
}

func (p *part) trim() {
	n := p.n
	old := n.now - n.cfg.RingAge
	for _, e := range p.edges {
		if e.log != nil {
			e.log.trim(n.cfg.RingBytes, old)
			e.count()
		}
	}
	c := p.cp
	if c == nil {
		return
	}
	c.window.expire(n.now-n.cfg.WindowAge, n.cfg.WindowIDs)
	total := 0
	for name, l := range c.topics {
		l.trim(n.cfg.RingBytes, old)
		total += l.bytes
		unused := n.now-l.touched > n.cfg.IdleAge && l.committed == l.last()
		if unused && (p.lead == nil || p.lead.interest[name] == nil) && (p.role == leading || p.role == idle) {
			c.forget(name)
			delete(c.owed, name)
		}
	}
	p.grow(total - p.bytes)
}

// trim drops committed records beyond size bytes and those that came before a time.
func (l *topicLog) trim(size int, before time.Duration) {
	for len(l.recs) > 0 && (l.bytes > size || l.times[0] < before) {
		if l.trimOne() == 0 {
			return
		}
	}
}

// trimIdlest takes records from the topics that were idle longest, until the node is an eighth below its bound.
func (n *Node) trimIdlest() {
	type ring struct {
		l    *topicLog
		p    *part
		e    *edge
		name string
	}
	var rings []ring
	for i := range n.parts {
		p := &n.parts[i]
		if p.cp != nil {
			for _, name := range slices.Sorted(maps.Keys(p.cp.topics)) {
				rings = append(rings, ring{p.cp.topics[name], p, nil, name})
			}
		}
		for _, e := range p.edges {
			if e.log != nil {
				rings = append(rings, ring{e.log, p, e, e.topic})
			}
		}
	}
	slices.SortStableFunc(rings, func(a, b ring) int { return int(a.l.touched - b.l.touched) })
	for _, r := range rings {
		for n.ringBytes > n.cfg.NodeBytes-n.cfg.NodeBytes/8 {
			size := r.l.trimOne()
			if size == 0 {
				break
			}
			if r.e != nil {
				r.e.count()
			} else {
				r.p.grow(-size)
			}
		}
	}
}
