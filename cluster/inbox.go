package cluster

import (
	"context"
	"sync"
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
	payload []byte
	done    func()                         // gives the sender's credit back; may be nil
	reply   func(answer []byte, err error) // nil: nobody asked
	at      time.Time
}

func (d *delivery) release() {
	if d.done != nil {
		d.done()
		d.done = nil
	}
}

type laneKey struct{ from, topic string }

// inbox brings messages to handlers: for one sender and topic one at a time and in order, all others beside it. Each pair that has work has a
// goroutine while it has work. What is queued holds its link's credit, so a handler that does not keep up slows its senders down.
type inbox struct {
	spawn func(func())
	ctx   context.Context

	mu       sync.Mutex
	handlers map[string][]*registration // the last one is in charge
	retired  map[string]bool            // topics whose last handler was stopped
	queues   map[laneKey]*queue
	parked   map[string]*parking
	bytes    int // parked in all
	closed   bool
	warned   map[string]bool // topics whose losses were reported
	dropped  uint64
	handled  uint64
}

type registration struct {
	fn     Handler
	inline bool // runs in deliver
}

type queue struct{ items []delivery }

type parking struct {
	items []parkedItem
	bytes int
}

type parkedItem struct {
	topic string
	d     delivery
}

func newInbox() *inbox {
	return &inbox{handlers: map[string][]*registration{}, retired: map[string]bool{}, queues: map[laneKey]*queue{}, parked: map[string]*parking{}, warned: map[string]bool{}}
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
	b.closed = true
	var drop []delivery
	for k, q := range b.queues {
		drop = append(drop, q.items...)
		q.items = nil
		delete(b.queues, k)
	}
	for _, p := range b.parked {
		for _, it := range p.items {
			drop = append(drop, it.d)
		}
	}
	b.parked, b.bytes = map[string]*parking{}, 0
	b.mu.Unlock()
	for i := range drop {
		if drop[i].reply != nil {
			drop[i].reply(nil, ErrClosed)
		}
		drop[i].release()
	}
}

// handle puts fn in charge of topic and hands over what was held for it.
func (b *inbox) handle(topic string, fn Handler) (stop func()) {
	return b.register(topic, &registration{fn: fn})
}

func (b *inbox) register(topic string, r *registration) (stop func()) {
	b.mu.Lock()
	b.handlers[topic] = append(b.handlers[topic], r)
	delete(b.retired, topic)
	if p := b.parked[topic]; p != nil {
		delete(b.parked, topic)
		b.bytes -= p.bytes
		for _, it := range p.items {
			b.pushLocked(topic, it.d)
		}
	}
	b.mu.Unlock()
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		rs := b.handlers[topic]
		for i := range rs {
			if rs[i] == r {
				rs = append(rs[:i:i], rs[i+1:]...)
				break
			}
		}
		if len(rs) == 0 {
			delete(b.handlers, topic)
			b.retired[topic] = true
			return
		}
		b.handlers[topic] = rs
	})
}

// deliver takes a message. It never blocks; the sender's credit bounds what can be queued.
func (b *inbox) deliver(topic string, d delivery) {
	b.mu.Lock()
	switch {
	case b.closed:
		b.mu.Unlock()
		refuse(d, ErrClosed)
		return
	case len(b.handlers[topic]) > 0:
		rs := b.handlers[topic]
		if rs[len(rs)-1].inline && b.spawn != nil && b.queues[laneKey{d.from, topic}] == nil {
			b.handled++
			b.mu.Unlock()
			b.call(topic, &d)
			return
		}
		b.pushLocked(topic, d)
		b.mu.Unlock()
		return
	case b.retired[topic]:
		b.dropped++
		b.mu.Unlock()
		refuse(d, ErrNoHandler)
		return
	}
	ok := b.parkLocked(topic, d)
	if !ok {
		b.dropped++
	}
	b.mu.Unlock()
	if !ok {
		refuse(d, ErrNoHandler)
		return
	}
	d.release()
}

func refuse(d delivery, err error) {
	if d.reply != nil {
		d.reply(nil, err)
	}
	d.release()
}

// parkLocked holds a message for a topic whose product has not registered its handler yet.
func (b *inbox) parkLocked(topic string, d delivery) bool {
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
	d.done = nil
	p.items = append(p.items, parkedItem{topic, d})
	p.bytes += n
	b.bytes += n
	return true
}

// sweep drops what was held too long, answers requests that nobody will, and returns the topics that lost messages for the first time.
func (b *inbox) sweep(now time.Time) (lost []string) {
	b.mu.Lock()
	var drop []delivery
	for topic, p := range b.parked {
		keep := p.items[:0]
		for _, it := range p.items {
			limit := parkFor
			if it.d.reply != nil {
				limit = noHandler
			}
			if now.Sub(it.d.at) < limit {
				keep = append(keep, it)
				continue
			}
			drop = append(drop, it.d)
			p.bytes -= len(it.d.payload) + 128
			b.bytes -= len(it.d.payload) + 128
			if it.d.reply == nil {
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
	b.mu.Unlock()
	for _, d := range drop {
		refuse(d, ErrNoHandler)
	}
	return lost
}

// pushLocked queues a message, and starts the queue's goroutine when it had no work.
func (b *inbox) pushLocked(topic string, d delivery) {
	k := laneKey{d.from, topic}
	if q := b.queues[k]; q != nil {
		q.items = append(q.items, d)
		return
	}
	q := &queue{items: []delivery{d}}
	b.queues[k] = q
	if b.spawn != nil {
		b.spawn(func() { b.run(k, q) })
	}
}

func (b *inbox) run(k laneKey, q *queue) {
	for {
		b.mu.Lock()
		if len(q.items) == 0 || b.closed {
			if b.queues[k] == q {
				delete(b.queues, k)
			}
			b.mu.Unlock()
			return
		}
		batch := q.items
		q.items = nil
		b.handled += uint64(len(batch))
		b.mu.Unlock()
		for i := range batch {
			b.call(k.topic, &batch[i])
		}
	}
}

func (b *inbox) call(topic string, d *delivery) {
	b.mu.Lock()
	var fn Handler
	if rs := b.handlers[topic]; len(rs) > 0 && !b.closed {
		fn = rs[len(rs)-1].fn
	}
	b.mu.Unlock()
	if fn == nil {
		refuse(*d, ErrNoHandler)
		return
	}
	answer, err := fn(b.ctx, d.from, d.payload)
	if d.reply != nil {
		d.reply(answer, err)
	}
	d.release()
}

// figures are the counts of messages handled, waiting and dropped for want of a handler.
func (b *inbox) figures() (handled uint64, waiting int, dropped uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.queues {
		waiting += len(q.items)
	}
	for _, p := range b.parked {
		waiting += len(p.items)
	}
	return b.handled, waiting, b.dropped
}
