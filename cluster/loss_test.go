package cluster_test

import (
	"context"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

// lossy drops a share of the datagrams that are sent.
type lossy struct {
	cluster.Network
	share float64
}

func (l lossy) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	pc, err := l.Network.ListenPacket(ctx, addr)
	return lossyConn{pc, l.share}, err
}

type lossyConn struct {
	net.PacketConn
	share float64
}

func (c lossyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if rand.Float64() < c.share {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

func TestLossOfDatagramsKillsNobody(t *testing.T) {
	t.Parallel()
	for name, share := range map[string]float64{"30 %": 0.3, "all": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := group(t, 3, func(i int, c *cluster.Config) {
				c.Network = lossy{faultnet.New(nil), share}
			})
			for end := time.After(7 * time.Second); ; {
				for _, n := range nodes {
					require.Len(t, n.Alive(), 3)
				}
				select {
				case <-end:
				case <-time.After(5 * time.Millisecond):
					continue
				}
				break
			}
			if share == 1 {
				for _, n := range nodes {
					eventually(t, func() bool { return reason(n, cluster.CodeDatagrams) != nil }, nil)
					require.Contains(t, reason(n, cluster.CodeDatagrams).Text, "answers on TCP and not on UDP")
				}
			}
		})
	}
}
