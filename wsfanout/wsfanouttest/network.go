package wsfanouttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

var errGone = errors.New("wsfanouttest: no such process")

// Network joins Transports of one test. What one posts to another arrives in order. It is safe for concurrent use.
type Network struct {
	mu    sync.Mutex
	nodes []*Transport
	cut   map[[2]string]bool
	wg    sync.WaitGroup
	ended bool
}

// NewNetwork returns an empty network. Close it at the end.
func NewNetwork() *Network {
	return &Network{cut: map[[2]string]bool{}}
}

// Transport is one process's end. It satisfies wsfanout.Transport.
type Transport struct {
	net *Network
	id  string

	// guarded by net.mu
	fates    map[string]string
	handlers map[string]func(ctx context.Context, from string, payload []byte) ([]byte, error)
	notify   map[chan<- struct{}]int
	queues   map[string]*queue
	dead     bool
	paused   bool
}

type queue struct {
	items []message
	cond  *sync.Cond // of Network.mu
}

// wake lets every queue look again at what is cut, paused or dead.
func (n *Network) wake() {
	for _, t := range n.nodes {
		for _, q := range t.queues {
			q.cond.Broadcast()
		}
	}
}

type message struct {
	topic   string
	payload []byte
}

// Join adds a process that sees, and is seen by, all that live.
func (n *Network) Join(name string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &Transport{
		net: n, id: fmt.Sprintf("%s-%d", name, len(n.nodes)), fates: map[string]string{}, queues: map[string]*queue{},
		handlers: map[string]func(context.Context, string, []byte) ([]byte, error){}, notify: map[chan<- struct{}]int{},
	}
	t.fates[t.id] = "alive"
	for _, o := range n.nodes {
		if !o.dead {
			o.fates[t.id] = "alive"
			t.fates[o.id] = "alive"
		}
	}
	n.nodes = append(n.nodes, t)
	for _, o := range n.nodes {
		o.changed()
	}
	return t
}

// Close ends all deliveries.
func (n *Network) Close() {
	n.mu.Lock()
	n.ended = true
	n.wake()
	n.mu.Unlock()
	n.wg.Wait()
}

// Kill is the death of a process: nothing from it or to it arrives any more, and the others know at once.
func (n *Network) Kill(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.dead = true
	for _, o := range n.nodes {
		if o != t && o.fates[t.id] != "" {
			o.fates[t.id] = "dead"
			o.changed()
		}
	}
	n.wake()
}

// Leave is a process that has said goodbye.
func (n *Network) Leave(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.dead = true
	for _, o := range n.nodes {
		if o != t && o.fates[t.id] != "" {
			o.fates[t.id] = "left"
			o.changed()
		}
	}
	n.wake()
}

// SetFate changes what one process thinks of another.
func (n *Network) SetFate(of, by *Transport, fate string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	by.fates[of.id] = fate
	by.changed()
}

// Cut holds all messages between two processes until Heal; each thinks that the other has failed.
func (n *Network) Cut(a, b *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a.id, b.id}], n.cut[[2]string{b.id, a.id}] = true, true
	a.fates[b.id], b.fates[a.id] = "failed", "failed"
	a.changed()
	b.changed()
}

// Heal delivers what a Cut has held.
func (n *Network) Heal(a, b *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]string{a.id, b.id})
	delete(n.cut, [2]string{b.id, a.id})
	a.fates[b.id], b.fates[a.id] = "alive", "alive"
	a.changed()
	b.changed()
	n.wake()
}

// Pause holds all messages to and from a process until Resume. What others think of it is SetFate's.
func (n *Network) Pause(t *Transport) { n.setPaused(t, true) }

// Resume delivers what a Pause has held.
func (n *Network) Resume(t *Transport) { n.setPaused(t, false) }

func (n *Network) setPaused(t *Transport, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.paused = on
	n.wake()
}

func (t *Transport) changed() {
	for c := range t.notify {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// ID of the process.
func (t *Transport) ID() string { return t.id }

// Alive is what this process thinks.
func (t *Transport) Alive() []string {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	var ids []string
	for id, f := range t.fates {
		if f == "alive" || f == "suspect" || f == "draining" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Fate of another process.
func (t *Transport) Fate(id string) string {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	return t.fates[id]
}

// Notify as cluster.Node's.
func (t *Transport) Notify(c chan<- struct{}) (stop func()) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.notify[c]++
	return func() {
		t.net.mu.Lock()
		defer t.net.mu.Unlock()
		if t.notify[c]--; t.notify[c] == 0 {
			delete(t.notify, c)
		}
	}
}

// Handle as cluster.Node's.
func (t *Transport) Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func()) {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	t.handlers[topic] = fn
	return func() {
		t.net.mu.Lock()
		defer t.net.mu.Unlock()
		delete(t.handlers, topic)
	}
}

// Post queues without bound.
func (t *Transport) Post(ctx context.Context, to, topic string, payload []byte) error {
	n := t.net
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.nodes, func(o *Transport) bool { return o.id == to })
	if i < 0 || n.nodes[i].dead || n.ended {
		return errGone
	}
	if t.dead {
		return nil
	}
	q := t.queues[to]
	if q == nil {
		q = &queue{cond: sync.NewCond(&n.mu)}
		t.queues[to] = q
		n.wg.Go(func() { t.carry(n.nodes[i], q) })
	}
	q.items = append(q.items, message{topic, slices.Clone(payload)})
	q.cond.Signal()
	return nil
}

// carry delivers what t posts to one other process.
func (t *Transport) carry(to *Transport, q *queue) {
	n := t.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		for !n.ended && !t.dead && !to.dead && (len(q.items) == 0 || t.paused || to.paused || n.cut[[2]string{t.id, to.id}]) {
			q.cond.Wait()
		}
		if n.ended || t.dead || to.dead {
			q.items = nil
			return
		}
		m := q.items[0]
		q.items = q.items[1:]
		fn := to.handlers[m.topic]
		n.mu.Unlock()
		if fn != nil {
			_, _ = fn(context.Background(), t.id, m.payload)
		}
		n.mu.Lock()
	}
}

// TryPost as Post.
func (t *Transport) TryPost(to, topic string, payload []byte) error {
	return t.Post(context.Background(), to, topic, payload)
}

// PostBulk as Post.
func (t *Transport) PostBulk(ctx context.Context, to, topic string, payload []byte) error {
	return t.Post(ctx, to, topic, payload)
}
