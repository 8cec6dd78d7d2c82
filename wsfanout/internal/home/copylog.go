package home

import (
	"maps"
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

const (
	// maxLineage bounds the epochs that a copy remembers.
	maxLineage = 64
)

// A copyLog is a partition's log as one node has it: home, replica, or a former holder.
type copyLog struct {
	acc     Term   // under which it was held
	length  uint64 // records appended since acc began: with equal acc, the longer log has the shorter as its prefix
	token   bool   // this node owns the current epoch
	lineage []wire.Lineage
	floor   uint64 // where topics begin
	floorBy Term   // epoch of the forgotten record there
	topics  map[string]*topicLog
	window  window
	owed    map[string]*debt // topics whose older records are still to come
}

func newCopyLog() *copyLog { return &copyLog{topics: map[string]*topicLog{}} }

// epoch is the current one.
func (c *copyLog) epoch() Term {
	if len(c.lineage) == 0 {
		return Term{}
	}
	return c.lineage[len(c.lineage)-1].Epoch
}

func (c *copyLog) hasEpoch(e Term) bool { return c.index(e) >= 0 }

// index is the place of an epoch in the lineage, or -1.
func (c *copyLog) index(e Term) int {
	return slices.IndexFunc(c.lineage, func(x wire.Lineage) bool { return x.Epoch == e })
}

// reaches reports whether epoch to follows from, with no unverified transition between.
func (c *copyLog) reaches(from, to Term) bool {
	in := false
	for _, x := range c.lineage {
		if in && !x.Verified {
			in = false
		}
		if x.Epoch == from {
			in = true
		}
		if x.Epoch == to {
			return in
		}
	}
	return false
}

func (c *copyLog) mint(g Term, verified bool) {
	if len(c.lineage) == maxLineage {
		c.lineage = append(c.lineage[:0], c.lineage[1:]...)
	}
	c.lineage = append(c.lineage, wire.Lineage{Epoch: g, Verified: verified})
	c.token = true
}

// topic returns a topic's log, making it when there is none.
func (c *copyLog) topic(name string, now time.Duration) *topicLog {
	l := c.topics[name]
	if l == nil {
		l = newTopicLog(c.floor, c.floorBy, now)
		c.topics[name] = l
	}
	return l
}

// position returns how this log writes the position at an offset of a topic; also for a topic that it does not have.
func (c *copyLog) position(l *topicLog, offset uint64) Position {
	p := l.at(offset)
	if p.Epoch.IsZero() {
		p.Epoch = c.epoch()
	}
	return p
}

// write appends a record of the current epoch, as its owner.
func (c *copyLog) write(topic string, kind wire.Kind, id string, data []byte, now time.Duration) (prev Position, r *Record) {
	l := c.topic(topic, now)
	if l.unborn() {
		l.born.Epoch = c.epoch()
		l.base = l.born
	}
	prev = l.lastPos()
	r = &Record{Position: Position{Epoch: c.epoch(), Offset: prev.Offset + 1}, Kind: kind, ID: id, Data: data}
	l.append(r, now)
	c.length++
	c.window.add(windowKey(topic, kind, id), r.Position, now)
	return prev, r
}

// accept appends what the owner of the epoch has written.
func (c *copyLog) accept(topic string, prev Position, r *Record, now time.Duration) *topicLog {
	l := c.topics[topic]
	if l == nil || l.lastPos() != prev {
		// New here, or forgotten at one of the two: the owner's word counts.
		from := prev.Epoch
		if prev.Offset == c.floor {
			from = c.floorBy
		}
		l = newTopicLog(prev.Offset, from, now)
		l.born, l.base = prev, prev
		c.topics[topic] = l
		delete(c.owed, topic)
	}
	l.append(r, now)
	c.length++
	return l
}

// forget drops a topic and raises the floor to its end, so that none of its offsets is used again.
func (c *copyLog) forget(topic string) {
	p := c.topics[topic].lastPos()
	delete(c.topics, topic)
	if p.Offset > c.floor || p.Offset == c.floor && c.index(p.Epoch) > c.index(c.floorBy) {
		c.floor, c.floorBy = p.Offset, p.Epoch
	}
}

// tips returns the committed ends of all topics that have had records.
func (c *copyLog) tips() []wire.Tip {
	var tips []wire.Tip
	for _, name := range slices.Sorted(maps.Keys(c.topics)) {
		if l := c.topics[name]; !l.unborn() && l.committed > l.born.Offset {
			tips = append(tips, wire.Tip{Topic: name, At: l.at(l.committed)})
		}
	}
	return tips
}

// missing returns those of the tips that are not in this log.
func (c *copyLog) missing(tips []wire.Tip) []wire.Tip {
	return slices.DeleteFunc(slices.Clone(tips), c.has)
}

// better reports whether a copy in transit is to be preferred to this one (R4).
func (c *copyLog) worseThan(o *wire.Copy) bool {
	if c == nil {
		return true
	}
	if x := o.Acc.Compare(c.acc); x != 0 {
		return x > 0
	}
	if o.Length != c.length {
		return o.Length > c.length
	}
	return o.Token && !c.token
}

// snapshot returns the copy for transit: of topics whose end the receiver has (known), only what follows it; of all, the newest
// committed records that fit hot bytes, and every one that is not committed. What is older is fetched afterwards (R22).
func (c *copyLog) snapshot(known map[string]Position, hot int) *wire.Copy {
	w := &wire.Copy{
		Acc: c.acc, Length: c.length, Token: c.token, Lineage: slices.Clone(c.lineage), Floor: c.floor, FloorBy: c.floorBy,
		Window: c.window.entries(),
	}
	total := 0
	for _, l := range c.topics {
		total += l.bytes
	}
	for _, name := range slices.Sorted(maps.Keys(c.topics)) {
		l := c.topics[name]
		from, tail := l.base.Offset, false
		if p, ok := known[name]; ok && p.Offset >= l.base.Offset && p.Offset <= l.last() && l.at(p.Offset) == p && !l.unborn() {
			from, tail = p.Offset, true
		}
		if total > hot {
			newest := l.last()
			for size := 0; newest > from && (newest > l.committed || size < l.bytes/(total/hot+1)); newest-- {
				size += sizeOf(l.recs[newest-l.base.Offset-1])
			}
			tail = tail && newest == from
			from = newest
		}
		_, owed := c.owed[name]
		w.Topics = append(w.Topics, wire.Topic{
			Name: name, Born: l.born, From: l.from, Base: l.at(from), Tail: tail, Older: from > l.base.Offset && !tail || owed,
			Marks: slices.Clone(l.marks), Records: slices.Clone(l.after(from, l.last())), Committed: l.committed,
		})
	}
	return w
}

// restore makes a copy from transit. mine is what the receiver had: where a topic goes on from a record in it, what was before stays.
// The older records of the others are owed by the sender.
func restore(w *wire.Copy, mine *copyLog, from string, now time.Duration) *copyLog {
	c := &copyLog{
		acc: w.Acc, length: w.Length, token: w.Token, lineage: slices.Clone(w.Lineage), floor: w.Floor, floorBy: w.FloorBy,
		topics: make(map[string]*topicLog, len(w.Topics)),
	}
	for _, t := range w.Topics {
		l := &topicLog{born: t.Born, from: t.From, base: t.Base, marks: slices.Clone(t.Marks), committed: t.Committed, touched: now}
		merged := false
		if mine != nil {
			if o := mine.topics[t.Name]; o != nil && !o.unborn() && o.born == t.Born && o.base.Offset <= t.Base.Offset && t.Base.Offset <= o.last() && o.at(t.Base.Offset) == t.Base {
				merged = true
				l.base = o.base
				k := int(t.Base.Offset - o.base.Offset)
				l.recs, l.times = slices.Clone(o.recs[:k]), slices.Clone(o.times[:k])
				for _, r := range l.recs {
					l.bytes += sizeOf(r)
				}
				if d, ok := mine.owed[t.Name]; ok {
					c.owe(t.Name, now, d.holders...)
				}
			}
		}
		if t.Older && !merged || t.Tail && !merged {
			c.owe(t.Name, now, from)
		}
		for _, r := range t.Records {
			l.recs = append(l.recs, r)
			l.times = append(l.times, now)
			l.bytes += sizeOf(r)
		}
		c.topics[t.Name] = l
	}
	for _, e := range w.Window {
		c.window.add(windowID{e.Topic, e.ID}, e.At, now)
	}
	return c
}

func (c *copyLog) bytes() int {
	if c == nil {
		return 0
	}
	n := 0
	for _, l := range c.topics {
		n += l.bytes
	}
	return n
}
