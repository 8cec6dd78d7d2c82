package home

import (
	"maps"
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

const (
	// maxChunk bounds the record bytes of one BACKFILL.
	maxChunk = 256 << 10
	// fetchTime is after how long a FETCH without an answer is sent again.
	fetchTime = 5 * time.Second
	// sourceTime is after how long without progress older records are given up.
	sourceTime = 10 * time.Second
)

// A debt is that a topic's older records are still to come.
type debt struct {
	holders []string      // who may have them, in the order in which they are asked
	empty   int           // answers in a row that brought nothing
	until   time.Duration // when they are given up, without progress
}

// A fetching is the FETCH of a partition that is not answered yet.
type fetching struct {
	from   string
	topic  string
	before Position
	again  time.Duration // when it is asked again
	open   bool          // it counts among Node.fetches
}

// owe remembers that a topic's older records are still to come, and who may have them.
func (c *copyLog) owe(topic string, now time.Duration, holders ...string) {
	if c.owed == nil {
		c.owed = map[string]*debt{}
	}
	d := c.owed[topic]
	if d == nil {
		d = &debt{}
		c.owed[topic] = d
	}
	d.until = now + sourceTime
	for _, id := range holders {
		if !slices.Contains(d.holders, id) {
			d.holders = append(d.holders, id)
		}
	}
}

// owesTo reports whether a process may have records that this copy still lacks.
func (c *copyLog) owesTo(id string) bool {
	for _, d := range c.owed {
		if slices.Contains(d.holders, id) {
			return true
		}
	}
	return false
}

// keeps reports whether this node has to complete its copy: it is the home, or the replica of the active term.
func (p *part) keeps() bool {
	return p.cp != nil && (p.role == leading || p.role == idle && p.active.Replica == p.n.cfg.ID && p.cp.acc == p.active.Term)
}

// fill asks for older records, newest first, one question at a time in a partition and Config.Moves in all (R22). Records
// are the same wherever they are at the same position, so what comes fits whenever it ends where the ring begins.
func (p *part) fill() {
	n, c := p.n, p.cp
	if f := p.fetch; f != nil && f.again > n.now && (!f.open || n.isMember(f.from)) {
		return
	}
	p.endFetch()
	if c == nil || len(c.owed) == 0 {
		return
	}
	for _, topic := range slices.Sorted(maps.Keys(c.owed)) {
		d, l := c.owed[topic], c.topics[topic]
		d.holders = slices.DeleteFunc(d.holders, n.isGone)
		if l == nil || len(d.holders) == 0 || d.until <= n.now || l.bytes >= n.cfg.RingBytes || n.ringBytes >= n.cfg.NodeBytes {
			delete(c.owed, topic) // what is older counts as trimmed
			p.serveHeld()
		}
	}
	if !p.keeps() || !n.on(ruleBackfill) {
		return
	}
	for _, topic := range slices.Sorted(maps.Keys(c.owed)) {
		d := c.owed[topic]
		if n.fetches >= n.cfg.Moves {
			d.until = n.now + sourceTime
			continue
		}
		if i := slices.IndexFunc(d.holders, n.isMember); i >= 0 {
			n.fetches++
			p.fetch = &fetching{from: d.holders[i], topic: topic, before: c.topics[topic].base, again: n.now + fetchTime, open: true}
			p.send(p.fetch.from, &wire.Fetch{P: p.head(), Topic: topic, Before: p.fetch.before})
			return
		}
	}
	if len(c.owed) == 0 {
		p.filled()
	}
}

func (p *part) endFetch() {
	if p.fetch != nil && p.fetch.open {
		p.n.fetches--
		p.n.unfilled = true
	}
	p.fetch = nil
}

// filled is run when the copy has all that there is.
func (p *part) filled() {
	switch p.role {
	case leading:
		p.settleReturns()
		p.moved()
	case idle:
		p.send(p.cp.acc.Node, &wire.Installed{P: p.head(), G: p.cp.acc, Whole: true})
	}
}

// onFetch sends what is before a position, as far as it is here.
func (p *part) onFetch(from string, m *wire.Fetch) {
	b := &wire.Backfill{P: p.head(), Topic: m.Topic, Before: m.Before, Base: m.Before}
	if c := p.cp; c != nil {
		if l := c.topics[m.Topic]; l != nil && m.Before.Offset >= l.base.Offset && m.Before.Offset <= l.last() && l.at(m.Before.Offset) == m.Before {
			o, size := m.Before.Offset, 0
			for o > l.base.Offset && size < p.n.cfg.chunk() {
				size += sizeOf(l.recs[o-l.base.Offset-1])
				o--
			}
			_, owed := c.owed[m.Topic]
			b.Base, b.Records, b.Older = l.at(o), slices.Clone(l.after(o, m.Before.Offset)), o > l.base.Offset || owed
		}
	}
	p.n.sendBulk(from, b)
}

// chunk is the size of one BACKFILL.
func (c *Config) chunk() int { return min(maxChunk, c.HotBytes) }

// onBackfill puts older records before the ring.
func (p *part) onBackfill(m *wire.Backfill) {
	n := p.n
	f := p.fetch
	if f == nil || f.topic != m.Topic || f.before != m.Before {
		return
	}
	p.endFetch()
	if p.cp == nil || p.cp.owed[m.Topic] == nil {
		return
	}
	d := p.cp.owed[m.Topic]
	asked := slices.Index(d.holders, f.from)
	switch l := p.cp.topics[m.Topic]; {
	case l == nil || l.base != m.Before || !m.Follows():
		delete(p.cp.owed, m.Topic) // trimmed meanwhile
	case len(m.Records) > 0:
		before := l.bytes
		more := l.prepend(m.Base, m.Records)
		p.grow(l.bytes - before)
		d.empty, d.until = 0, n.now+sourceTime
		if !m.Older || !more {
			delete(p.cp.owed, m.Topic)
		}
	case asked < 0:
	case m.Older: // it waits for them too: ask the next one, and after the last one wait a little
		if d.empty++; d.empty >= len(d.holders) {
			d.empty = 0
			p.fetch = &fetching{again: n.now + n.cfg.Retry/4}
		}
		d.holders = append(slices.Delete(d.holders, asked, asked+1), f.from)
	default:
		d.holders = slices.Delete(d.holders, asked, asked+1)
		if len(d.holders) == 0 {
			delete(p.cp.owed, m.Topic)
		}
	}
	p.serveHeld()
	if p.fetch == nil {
		p.fill()
	}
	if len(p.cp.owed) == 0 {
		p.filled()
	}
}

// prepend puts records that end at the ring's base before it. It reports false when more would be from before the topic's birth.
func (l *topicLog) prepend(base Position, records []*Record) bool {
	if born := l.born.Offset; base.Offset < born {
		skip := min(int(born-base.Offset), len(records))
		if skip == 0 {
			return false
		}
		base, records = records[skip-1].Position, records[skip:]
	}
	came := make([]time.Duration, len(records), len(records)+len(l.times))
	for i := range came {
		came[i] = l.touched
		if len(l.times) > 0 {
			came[i] = l.times[0]
		}
	}
	for _, r := range records {
		l.bytes += sizeOf(r)
	}
	l.recs = append(slices.Clone(records), l.recs...)
	l.times = append(came, l.times...)
	l.base = base
	return base.Offset > l.born.Offset
}

// A heldSub is a subscription from a position whose records are still to come.
type heldSub struct {
	from  string
	sub   *wire.Sub
	until time.Duration
}

// hold keeps a subscription for Config.Hold, if older records of its topic are on their way (R22). It reports false when not.
func (p *part) hold(from string, m *wire.Sub) bool {
	if _, owed := p.cp.owed[m.Topic]; !owed || !p.n.on(ruleHold) {
		return false
	}
	p.lead.held = append(p.lead.held, heldSub{from, m, p.n.now + p.n.cfg.Hold})
	return true
}

// serveHeld answers the subscriptions whose records have come, or will not come in time.
func (p *part) serveHeld() {
	if p.lead == nil || len(p.lead.held) == 0 {
		return
	}
	var wait, now []heldSub
	for _, h := range p.lead.held {
		_, v := p.cp.match(h.sub.Topic, h.sub.Cursor.Pos, toCommitted, true)
		if _, owed := p.cp.owed[h.sub.Topic]; owed && v == trimmed && h.until > p.n.now {
			wait = append(wait, h)
		} else {
			now = append(now, h)
		}
	}
	p.lead.held = wait
	for _, h := range now {
		p.respond(h.from, h.sub, true, true)
	}
}
