package link_test

import (
	"bytes"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
	"github.com/nines-go/nines/cluster/internal/seal"
)

// tamperer sits on the way of sealed streams: in each, after a while, it changes a bit of what is sent, or sends something again that was sent before.
type tamperer struct {
	done atomic.Int64

	mu  sync.Mutex
	rnd *rand.Rand
	old [][]byte // what was sent on earlier streams
}

type tampered struct {
	net.Conn
	by   *tamperer
	left int // writes until it happens
	last []byte
}

func (x *tamperer) wrap(c net.Conn) net.Conn {
	x.mu.Lock()
	defer x.mu.Unlock()
	return &tampered{Conn: c, by: x, left: 6 + x.rnd.IntN(20)} // after the handshake
}

func (c *tampered) Write(b []byte) (int, error) {
	c.by.mu.Lock()
	what := -1
	if c.left--; c.left == 0 && len(b) > 8 {
		what = c.by.rnd.IntN(3)
	} else if c.left < 0 {
		what = -1
	}
	changed := bytes.Clone(b)
	at := c.by.rnd.IntN(len(b))
	replay := c.last
	if n := len(c.by.old); n > 0 && what == 2 {
		replay = c.by.old[c.by.rnd.IntN(n)]
	}
	if len(c.by.old) < 1000 {
		c.by.old = append(c.by.old, changed)
	}
	c.last = changed
	c.by.mu.Unlock()
	switch {
	case what == 0:
		c.by.done.Add(1)
		forged := bytes.Clone(b)
		forged[at] ^= 1 << (at % 8)
		return c.Conn.Write(forged)
	case what > 0:
		c.by.done.Add(1)
		if _, err := c.Conn.Write(replay); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// TestForgedAndReplayedFramesAreNotDelivered: whoever is in the middle of a sealed link can break it, and nothing else.
func TestForgedAndReplayedFramesAreNotDelivered(t *testing.T) {
	want := int64(rounds(200, 20000))
	w := newWire(t)
	s, err := seal.NewStreams("test", [][]byte{bytes.Repeat([]byte{1}, 32)})
	require.NoError(t, err)
	w.seal = s
	x := &tamperer{rnd: rand.New(rand.NewPCG(1, 1))}
	w.wrap = x.wrap
	got := newCounter()
	cfg := link.Config{OnFrame: got.onFrame, Retain: 256 << 10, Window: 128 << 10}
	a, b := pair(t, w, cfg, cfg)
	n := uint64(0)
	for ; x.done.Load() < want; n++ {
		require.NoError(t, a.Post(t.Context(), "b", link.Live, numbered(n, 100)))
		require.NoError(t, b.Post(t.Context(), "a", link.Live, numbered(n, 100)))
	}
	w.mu.Lock()
	w.wrap = nil
	w.mu.Unlock()
	eventually(t, func() bool { return got.got("a", link.Live) >= n && got.got("b", link.Live) >= n }, "all arrive")
	got.check(t)
	require.Equal(t, n, got.got("a", link.Live))
	require.Equal(t, n, got.got("b", link.Live))
	t.Logf("%d records forged or replayed, %d connections, %d frames each way", x.done.Load(), a.Stats().Peers["b"].Connections, n)
}
