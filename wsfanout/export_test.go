package wsfanout

import (
	"net"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
)

// SetUncertain shortens the time after which an unacknowledged publish is given up. Before Run.
func (h *Hub) SetUncertain(d time.Duration) { h.uncertain = d }

// SocketPending is the most that one socket has waiting.
func (h *Hub) SocketPending() (n int) {
	h.with(func() {
		for c := range h.conns {
			n = max(n, c.sock.Pending())
		}
	})
	return n
}

// Stall holds up all deliveries until fn returns.
func (h *Hub) Stall(fn func()) { h.with(fn) }

// Outbox is how many events are not carried out yet.
func (h *Hub) Outbox() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.outbox)
}

// OutboxFull is from how many on who brings more has to wait.
const OutboxFull = outboxFull

// Simulate adds members to a topic that have a connection but no goroutine.
func (h *Hub) Simulate(topic string, n int, conn func(i int) net.Conn) error {
	var err error
	for i := range n {
		c := &Conn{hub: h, id: topic, who: Identity{User: topic}, sock: h.pool.Adopt(conn(i)), subs: map[string]*sub{}}
		h.with(func() {
			h.conns[c] = struct{}{}
			if e := h.attachLocked(c, topic, h.optionsOf(topic), cursor.Cursor{}, 0); e != nil {
				err = e
			}
		})
	}
	return err
}

// Lagging is how many subscriptions wait for their sockets.
func (h *Hub) Lagging() (n int) {
	h.with(func() {
		for c := range h.conns {
			if c.sock.Full() {
				n++
			}
		}
	})
	return n
}

// SocketsPending is how many sockets have something to write.
func (h *Hub) SocketsPending() (n int) {
	h.with(func() {
		for c := range h.conns {
			if c.sock.Pending() > 0 {
				n++
			}
		}
	})
	return n
}

// BehindNow is how many subscriptions are behind.
func (h *Hub) BehindNow() (n int) {
	h.with(func() {
		for c := range h.conns {
			for _, s := range c.subs {
				if s.mode == behind {
					n++
				}
			}
		}
	})
	return n
}
