package cluster

import (
	"bytes"
	"encoding/binary"
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

// item is one message on its way to call.
type item struct {
	payload []byte
	id      uint64
	reply   func(answer []byte, err error)
	credit  *credit
}

// batch is messages, in the order of their coming. A message that is short, wants no answer and is of the batch's credit, which are most, is 8 bytes
// of header and its payload in a chunk; of the others the header says where in items they are.
type batch struct {
	count  int
	credit *credit
	items  []item
	chunk  []byte   // being filled
	full   [][]byte // those before it
}

// A header is the length of the payload that follows, and 0; or the number of the item and 1.
const itemHeader = 8

var chunkPool = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

func newQueue(from string, t *topic) *queue {
	return &queue{from: from, topic: t, wake: make(chan struct{}, 1)}
}

// add adds a message. It is copied unless owned.
func (x *batch) add(it item, owned bool) {
	if x.count == 0 {
		x.credit = it.credit
	}
	x.count++
	n := len(it.payload)
	if owned || n > smallPayload || it.id != 0 || it.reply != nil || it.credit != x.credit {
		if !owned {
			it.payload = bytes.Clone(it.payload)
		}
		h := x.room(itemHeader)
		binary.LittleEndian.PutUint64(h, 1<<32|uint64(len(x.items)))
		x.items = append(x.items, it)
		return
	}
	b := x.room(itemHeader + n)
	binary.LittleEndian.PutUint64(b, uint64(n))
	copy(b[itemHeader:], it.payload)
}

// room returns n bytes at the end of the batch.
func (x *batch) room(n int) []byte {
	at := len(x.chunk)
	if at+n > cap(x.chunk) {
		x.grow(n)
		at = 0
	}
	x.chunk = x.chunk[:at+n]
	return x.chunk[at:]
}

func (x *batch) grow(n int) {
	if len(x.chunk) > 0 {
		x.full = append(x.full, x.chunk)
	}
	if size := max(2*cap(x.chunk), firstChunk, n); size < chunkBytes {
		x.chunk = make([]byte, 0, size)
		return
	}
	x.chunk = chunkPool.Get().(*[chunkBytes]byte)[:0]
}

// each calls fn for every message.
func (x *batch) each(fn func(it *item)) {
	var plain item
	for i := 0; i <= len(x.full); i++ {
		b := x.chunk
		if i < len(x.full) {
			b = x.full[i]
		}
		for len(b) > 0 {
			h := binary.LittleEndian.Uint64(b)
			b = b[itemHeader:]
			if h>>32 != 0 {
				fn(&x.items[uint32(h)])
				continue
			}
			plain = item{payload: b[:h:h], credit: x.credit}
			b = b[h:]
			fn(&plain)
		}
	}
}

// reset empties the batch for the next messages.
func (x *batch) reset() {
	clear(x.items)
	x.items, x.chunk, x.count, x.credit = x.items[:0], x.chunk[:0], 0, nil
	for i, c := range x.full {
		if cap(c) == chunkBytes {
			chunkPool.Put((*[chunkBytes]byte)(c[:chunkBytes]))
		}
		x.full[i] = nil
	}
	x.full = x.full[:0]
}

// push adds a message. owned says that the payload need not be copied.
func (q *queue) push(d delivery, owned bool) {
	q.mu.Lock()
	q.fill.add(item{d.payload, d.id, d.reply, d.credit}, owned)
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
	return q.fill.count
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
	for q.fill.count == 0 {
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
	var owed int64
	var to *credit
	handle := func(it *item) {
		b.call(q.from, q.topic, it)
		if it.credit != to || owed >= giveStep {
			to.give(owed)
			to, owed = it.credit, 0
		}
		owed += cost(q.topic.name, it.payload)
	}
	for q.next(&work) {
		work.each(handle)
		to.give(owed)
		to, owed = nil, 0
		b.handled.Add(uint64(work.count))
		work.reset()
	}
}
