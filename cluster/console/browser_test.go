package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/config"
	"github.com/nines-go/nines/cluster/console"
	"github.com/nines-go/nines/internal/faultnet"
	"github.com/nines-go/nines/internal/lab"
)

// board is a Discovery in memory.
type board struct {
	mu   sync.Mutex
	rows map[string]cluster.Entry
}

func newBoard() *board { return &board{rows: map[string]cluster.Entry{}} }

func (b *board) Register(_ context.Context, e cluster.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.CreateAt, e.LastPingAt = time.Now(), time.Now()
	b.rows[e.ID] = e
	return nil
}

func (b *board) Heartbeat(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.rows[id]
	e.LastPingAt = time.Now()
	b.rows[id] = e
	return nil
}

func (b *board) Seeds(context.Context, string) (all []cluster.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
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

// settings is a configuration with a secret.
type settings struct {
	Service struct {
		Title   string
		Workers int `nines:"restart"`
	}
	Database struct {
		DataSource string `nines:"secret"`
	}
	Node struct {
		Address string
	} `nines:"local,restart"`
}

const canary = "canary-4711-zebra"

// member is a node with all that the console shows.
type member struct {
	*cluster.Node
	page   *httptest.Server
	logger *slog.Logger
	stop   func()
}

// join starts one.
func join(t *testing.T, d cluster.Discovery, keys [][]byte, name string, change func(c *cluster.Config, s *settings, p *console.Config)) *member {
	var values settings
	values.Service.Title, values.Service.Workers = "chat", 4
	values.Database.DataSource = "postgres://chat:" + canary + "@db/chat"
	values.Node.Address = name
	cfg := cluster.Config{
		ClusterName: "test", NodeName: name, Version: "10.4.2", Schema: 7, Keys: keys, BindAddr: "127.0.0.1:0", Discovery: d,
	}
	logs := console.NewLogs(nil, nil)
	var page console.Config
	var count atomic.Int64
	page.Cards = []console.Card{
		console.Of("database", func() map[string]any {
			return map[string]any{"queries": count.Add(3), "open_conns": 3 + time.Now().Second()%4, "sources": []source{{"replica1", time.Second}}}
		}, nil, console.Action{Name: "recycle connections", Every: true, Run: func(context.Context, string) error { return nil }}),
		console.Of("files", figures, nil, console.Action{Name: "say", Ask: "what to say", Run: func(_ context.Context, arg string) error {
			if arg == "" {
				return errors.New("nothing was said")
			}
			return nil
		}}),
	}
	page.AllowActions, page.Logs, page.Logger = true, logs, slog.New(logs)
	if change != nil {
		change(&cfg, &values, &page)
	}
	cfg.Logger = slog.New(logs)
	store, err := config.Open(t.Context(), config.Config[settings]{Default: values, Env: []string{"APP_SERVICE_WORKERS=5"}, EnvPrefix: "APP_", Logger: cfg.Logger})
	require.NoError(t, err)
	n, err := cluster.New(cfg)
	require.NoError(t, err)
	require.NoError(t, store.Attach(n))
	page.Node, page.Settings, page.Secrets = n, store.Settings, store.Secrets
	m := &member{Node: n, page: serve(t, page), logger: cfg.Logger}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Run(ctx) })
	wg.Go(func() { _ = store.Run(ctx) })
	m.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(m.stop)
	return m
}

// different is what a Check says of another file store.
type different struct{}

func (different) Error() string {
	return "this node's file store is another than that of the others (id 51ab…)"
}
func (different) Remedy() string { return "mount the same directory on all nodes" }

// A page with a red node of each reason, in a real browser.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	lab.Need(t, "Chromium", err)
	_, err = exec.LookPath("node")
	lab.Need(t, "Node.js", err)
	playwright, err := filepath.Abs("../../.cache/browser/node_modules/playwright-core")
	require.NoError(t, err)
	if root := os.Getenv("NINES_PLAYWRIGHT"); root != "" {
		playwright = root
	}
	_, err = os.Stat(playwright)
	lab.Need(t, "playwright-core (scripts/setup)", err)

	d, keys := newBoard(), [][]byte{cluster.NewKey()}
	network := faultnet.New(nil)
	a := join(t, d, keys, "node1", nil)
	require.NoError(t, a.WaitReady(within(t)))
	join(t, d, keys, "node2-configuration", func(_ *cluster.Config, s *settings, _ *console.Config) {
		s.Service.Title = "chit-chat"
		s.Database.DataSource = "postgres://chat:other@db/chat"
	})
	join(t, d, keys, "node3-version", func(c *cluster.Config, _ *settings, _ *console.Config) { c.Version = "10.1.0" })
	join(t, d, keys, "node4-schema", func(c *cluster.Config, _ *settings, _ *console.Config) { c.Schema = 6 })
	join(t, d, keys, "node5-store", func(_ *cluster.Config, _ *settings, p *console.Config) {
		p.Cards[1].Check = func(context.Context) error { return different{} }
	})
	join(t, d, keys, "node6-amber", func(c *cluster.Config, _ *settings, p *console.Config) {
		c.Version = "10.5.0"
		p.Cards[0].Check = func(context.Context) error { return warning{soft: true} }
	})
	dead := join(t, d, keys, "node7-dead", nil)
	failed := join(t, d, keys, "node8-failed", func(c *cluster.Config, _ *settings, _ *console.Config) { c.Network = network })
	require.Eventually(t, func() bool {
		met := 0
		for _, m := range a.Members() {
			if m.Name != "" && m.Linked && m.State == cluster.FateAlive {
				met++
			}
		}
		return met == 8
	}, 60*time.Second, 20*time.Millisecond)
	dead.stop()
	network.Cut()
	join(t, d, [][]byte{cluster.NewKey()}, "node9-keys", nil)
	mute, err := net.Listen("tcp", "127.0.0.1:0") // a process that a firewall hides: its row is fresh, and nothing answers
	require.NoError(t, err)
	defer mute.Close()
	require.NoError(t, d.Register(t.Context(), cluster.Entry{ID: "0190a000-0000-7000-8000-000000000001", ClusterName: "test", Hostname: "127.0.0.1", GossipPort: mute.Addr().(*net.TCPAddr).Port}))
	a.logger.Info("connected", "url", "postgres://chat:"+canary+"@db/chat", "password", canary)
	require.Eventually(t, func() bool { return a.Fate(failed.ID()) == cluster.FateFailed && a.Fate(dead.ID()) == cluster.FateDead }, 30*time.Second, 20*time.Millisecond)

	want, err := json.Marshal([]string{
		"node2-configuration has another configuration than this node: section Service and the secrets of section Database differ",
		"node3-version runs version 10.1.0, more than one minor version from this node's 10.4.2",
		"node4-schema has schema version 6, this node 7",
		"node5-store: this node's file store is another than that of the others", "mount the same directory on all nodes",
		"one minor version from this node's", "one of two sources lags",
		"node7-dead is down since", "node8-failed is down since", "refuses this node", "and this node cannot reach it since",
		"Service.Title", "connected",
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "testdata/browser.mjs")
	cmd.Env = append(os.Environ(), "CHROMIUM="+chromium, "URL="+a.page.URL+"/ha", "PLAYWRIGHT="+playwright, "WANT="+string(want), "CANARY="+canary)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
