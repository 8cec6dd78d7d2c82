package link_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
)

type countingConn struct {
	net.Conn
	n *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.Conn.Write(b)
}

func (c countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// TestCompression counts the bytes on the wire, for every mixture of those who compress, those who do not, and those who are older.
func TestCompression(t *testing.T) {
	const frames, size = 2000, 1000
	for _, x := range []struct {
		name   string
		a, b   link.Config
		factor float64 // of the bytes of the payloads, both ways, at most
	}{
		{"both", link.Config{Compress: true}, link.Config{Compress: true}, 0.6},
		{"one", link.Config{Compress: true}, link.Config{}, 1},
		{"none", link.Config{}, link.Config{}, 1.2},
		{"an older peer", link.Config{Compress: true}, link.Config{Protocol: 1}, 1.2},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWire(t)
			var bytes atomic.Int64
			w.wrap = func(c net.Conn) net.Conn { return countingConn{c, &bytes} }
			got := newCounter()
			x.a.OnFrame, x.b.OnFrame = got.onFrame, got.onFrame
			a, b := pair(t, w, x.a, x.b)
			for i := range uint64(frames) {
				require.NoError(t, a.Post(t.Context(), "b", link.Live, numbered(i, size)))
				require.NoError(t, b.Post(t.Context(), "a", link.Live, numbered(i, size)))
			}
			eventually(t, func() bool { return got.got("a", link.Live) == frames && got.got("b", link.Live) == frames }, "all")
			got.check(t)
			share := float64(bytes.Load()) / (2 * frames * size)
			t.Logf("%.2f of the payloads' bytes", share)
			require.Less(t, share, x.factor)
			if x.factor > 1 {
				require.Greater(t, share, 0.99, "not compressed")
			}
			require.Equal(t, x.b.Protocol != 1, a.Has("b", link.FeatureInflate))
		})
	}
}

func TestCompressedLinksThroughChaos(t *testing.T) {
	w := newWire(t)
	w.compress = true
	runChaos(t, w, 7, time.Second)
}
