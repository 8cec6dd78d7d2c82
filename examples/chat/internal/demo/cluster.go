package demo

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const host = "127.0.0.1"

// options are the flags of the command.
type options struct {
	nodes int
	addr  string // of the proxy
	dir   string // "": a temporary one, removed at the end
}

// demoCluster is everything that the demo runs: the nodes, the proxy in front of them and their common folder.
type demoCluster struct {
	dir    string
	temp   bool
	url    string // of the proxy
	nodes  []*process
	proxy  *Proxy
	server *http.Server
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// launch starts the proxy and all nodes, and returns when every node listens.
func launch(ctx context.Context, o options) (_ *demoCluster, err error) {
	c := &demoCluster{dir: o.dir}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "nines-demo-"); err != nil {
			return nil, err
		}
		c.temp = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "files"), 0o700); err != nil {
		return nil, fmt.Errorf("-dir %q cannot be made: %w: give a directory that this user may write", o.dir, err)
	}
	l, err := listen(o.addr)
	if err != nil {
		return nil, err
	}
	c.url = "http://localhost:" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := c.configure(o.nodes); err != nil {
		l.Close()
		return nil, err
	}
	c.serve(l)
	errs := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i, p := range c.nodes {
		wg.Go(func() { errs[i] = p.start(ctx) })
	}
	wg.Wait()
	return c, errors.Join(errs...)
}

// listen takes the proxy's address, or a free port of the same host when it is taken.
func listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l, nil
	}
	h, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		return nil, fmt.Errorf("-addr %q is not host:port: give one like 127.0.0.1:8080", addr)
	}
	if l, freeErr := net.Listen("tcp", net.JoinHostPort(h, "0")); freeErr == nil {
		return l, nil
	}
	return nil, fmt.Errorf("-addr %q: %w", addr, err)
}

// configure writes one configuration a node, as an operator would.
func (c *demoCluster) configure(n int) error {
	key, err := c.key32()
	if err != nil {
		return err
	}
	var ports [][2]int
	taken := map[int]bool{}
	for i := range n {
		var pair [2]int
		for j, want := range []int{8065 + i, 8074 + i} {
			port, err := freePort(host, want)
			for err == nil && taken[port] {
				port, err = freePort(host, 0)
			}
			if err != nil {
				return err
			}
			taken[port], pair[j] = true, port
		}
		ports = append(ports, pair)
	}
	for i, pair := range ports {
		name := fmt.Sprintf("node%d", i+1)
		config, log := nodeDir(c.dir, i+1)
		addr := net.JoinHostPort(host, strconv.Itoa(pair[0]))
		text, err := json.MarshalIndent(map[string]any{
			"ServiceSettings": map[string]any{"ListenAddress": addr, "SiteURL": c.url},
			"ClusterSettings": map[string]any{
				"Enable": true, "ClusterName": "demo", "NodeName": name,
				"BindAddress": host, "AdvertiseAddress": host, "GossipPort": pair[1],
				"EncryptionKeys": []string{key},
			},
			"SqlSettings":  map[string]any{"DriverName": "sqlite", "DataSource": "file:" + filepath.Join(c.dir, "chat.db")},
			"FileSettings": map[string]any{"DriverName": "local", "Directory": filepath.Join(c.dir, "files")},
		}, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(config, text, 0o600); err != nil {
			return err
		}
		c.nodes = append(c.nodes, &process{name: name, config: config, log: log, addr: addr})
	}
	return nil
}

// key32 is the cluster's key. It is kept in the folder, so that a second run there is of the same cluster as what the first has left behind.
func (c *demoCluster) key32() (string, error) {
	path := filepath.Join(c.dir, "cluster.key")
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", err
	}
	encoded := base64.StdEncoding.EncodeToString(key)
	return encoded, os.WriteFile(path, []byte(encoded+"\n"), 0o600)
}

// serve runs the proxy on l.
func (c *demoCluster) serve(l net.Listener) {
	var addrs []string
	for _, p := range c.nodes {
		addrs = append(addrs, p.addr)
	}
	quiet := slog.New(slog.DiscardHandler)
	c.proxy = NewProxy(addrs, quiet)
	c.server = &http.Server{Handler: c.proxy, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelDebug)}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.wg.Go(func() { c.proxy.Run(ctx) })
	c.wg.Go(func() { _ = c.server.Serve(l) })
}

// close ends everything. The folder is removed when it was a temporary one.
func (c *demoCluster) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range c.nodes {
		if s, _ := p.current(); s != "ended" && s != "killed" && s != "" {
			wg.Go(func() { _ = p.stop(ctx) })
		}
	}
	wg.Wait()
	if c.stop != nil {
		c.stop()
		_ = c.server.Close()
		c.wg.Wait()
	}
	if c.temp {
		return os.RemoveAll(c.dir)
	}
	return nil
}

// node returns node i, counted from 1.
func (c *demoCluster) node(i int) (*process, error) {
	if i < 1 || i > len(c.nodes) {
		return nil, fmt.Errorf("there is no node %d: give a number from 1 to %d", i, len(c.nodes))
	}
	return c.nodes[i-1], nil
}

// views asks every running node for its own state. A node that does not answer is left out.
func (c *demoCluster) views(ctx context.Context, topics ...string) map[*process]state {
	var mu sync.Mutex
	views := map[*process]state{}
	var wg sync.WaitGroup
	for _, p := range c.nodes {
		if s, _ := p.current(); s != "running" {
			continue
		}
		wg.Go(func() {
			if s, err := p.ask(ctx, topics...); err == nil {
				mu.Lock()
				defer mu.Unlock()
				views[p] = s
			}
		})
	}
	wg.Wait()
	return views
}

// running counts the nodes that should take part.
func (c *demoCluster) running() int {
	n := 0
	for _, p := range c.nodes {
		if s, _ := p.current(); s == "running" {
			n++
		}
	}
	return n
}

// waitSettled waits until all running nodes agree on who is there and who leads, and every topic has its two copies.
func (c *demoCluster) waitSettled(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		why := c.unsettled(ctx)
		if why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not settled within %s: %s", limit, why)
		case <-tick.C:
		}
	}
}

// unsettled says why the cluster is not settled, or nothing.
func (c *demoCluster) unsettled(ctx context.Context) string {
	n := c.running()
	views := c.views(ctx)
	if len(views) < n {
		return fmt.Sprintf("%d of %d nodes answer", len(views), n)
	}
	leader := ""
	for p, v := range views {
		switch {
		case len(v.Alive) != n:
			return fmt.Sprintf("%s sees %d of %d nodes", p.name, len(v.Alive), n)
		case v.Leader == "" || leader != "" && v.Leader != leader:
			return p.name + " has no leader, or another one than the others"
		case !v.Settled:
			return p.name + " is still taking over or copying topics"
		}
		leader = v.Leader
	}
	for _, v := range views {
		if v.ID == leader {
			return ""
		}
	}
	for _, p := range c.nodes {
		if s, _ := p.current(); s == "cut" {
			return "" // it reaches the database, where the lease is, and may go on leading
		}
	}
	return "the leader is not among the running nodes"
}
