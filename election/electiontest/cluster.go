package electiontest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Cluster is a set of members that share one view, but for those that are cut. The zero value is not ready: use New.
type Cluster struct {
	mu      sync.Mutex
	members map[string]*Member
	fates   map[string]string // of those that are gone
	cut     map[[2]string]bool
	calls   sync.WaitGroup
	longest int // topic
}

// New returns an empty cluster.
func New() *Cluster {
	return &Cluster{members: map[string]*Member{}, fates: map[string]string{}, cut: map[[2]string]bool{}}
}

// Member is one node of a Cluster; it satisfies election.Membership.
type Member struct {
	c        *Cluster
	id       string
	fate     string
	settled  bool
	tags     map[string]string
	notify   map[chan<- struct{}]struct{}
	handlers map[string]func(ctx context.Context, from string, payload []byte) ([]byte, error)
	gone     chan struct{}
}

// Join adds a member whose view is settled.
func (c *Cluster) Join(id string) *Member {
	m := c.JoinUnsettled(id)
	m.Settle()
	return m
}

// JoinUnsettled adds a member that knows of nobody until Settle.
func (c *Cluster) JoinUnsettled(id string) *Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &Member{
		c: c, id: id, fate: "alive", tags: map[string]string{}, notify: map[chan<- struct{}]struct{}{}, gone: make(chan struct{}),
		handlers: map[string]func(ctx context.Context, from string, payload []byte) ([]byte, error){},
	}
	c.members[id] = m
	delete(c.fates, id)
	c.notifyLocked()
	return m
}

// Settle gives the member its first view.
func (m *Member) Settle() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.settled = true
	m.c.notifyLocked()
}

// LimitTopics makes Handle and Request refuse topics of more than n bytes, as a *cluster.Node does with 255.
func (c *Cluster) LimitTopics(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = n
}

// Remove takes a member out, with the fate that the others see: "left", "dead" or "failed". The member itself goes on and sees only itself.
func (c *Cluster) Remove(id, fate string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.members[id]; m != nil {
		delete(c.members, id)
		close(m.gone)
		c.fates[id] = fate
		c.notifyLocked()
		m.notifyOwnLocked()
	}
}

// SetFate sets what all see of a member that stays: "alive", "suspect" or "draining".
func (c *Cluster) SetFate(id, fate string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.members[id]; m != nil {
		m.fate = fate
		c.notifyLocked()
	}
}

// Cut separates two members, or joins them again: each sees the other as failed, and requests between them fail.
func (c *Cluster) Cut(a, b string, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cut {
		c.cut[[2]string{a, b}], c.cut[[2]string{b, a}] = true, true
	} else {
		delete(c.cut, [2]string{a, b})
		delete(c.cut, [2]string{b, a})
	}
	c.notifyLocked()
}

func (c *Cluster) notifyLocked() {
	for _, m := range c.members {
		m.notifyOwnLocked()
	}
}

func (m *Member) notifyOwnLocked() {
	for ch := range m.notify {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// ID is the member's own.
func (m *Member) ID() string { return m.id }

// Alive is what the member sees.
func (m *Member) Alive() []string {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if !m.settled {
		return nil
	}
	if m.c.members[m.id] != m {
		return []string{m.id}
	}
	var ids []string
	for id := range m.c.members {
		if !m.c.cut[[2]string{m.id, id}] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Fate is what became of a member.
func (m *Member) Fate(id string) string {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if m.c.cut[[2]string{m.id, id}] || m.c.members[m.id] != m && id != m.id {
		return "failed"
	}
	if o := m.c.members[id]; o != nil {
		return o.fate
	}
	return m.c.fates[id]
}

// Notify sends to c after each change.
func (m *Member) Notify(c chan<- struct{}) (stop func()) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.notify[c] = struct{}{}
	return func() {
		m.c.mu.Lock()
		defer m.c.mu.Unlock()
		delete(m.notify, c)
	}
}

// Tag reads a tag of a member that can be seen.
func (m *Member) Tag(id, key string) string {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if id == m.id {
		return m.tags[key]
	}
	if o := m.c.members[id]; o != nil && !m.c.cut[[2]string{m.id, id}] {
		return o.tags[key]
	}
	return ""
}

// SetTag sets a tag of this member; "" removes it.
func (m *Member) SetTag(key, value string) error {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if value == "" {
		delete(m.tags, key)
	} else {
		m.tags[key] = value
	}
	m.c.notifyLocked()
	m.notifyOwnLocked()
	return nil
}

// Handle answers requests on a topic.
func (m *Member) Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func()) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if topic == "" || m.c.longest > 0 && len(topic) > m.c.longest {
		panic(fmt.Sprintf("electiontest: Handle(%q): the topic has %d bytes", topic, len(topic)))
	}
	m.handlers[topic] = fn
	return func() {
		m.c.mu.Lock()
		defer m.c.mu.Unlock()
		delete(m.handlers, topic)
	}
}

var errGone = errors.New("electiontest: the member is gone")

// Request asks a member. It fails when the member is removed or cut off before it answers.
func (m *Member) Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error) {
	m.c.mu.Lock()
	o, cut := m.c.members[to], m.c.cut[[2]string{m.id, to}] || m.c.members[m.id] != m
	var fn func(ctx context.Context, from string, payload []byte) ([]byte, error)
	if o != nil {
		fn = o.handlers[topic]
	}
	m.c.mu.Unlock()
	switch {
	case o == nil || cut:
		return nil, fmt.Errorf("electiontest: %s cannot reach %s", m.id, to)
	case fn == nil:
		return nil, fmt.Errorf("electiontest: %s has no handler for %q", to, topic)
	}
	type reply struct {
		payload []byte
		err     error
	}
	done := make(chan reply, 1)
	m.c.calls.Go(func() { // a request outlives its caller, as over a network
		b, err := fn(context.WithoutCancel(ctx), m.id, slices.Clone(payload))
		done <- reply{b, err}
	})
	select {
	case r := <-done:
		return r.payload, r.err
	case <-o.gone:
		return nil, errGone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
