package cluster

import (
	"net"
	"sync"
	"time"
)

// What strangers may hold at most.
const (
	strangersPerAddress = 8
	strangers           = 64
	strangerTimeout     = 5 * time.Second
)

// gate bounds the connections that have not shown the key yet. When it is full the oldest one goes.
type gate struct {
	mu      sync.Mutex
	waiting []stranger // oldest first
	turned  uint64
}

type stranger struct {
	conn net.Conn
	host string
}

// enter admits a connection for at most strangerTimeout; leave ends its time as a stranger.
func (g *gate) enter(c net.Conn) (leave func()) {
	host := c.RemoteAddr().String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_ = c.SetDeadline(time.Now().Add(strangerTimeout))
	g.mu.Lock()
	same, first := 0, -1
	for i, s := range g.waiting {
		if s.host == host {
			if same++; first < 0 {
				first = i
			}
		}
	}
	var drop net.Conn
	switch {
	case same >= strangersPerAddress:
		drop = g.removeLocked(first)
	case len(g.waiting) >= strangers:
		drop = g.removeLocked(0)
	}
	g.waiting = append(g.waiting, stranger{c, host})
	g.mu.Unlock()
	if drop != nil {
		drop.Close()
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for i, s := range g.waiting {
			if s.conn == c {
				g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
				return
			}
		}
	}
}

func (g *gate) removeLocked(i int) net.Conn {
	c := g.waiting[i].conn
	g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
	g.turned++
	return c
}

func (g *gate) turnedAway() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.turned
}
