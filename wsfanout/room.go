package wsfanout

import (
	"context"
	"sync"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/sock"
)

// slice is how many subscribers of a topic are served before others have their turn: a message for one never waits for the rest of one for
// thousands. Topics with more of them are large.
const slice = 256

// room is a topic with subscribers here. What is to be done for a large one waits in its queue, in order.
type room struct {
	topic  string
	opts   TopicOptions
	subs   []*sub
	queue  []*cast
	at     int           // how many of subs have had the first of queue
	listed bool          // in hub.large
	space  chan struct{} // closed when the queue has become short; nil: nobody waits

	latest    map[string]*latest // of a topic with Conflate: the newest ephemeral message of each key
	ephemeral uint64             // how many of those there have been
}

// cast is one event of the protocol on its way to the subscribers. Exactly one of answer and deliver is set.
type cast struct {
	answer  *home.Answer
	deliver *home.Deliver
	frames  []*prepared // of deliver.Records
}

func (r *room) lane() sock.Lane {
	if len(r.subs) > slice {
		return sock.Bulk
	}
	return sock.Direct
}

func (r *room) add(s *sub) {
	s.index = len(r.subs)
	r.subs = append(r.subs, s)
}

// remove takes the last one's place. Those that have had the first of queue stay before those that have not.
func (r *room) remove(s *sub) {
	move := func(to, from int) int {
		r.subs[to] = r.subs[from]
		r.subs[to].index = to
		return from
	}
	i := s.index
	if i < r.at {
		r.at--
		i = move(i, r.at)
	}
	i = move(i, len(r.subs)-1)
	r.subs[i] = nil
	r.subs = r.subs[:i]
}

// eventLocked begins with an event: at once when it concerns few, else it waits for its turn.
func (h *Hub) eventLocked(topic string, c *cast) {
	r := h.rooms[topic]
	switch {
	case r == nil:
		return
	case len(r.queue) == 0 && (c.answer != nil || len(r.subs) <= slice):
		h.castLocked(r, c, 0, len(r.subs))
		return
	}
	r.queue = append(r.queue, c)
	h.backlog.Add(1)
	if !r.listed {
		r.listed = true
		h.large = append(h.large, r)
		h.wakeWorker()
	}
}

func (h *Hub) wakeWorker() {
	select {
	case h.wakeLarge <- struct{}{}:
	default:
	}
}

// roomy are sockets that have room again, and wait for their turn.
type roomy struct {
	sync.Mutex
	conns []*Conn
}

// roomySlice is how many of them have their turn at once: each may be given as many records as it has room for.
const roomySlice = 4

// roomyLocked goes on with some sockets that have room again. It reports whether there are more.
func (h *Hub) roomyLocked() bool {
	h.roomy.Lock()
	n := min(roomySlice, len(h.roomy.conns))
	var some [roomySlice]*Conn
	copy(some[:], h.roomy.conns[:n])
	clear(h.roomy.conns[:n])
	if h.roomy.conns = h.roomy.conns[n:]; len(h.roomy.conns) == 0 {
		h.roomy.conns = nil
	}
	more := len(h.roomy.conns) > 0
	h.roomy.Unlock()
	for _, c := range some[:n] {
		h.roomLocked(c)
	}
	return more
}

// castLocked carries out an event for some of the subscribers.
func (h *Hub) castLocked(r *room, c *cast, from, to int) {
	if c.answer != nil {
		h.answerLocked(c.answer)
		return
	}
	if c.frames == nil {
		c.frames = make([]*prepared, len(c.deliver.Records))
		for i, rec := range c.deliver.Records {
			c.frames[i] = h.prepareLocked(r.topic, rec)
			h.keepLocked(r, rec, c.frames[i])
		}
	}
	lane := r.lane()
	for _, s := range r.subs[from:to] {
		h.deliverLocked(s, c, lane)
	}
}

// sliceLocked serves some of the subscribers of the large topic whose turn it is. It reports whether there is more to do.
func (h *Hub) sliceLocked() bool {
	if len(h.large) == 0 {
		return false
	}
	r := h.large[0]
	h.large = append(h.large[:0], h.large[1:]...)
	if len(r.queue) > 0 {
		c := r.queue[0]
		n := slice
		if c.deliver != nil {
			n = max(1, slice/max(1, len(c.deliver.Records)))
		}
		to := min(len(r.subs), r.at+n)
		if c.answer != nil {
			to = len(r.subs)
		}
		from := r.at
		r.at = to
		h.castLocked(r, c, from, to)
		if r.at >= len(r.subs) {
			r.at = 0
			r.queue[0] = nil
			r.queue = r.queue[1:]
			h.backlog.Add(-1)
			r.spaceLocked()
		}
	}
	if r.listed = len(r.queue) > 0; r.listed {
		h.large = append(h.large, r)
	} else {
		r.queue = nil
	}
	return len(h.large) > 0
}

// serveLarge serves large topics in turn until ctx ends.
func (h *Hub) serveLarge(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wakeLarge:
		}
		turn := time.Now()
		for more := true; more && ctx.Err() == nil; {
			h.exec.Lock()
			h.drainLocked()
			more = h.sliceLocked()
			more = h.roomyLocked() || more
			h.exec.Unlock()
			if time.Since(turn) > time.Millisecond/2 {
				sock.Yield()
				turn = time.Now()
			}
		}
		h.flush()
	}
}

// roomFull is how many events of one large topic may wait before its publishers do. backlogFull is the same for all of them together and for the
// handlers of peers, which bring other topics as well and so have to wait as late as possible.
const (
	roomFull    = 16
	backlogFull = 4096
)

// holdBack lets a publisher to a large topic wait while this node is behind with it. Others pass.
func (h *Hub) holdBack(ctx context.Context, topic string) {
	for h.backlog.Load() >= roomFull {
		var space chan struct{}
		h.with(func() {
			if r := h.rooms[topic]; r != nil && len(r.queue) >= roomFull {
				if r.space == nil {
					r.space = make(chan struct{})
				}
				space = r.space
			}
		})
		if space == nil {
			return
		}
		select {
		case <-space:
		case <-ctx.Done():
			return
		case <-h.life.Done():
			return
		}
	}
}

// holdPeer lets a link wait while this node is very far behind.
func (h *Hub) holdPeer() {
	for h.backlog.Load() > backlogFull {
		h.exec.Lock()
		h.drainLocked()
		h.sliceLocked()
		h.exec.Unlock()
	}
}

func (r *room) spaceLocked() {
	if r.space != nil && len(r.queue) < roomFull/2 {
		close(r.space)
		r.space = nil
	}
}

// dropRoomLocked forgets a topic without subscribers.
func (h *Hub) dropRoomLocked(r *room) {
	delete(h.rooms, r.topic)
	h.backlog.Add(int64(-len(r.queue)))
	r.queue, r.at = nil, 0
	r.spaceLocked()
}
