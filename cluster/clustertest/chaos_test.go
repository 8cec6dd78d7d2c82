package clustertest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

var chaos = os.Getenv("NINES_CHAOS") != ""

// seeds are those to run: few, or many with NINES_CHAOS=1, or the one of NINES_SEED.
func seeds(t *testing.T, few, many int) (all []uint64) {
	if s := os.Getenv("NINES_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		return []uint64{seed}
	}
	if chaos {
		few = many
	}
	for i := range few {
		all = append(all, uint64(i+1))
	}
	return all
}

// each runs fn in a bubble for each seed; a failure names the seed.
func each(t *testing.T, few, many int, fn func(t *testing.T, seed uint64, rng *rand.Rand)) {
	for _, seed := range seeds(t, few, many) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { fn(t, seed, rand.New(rand.NewPCG(seed, 1))) })
		})
		if !ok {
			t.Errorf("replay with NINES_SEED=%d", seed)
		}
	}
}

// between draws evenly on a logarithmic scale.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return time.Duration(float64(least) * math.Pow(float64(most)/float64(least), rng.Float64()))
}

// insecure leaves encryption out: most of a simulation's time would go there.
func insecure(c *cluster.Config) { c.Keys, c.InsecureNoKeys = nil, true }

func TestViewsMergeAfterAPartition(t *testing.T) {
	var took []time.Duration
	var simulated time.Duration
	began := time.Now()
	each(t, 24, 1000, func(t *testing.T, seed uint64, rng *rand.Rand) {
		start0 := time.Now()
		count := 3 + rng.IntN(8)
		cut := between(rng, 5*time.Second, 10*time.Minute)
		if !chaos {
			count = 3 + rng.IntN(3)
			cut = between(rng, 5*time.Second, 10*time.Second)
			switch seed {
			case 12:
				count = 10
			case 24:
				count, cut = 3, 2*time.Minute
			}
		}
		net := clustertest.New(seed)
		net.Delay(0, time.Duration(rng.IntN(10))*time.Millisecond)
		net.Loss(0.05 * rng.Float64())
		change := insecure
		if seed%8 == 0 {
			change = nil
		}
		g := start(t, net, hosts(count), change)
		defer g.end()
		g.agree(10 * time.Second)
		time.Sleep(between(rng, 10*time.Millisecond, 5*time.Second))

		names := hosts(count)
		rng.Shuffle(count, func(i, j int) { names[i], names[j] = names[j], names[i] })
		parts := [][]string{names[:1+rng.IntN(count-1)]}
		if rng.IntN(3) == 0 { // three parts, or all alone
			parts = append(parts, names[len(parts[0]):len(parts[0])+rng.IntN(count-len(parts[0]))])
		} else if rng.IntN(6) == 0 {
			parts = nil
			for _, name := range names {
				parts = append(parts, []string{name})
			}
		}
		if rng.IntN(2) == 0 {
			net.FailDiscovery(fmt.Errorf("away")) // memory alone must do
		}
		net.Partition(parts...)
		time.Sleep(cut)
		apart := false
		for _, m := range g.nodes {
			apart = apart || len(m.Alive()) < count
		}
		require.True(t, apart, "nobody noticed a cut of %v:\n%s", cut, g.views())
		net.Heal()
		d := g.agree(time.Minute)
		took = append(took, d)
		t.Logf("seed %d: %d nodes, %v apart for %v: merged after %v", seed, count, parts, cut.Round(time.Second), d)
		simulated += time.Since(start0)
	})
	slices.Sort(took)
	if len(took) == 0 {
		return
	}
	at := func(q float64) time.Duration { return took[min(len(took)-1, int(q*float64(len(took))))] }
	t.Logf("%d partitions: merged after p50 %v, p90 %v, p99 %v, max %v; %v simulated in %v", len(took), at(0.5), at(0.9), at(0.99), at(1),
		simulated.Round(time.Second), time.Since(began).Round(time.Millisecond))
	if len(took) > 1 {
		require.LessOrEqual(t, at(0.99), 2*time.Second)
	}
}

// watchDeaths runs for that long and reports the first member that left Alive.
func (g *group) watchDeaths(d time.Duration) {
	g.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		require.True(g.t, agreed(g.nodes), "seen by one and not by another:\n%s", g.views())
	}
}

func TestNoFalseDeath(t *testing.T) {
	hour := choose(time.Minute, time.Hour, 24*time.Hour)
	for name, fault := range map[string]func(net *clustertest.Network, rng *rand.Rand){
		"loss of 20 %": func(net *clustertest.Network, rng *rand.Rand) { net.Loss(0.2) },
		"loss of 10 %": func(net *clustertest.Network, rng *rand.Rand) { net.Loss(0.1) },
		"loss of 30 %": func(net *clustertest.Network, rng *rand.Rand) { net.Loss(0.3) },
		"UDP dead":     func(net *clustertest.Network, rng *rand.Rand) { net.Loss(1) },
		"one-way cut":  func(net *clustertest.Network, rng *rand.Rand) { net.CutOneWay("h00", "h02") },
		"pair cut":     func(net *clustertest.Network, rng *rand.Rand) { net.CutPair("h00", "h02") },
		"UDP dead, slow": func(net *clustertest.Network, rng *rand.Rand) {
			net.Loss(1)
			net.Delay(20*time.Millisecond, 60*time.Millisecond)
		},
		"slow network": func(net *clustertest.Network, rng *rand.Rand) { net.Delay(5*time.Millisecond, 80*time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			each(t, 1, 1, func(t *testing.T, seed uint64, rng *rand.Rand) {
				net := clustertest.New(seed)
				g := start(t, net, hosts(3), insecure)
				defer g.end()
				g.agree(10 * time.Second)
				time.Sleep(2 * time.Second)
				fault(net, rng)
				g.watchDeaths(hour)
			})
			t.Logf("%v simulated in %v", hour, time.Since(began).Round(time.Millisecond))
		})
	}
}

func TestPairCutKeepsBothForEachOther(t *testing.T) {
	each(t, 3, 50, func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		g := start(t, net, hosts(3+rng.IntN(3)), insecure)
		defer g.end()
		g.agree(10 * time.Second)
		time.Sleep(2 * time.Second)
		net.CutPair("h00", "h01")
		a, b := g.nodes[0], g.nodes[1]
		took, ok := until(10*time.Second, func() bool {
			return a.Fate(b.ID()) == cluster.FateSuspect && b.Fate(a.ID()) == cluster.FateSuspect
		})
		require.True(t, ok, g.views())
		t.Log("suspected after", took)
		g.watchDeaths(30 * time.Second)
		require.Equal(t, cluster.FateAlive, g.nodes[2].Fate(a.ID()))
		net.Heal()
		took, ok = until(10*time.Second, func() bool {
			return a.Fate(b.ID()) == cluster.FateAlive && b.Fate(a.ID()) == cluster.FateAlive
		})
		require.True(t, ok, g.views())
		t.Log("linked again after", took)
	})
}

func TestKilledHostIsKnownDead(t *testing.T) {
	var took []time.Duration
	each(t, 10, 300, func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		net.Delay(0, time.Duration(1+rng.IntN(5))*time.Millisecond)
		g := start(t, net, hosts(3+rng.IntN(4)), insecure)
		defer g.end()
		g.agree(10 * time.Second)
		time.Sleep(time.Second + time.Duration(rng.IntN(1000))*time.Millisecond)
		victim := g.nodes[rng.IntN(len(g.nodes))]
		net.Kill(victim.host)
		victim.stop()
		g.nodes = slices.DeleteFunc(g.nodes, func(m *member) bool { return m == victim })
		d, ok := until(10*time.Second, func() bool {
			for _, m := range g.nodes {
				if m.Fate(victim.ID()) != cluster.FateDead {
					return false
				}
			}
			return agreed(g.nodes)
		})
		require.True(t, ok, g.views())
		took = append(took, d)
		<-victim.done

		again := g.add(victim.host, insecure) // same host, same port, at once
		require.NoError(t, again.WaitReady(t.Context()))
		g.agree(5 * time.Second)
	})
	slices.Sort(took)
	if len(took) > 0 {
		t.Logf("%d kills: known dead by all after p50 %v, max %v", len(took), took[len(took)/2], took[len(took)-1])
		require.Less(t, took[len(took)-1], 500*time.Millisecond)
	}
}

// TestMessagesSurviveCuts posts numbers through cuts of every kind; each must arrive once, in order.
func TestMessagesSurviveCuts(t *testing.T) {
	each(t, 6, 300, func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		net.Delay(0, time.Duration(rng.IntN(20))*time.Millisecond)
		change := insecure
		if seed%3 == 0 {
			change = nil
		}
		g := start(t, net, hosts(3), change)
		defer g.end()
		g.agree(10 * time.Second)
		type way struct{ from, to int }
		next := map[way]*uint64{}
		bad := make(chan string, 16)
		for to, m := range g.nodes {
			for from, o := range g.nodes {
				if from == to {
					continue
				}
				count := new(uint64)
				next[way{from, to}] = count
				m.Handle("n"+strconv.Itoa(from), func(_ context.Context, id string, p []byte) ([]byte, error) {
					if got := binary.BigEndian.Uint64(p); got != *count || id != o.ID() {
						select {
						case bad <- fmt.Sprintf("%d to %d: got %d, want %d", from, to, got, *count):
						default:
						}
					}
					*count++
					return nil, nil
				})
			}
		}
		sent := map[way]uint64{}
		for range 12 {
			switch rng.IntN(5) {
			case 0:
				net.Partition([]string{g.nodes[rng.IntN(3)].host})
			case 1:
				net.CutOneWay(g.nodes[rng.IntN(3)].host, g.nodes[rng.IntN(3)].host)
			case 2:
				net.CutPair(g.nodes[rng.IntN(3)].host, g.nodes[rng.IntN(3)].host)
			default:
				net.Heal()
			}
			for range rng.IntN(200) {
				w := way{rng.IntN(3), rng.IntN(3)}
				if w.from == w.to {
					continue
				}
				payload := make([]byte, 8, 8+1024)
				binary.BigEndian.PutUint64(payload, sent[w])
				payload = payload[:8+rng.IntN(1024)]
				require.NoError(t, g.nodes[w.from].Post(t.Context(), g.nodes[w.to].ID(), "n"+strconv.Itoa(w.from), payload))
				sent[w]++
				if rng.IntN(20) == 0 {
					time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond)
				}
			}
			time.Sleep(between(rng, 10*time.Millisecond, 8*time.Second))
		}
		net.Heal()
		g.agree(10 * time.Second)
		_, ok := until(10*time.Second, func() bool { return g.handled() })
		time.Sleep(5 * time.Second)
		g.end() // handlers have ended: their counts may be read
		require.True(t, ok)
		require.Empty(t, bad)
		for w, n := range sent {
			require.Equal(t, n, *next[w], "%v", w)
		}
	})
}

// handled reports whether nothing is on its way.
func (g *group) handled() bool {
	for _, m := range g.nodes {
		if s := m.Stats(); s.Waiting > 0 || s.Retained > 0 {
			return false
		}
	}
	return true
}
