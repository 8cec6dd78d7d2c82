package cluster_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

// best runs measure three times (once with NINES_CHAOS, when it measures more), prints what came of each, and requires the best at q to be at
// most limit: a busy machine delays everything, and nothing makes it faster than it is.
func best(t *testing.T, what string, q float64, limit time.Duration, measure func() []time.Duration) {
	t.Helper()
	var least time.Duration
	for i := range times(3, 1) {
		text, sorted := spread(measure())
		require.NotEmpty(t, sorted)
		t.Logf("%s: %s", what, text)
		if at := quantile(sorted, q); i == 0 || at < least {
			least = at
		}
		if least <= limit {
			return
		}
	}
	require.LessOrEqual(t, least, limit, what)
}

// A process is killed: all others, each a process too, know that it is dead within 100 ms.
func TestKilledProcessIsKnownDeadByAll(t *testing.T) {
	for _, count := range []int{3, 5} {
		t.Run(fmt.Sprint(count, " processes"), func(t *testing.T) {
			first := spawn(t, "127.0.0.1:1")
			children := []*child{first}
			seed := first.last().Addr
			grow := func() {
				for len(children) < count {
					children = append(children, spawn(t, seed))
				}
				assembled(t, children...)
			}
			best(t, "killed", 0.99, 100*time.Millisecond, func() (took []time.Duration) {
				for range times(3, 60) {
					grow()
					victim := children[len(children)-1]
					children = children[:len(children)-1]
					at := time.Now()
					require.NoError(t, victim.cmd.Process.Kill())
					for _, c := range children {
						took = append(took, c.waitAfter(t, at, func(r report) bool {
							return r.Fates[victim.id] == cluster.FateDead && !slices.Contains(r.Alive, victim.id)
						}))
					}
				}
				return took
			})
		})
	}
}

// A process is killed and started again at the same address within half a second, over and over: each time the old one is known to be dead and
// the new one is a member.
func TestRestartedProcess(t *testing.T) {
	a := spawn(t, "127.0.0.1:1")
	b := spawn(t, a.last().Addr)
	addr := b.last().Addr
	for range times(3, 30) {
		assembled(t, a, b)
		require.NoError(t, b.cmd.Process.Kill())
		again := spawnAt(t, nil, addr, a.last().Addr)
		at := time.Now()
		again.ready(t)
		require.Greater(t, again.id, b.id)
		assembled(t, a, again)
		t.Log("a member again after", time.Since(at).Round(time.Millisecond))
		require.Equal(t, cluster.FateDead, a.last().Fates[b.id])
		require.Equal(t, addr, again.last().Addr)
		b = again
	}
}

func TestCutHost(t *testing.T) {
	t.Parallel()
	for _, hosts := range []int{3, 5} {
		if hosts == 5 && !chaos {
			continue
		}
		t.Run(fmt.Sprint(hosts, " hosts"), func(t *testing.T) {
			f := newFabric(t, hosts)
			children := f.spawn()
			var healed []time.Duration
			gone := func(id string) func(r report) bool {
				return func(r report) bool { return !slices.Contains(r.Alive, id) }
			}
			round := func(victim int, away time.Duration) (took []time.Duration) {
				pauses := 0
				for _, c := range children {
					pauses += int(c.last().Pauses)
				}
				rest := slices.Concat(children[:victim], children[victim+1:])
				at := time.Now()
				f.cut(victim)
				for _, c := range rest {
					took = append(took, c.waitAfter(t, at, gone(children[victim].id)))
				}
				alone := children[victim].waitAfter(t, at, func(r report) bool { return len(r.Alive) == 1 })
				for _, c := range children {
					pauses -= int(c.last().Pauses)
				}
				if slices.Max(took) > 1400*time.Millisecond || pauses != 0 {
					t.Logf("slow: %v, alone after %v, %d pauses", took, alone, -pauses)
				}
				if wait := away - time.Since(at); wait > 0 {
					<-time.After(wait)
				}
				at = time.Now()
				f.plug(victim)
				for _, c := range children {
					healed = append(healed, c.waitAfter(t, at, func(r report) bool { return len(r.Alive) == hosts }))
				}
				assembled(t, children...)
				return took
			}
			best(t, "cut: failed", 0.99, 1500*time.Millisecond, func() (took []time.Duration) {
				for i := range times(2, 40) {
					took = append(took, round(i%hosts, 0)...)
				}
				return took
			})
			if chaos {
				for _, away := range []time.Duration{20 * time.Second, 70 * time.Second} {
					round(hosts-1, away)
				}
			} else {
				round(hosts-1, 6*time.Second)
			}
			text, sorted := spread(healed)
			t.Logf("healed: all views equal after %s", text)
			require.LessOrEqual(t, quantile(sorted, 0.9), 2*time.Second)
		})
	}
}
