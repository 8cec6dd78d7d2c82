package cluster_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

func TestCutAndHeal(t *testing.T) {
	ctx := within(t)
	network := faultnet.New(nil)
	var b *board
	nodes := group(t, 3, func(i int, c *cluster.Config) {
		if i == 2 {
			c.Network = network
		}
		b = c.Discovery.(*board)
	})
	b.clear() // nobody finds the others again but from memory
	cut := nodes[2]
	var next atomic.Uint64
	bad := make(chan string, 10)
	cut.Handle("n", func(_ context.Context, _ string, p []byte) ([]byte, error) {
		if seq := binary.BigEndian.Uint64(p); seq != next.Load() {
			bad <- fmt.Sprint("got ", seq, " want ", next.Load())
		}
		next.Add(1)
		return nil, nil
	})
	sent := uint64(0)
	post := func() {
		require.NoError(t, nodes[0].Post(ctx, cut.ID(), "n", binary.BigEndian.AppendUint64(nil, sent)))
		sent++
	}
	for _, away := range []time.Duration{0, 4 * time.Second} {
		for range 50 {
			post()
		}
		at := time.Now()
		network.Cut()
		for range 50 {
			post()
		}
		eventually(t, func() bool {
			return nodes[0].Fate(cut.ID()) == cluster.FateFailed && nodes[1].Fate(cut.ID()) == cluster.FateFailed
		}, func() string { return nodes[0].Fate(cut.ID()) })
		t.Log("cut: failed after", time.Since(at).Round(time.Millisecond))
		require.Equal(t, ids(nodes[:2]...), nodes[0].Alive())
		eventually(t, func() bool { return len(cut.Alive()) == 1 }, nil)
		t.Log("cut: alone after", time.Since(at).Round(time.Millisecond))
		post()
		if wait := away - time.Since(at); wait > 0 {
			<-time.After(wait)
		}
		at = time.Now()
		network.Heal()
		agree(t, nodes...)
		t.Log("heal: merged after", time.Since(at).Round(time.Millisecond))
		eventually(t, func() bool { return next.Load() == sent || len(bad) > 0 }, func() string { return fmt.Sprint(next.Load(), " of ", sent) })
		require.Empty(t, bad)
		eventually(t, func() bool {
			return nodes[0].Fate(cut.ID()) == cluster.FateAlive && cut.Fate(nodes[1].ID()) == cluster.FateAlive
		}, nil)
		t.Log("heal: gossip too after", time.Since(at).Round(time.Millisecond))
	}
}

// watch measures how long it takes until ok, woken by Notify.
func watch(t *testing.T, n *running, ok func() bool) time.Duration {
	c := make(chan struct{}, 1)
	defer n.Notify(c)()
	at := time.Now()
	end := time.After(patience)
	for !ok() {
		select {
		case <-c:
		case <-end:
			t.Fatal("gave up waiting")
		}
	}
	return time.Since(at)
}

func TestKilledProcessIsKnownAtOnce(t *testing.T) {
	nodes := group(t, 2, nil)
	var took []time.Duration
	for range 5 {
		c := spawn(t, nodes[0].Addr())
		eventually(t, func() bool {
			return len(nodes[0].Alive()) == 3 && len(nodes[1].Alive()) == 3 && nodes[1].Stats().Links == 2
		}, nil)
		done := make(chan time.Duration, 2)
		for _, n := range nodes {
			go func() { done <- watch(t, n, func() bool { return !slices.Contains(n.Alive(), c.id) }) }()
		}
		require.NoError(t, c.cmd.Process.Kill())
		for range nodes {
			took = append(took, <-done)
		}
		for _, n := range nodes {
			require.Equal(t, cluster.FateDead, n.Fate(c.id))
		}
	}
	slices.Sort(took)
	t.Logf("killed: known after p50 %v, max %v", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	require.Less(t, took[0], time.Second, "faster than any time-out could be")
}

func TestPausedProcessFailsAndComesBack(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 2, nil)
	c := spawn(t, nodes[0].Addr())
	eventually(t, func() bool {
		return len(nodes[0].Alive()) == 3 && len(nodes[1].Alive()) == 3 && nodes[1].Stats().Links == 2
	}, nil)
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	took := watch(t, nodes[0], func() bool { return nodes[0].Fate(c.id) == cluster.FateFailed })
	t.Log("stopped: failed after", took.Round(time.Millisecond))
	eventually(t, func() bool { return nodes[1].Fate(c.id) == cluster.FateFailed }, nil)
	require.NoError(t, nodes[0].Post(ctx, c.id, "echo", []byte("kept")))
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	took = watch(t, nodes[0], func() bool { return nodes[0].Fate(c.id) == cluster.FateAlive })
	t.Log("continued: alive after", took.Round(time.Millisecond))
	eventually(t, func() bool { return nodes[1].Fate(c.id) == cluster.FateAlive }, nil)
	got, err := nodes[0].Request(ctx, c.id, "echo", []byte("again"))
	require.NoError(t, err)
	require.Equal(t, "again", string(got))
	eventually(t, func() bool { return nodes[0].Tag(c.id, cluster.TagPaused) == "" }, nil)
	got, err = nodes[0].Request(ctx, c.id, "pauses", nil)
	require.NoError(t, err)
	require.Equal(t, "1 "+strings.Join(nodes[0].Alive(), ","), string(got), "it noticed, and lost nobody")
	for _, n := range nodes {
		require.Len(t, n.Alive(), 3)
	}
}

func TestShortPauseIsNoEvent(t *testing.T) {
	nodes := group(t, 2, nil)
	c := spawn(t, nodes[0].Addr())
	eventually(t, func() bool { return len(nodes[0].Alive()) == 3 && nodes[0].Stats().Links == 2 }, nil)
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	<-time.After(300 * time.Millisecond)
	require.NoError(t, c.cmd.Process.Signal(syscall.SIGCONT))
	for end := time.After(2 * time.Second); ; {
		select {
		case <-end:
			return
		default:
		}
		require.Contains(t, nodes[0].Alive(), c.id)
		<-time.After(5 * time.Millisecond)
	}
}
