package home

import (
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// maxMarks bounds the epochs of which a topic knows the end.
const maxMarks = 16

// recordOverhead is what a record costs beside its text, in the books of the rings.
const recordOverhead = 96

func sizeOf(r *Record) int { return recordOverhead + len(r.ID) + len(r.Data) }

// A topicLog is one topic of a copy: a ring of records after base.
type topicLog struct {
	born      Position // where the topic began; the epoch is zero until the first record
	from      Term     // of the copy's floorBy at that time: what was told of the birth before is of another branch
	base      Position // of the record before recs[0]; the epoch is zero until the first record
	recs      []*Record
	times     []time.Duration // when each came here
	marks     []Position      // the last offset of each of the last epochs, oldest first
	committed uint64
	bytes     int
	touched   time.Duration
}

func newTopicLog(floor uint64, from Term, now time.Duration) *topicLog {
	at := Position{Offset: floor}
	return &topicLog{born: at, from: from, base: at, committed: floor, touched: now}
}

func (l *topicLog) last() uint64 { return l.base.Offset + uint64(len(l.recs)) }

// unborn reports whether the topic never had a record; its position is then (current epoch, born.Offset).
func (l *topicLog) unborn() bool { return l.base.Epoch.IsZero() }

// at returns the position at an offset between base and last.
func (l *topicLog) at(offset uint64) Position {
	if offset == l.base.Offset {
		return l.base
	}
	return l.recs[offset-l.base.Offset-1].Position
}

// lastPos returns the position of the last record.
func (l *topicLog) lastPos() Position { return l.at(l.last()) }

// after returns the records after an offset up to another.
func (l *topicLog) after(offset, to uint64) []*Record {
	if offset >= to {
		return nil
	}
	return l.recs[offset-l.base.Offset : to-l.base.Offset : to-l.base.Offset]
}

// append adds a record whose predecessor is the last.
func (l *topicLog) append(r *Record, now time.Duration) {
	l.recs = append(l.recs, r)
	l.times = append(l.times, now)
	l.bytes += sizeOf(r)
	l.touched = now
	l.mark(r.Position)
}

func (l *topicLog) mark(p Position) {
	if k := len(l.marks); k > 0 && l.marks[k-1].Epoch == p.Epoch {
		l.marks[k-1].Offset = p.Offset
		return
	}
	if len(l.marks) == maxMarks {
		l.marks = append(l.marks[:0], l.marks[1:]...)
	}
	l.marks = append(l.marks, p)
}

// trimOne drops the oldest record, if it is committed, and returns its size.
func (l *topicLog) trimOne() int {
	if len(l.recs) == 0 || l.base.Offset+1 > l.committed {
		return 0
	}
	r := l.recs[0]
	l.base = r.Position
	l.recs[0] = nil
	l.recs, l.times = l.recs[1:], l.times[1:]
	if len(l.recs) == 0 {
		l.recs, l.times = nil, nil
	}
	size := sizeOf(r)
	l.bytes -= size
	return size
}

// reset begins the ring anew after a position.
func (l *topicLog) reset(base Position) {
	l.base, l.recs, l.times, l.bytes = base, nil, nil, 0
}

type verdict uint8

const (
	absent  verdict = iota // not on this branch, or not known to be
	trimmed                // on this branch, but what follows is not all here
	present                // here, with all that follows
)

// match says whether a position is in a topic's log (R15), looking at offsets up to limit. When it is present,
// start is how this log writes it: a position at the birth of a topic may have been told under an earlier epoch.
func (c *copyLog) match(topic string, p Position, limit func(*topicLog) uint64, epochs bool) (start Position, v verdict) {
	l := c.topics[topic]
	if l == nil {
		l = newTopicLog(c.floor, c.floorBy, 0)
	}
	same := func(a, b Term) bool { return a == b || !epochs }
	if l.unborn() {
		switch {
		case p.Offset == l.base.Offset && (c.atBirth(l, p.Epoch, c.epoch()) || !epochs):
			return Position{Epoch: c.epoch(), Offset: p.Offset}, present
		case p.Offset < l.base.Offset && c.hasEpoch(p.Epoch):
			return Position{}, trimmed
		}
		return Position{}, absent
	}
	switch {
	case p.Offset > limit(l):
		return Position{}, absent
	case p.Offset > l.base.Offset:
		if at := l.at(p.Offset); same(at.Epoch, p.Epoch) {
			return at, present
		}
		return Position{}, absent
	case p.Offset == l.base.Offset:
		if same(l.base.Epoch, p.Epoch) || p.Offset == l.born.Offset && c.atBirth(l, p.Epoch, l.born.Epoch) {
			return l.base, present
		}
		return Position{}, absent
	case p.Offset == l.born.Offset:
		if c.atBirth(l, p.Epoch, l.born.Epoch) {
			return Position{}, trimmed
		}
		return Position{}, absent
	case p.Offset < l.born.Offset:
		if c.hasEpoch(p.Epoch) {
			return Position{}, trimmed
		}
		return Position{}, absent
	}
	for i, m := range l.marks {
		if m.Epoch == p.Epoch {
			if p.Offset <= m.Offset && (i == 0 || p.Offset > l.marks[i-1].Offset) {
				return Position{}, trimmed
			}
			break
		}
	}
	return Position{}, absent
}

// atBirth reports whether the position before a topic's first record may have been told under an epoch: a later one than
// that of the forgotten record there, from which the epoch of the birth follows.
func (c *copyLog) atBirth(l *topicLog, e, birth Term) bool {
	return c.reaches(e, birth) && (l.from.IsZero() || c.index(l.from) >= 0 && c.index(l.from) <= c.index(e))
}

func toCommitted(l *topicLog) uint64 { return l.committed }
func toLast(l *topicLog) uint64      { return l.last() }

// has reports whether a record that some branch acknowledged is in this log, trimmed or not. Of what was before a topic's
// birth nothing is known any more, so it counts as missing: better a false report than a loss in silence.
func (c *copyLog) has(t wire.Tip) bool {
	if l := c.topics[t.Topic]; l == nil || l.unborn() || t.At.Offset <= l.born.Offset {
		return false
	}
	_, v := c.match(t.Topic, t.At, toLast, true)
	return v != absent
}
