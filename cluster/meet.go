package cluster

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
)

// meetings counts how often processes came into reach.
type meetings struct {
	count atomic.Uint64
	near  atomic.Pointer[map[string]struct{}] // whose link works, and the count has it

	mu sync.Mutex // of changes of near
}

func (m *meetings) change(fn func(near map[string]struct{})) {
	m.mu.Lock()
	defer m.mu.Unlock()
	near := map[string]struct{}{}
	if old := m.near.Load(); old != nil {
		maps.Copy(near, *old)
	}
	fn(near)
	m.near.Store(&near)
}

// up: the link to a process works, again or for the first time.
func (m *meetings) up(id string) {
	m.count.Add(1)
	m.change(func(near map[string]struct{}) { near[id] = struct{}{} })
}

// down: it does not any more. What comes before the next up is a meeting too.
func (m *meetings) down(id string) {
	m.change(func(near map[string]struct{}) { delete(near, id) })
}

// message is called before each message is handled.
func (m *meetings) message(from string) {
	if near := m.near.Load(); near != nil {
		if _, ok := (*near)[from]; ok {
			return
		}
	}
	m.count.Add(1)
}

// Meetings counts how often other processes came into reach, for the first time or again; some are counted more than once. It has grown before
// the first message of such a process is given to any handler: whoever keeps what messages may have made untrue (package cache does) sees that
// it was out of reach before it shows what it kept. It costs one atomic load.
func (n *Node) Meetings() uint64 { return n.meetings.count.Load() }

// HandleInline is Handle for what must be done before any later message of the same sender is given to its handler, whatever the topic: fn runs
// where messages are taken from the link. It must return at once: no locks that others hold for long, no I/O, no calls of this Node that
// wait. Messages by PostBulk have no order against the others here either.
func (n *Node) HandleInline(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func()) {
	checkHandle("HandleInline", topic, fn)
	return n.inbox.register(topic, &registration{fn: fn, inline: true})
}
