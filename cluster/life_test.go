package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

func TestEvictedProcessEnds(t *testing.T) {
	network := faultnet.New(nil)
	b := newBoard()
	stays := start(t, b, func(c *cluster.Config) { c.NodeName = "stays" })
	require.NoError(t, stays.WaitReady(within(t)))
	goes := start(t, b, func(c *cluster.Config) { c.NodeName, c.Network = "goes", network })
	agree(t, stays, goes)
	network.Cut()
	eventually(t, func() bool { return stays.Fate(goes.ID()) == cluster.FateFailed }, nil)
	chunk := make([]byte, 4<<20)
	eventually(t, func() bool { return errors.Is(stays.TryPost(goes.ID(), "t", chunk), cluster.ErrNoMember) }, nil)
	eventually(t, func() bool { return stays.Fate(goes.ID()) == cluster.FateDead }, nil)
	network.Heal()
	select {
	case <-goes.done:
	case <-time.After(patience):
		t.Fatal("the evicted process goes on")
	}
	require.ErrorIs(t, goes.err, cluster.ErrEvicted)
	require.ErrorContains(t, goes.err, stays.ID())
	again := start(t, b, func(c *cluster.Config) { c.NodeName = "goes" })
	agree(t, stays, again)
	require.Nil(t, reason(stays, cluster.CodeDown), "its successor is here")
}

func TestRestartAtTheSameAddressAtOnce(t *testing.T) {
	nodes := group(t, 2, nil)
	addr := nodes[1].Addr()
	nodes[1].kill()
	<-nodes[1].done
	again := start(t, cluster.StaticDiscovery(nodes[0].Addr()), func(c *cluster.Config) { c.BindAddr, c.NodeName = addr, "n1" })
	agree(t, nodes[0], again)
	require.Equal(t, cluster.FateDead, nodes[0].Fate(nodes[1].ID()))
	require.Greater(t, again.ID(), nodes[1].ID())
	require.Nil(t, reason(nodes[0], cluster.CodeDown), "its successor is here")
}

func TestTwoNodesOnOnePort(t *testing.T) {
	a := start(t, newBoard(), nil)
	require.NoError(t, a.WaitReady(within(t)))
	b := start(t, newBoard(), func(c *cluster.Config) { c.BindAddr = a.Addr() })
	<-b.done
	require.ErrorContains(t, b.err, `BindAddr "`+a.Addr()+`" cannot be used`)
}

func TestLifeInAnyOrder(t *testing.T) {
	ctx := within(t)
	fresh := func() *cluster.Node {
		n, err := cluster.New(cluster.Config{ClusterName: "c", Discovery: newBoard(), InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Logger: quiet})
		require.NoError(t, err)
		return n
	}
	n := fresh()
	require.Nil(t, n.Alive())
	require.Empty(t, n.Addr())
	require.Empty(t, n.Fate("x"))
	require.Error(t, n.Check(ctx))
	require.NoError(t, n.Shutdown(ctx))
	require.NoError(t, n.Shutdown(ctx))
	require.NoError(t, n.Run(ctx), "after Shutdown there is nothing to run")
	require.ErrorIs(t, n.Check(ctx), cluster.ErrClosed)
	require.ErrorIs(t, n.Post(ctx, n.ID(), "t", nil), cluster.ErrClosed)
	require.ErrorIs(t, n.WaitReady(ctx), cluster.ErrClosed)
	require.ErrorIs(t, n.Broadcast(ctx, "t", nil), cluster.ErrClosed)
	require.Empty(t, n.Gather(ctx, "t", nil))
	require.Error(t, n.Run(ctx), "a second Run is a mistake")

	n = fresh()
	require.NoError(t, n.Drain(ctx))
	r := run(t, n)
	eventually(t, func() bool { return n.Alive() != nil }, nil)
	require.Error(t, n.WaitReady(shortly(t)), "it drains")
	require.ErrorContains(t, n.Run(ctx), "twice")
	require.NoError(t, n.Shutdown(ctx))
	<-r.done
	require.NoError(t, r.err)
	require.ErrorIs(t, n.SetTag("a", "b"), cluster.ErrClosed)
}

func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// Everything at once, to be run with -race.
func TestRunAndShutdownRace(t *testing.T) {
	for i := range 5 {
		b := newBoard()
		var nodes []*running
		for range 3 {
			nodes = append(nodes, start(t, b, nil))
		}
		var wg sync.WaitGroup
		for k, n := range nodes {
			stop := n.Handle("t", func(context.Context, string, []byte) ([]byte, error) { return nil, nil })
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
				defer cancel()
				for j := range 20 {
					_ = n.Broadcast(ctx, "t", make([]byte, 1000))
					n.TryBroadcast("t", nil)
					n.Gather(ctx, "t", nil)
					_ = n.SetTag("k", fmt.Sprint(j))
					n.Status()
					n.Stats()
				}
			})
			wg.Go(func() {
				switch (i + k) % 3 {
				case 0:
					n.kill()
				default:
					_ = n.Shutdown(context.Background())
				}
				stop()
			})
			wg.Go(func() { _ = n.Shutdown(context.Background()) })
		}
		wg.Wait()
		for _, n := range nodes {
			<-n.done
			require.NoError(t, n.err)
		}
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	nodes := group(t, 3, nil)
	require.NoError(t, nodes[0].Shutdown(within(t)))
	for _, n := range nodes[1:] {
		n.kill()
	}
	for _, n := range nodes {
		<-n.done
	}
	// memberlist does not wait for its goroutines: they end within its time-outs.
	eventually(t, func() bool { return left() == "" }, left)
}

// left returns the stacks of goroutines that work for a Node.
func left() string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var found []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "nines/cluster.") || strings.Contains(g, "nines/cluster/internal/") || strings.Contains(g, "hashicorp/memberlist") {
			found = append(found, g)
		}
	}
	return strings.Join(found, "\n\n")
}

func TestUserCallbacksMayCallTheNode(t *testing.T) {
	b := newBoard()
	var a *cluster.Node
	seen := make(chan cluster.Member, 100)
	cfg := cluster.Config{
		ClusterName: "test", Discovery: b, Keys: [][]byte{testKey}, BindAddr: "127.0.0.1:0", Logger: logger(),
		Hooks: cluster.Hooks{MemberChanged: func(m cluster.Member) {
			a.Status()
			_ = a.SetTag("seen", m.ID)
			seen <- m
		}},
	}
	a, err := cluster.New(cfg)
	require.NoError(t, err)
	ra := run(t, a)
	c := start(t, b, nil)
	agree(t, ra, c)
	eventually(t, func() bool {
		select {
		case m := <-seen:
			return m.ID == c.ID() && m.State == cluster.FateAlive
		default:
			return false
		}
	}, nil)
}
