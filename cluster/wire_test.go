package cluster_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// TestTwoVersionsOfTheProtocolTalk: a process of the version before joins, is asked and asks, as in a rolling upgrade. What the new ones can beyond
// that, they do not do towards it.
func TestTwoVersionsOfTheProtocolTalk(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 2, func(_ int, c *cluster.Config) { c.Compress = true })
	old := spawnAt(t, []string{"env", "NINES_CLUSTER_WIRE=1"}, "127.0.0.1:0", nodes[0].Addr())
	old.ready(t)
	eventually(t, func() bool {
		return len(nodes[0].Alive()) == 3 && len(nodes[1].Alive()) == 3 && nodes[0].Stats().Links == 2 && nodes[1].Stats().Links == 2
	}, nil)
	for _, n := range nodes {
		n.Handle("echo", func(_ context.Context, _ string, p []byte) ([]byte, error) { return p, nil })
	}
	for i, n := range nodes {
		for _, size := range []int{0, 100, 70 << 10, 1 << 20} {
			p := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
			for _, topic := range []string{"echo", "back"} {
				got, err := n.Request(ctx, old.id, topic, p)
				require.NoError(t, err)
				require.True(t, bytes.Equal(p, got), "%s %d", topic, size)
			}
		}
		require.Zero(t, n.Features(old.id))
		require.NotZero(t, n.Features(nodes[1-i].ID()))
		require.Equal(t, cluster.FateAlive, n.Fate(old.id))
	}
	require.NoError(t, old.cmd.Process.Kill())
	for _, n := range nodes {
		eventually(t, func() bool { return n.Fate(old.id) == cluster.FateDead }, nil)
	}
}

// TestRelayWaitsUntilAllThreeCan: one of the pair, or the only one between them, speaks the version before.
func TestRelayWaitsUntilAllThreeCan(t *testing.T) {
	for older := range 4 {
		synctest.Test(t, func(t *testing.T) {
			network := clustertest.New(1)
			var nodes []*cluster.Node
			var runs []chan struct{}
			ctx, cancel := context.WithCancel(context.Background())
			for i, host := range []string{"a", "b", "c"} {
				cfg := network.Config(host)
				cfg.Keys, cfg.InsecureNoKeys = nil, true
				n, err := cluster.New(cfg)
				require.NoError(t, err)
				if i == older {
					n.SpeakAtMost(1)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = n.Run(ctx)
				}()
				nodes, runs = append(nodes, n), append(runs, done)
			}
			time.Sleep(5 * time.Second)
			for _, n := range nodes {
				require.Len(t, n.Alive(), 3)
			}
			network.CutPair("a", "b")
			time.Sleep(10 * time.Second)
			relayed := slices.ContainsFunc(nodes[0].Members(), func(m cluster.Member) bool { return m.ID == nodes[1].ID() && m.Relay == nodes[2].ID() })
			require.Equal(t, older == 3, relayed, "older: %d", older)
			network.Heal()
			time.Sleep(10 * time.Second)
			require.Equal(t, cluster.FateAlive, nodes[0].Fate(nodes[1].ID()))
			cancel()
			for _, done := range runs {
				<-done
			}
			time.Sleep(5 * time.Second)
		})
	}
}
