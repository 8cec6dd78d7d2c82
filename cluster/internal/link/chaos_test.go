package link_test

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nines-go/nines/cluster/internal/link"
)

// chaosConn is a connection that is cut at a random byte, is late, writes in pieces, and stands still for a while and goes on.
type chaosConn struct {
	net.Conn
	mu       sync.Mutex
	rnd      *rand.Rand
	left     int // bytes until the cut
	hold     time.Duration
	holdLeft int
}

func (c *chaosConn) spend(n int) (allowed int, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holdLeft -= n; c.holdLeft < 0 && c.hold > 0 {
		wait, c.hold = c.hold, 0
	}
	allowed = min(n, c.left)
	c.left -= allowed
	return allowed, wait
}

func (c *chaosConn) Write(b []byte) (int, error) {
	allowed, wait := c.spend(len(b))
	if wait > 0 {
		<-time.After(wait)
	}
	n, err := c.Conn.Write(b[:allowed])
	if err == nil && allowed < len(b) {
		c.Close()
		err = net.ErrClosed
	}
	return n, err
}

func (c *chaosConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	if c.rnd.IntN(3) == 0 && len(b) > 100 {
		b = b[:1+c.rnd.IntN(100)]
	}
	c.mu.Unlock()
	n, err := c.Conn.Read(b)
	allowed, wait := c.spend(n)
	if wait > 0 {
		<-time.After(wait)
	}
	if allowed < n {
		c.Close()
		return allowed, net.ErrClosed
	}
	return n, err
}

// chaos wraps connections with a seeded fate.
func chaos(seed uint64, meanBytes int) func(net.Conn) net.Conn {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 1))
	return func(nc net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		c := &chaosConn{Conn: nc, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 2)), left: 1 + rnd.IntN(2*meanBytes)}
		if rnd.IntN(16) == 0 {
			c.hold, c.holdLeft = time.Duration(rnd.IntN(int(1500*time.Millisecond))), rnd.IntN(meanBytes)
		}
		return c
	}
}

func TestNothingIsLostOrDoubledThroughManyReconnects(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	runChaos(t, newWire(t), seed, 3*time.Second)
}

func runChaos(t *testing.T, w *wire, seed uint64, length time.Duration) {
	mean := 200 << 10
	if w.compress {
		mean = 10 << 10 // most of what is sent is not sent then
	}
	w.wrap = chaos(seed, mean)
	got := newCounter()
	cfg := link.Config{OnFrame: got.onFrame, Window: 256 << 10, Retain: 1 << 20, Compress: w.compress}
	a, b := w.start("a", cfg), w.start("b", cfg)
	a.Connect("b")
	b.Connect("a")
	end := time.Now().Add(length)
	sent := make(map[string]uint64)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, pair := range [][2]*proc{{a, b}, {b, a}} {
		for _, lane := range []link.Lane{link.Control, link.Live, link.Bulk} {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(10*i)+uint64(lane)))
				n := uint64(0)
				for ; time.Now().Before(end); n++ {
					size := rnd.IntN(400)
					if rnd.IntN(50) == 0 {
						size = rnd.IntN(200 << 10)
					}
					if err := pair[0].Post(t.Context(), pair[1].id, lane, numbered(n, size)); err != nil {
						t.Errorf("post: %v", err)
						return
					}
				}
				mu.Lock()
				defer mu.Unlock()
				sent[pair[0].id+lane.String()] = n
			})
		}
	}
	wg.Wait()
	w.mu.Lock()
	w.wrap = nil // let the rest through
	w.mu.Unlock()
	total := uint64(0)
	for _, p := range []*proc{a, b} {
		for _, lane := range []link.Lane{link.Control, link.Live, link.Bulk} {
			want := sent[p.id+lane.String()]
			total += want
			eventually(t, func() bool { return got.got(p.id, lane) >= want }, p.id+lane.String())
		}
	}
	got.check(t)
	s := a.Stats().Peers["b"]
	t.Logf("%d frames, %d connections, %d bytes sent again by a", total, s.Connections, s.RepeatedBytes)
	if s.Connections < 5 {
		t.Errorf("only %d connections: nothing was tested", s.Connections)
	}
}
