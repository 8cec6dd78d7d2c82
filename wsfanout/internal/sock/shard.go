package sock

import (
	"context"
	"sync"
	"time"
)

const (
	sliceLen  = 32               // sockets of the bulk lane that are written before the direct lane is looked at again
	yieldTime = time.Millisecond // after which a worker lets other goroutines run, and the network be looked at
	lagFirst  = time.Millisecond // until a socket that took nothing is tried again; doubles with each try that was in vain
	lagLevels = 9                // up to 256 ms
	keepShort = 8192             // lists for up to shortList frames that are kept for later
	shortList = 16
	keepLong  = 512 // for up to longList frames; longer ones are not kept
	longList  = 64
)

// Lane is how urgent a frame is. What goes to few sockets is not held up by what goes to many.
type Lane uint8

const (
	Direct Lane = iota
	Bulk
)

// shard is one worker and the sockets that have something to write.
type shard struct {
	wake chan struct{}

	mu    sync.Mutex
	lanes [2][]*Socket
	bufs  [][]*Frame // empty lists

	// of the worker alone
	taken   [2][]*Socket
	next    [2]int // in taken
	spare   [][]*Frame
	long    [][]*Frame
	lag     [lagLevels][]*Socket // whose kernel buffer is full
	due     [lagLevels]time.Time
	again   []*Socket
	scratch []byte
	joined  []*Frame // the frames that scratch holds
	timer   *time.Timer
}

func newShard() *shard { return &shard{wake: make(chan struct{}, 1)} }

// Yield lets others run that became ready meanwhile. runtime.Gosched does not do: while goroutines are runnable on all threads, the runtime looks
// at the network only every 10 ms, and whoever a message for one comes from, or goes to, would wait for that long.
func Yield() { time.Sleep(time.Microsecond) }

// push queues a socket for the worker, and returns an empty list when there is one and it needs one.
func (h *shard) push(s *Socket, l Lane, needy bool) (buf []*Frame) {
	h.mu.Lock()
	h.lanes[l] = append(h.lanes[l], s)
	if n := len(h.bufs); needy && n > 0 {
		buf, h.bufs = h.bufs[n-1], h.bufs[:n-1]
	}
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return buf
}

func (h *shard) run(ctx context.Context) {
	h.timer = time.NewTimer(time.Hour)
	defer h.timer.Stop()
	turn := time.Now()
	for ctx.Err() == nil {
		h.take()
		h.write(Direct, len(h.taken[Direct]))
		h.write(Bulk, sliceLen)
		now := time.Now()
		h.retry(now)
		if h.next[Bulk] < len(h.taken[Bulk]) {
			if now.Sub(turn) > yieldTime {
				Yield()
				turn = time.Now()
			}
			continue
		}
		if cap(h.scratch) > 1<<20 {
			h.scratch, h.joined = nil, nil // one large burst must not be kept for ever
		}
		select {
		case <-ctx.Done():
		case <-h.wake:
		case <-h.nextTry():
		}
		turn = time.Now()
	}
}

// take moves what others have queued to the worker.
func (h *shard) take() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.lanes {
		if h.next[l] == len(h.taken[l]) {
			h.taken[l], h.lanes[l], h.next[l] = h.lanes[l], h.taken[l][:0], 0
		}
	}
	if n := min(len(h.spare)-sliceLen, keepShort-len(h.bufs)); n > 0 {
		k := len(h.spare) - n
		h.bufs = append(h.bufs, h.spare[k:]...)
		clear(h.spare[k:])
		h.spare = h.spare[:k]
	}
}

func (h *shard) write(l Lane, n int) {
	for ; n > 0 && h.next[l] < len(h.taken[l]); n-- {
		s := h.taken[l][h.next[l]]
		h.taken[l][h.next[l]] = nil
		h.next[l]++
		s.write(h, l)
	}
}

// list returns an empty list.
func (h *shard) list() []*Frame {
	from := &h.long
	if len(*from) == 0 {
		from = &h.spare
	}
	n := len(*from)
	if n == 0 {
		return make([]*Frame, 0, 8)
	}
	b := (*from)[n-1]
	(*from)[n-1] = nil
	*from = (*from)[:n-1]
	return b
}

// give takes a list back.
func (h *shard) give(b []*Frame) {
	to, most := &h.spare, keepShort
	switch {
	case cap(b) == 0 || cap(b) > longList:
		return
	case cap(b) > shortList:
		to, most = &h.long, keepLong
	}
	if len(*to) < most {
		b = b[:cap(b)]
		clear(b)
		*to = append(*to, b[:0])
	}
}

// later puts a socket that the kernel takes nothing for on the list of those that are tried again: polled, as that costs no memory for a socket
// that stands still for long.
func (h *shard) later(s *Socket) {
	k := s.level
	if len(h.lag[k]) == 0 {
		h.due[k] = time.Now().Add(lagFirst << k)
	}
	h.lag[k] = append(h.lag[k], s)
}

// retry writes to the sockets whose time has come.
func (h *shard) retry(now time.Time) {
	for k := range h.lag {
		if len(h.lag[k]) == 0 || now.Before(h.due[k]) {
			continue
		}
		h.again, h.lag[k] = h.lag[k], h.again[:0]
		h.due[k] = now.Add(lagFirst << k)
		for i, s := range h.again {
			h.again[i] = nil
			s.tryAgain(h, now)
		}
	}
}

// nextTry fires when retry has something to do.
func (h *shard) nextTry() <-chan time.Time {
	var first time.Time
	for k := range h.lag {
		if len(h.lag[k]) > 0 && (first.IsZero() || h.due[k].Before(first)) {
			first = h.due[k]
		}
	}
	if first.IsZero() {
		return nil
	}
	h.timer.Reset(max(0, time.Until(first)))
	return h.timer.C
}

// join returns the bytes of the frames. Sockets of one topic mostly wait for the same frames: then the bytes are those of the last call.
func (h *shard) join(frames []*Frame, off int) []byte {
	if len(frames) == 1 {
		return frames[0].b[off:]
	}
	if same(h.joined, frames) {
		return h.scratch[off:]
	}
	h.scratch = h.scratch[:0]
	for _, f := range frames {
		h.scratch = append(h.scratch, f.b...)
	}
	h.joined = append(h.joined[:0], frames...)
	return h.scratch[off:]
}

func same(a, b []*Frame) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
