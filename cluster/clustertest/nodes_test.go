package clustertest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// group is Nodes of one network, in a bubble.
type group struct {
	t     *testing.T
	net   *clustertest.Network
	nodes []*member
}

type member struct {
	*cluster.Node
	host string
	stop context.CancelFunc
	done chan struct{}
	err  error
}

func hosts(count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("h%02d", i)
	}
	return names
}

// start runs one Node on each host; change may be nil.
func start(t *testing.T, net *clustertest.Network, names []string, change func(c *cluster.Config)) *group {
	t.Helper()
	g := &group{t: t, net: net}
	for _, name := range names {
		g.add(name, change)
	}
	return g
}

func (g *group) add(host string, change func(c *cluster.Config)) *member {
	g.t.Helper()
	cfg := g.net.Config(host)
	if change != nil {
		change(&cfg)
	}
	n, err := cluster.New(cfg)
	require.NoError(g.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Node: n, host: host, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		m.err = n.Run(ctx)
	}()
	g.nodes = append(g.nodes, m)
	return m
}

// end stops all, so that the bubble can end.
func (g *group) end() {
	for _, m := range g.nodes {
		m.stop()
	}
	for _, m := range g.nodes {
		<-m.done
	}
	time.Sleep(5 * time.Second) // the timers of the gossip library
}

func ids(nodes []*member) (want []string) {
	for _, m := range nodes {
		want = append(want, m.ID())
	}
	slices.Sort(want)
	return want
}

func agreed(nodes []*member) bool {
	want := ids(nodes)
	for _, m := range nodes {
		if !slices.Equal(m.Alive(), want) {
			return false
		}
	}
	return true
}

// until polls in simulated time and returns how long it took; ok is false after limit.
func until(limit time.Duration, cond func() bool) (took time.Duration, ok bool) {
	begin := time.Now()
	for !cond() {
		if took = time.Since(begin); took >= limit {
			return took, false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin), true
}

func (g *group) views() string {
	var s strings.Builder
	for _, m := range g.nodes {
		fmt.Fprintf(&s, "%s %s sees", m.host, m.ID())
		for _, o := range g.nodes {
			fmt.Fprintf(&s, " %s:%s", o.host, m.Fate(o.ID()))
		}
		s.WriteString("\n")
	}
	return s.String()
}

// agree waits until everybody sees everybody.
func (g *group) agree(limit time.Duration) time.Duration {
	g.t.Helper()
	took, ok := until(limit, func() bool { return agreed(g.nodes) })
	require.True(g.t, ok, "after %v:\n%s", took, g.views())
	return took
}

func bubble(t *testing.T, fn func(t *testing.T)) { t.Helper(); synctest.Test(t, fn) }

func TestNodesJoinInMemory(t *testing.T) {
	began := time.Now()
	bubble(t, func(t *testing.T) {
		net := clustertest.New(1)
		g := start(t, net, hosts(3), nil)
		defer g.end()
		t.Log("joined after", g.agree(5*time.Second))
		time.Sleep(60 * time.Second)
		require.True(t, agreed(g.nodes))
	})
	t.Log("a minute took", time.Since(began))
}

func TestExamplePartition(t *testing.T) { partition(t) }
