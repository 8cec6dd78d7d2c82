package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

// A child is a Node in a process of its own: this test binary, told so by its environment. It reports what it sees, a line for each change,
// until its standard input ends.

// TestMain runs the test binary as a node when it is told to.
func TestMain(m *testing.M) {
	if seeds := os.Getenv("NINES_CLUSTER_CHILD"); seeds != "" {
		childMain(strings.Split(seeds, ","), os.Getenv("NINES_CLUSTER_BIND"))
		return
	}
	os.Exit(m.Run())
}

// report is what a child sees at a time.
type report struct {
	At     int64 // ns since 1970: all children run on this machine
	ID     string
	Addr   string
	Alive  []string
	Fates  map[string]string
	Links  int
	Pauses int64
	Ready  bool
	Flags  int
	Level  string
	Texts  []string // of reasons
	End    string   // of Run
}

func childMain(seeds []string, bind string) {
	key, err := cluster.ParseKey(os.Getenv("NINES_CLUSTER_KEY"))
	if err != nil {
		panic(err)
	}
	d := cluster.StaticDiscovery(seeds...)
	if file, ok := strings.CutPrefix(seeds[0], "sqlite "); ok {
		db, err := sqlx.Open("sqlite", file)
		if err != nil {
			panic(err)
		}
		d = cluster.SQLDiscovery(db)
	}
	n, err := cluster.New(cluster.Config{
		ClusterName: "test", Discovery: d, Keys: [][]byte{key}, BindAddr: bind, Logger: logger(), Version: "1.0.0",
	})
	if err != nil {
		panic(err)
	}
	if version, err := strconv.Atoi(os.Getenv("NINES_CLUSTER_WIRE")); err == nil {
		n.SpeakAtMost(version)
	}
	n.Handle("echo", func(_ context.Context, _ string, p []byte) ([]byte, error) { return p, nil })
	n.Handle("back", func(ctx context.Context, from string, p []byte) ([]byte, error) {
		return n.Request(ctx, from, "echo", p)
	})
	n.Handle("pauses", func(context.Context, string, []byte) ([]byte, error) {
		return fmt.Append(nil, n.Stats().Pauses, " ", strings.Join(n.Alive(), ",")), nil
	})
	out := json.NewEncoder(os.Stdout)
	look := func() (r report) {
		r.Alive = n.Alive()
		r.At = time.Now().UnixNano() // not before the view
		r.ID, r.Addr, r.Fates = n.ID(), n.Addr(), map[string]string{}
		for _, m := range n.Members() {
			r.Fates[m.ID] = string(m.State)
		}
		s := n.Stats()
		r.Links, r.Pauses, r.Flags = s.Links, s.Pauses, len(n.Flags())
		status := n.Status()
		r.Level, r.Ready = status.Level.String(), true
		for _, x := range status.Reasons {
			r.Texts = append(r.Texts, x.Text)
			r.Ready = r.Ready && !x.NotReady
		}
		return r
	}
	lookEvery := 20 * time.Millisecond
	if os.Getenv("NINES_CLUSTER_IDLE") != "" { // what is measured is the node
		lookEvery = 10 * time.Second
	}
	go func() {
		changed := make(chan struct{}, 1)
		defer n.Notify(changed)()
		var last report
		for again := time.NewTicker(lookEvery); ; {
			now := look()
			if now.Links != last.Links || now.Pauses != last.Pauses || now.Ready != last.Ready || now.Flags != last.Flags ||
				now.Level != last.Level || len(now.Texts) != len(last.Texts) || len(now.Texts) > 0 && now.Texts[0] != last.Texts[0] ||
				!slices.Equal(now.Alive, last.Alive) || !maps.Equal(now.Fates, last.Fates) {
				last = now
				_ = out.Encode(now)
			}
			select {
			case <-changed:
			case <-again.C:
			}
		}
	}()
	go func() {
		// The parent holds the other end: without it the child must not stay.
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			if in.Text() == "leave" {
				_ = n.Shutdown(context.Background())
			}
		}
		os.Exit(0)
	}()
	if err := n.Run(context.Background()); err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(report{End: err.Error()})
		os.Exit(3)
	}
	os.Exit(0)
}

// child is a process that runs childMain.
type child struct {
	id  string
	cmd *exec.Cmd
	in  io.WriteCloser

	mu      sync.Mutex
	reports []report
	changed chan struct{}
	ended   chan struct{}
}

// spawn runs a node at a free port of loopback and waits until it is ready.
func spawn(t *testing.T, seeds ...string) *child {
	t.Helper()
	c := spawnAt(t, nil, "127.0.0.1:0", seeds...)
	c.ready(t)
	return c
}

// spawnAt runs a node, by way of a wrapper such as "ip netns exec x" when one is given.
func spawnAt(t *testing.T, wrapper []string, bind string, seeds ...string) *child {
	t.Helper()
	args := append(slices.Clone(wrapper), os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NINES_CLUSTER_CHILD="+strings.Join(seeds, ","), "NINES_CLUSTER_BIND="+bind, "NINES_CLUSTER_KEY="+cluster.FormatKey(testKey))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{cmd: cmd, in: in, changed: make(chan struct{}, 1), ended: make(chan struct{})}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		<-c.ended
	})
	go func() {
		defer close(c.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r report
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				continue
			}
			c.mu.Lock()
			c.reports = append(c.reports, r)
			c.mu.Unlock()
			select {
			case c.changed <- struct{}{}:
			default:
			}
		}
		_ = cmd.Wait()
	}()
	return c
}

// last is what the child saw last.
func (c *child) last() (r report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.reports) > 0 {
		r = c.reports[len(c.reports)-1]
	}
	return r
}

func (c *child) ready(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return c.last().Ready && c.last().Alive != nil }, func() string { return fmt.Sprintf("%+v", c.last()) })
	c.id = c.last().ID
}

// after returns the first report of the child, later than at, for which ok holds, and how long after at it was made.
func (c *child) after(at time.Time, ok func(r report) bool) (took time.Duration, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.reports {
		if r.At >= at.UnixNano() && ok(r) {
			return time.Duration(r.At - at.UnixNano()), true
		}
	}
	return 0, false
}

// waitAfter waits for such a report.
func (c *child) waitAfter(t *testing.T, at time.Time, ok func(r report) bool) (took time.Duration) {
	t.Helper()
	eventually(t, func() (found bool) { took, found = c.after(at, ok); return found }, func() string { return fmt.Sprintf("%+v", c.last()) })
	return took
}

// since returns what the child reported since then.
func (c *child) since(at time.Time) (rs []report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.reports {
		if r.At >= at.UnixNano() {
			rs = append(rs, r)
		}
	}
	return rs
}

// assembled waits until each child sees exactly those, linked.
func assembled(t *testing.T, children ...*child) {
	t.Helper()
	eventually(t, func() bool { return together(children) }, func() string { return views(children) })
}

func together(children []*child) bool {
	var want []string
	for _, c := range children {
		want = append(want, c.id)
	}
	slices.Sort(want)
	for _, c := range children {
		if r := c.last(); !slices.Equal(r.Alive, want) || r.Links < len(want)-1 {
			return false
		}
	}
	return true
}

func views(children []*child) string {
	var s strings.Builder
	for i, c := range children {
		r := c.last()
		fmt.Fprintf(&s, "%d %s: %v, %d links, %d pauses, ready %v; ", i, c.id, r.Fates, r.Links, r.Pauses, r.Ready)
	}
	return s.String()
}

// chaos asks for the full counts.
var chaos = os.Getenv("NINES_CHAOS") != ""

// times is how often: few, or many with NINES_CHAOS.
func times(few, many int) int {
	if chaos {
		return many
	}
	return few
}

// spread describes times, and returns them sorted.
func spread(took []time.Duration) (text string, sorted []time.Duration) {
	sorted = slices.Sorted(slices.Values(took))
	if len(sorted) == 0 {
		return "none", nil
	}
	ms := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("%d times: p50 %v, p90 %v, p99 %v, max %v", len(sorted), ms(quantile(sorted, 0.5)), ms(quantile(sorted, 0.9)),
		ms(quantile(sorted, 0.99)), ms(sorted[len(sorted)-1])), sorted
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
