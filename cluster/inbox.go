package cluster

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Handler is what Handle registers. It is an alias, so that other packages can name the same type without importing this one.
type Handler = func(ctx context.Context, from string, payload []byte) ([]byte, error)

const (
	parkTopic  = 4 << 20          // bytes held for a topic that has no handler yet
	parkTotal  = 16 << 20         // and for all such topics
	parkFor    = 60 * time.Second // and how long
	noHandler  = time.Second      // how long a request waits for its topic's handler
	parkTopics = 1024
)

// delivery is one message on its way to a handler.
type delivery struct {
	from    string
	payload []byte                         // the caller's: what is kept is copied
	id      uint64                         // of the request of another process; 0: it wants no answer
	reply   func(answer []byte, err error) // to a request of this process
	credit  *credit                        // of the sender, in which the message holds its cost
	at      time.Time
}

// cost is what a message holds of its sender's credit.
func cost(topic string, payload []byte) int64 {
	return min(int64(len(payload)+len(topic)+64), inboxCredit)
}

type laneKey struct{ from, topic string }

// inbox brings messages to handlers: for one sender and topic one at a time and in order, all others beside it. Each pair that has work, or had
// some lately, has a queue with a goroutine. What is queued holds its link's credit, so a handler that does not keep up slows its senders down.
type inbox struct {
	spawn  func(func())
	ctx    context.Context
	answer func(to string, id uint64, answer []byte, err error) // to a request of another process; it may wait for room

	closed  atomic.Bool
	handled atomic.Uint64

	mu      sync.Mutex // before the mutex of a queue
	topics  map[string]*topic
	queues  map[laneKey]*queue
	parked  map[string]*parking
	bytes   int             // parked in all
	warned  map[string]bool // topics whose losses were reported
	dropped uint64
}

// topic is one that has or had a handler here.
type topic struct {
	name     string
	current  atomic.Pointer[registration] // the newest; nil: the last one was stopped
	handlers []*registration
}

type registration struct {
	fn     Handler
	inline bool // runs in deliver
}

type parking struct {
	items []delivery
	bytes int
}

func newInbox() *inbox {
	return &inbox{topics: map[string]*topic{}, queues: map[laneKey]*queue{}, parked: map[string]*parking{}, warned: map[string]bool{}}
}

// start lets deliveries run; before that they wait.
func (b *inbox) start(ctx context.Context, spawn func(func())) {
	b.mu.Lock()
	b.ctx, b.spawn = ctx, spawn
	b.mu.Unlock()
}

// close drops what waits and takes nothing more.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed.Store(true)
	for k, q := range b.queues {
		q.end()
		delete(b.queues, k)
	}
	parked := b.parked
	b.parked, b.bytes = map[string]*parking{}, 0
	b.mu.Unlock()
	for _, p := range parked {
		for i := range p.items {
			b.refuse(p.items[i], ErrClosed)
		}
	}
}

// handle puts fn in charge of topic and hands over what was held for it.
func (b *inbox) handle(topic string, fn Handler) (stop func()) {
	return b.register(topic, &registration{fn: fn})
}

func (b *inbox) register(name string, r *registration) (stop func()) {
	b.mu.Lock()
	t := b.topics[name]
	if t == nil {
		t = &topic{name: name}
		b.topics[name] = t
	}
	t.handlers = append(t.handlers, r)
	t.current.Store(r)
	if p := b.parked[name]; p != nil {
		delete(b.parked, name)
		b.bytes -= p.bytes
		for i := range p.items {
			b.queueLocked(p.items[i].from, t).push(p.items[i], true)
		}
	}
	b.mu.Unlock()
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		var newest *registration
		for i, x := range t.handlers {
			if x == r {
				t.handlers = append(t.handlers[:i:i], t.handlers[i+1:]...)
				break
			}
		}
		if n := len(t.handlers); n > 0 {
			newest = t.handlers[n-1]
		}
		t.current.Store(newest)
	})
}

// queueLocked returns the queue of a sender and topic.
func (b *inbox) queueLocked(from string, t *topic) *queue {
	k := laneKey{from, t.name}
	q := b.queues[k]
	if q == nil {
		q = newQueue(from, t)
		b.queues[k] = q
		if b.spawn != nil {
			b.spawn(func() { b.run(q) })
		}
	}
	return q
}

// find returns the queue that a message of a sender may be added to without deliver; nil when there is none.
func (b *inbox) find(from string, name []byte) *queue {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[string(name)]
	if t == nil || b.closed.Load() || b.spawn == nil {
		return nil
	}
	if r := t.current.Load(); r == nil || r.inline {
		return nil
	}
	return b.queueLocked(from, t)
}

// deliver takes a message. It never waits for a handler; the sender's credit bounds what can be queued.
func (b *inbox) deliver(name string, d delivery) {
	owned := len(d.payload) > smallPayload
	if owned {
		d.payload = bytes.Clone(d.payload) // not under the lock
	}
	b.mu.Lock()
	t := b.topics[name]
	switch {
	case b.closed.Load():
		b.mu.Unlock()
		b.refuse(d, ErrClosed)
	case t == nil:
		ok := b.parkLocked(name, d, owned)
		if !ok {
			b.dropped++
		}
		b.mu.Unlock()
		if !ok {
			b.refuse(d, ErrNoHandler)
		} else if d.credit != nil {
			d.credit.give(cost(name, d.payload))
		}
	case t.current.Load() == nil:
		b.dropped++
		b.mu.Unlock()
		if d.credit != nil {
			d.credit.give(cost(name, d.payload))
			d.credit = nil
		}
		b.refuse(d, ErrNoHandler)
	default:
		if r := t.current.Load(); r.inline && b.spawn != nil {
			if q := b.queues[laneKey{d.from, name}]; q == nil || q.isIdle() {
				b.mu.Unlock()
				b.handled.Add(1)
				it := item{payload: d.payload, id: d.id, reply: d.reply}
				b.call(d.from, t, &it)
				if d.credit != nil {
					d.credit.give(cost(name, d.payload))
				}
				return
			}
		}
		b.queueLocked(d.from, t).push(d, owned)
		b.mu.Unlock()
	}
}

// refuse answers a request that no handler will.
func (b *inbox) refuse(d delivery, err error) {
	switch {
	case d.reply != nil:
		d.reply(nil, err)
	case d.id != 0:
		b.answer(d.from, d.id, nil, err)
	}
}

// parkLocked holds a message for a topic whose product has not registered its handler yet.
func (b *inbox) parkLocked(topic string, d delivery, owned bool) bool {
	p := b.parked[topic]
	if p == nil {
		if len(b.parked) >= parkTopics {
			return false
		}
		p = &parking{}
		b.parked[topic] = p
	}
	n := len(d.payload) + 128
	if p.bytes+n > parkTopic || b.bytes+n > parkTotal {
		return false
	}
	if !owned {
		d.payload = bytes.Clone(d.payload)
	}
	d.credit, d.at = nil, time.Now()
	p.items = append(p.items, d)
	p.bytes += n
	b.bytes += n
	return true
}

// sweep drops what was held too long, answers requests that nobody will, ends queues without work, and returns the topics that lost messages
// for the first time.
func (b *inbox) sweep(now time.Time) (lost []string) {
	b.mu.Lock()
	var drop []delivery
	for topic, p := range b.parked {
		keep := p.items[:0]
		for _, d := range p.items {
			limit := parkFor
			asked := d.reply != nil || d.id != 0
			if asked {
				limit = noHandler
			}
			if now.Sub(d.at) < limit {
				keep = append(keep, d)
				continue
			}
			drop = append(drop, d)
			p.bytes -= len(d.payload) + 128
			b.bytes -= len(d.payload) + 128
			if !asked {
				b.dropped++
				if !b.warned[topic] && len(b.warned) < parkTopics {
					b.warned[topic] = true
					lost = append(lost, topic)
				}
			}
		}
		clear(p.items[len(keep):])
		p.items = keep
		if len(keep) == 0 {
			delete(b.parked, topic)
		}
	}
	for k, q := range b.queues {
		if q.endIfQuiet() {
			delete(b.queues, k)
		}
	}
	spawn := b.spawn
	b.mu.Unlock()
	if len(drop) > 0 {
		spawn(func() { // an answer may wait for room
			for _, d := range drop {
				b.refuse(d, ErrNoHandler)
			}
		})
	}
	return lost
}

// call gives one message to the handler that is in charge now.
func (b *inbox) call(from string, t *topic, it *item) {
	r := t.current.Load()
	var answer []byte
	var err error
	switch {
	case b.closed.Load():
		err = ErrClosed
	case r == nil:
		err = ErrNoHandler
	default:
		answer, err = r.fn(b.ctx, from, it.payload)
	}
	switch {
	case it.reply != nil:
		it.reply(answer, err)
	case it.id != 0:
		b.answer(from, it.id, answer, err)
	}
}

// figures are the counts of messages handled, waiting and dropped for want of a handler.
func (b *inbox) figures() (handled uint64, waiting int, dropped uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.queues {
		waiting += q.waiting()
	}
	for _, p := range b.parked {
		waiting += len(p.items)
	}
	return b.handled.Load(), waiting, b.dropped
}
