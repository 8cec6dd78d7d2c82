package cluster_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func logger() *slog.Logger {
	if os.Getenv("NINES_TEST_LOG") == "" {
		return quiet
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

const patience = time.Minute // nothing waits that long on an idle machine

// board is a Discovery in memory.
type board struct {
	mu   sync.Mutex
	rows map[string]cluster.Entry
	down error
}

func newBoard() *board { return &board{rows: map[string]cluster.Entry{}} }

func (b *board) Register(_ context.Context, e cluster.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.CreateAt, e.LastPingAt = time.Now(), time.Now()
	b.rows[e.ID] = e
	return b.down
}

func (b *board) Heartbeat(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.rows[id]
	if !ok {
		return fmt.Errorf("no row")
	}
	e.LastPingAt = time.Now()
	b.rows[id] = e
	return b.down
}

func (b *board) Seeds(_ context.Context, name string) ([]cluster.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var entries []cluster.Entry
	for _, e := range b.rows {
		if e.ClusterName == name {
			entries = append(entries, e)
		}
	}
	return entries, b.down
}

func (b *board) Deregister(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.rows, id)
	return b.down
}

func (b *board) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.rows)
}

func (b *board) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.rows)
}

var testKey = cluster.NewKey()

// running is a Node with its Run.
type running struct {
	*cluster.Node
	kill func() // the hard stop
	done chan struct{}
	err  error
}

func start(t *testing.T, d cluster.Discovery, change func(c *cluster.Config)) *running {
	t.Helper()
	cfg := cluster.Config{
		ClusterName: "test", Discovery: d, Keys: [][]byte{testKey}, BindAddr: "127.0.0.1:0", Logger: logger(), Version: "1.0.0",
	}
	if change != nil {
		change(&cfg)
	}
	n, err := cluster.New(cfg)
	require.NoError(t, err)
	n.KeepForPeers(8 << 20) // and not 64 MiB, which take long to fill
	return run(t, n)
}

func run(t *testing.T, n *cluster.Node) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, kill: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = n.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
	})
	return r
}

// group starts count nodes and waits until all see all.
func group(t *testing.T, count int, change func(i int, c *cluster.Config)) []*running {
	t.Helper()
	b := newBoard()
	nodes := make([]*running, count)
	for i := range nodes {
		nodes[i] = start(t, b, func(c *cluster.Config) {
			c.NodeName = fmt.Sprintf("n%d", i)
			if change != nil {
				change(i, c)
			}
		})
	}
	agree(t, nodes...)
	return nodes
}

func ids(nodes ...*running) []string {
	var want []string
	for _, n := range nodes {
		want = append(want, n.ID())
	}
	slices.Sort(want)
	return want
}

// agree waits until each of nodes sees exactly nodes, linked.
func agree(t *testing.T, nodes ...*running) {
	t.Helper()
	eventually(t, func() bool {
		want := ids(nodes...)
		for _, n := range nodes {
			if !slices.Equal(want, n.Alive()) || n.Stats().Links < len(nodes)-1 {
				return false
			}
		}
		return true
	}, func() string {
		var s strings.Builder
		for _, n := range nodes {
			s.WriteString(fmt.Sprintf("%s sees %v, %d links; ", n.ID(), n.Alive(), n.Stats().Links))
		}
		return s.String()
	})
}

func eventually(t *testing.T, ok func() bool, why func() string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	if why != nil {
		t.Fatal("gave up waiting: ", why())
	}
	t.Fatal("gave up waiting")
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
