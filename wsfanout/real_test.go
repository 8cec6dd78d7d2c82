package wsfanout_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

var _ wsfanout.Transport = (*cluster.Node)(nil)

// board is a discovery in memory.
type board struct {
	mu   sync.Mutex
	rows map[string]cluster.Entry
}

func (b *board) Register(_ context.Context, e cluster.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.CreateAt, e.LastPingAt = time.Now(), time.Now()
	b.rows[e.ID] = e
	return nil
}

func (b *board) Heartbeat(context.Context, string) error { return nil }

func (b *board) Seeds(context.Context, string) ([]cluster.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []cluster.Entry
	for _, e := range b.rows {
		all = append(all, e)
	}
	return all, nil
}

func (b *board) Deregister(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.rows, id)
	return nil
}

// node is a cluster node and its hub.
type node struct {
	*server
	node *cluster.Node
	end  func() // kill -9 of both
}

func startNode(t testing.TB, b *board, cfg wsfanout.Config) *node {
	t.Helper()
	n, err := cluster.New(cluster.Config{
		ClusterName: "chat", Discovery: b, InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Profile: cluster.Local,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Run(ctx) })
	cfg.Transport = n
	s := start(t, cfg)
	end := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(end)
	return &node{s, n, end}
}

// The same over real nodes: a home dies in mid-stream, then all nodes are replaced one by one.
func TestOverCluster(t *testing.T) {
	b := &board{rows: map[string]cluster.Entry{}}
	var nodes []*node
	g := &group{net: wsfanouttest.NewNetwork()}
	t.Cleanup(g.net.Close)
	for range 3 {
		nodes = append(nodes, startNode(t, b, wsfanout.Config{DrainSpread: 50 * time.Millisecond}))
	}
	for _, n := range nodes {
		g.all = append(g.all, n.server)
	}
	settled(t, g.all...)
	three := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			for _, n := range nodes {
				if len(n.node.Alive()) != 3 {
					return false
				}
			}
			return true
		}, patience, 10*time.Millisecond)
		settled(t, g.all...)
	}
	three()
	var mu sync.Mutex
	gone := map[int]bool{}
	ls := g.clients(t, "room")
	stop, count := g.stream(t, "room", func(i int) bool { mu.Lock(); defer mu.Unlock(); return !gone[i] })
	more := func() {
		t.Helper()
		n := count()
		require.Eventually(t, func() bool { return count() > n+30 }, patience, time.Millisecond, "publishing stands still: %d", n)
	}
	replace := func(i int) {
		t.Helper()
		fresh := startNode(t, b, wsfanout.Config{DrainSpread: 50 * time.Millisecond})
		g.all[i].http.Config.Handler.(*switcher).set(fresh.hub)
		nodes[i] = fresh
		mu.Lock()
		fresh.http, g.all[i] = g.all[i].http, fresh.server
		gone[i] = false
		mu.Unlock()
		three()
	}
	more()
	home := 0
	for i, n := range nodes {
		if n.node.ID() == g.all[0].hub.Home("room") {
			home = i
		}
	}
	mu.Lock()
	gone[home] = true
	mu.Unlock()
	begun := time.Now()
	nodes[home].stop()
	nodes[home].end()
	more()
	t.Logf("%s killed", nodes[home].node.ID())
	t.Logf("30 more messages %v after the death of the home", time.Since(begun))
	replace(home)
	more()
	for i := range nodes {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		mu.Lock()
		gone[i] = true
		mu.Unlock()
		if err := nodes[i].node.Drain(ctx); err != nil {
			t.Logf("drain of %s: %v; members %v", nodes[i].node.ID(), err, nodes[i].node.Alive())
		}
		begun := time.Now()
		require.NoError(t, nodes[i].hub.Shutdown(ctx))
		t.Logf("shutdown of a hub: %v", time.Since(begun))
		require.NoError(t, nodes[i].node.Shutdown(ctx))
		cancel()
		more()
		replace(i)
		more()
	}
	complete(t, "room", stop(), ls...)
}
