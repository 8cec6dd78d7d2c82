package cluster

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// The kinds of events.
const (
	EventJoined  = "joined"  // a member is here for the first time
	EventBack    = "back"    // a member that was failed is here again
	EventUpdated = "updated" // a member has told something new about itself: a tag, that it drains
	EventLeft    = "left"    // it said goodbye
	EventDead    = "dead"    // its process is proven dead
	EventFailed  = "failed"  // it does not answer
)

// keptEvents is how many events a Node remembers.
const keptEvents = 256

// Event is something that happened to another member.
type Event struct {
	At     time.Time
	Kind   string // joined, back, updated, left, dead or failed
	Member Member // as it was then
}

// events is the latest of them, oldest first.
type events struct {
	mu     sync.Mutex
	all    []Event
	counts map[string]uint64 // by kind, since the beginning
}

func (x *events) add(kind string, m Member) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.counts == nil {
		x.counts = map[string]uint64{}
	}
	x.counts[kind]++
	if len(x.all) >= keptEvents {
		x.all = slices.Delete(x.all, 0, len(x.all)-keptEvents+1)
	}
	x.all = append(x.all, Event{time.Now(), kind, m})
}

func (x *events) counted() map[string]uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	counts := maps.Clone(x.counts)
	if counts == nil {
		counts = map[string]uint64{}
	}
	return counts
}

// Events returns what happened to other members, oldest first: the last 256 comings, goings and changes. Changes that follow one another at
// once may be one event.
func (n *Node) Events() []Event {
	n.events.mu.Lock()
	defer n.events.mu.Unlock()
	return slices.Clone(n.events.all)
}
