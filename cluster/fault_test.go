package cluster_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
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

// child is a node in a process of its own.
type child struct {
	id  string
	cmd *exec.Cmd
}

// TestMain runs the test binary as a node when it is told to.
func TestMain(m *testing.M) {
	if seed := os.Getenv("NINES_CLUSTER_CHILD"); seed != "" {
		childMain(seed)
		return
	}
	os.Exit(m.Run())
}

func childMain(seed string) {
	key, err := cluster.ParseKey(os.Getenv("NINES_CLUSTER_KEY"))
	if err != nil {
		panic(err)
	}
	n, err := cluster.New(cluster.Config{
		ClusterName: "test", Discovery: cluster.StaticDiscovery(seed), Keys: [][]byte{key}, BindAddr: "127.0.0.1:0", Logger: logger(), Version: "1.0.0",
	})
	if err != nil {
		panic(err)
	}
	n.Handle("echo", func(_ context.Context, _ string, p []byte) ([]byte, error) { return p, nil })
	n.Handle("pauses", func(context.Context, string, []byte) ([]byte, error) {
		return fmt.Append(nil, n.Stats().Pauses, " ", strings.Join(n.Alive(), ",")), nil
	})
	go func() {
		_ = n.WaitReady(context.Background())
		fmt.Println("id", n.ID())
		// The parent holds the other end: without it the child must not stay.
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}()
	if err := n.Run(context.Background()); err != nil {
		fmt.Println("end", err)
		os.Exit(3)
	}
}

func spawn(t *testing.T, seed string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "NINES_CLUSTER_CHILD="+seed, "NINES_CLUSTER_KEY="+cluster.FormatKey(testKey))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	id, ok := strings.CutPrefix(strings.TrimSpace(line), "id ")
	require.True(t, ok, line)
	return &child{id: id, cmd: cmd}
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
