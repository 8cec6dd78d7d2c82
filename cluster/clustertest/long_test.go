package clustertest_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
