package wsfanout

import "time"

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
