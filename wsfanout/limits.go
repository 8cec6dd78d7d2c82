package wsfanout

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// places counts sockets by what they are limited by, those in the handshake included.
type places struct {
	mu    sync.Mutex
	taken map[[2]string]int // what, whose
}

func (p *places) take(what, whose string, most int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := [2]string{what, whose}
	if p.taken[k] >= most {
		return false
	}
	if p.taken == nil {
		p.taken = map[[2]string]int{}
	}
	p.taken[k]++
	return true
}

func (p *places) leave(what, whose string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := [2]string{what, whose}
	if p.taken[k]--; p.taken[k] == 0 {
		delete(p.taken, k)
	}
}

// burst is for how many seconds' worth of frames or bytes a client may send at once.
const burst = 5

// bucket bounds a rate.
type bucket struct {
	rate, tokens float64
	last         time.Time
}

func newBucket(perSecond int) *bucket {
	return &bucket{rate: float64(perSecond), tokens: burst * float64(perSecond), last: time.Now()}
}

func (b *bucket) take(n int, now time.Time) bool {
	b.tokens = min(burst*b.rate, b.tokens+now.Sub(b.last).Seconds()*b.rate) - float64(n)
	b.last = now
	return b.tokens >= 0
}

// remoteHost is the address that a request comes from: a proxy's, where there is one.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
