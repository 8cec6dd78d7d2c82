package clustertest_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/clustertest"
)

// A flag is known to all members when SetFlag returns, and to a newcomer before it is ready; and it ends everywhere when its time is over.
func TestFlagsAreKnown(t *testing.T) {
	each(t, 10, 300, func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		net.Delay(0, time.Duration(1+rng.IntN(20))*time.Millisecond)
		g := start(t, net, hosts(3+rng.IntN(4)), insecure)
		defer g.end()
		g.agree(10 * time.Second)
		_, ok := until(10*time.Second, func() bool { return g.linked() })
		require.True(t, ok)
		setter := g.nodes[rng.IntN(len(g.nodes))]
		ttl := 5*time.Second + time.Duration(rng.IntN(10000))*time.Millisecond
		at := time.Now()
		require.NoError(t, setter.SetFlag(t.Context(), "busy", "search", ttl))
		for _, m := range g.nodes {
			value, left, ok := m.Flag("busy")
			require.True(t, ok, "known when SetFlag returns")
			require.Equal(t, "search", value)
			require.LessOrEqual(t, left, ttl)
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		late := g.add("late", insecure)
		require.NoError(t, late.WaitReady(t.Context()))
		_, left, ok := late.Flag("busy")
		require.True(t, ok, "known to who joins before it is ready")
		require.InDelta(t, ttl-time.Since(at), left, float64(200*time.Millisecond))
		time.Sleep(ttl - time.Since(at) - 50*time.Millisecond)
		_, _, ok = setter.Flag("busy")
		require.True(t, ok)
		time.Sleep(500 * time.Millisecond)
		for _, m := range g.nodes {
			require.Empty(t, m.Flags())
		}
	})
}

// linked reports whether each has links to all others.
func (g *group) linked() bool {
	for _, m := range g.nodes {
		if m.Stats().Links < len(g.nodes)-1 {
			return false
		}
	}
	return true
}
