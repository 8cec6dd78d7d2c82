package clustertest_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// via is the reason CodeRelayed that a node gives.
func via(n *member) string {
	for _, r := range n.Status().Reasons {
		if r.Code == cluster.CodeRelayed {
			return r.Text
		}
	}
	return ""
}

// TestAPairWithoutALinkIsRelayed cuts two members from each other while both post to each other, and heals the cut. Then the relay is killed.
func TestAPairWithoutALinkIsRelayed(t *testing.T) {
	each(t, 4, 100, func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		change := insecure
		if seed%2 == 0 {
			change = nil
		}
		g := start(t, net, hosts(5), change)
		defer g.end()
		g.agree(10 * time.Second)
		time.Sleep(2 * time.Second)
		byAge := slices.Clone(g.nodes)
		slices.SortFunc(byAge, func(a, b *member) int { return map[bool]int{true: -1, false: 1}[a.ID() < b.ID()] })
		first, second := byAge[0], byAge[1] // the relays, in that order
		a, b := byAge[2], byAge[3+rng.IntN(2)]
		if rng.IntN(2) == 0 {
			a, b = b, a
		}
		var got [2]uint64
		bad := make(chan uint64, 16)
		for i, n := range []*member{b, a} {
			n.Handle("n", func(_ context.Context, _ string, p []byte) ([]byte, error) {
				if seq := binary.BigEndian.Uint64(p); seq != got[i] {
					select {
					case bad <- seq:
					default:
					}
				}
				got[i]++
				return nil, nil
			})
		}
		sent := uint64(0)
		talk := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) {
				p := binary.BigEndian.AppendUint64(nil, sent)
				require.NoError(t, a.Post(t.Context(), b.ID(), "n", p))
				require.NoError(t, b.Post(t.Context(), a.ID(), "n", p))
				sent++
			}
		}
		talk(time.Second)
		net.CutPair(a.host, b.host)
		cut := time.Now()
		talk(between(rng, 10*time.Millisecond, 6*time.Second))
		_, ok := until(10*time.Second, func() bool { return via(a) != "" && via(b) != "" })
		require.True(t, ok, g.views())
		t.Log("relayed after", time.Since(cut))
		require.Contains(t, via(a), first.host)
		require.Contains(t, via(b), first.host)
		talk(3 * time.Second)
		answer, err := a.Request(t.Context(), b.ID(), "none", nil)
		require.ErrorIs(t, err, cluster.ErrNoHandler, "%s", answer)
		require.Equal(t, cluster.FateAlive, a.Fate(b.ID()))
		require.Equal(t, cluster.FateAlive, b.Fate(a.ID()))
		require.Equal(t, cluster.Amber, a.Status().Level)

		net.Kill(first.host) // another one takes over
		talk(time.Second)
		took, ok := until(10*time.Second, func() bool { return via(a) != "" && via(b) != "" })
		require.True(t, ok, g.views())
		require.Contains(t, via(a), second.host, took)
		talk(time.Second)
		require.Equal(t, cluster.FateDead, a.Fate(first.ID()))
		require.Equal(t, cluster.FateAlive, a.Fate(b.ID()), "the end of a relay is not the end of who is behind it")
		require.Equal(t, cluster.FateAlive, b.Fate(a.ID()))

		net.Heal()
		talk(time.Second)
		took, ok = until(10*time.Second, func() bool { return via(a) == "" && via(b) == "" && a.Fate(b.ID()) == cluster.FateAlive })
		require.True(t, ok, "direct again")
		t.Log("direct after", took)
		talk(time.Second)
		_, ok = until(10*time.Second, func() bool { s, r := a.Stats(), b.Stats(); return s.Retained+s.Waiting+r.Retained+r.Waiting == 0 })
		time.Sleep(time.Second)
		require.True(t, ok)
		g.end()
		require.Empty(t, bad)
		require.Equal(t, [2]uint64{sent, sent}, got)
	})
}
