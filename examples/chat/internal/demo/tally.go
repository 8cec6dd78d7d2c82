package demo

import (
	"fmt"
	"sync"
	"time"
)

// Payload is what the load publishes: who sent it and its number, counted from 1 by each publisher.
type Payload struct {
	Publisher string `json:"publisher"`
	Number    int    `json:"number"`
}

// Tally compares what publishers were told with what subscribers saw. It knows nothing of positions, epochs and gaps: a message that was
// acknowledged must be shown to every subscriber of its room once, and in the same order to all.
type Tally struct {
	mu        sync.Mutex
	published int
	acked     map[string]map[int]time.Time // by publisher: number → acknowledged at
	rooms     map[string]string            // publisher → room
	subs      []*Subscriber
	order     map[string]*sequence // by room
}

// sequence is the order in which a room's messages were first seen by anybody.
type sequence struct{ index map[Payload]int }

// Subscriber is what one subscriber of one room saw.
type Subscriber struct {
	tally      *Tally
	name, room string
	since      time.Time
	seen       map[Payload]int // how often
	last       map[string]int  // by publisher: highest number
	lastIndex  int
	delivered  int
	disordered int
}

// NewTally returns an empty tally.
func NewTally() *Tally {
	return &Tally{acked: map[string]map[int]time.Time{}, rooms: map[string]string{}, order: map[string]*sequence{}}
}

// Publisher registers a publisher and its room.
func (t *Tally) Publisher(name, room string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rooms[name], t.acked[name] = room, map[int]time.Time{}
}

// Published counts a message that is about to be sent for the first time.
func (t *Tally) Published() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.published++
}

// Acked notes that a publish was acknowledged.
func (t *Tally) Acked(p Payload, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked[p.Publisher][p.Number] = at
}

// Subscribe registers a subscriber whose subscription was confirmed at since: every message acknowledged later is its due.
func (t *Tally) Subscribe(name, room string, since time.Time) *Subscriber {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Subscriber{tally: t, name: name, room: room, since: since, seen: map[Payload]int{}, last: map[string]int{}, lastIndex: -1}
	t.subs = append(t.subs, s)
	if t.order[room] == nil {
		t.order[room] = &sequence{index: map[Payload]int{}}
	}
	return s
}

// Saw notes a message that was shown.
func (s *Subscriber) Saw(p Payload) {
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	s.delivered++
	s.seen[p]++
	if s.seen[p] > 1 {
		return // a duplicate, not a disorder
	}
	order := s.tally.order[s.room]
	i, known := order.index[p]
	if !known {
		i = len(order.index)
		order.index[p] = i
	}
	if p.Number < s.last[p.Publisher] || i < s.lastIndex {
		s.disordered++
	}
	s.last[p.Publisher], s.lastIndex = max(p.Number, s.last[p.Publisher]), max(i, s.lastIndex)
}

// Counts is the verdict of a tally.
type Counts struct {
	Published, Acknowledged, Delivered, Lost, Duplicates, Disordered int
	Examples                                                         []string // of what went wrong, at most 20
}

// Count compares both sides.
func (t *Tally) Count() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Counts{Published: t.published}
	note := func(format string, args ...any) {
		if len(c.Examples) < 20 {
			c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
		}
	}
	for _, numbers := range t.acked {
		c.Acknowledged += len(numbers)
	}
	for _, s := range t.subs {
		c.Delivered += s.delivered
		c.Disordered += s.disordered
		if s.disordered > 0 {
			note("%s saw %d messages of %s out of order", s.name, s.disordered, s.room)
		}
		for p, n := range s.seen {
			if n > 1 {
				c.Duplicates += n - 1
				note("%s saw %s/%d %d times", s.name, p.Publisher, p.Number, n)
			}
		}
		for publisher, numbers := range t.acked {
			if t.rooms[publisher] != s.room {
				continue
			}
			for number, at := range numbers {
				if at.After(s.since) && s.seen[Payload{publisher, number}] == 0 {
					c.Lost++
					note("%s never saw %s/%d, acknowledged %s", s.name, publisher, number, at.Format("15:04:05.000"))
				}
			}
		}
	}
	return c
}

// Delivered is how many messages the subscriber saw.
func (s *Subscriber) Delivered() int {
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	return s.delivered
}
