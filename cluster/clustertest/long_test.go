package clustertest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// choose returns how much of a long simulation there is time for: every day, with NINES_CHAOS under the race detector, with NINES_CHAOS alone.
func choose[T any](day, race, full T) T {
	switch {
	case !chaos:
		return day
	case raced:
		return race
	}
	return full
}

// A side that was away for a whole day is found again from memory: discovery knows nobody any more.
func TestViewsMergeAfterADay(t *testing.T) {
	cut := choose(10*time.Minute, time.Hour, 24*time.Hour)
	each(t, 1, choose(1, 2, 10), func(t *testing.T, seed uint64, rng *rand.Rand) {
		began := time.Now()
		net := clustertest.New(seed)
		g := start(t, net, hosts(3+rng.IntN(2)), insecure)
		defer g.end()
		g.agree(10 * time.Second)
		time.Sleep(between(rng, 10*time.Millisecond, 5*time.Second))
		net.FailDiscovery(fmt.Errorf("away"))
		net.Partition([]string{g.nodes[rng.IntN(len(g.nodes))].host})
		time.Sleep(cut)
		net.Heal()
		d := g.agree(10 * time.Second)
		t.Logf("seed %d: %d nodes, apart for %v: merged after %v; %v simulated", seed, len(g.nodes), cut, d, time.Since(began).Round(time.Second))
		require.LessOrEqual(t, d, 2500*time.Millisecond)
	})
}

func TestManyNodesMerge(t *testing.T) {
	count := choose(16, 30, 100)
	each(t, 1, choose(1, 2, 10), func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		net.Delay(0, time.Duration(rng.IntN(5))*time.Millisecond)
		g := start(t, net, hosts(count), insecure)
		defer g.end()
		joined := g.agree(30 * time.Second)
		cut := between(rng, 5*time.Second, 12*time.Second)
		names := hosts(count)
		rng.Shuffle(count, func(i, j int) { names[i], names[j] = names[j], names[i] })
		part := names[:1+rng.IntN(count-1)]
		net.FailDiscovery(fmt.Errorf("away"))
		net.Partition(part)
		time.Sleep(cut)
		net.Heal()
		d := g.agree(30 * time.Second)
		t.Logf("seed %d: %d nodes, joined after %v; %d of them apart for %v: merged after %v", seed, count, joined, len(part), cut.Round(time.Second), d)
		require.LessOrEqual(t, d, 4*time.Second)
	})
}

// What an idle node sends is told, not judged.
func TestTrafficOfAnIdleNode(t *testing.T) {
	counts := []int{5, 10, 20, 50}
	for _, count := range counts[:choose(2, 3, 4)] {
		bubble(t, func(t *testing.T) {
			net := clustertest.New(1)
			g := start(t, net, hosts(count), nil)
			defer g.end()
			g.agree(30 * time.Second)
			time.Sleep(5 * time.Second)
			before := net.Sent("h00")
			const d = 20
			time.Sleep(d * time.Second)
			after := net.Sent("h00")
			require.Greater(t, after.Datagrams, before.Datagrams)
			require.Greater(t, after.StreamBytes, before.StreamBytes)
			t.Logf("%d nodes: each sends %d datagrams and %d B in them, %d writes and %d B to streams, a second", count, (after.Datagrams-before.Datagrams)/d,
				(after.DatagramBytes-before.DatagramBytes)/d, (after.Writes-before.Writes)/d, (after.StreamBytes-before.StreamBytes)/d)
		})
	}
}

// A host that is cut off is failed after what its profile promises, and it comes back.
func TestProfiles(t *testing.T) {
	for _, x := range []struct {
		profile     cluster.Profile
		delay       time.Duration // one way, at most
		least, most time.Duration
	}{
		{cluster.Local, time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond},
		{cluster.LAN, 5 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond},
		{cluster.WAN, 120 * time.Millisecond, 4 * time.Second, 8 * time.Second},
	} {
		var took, healed []time.Duration
		each(t, 4, 100, func(t *testing.T, seed uint64, rng *rand.Rand) {
			net := clustertest.New(seed)
			net.Delay(x.delay/2, x.delay)
			net.Loss(0.05 * rng.Float64())
			g := start(t, net, hosts(3+rng.IntN(3)), func(c *cluster.Config) { insecure(c); c.Profile = x.profile })
			defer g.end()
			g.agree(20 * time.Second)
			time.Sleep(2*time.Second + time.Duration(rng.IntN(1000))*time.Millisecond)
			require.True(t, agreed(g.nodes), g.views())
			rest := g.nodes[1:]
			at := time.Now()
			net.Partition([]string{g.nodes[0].host})
			for _, m := range rest {
				_, ok := until(10*time.Second, func() bool { return m.Fate(g.nodes[0].ID()) == cluster.FateFailed })
				require.True(t, ok, g.views())
				took = append(took, time.Since(at))
			}
			time.Sleep(10 * time.Second)
			require.Len(t, g.nodes[0].Alive(), 1)
			net.Heal()
			healed = append(healed, g.agree(10*time.Second))
		})
		if len(took) == 0 {
			continue
		}
		slices.Sort(took)
		t.Logf("profile %d: failed after %v to %v, merged again after at most %v", x.profile, took[0], took[len(took)-1], slices.Max(healed))
		require.GreaterOrEqual(t, took[0], x.least)
		require.LessOrEqual(t, took[len(took)-1], x.most)
	}
}
