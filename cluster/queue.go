package cluster

import (
	"bytes"
	"sync"
)

const (
	smallPayload = 8 << 10  // what is at most that long is copied into a chunk with others
	chunkBytes   = 64 << 10 // of a chunk, once a queue has much to do
	firstChunk   = 1 << 10
	giveStep     = 16 << 10 // bytes after which a sender gets its credit back
	quietSweeps  = 4        // after so many without work a queue ends
)

// queue is what one sender has sent to one topic and is not handled yet. Its goroutine exchanges the batch that is being filled for an empty one
// and gives the messages to the handler one after the other; both batches keep their memory, so that a message costs a copy and no allocation.
type queue struct {
	from  string
	topic *topic
	wake  chan struct{}

	mu    sync.Mutex
	fill  batch
	idle  bool // the goroutine waits for wake
	over  bool // nothing may be added any more
	quiet int
}

// item is one message in a batch.
type item struct {
	payload []byte
	id      uint64
	reply   func(answer []byte, err error)
	credit  *credit
}

// batch is messages with the memory of their payloads.
type batch struct {
	items []item
	chunk []byte   // being filled
	full  [][]byte // chunks of chunkBytes
}

var chunkPool = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

func newQueue(from string, t *topic) *queue {
	return &queue{from: from, topic: t, wake: make(chan struct{}, 1)}
}

// add copies a message into the batch.
func (x *batch) add(payload []byte, id uint64, reply func([]byte, error), c *credit) {
	n := len(payload)
	if n > smallPayload {
		x.items = append(x.items, item{bytes.Clone(payload), id, reply, c})
		return
	}
	if len(x.chunk)+n > cap(x.chunk) {
		x.grow(n)
	}
	at := len(x.chunk)
	x.chunk = append(x.chunk, payload...)
	x.items = append(x.items, item{x.chunk[at:len(x.chunk):len(x.chunk)], id, reply, c})
}

func (x *batch) grow(n int) {
	if cap(x.chunk) == chunkBytes {
		x.full = append(x.full, x.chunk)
	}
	if size := max(2*cap(x.chunk), firstChunk, n); size < chunkBytes {
		x.chunk = make([]byte, 0, size) // what is in the old one stays there
		return
	}
	x.chunk = chunkPool.Get().(*[chunkBytes]byte)[:0]
}

// reset empties the batch for the next messages.
func (x *batch) reset() {
	clear(x.items)
	x.items, x.chunk = x.items[:0], x.chunk[:0]
	for i, c := range x.full {
		chunkPool.Put((*[chunkBytes]byte)(c[:chunkBytes]))
		x.full[i] = nil
	}
	x.full = x.full[:0]
}

// push adds a message. owned says that the payload need not be copied.
func (q *queue) push(d delivery, owned bool) {
	q.mu.Lock()
	if owned {
		q.fill.items = append(q.fill.items, item{d.payload, d.id, d.reply, d.credit})
	} else {
		q.fill.add(d.payload, d.id, d.reply, d.credit)
	}
	q.unlockFilled()
}

// unlockFilled ends an addition.
func (q *queue) unlockFilled() {
	wake := q.idle
	q.idle, q.quiet = false, 0
	q.mu.Unlock()
	if wake {
		q.wake <- struct{}{} // has room: the goroutine was idle
	}
}

func (q *queue) isIdle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.idle
}

func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.fill.items)
}

// end lets the goroutine end, after what is queued.
func (q *queue) end() {
	q.mu.Lock()
	q.over = true
	q.unlockFilled()
}

// endIfQuiet ends a queue that has had no work for a while.
func (q *queue) endIfQuiet() bool {
	q.mu.Lock()
	if q.quiet++; !q.idle || q.quiet < quietSweeps {
		q.mu.Unlock()
		return false
	}
	q.over = true
	q.unlockFilled()
	return true
}

// next waits for messages and exchanges them for an empty batch; false when the queue has ended.
func (q *queue) next(work *batch) bool {
	q.mu.Lock()
	for len(q.fill.items) == 0 {
		if q.over {
			q.mu.Unlock()
			return false
		}
		q.idle = true
		q.mu.Unlock()
		<-q.wake
		q.mu.Lock()
	}
	*work, q.fill = q.fill, *work
	q.mu.Unlock()
	return true
}

// run handles what comes until the queue ends.
func (b *inbox) run(q *queue) {
	var work batch
	for q.next(&work) {
		var owed int64
		var to *credit
		for i := range work.items {
			it := &work.items[i]
			b.call(q.from, q.topic, it)
			if it.credit != to || owed >= giveStep {
				if to != nil {
					to.give(owed)
				}
				to, owed = it.credit, 0
			}
			owed += cost(q.topic.name, it.payload)
		}
		if to != nil {
			to.give(owed)
		}
		b.handled.Add(uint64(len(work.items)))
		work.reset()
	}
}
