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
