package wsfanout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/client"
)

// A fleet is nodes in processes of their own, publishers, and clients that check what they are shown.
type fleet struct {
	t       testing.TB
	cfg     []processConfig
	db      *Database
	topics  int
	stopped chan struct{}
	wg      sync.WaitGroup

	mu    sync.Mutex
	nodes []*process
	stall time.Duration // the longest that a publish has taken since it was asked last
	acked int
	alone int // acknowledged with one copy
}

type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	calls *rpc.Client
}

// Database is where the application keeps what it publishes: a row first, then the publish.
type Database struct {
	mu   sync.Mutex
	rows map[string][]string
}

func (d *Database) add(topic, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[topic] = append(d.rows[topic], id)
}

func (d *Database) count(topic string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.rows[topic])
}

// After answers with what came after a message.
func (d *Database) After(p Publication, ids *[]string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	rows := d.rows[p.Topic]
	*ids = slices.Clone(rows[slices.Index(rows, p.ID)+1:])
	return nil
}

func startFleet(t testing.TB, n, topics int) *fleet {
	f := &fleet{t: t, db: &Database{rows: map[string][]string{}}, topics: topics, stopped: make(chan struct{}), nodes: make([]*process, n)}
	calls := rpc.NewServer()
	require.NoError(t, calls.Register(f.db))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go calls.Accept(l)
	t.Cleanup(func() { l.Close() })
	var seeds []string
	for range n {
		cfg := processConfig{Gossip: freeAddr(t), Sockets: freeAddr(t), Calls: freeAddr(t), Database: l.Addr().String()}
		f.cfg, seeds = append(f.cfg, cfg), append(seeds, cfg.Gossip)
	}
	for i := range f.cfg {
		f.cfg[i].Seeds = seeds
	}
	t.Cleanup(func() {
		for i := range f.nodes {
			f.kill(i)
		}
	})
	for i := range n {
		f.start(i)
	}
	f.settled(n)
	return f
}

// freeAddr is an address whose port lies below those that the kernel gives to outgoing connections: nobody takes it while a node is away.
func freeAddr(t testing.TB) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

func (f *fleet) start(i int) {
	f.t.Helper()
	text, err := json.Marshal(f.cfg[i])
	require.NoError(f.t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcessNode$")
	cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, cmd.Start())
	p := &process{cmd: cmd, stdin: stdin}
	if !eventually(patience, func() bool {
		c, err := rpc.Dial("tcp", f.cfg[i].Calls)
		p.calls = c
		return err == nil
	}) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		f.t.Fatalf("node %d does not answer: %s", i, out.String())
	}
	f.mu.Lock()
	f.nodes[i] = p
	f.mu.Unlock()
}

func (f *fleet) take(i int) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.nodes[i]
	f.nodes[i] = nil
	return p
}

// kill ends nodes with SIGKILL, all at once.
func (f *fleet) kill(nodes ...int) {
	var ps []*process
	for _, i := range nodes {
		if p := f.take(i); p != nil {
			ps = append(ps, p)
		}
	}
	for _, p := range ps {
		_ = p.cmd.Process.Kill()
	}
	for _, p := range ps {
		_ = p.cmd.Wait()
		p.calls.Close()
		p.stdin.Close()
	}
}

// stop ends a node as a deploy does.
func (f *fleet) stop(i int) {
	f.t.Helper()
	p := f.take(i)
	_ = p.calls.Call("Node.Stop", struct{}{}, &struct{}{}) // the process may end before its answer is sent
	require.NoError(f.t, p.cmd.Wait())
	p.calls.Close()
	p.stdin.Close()
}

func (f *fleet) running() []*process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.nodes), func(p *process) bool { return p == nil })
}

// settled waits until n nodes see each other and can take a failure.
func (f *fleet) settled(n int) {
	f.t.Helper()
	var seen []Condition
	ok := func() bool {
		seen = seen[:0]
		for _, p := range f.running() {
			var c Condition
			if err := p.calls.Call("Node.Condition", struct{}{}, &c); err != nil {
				return false
			}
			seen = append(seen, c)
		}
		return len(seen) == n && !slices.ContainsFunc(seen, func(c Condition) bool { return !c.Settled || c.Alive != n })
	}
	if !eventually(2*patience, ok) {
		for _, c := range seen {
			f.t.Logf("settled %v alive %d %+v", c.Settled, c.Alive, c.Stats)
		}
		f.t.Fatalf("%d nodes did not settle", n)
	}
}

func eventually(d time.Duration, ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return true
		}
	}
	return false
}

func topicName(i int) string { return "topic" + strconv.Itoa(i) }

// publish sends messages on every topic, one after the other, rate a second in all, each until it is acknowledged, until the end of the test.
func (f *fleet) publish(rate int) {
	for i := range f.topics {
		f.wg.Go(func() {
			topic := topicName(i)
			tick := time.NewTicker(time.Second * time.Duration(f.topics) / time.Duration(rate))
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-f.stopped:
					return
				case <-tick.C:
				}
				id := topic + "#" + strconv.Itoa(n)
				f.db.add(topic, id)
				f.send(topic, id)
			}
		})
	}
}

// send publishes one message, at any node, again until one has acknowledged it.
func (f *fleet) send(topic, id string) {
	begun := time.Now()
	for time.Since(begun) < 2*patience {
		nodes := f.running()
		if len(nodes) == 0 {
			<-time.After(time.Millisecond)
			continue
		}
		var a Acknowledged
		if err := nodes[rand.IntN(len(nodes))].calls.Call("Node.Publish", Publication{topic, id}, &a); err != nil {
			<-time.After(time.Millisecond) // a dead node refuses at once
			continue
		}
		f.mu.Lock()
		f.stall = max(f.stall, time.Since(begun))
		f.acked++
		if a.Copies < 2 {
			f.alone++
		}
		f.mu.Unlock()
		return
	}
	f.t.Errorf("%s was not acknowledged", id)
}

// more waits until n more messages have been acknowledged.
func (f *fleet) more(n int) {
	f.t.Helper()
	acked := func() int { f.mu.Lock(); defer f.mu.Unlock(); return f.acked }
	before := acked()
	require.Eventually(f.t, func() bool { return acked() >= before+n }, patience, time.Millisecond, "publishing stands still")
}

func (f *fleet) takeStall() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.stall
	f.stall = 0
	return d
}

// A watcher is a client that checks that each topic is shown without a hole, a repeat or a change of order.
type watcher struct {
	*client.Client
	mu     sync.Mutex
	next   map[string]int
	gaps   int
	filled int
	state  client.State
	faults []string
}

func (f *fleet) watch(urls ...string) *watcher {
	w := &watcher{next: map[string]int{}}
	cfg := client.Config{URLs: urls, MinRetry: 50 * time.Millisecond, MaxRetry: 300 * time.Millisecond}
	for i := range f.topics {
		cfg.Topics = append(cfg.Topics, topicName(i))
	}
	cfg.OnMessage = func(m client.Message) {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, text, _ := strings.Cut(m.ID, "#")
		n, err := strconv.Atoi(text)
		if err != nil || n != w.next[m.Topic] {
			w.faults = append(w.faults, fmt.Sprintf("%s where %d was to come", m.ID, w.next[m.Topic]))
		}
		w.next[m.Topic] = n + 1
		if m.Filled {
			w.filled++
		}
	}
	cfg.OnGap = func(g client.Gap) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.gaps++
		if !g.Filled {
			w.faults = append(w.faults, fmt.Sprintf("a gap of %s that was not filled: %s", g.Topic, g.Reason))
		}
	}
	cfg.OnState = func(state client.State) { w.mu.Lock(); defer w.mu.Unlock(); w.state = state }
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, cfg)
	require.NoError(f.t, err)
	w.Client = c
	f.t.Cleanup(func() { c.Close() })
	require.Eventually(f.t, func() bool { return c.Stats().Fresh == uint64(f.topics) }, patience, 5*time.Millisecond)
	return w
}

// connected waits until the client has a connection.
func (w *watcher) connected(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.state == client.Connected }, patience, time.Millisecond)
}

// pinned returns clients that stay with one node each, in the order of the nodes.
func (f *fleet) pinned() []*watcher {
	var ws []*watcher
	for i := range f.cfg {
		ws = append(ws, f.watch(f.url(i)))
	}
	return ws
}

func (f *fleet) url(i int) string { return "ws://" + f.cfg[i].Sockets + "/?user=u" + strconv.Itoa(i) }

// finish stops the publishers and checks that every client has been shown everything once and in order.
func (f *fleet) finish(ws ...*watcher) {
	f.t.Helper()
	close(f.stopped)
	f.wg.Wait()
	for k, w := range ws {
		ok := eventually(patience, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			for i := range f.topics {
				if w.next[topicName(i)] != f.db.count(topicName(i)) {
					return false
				}
			}
			return true
		})
		w.mu.Lock()
		require.Empty(f.t, w.faults[:min(len(w.faults), 5)], "client %d", k)
		for i := range f.topics {
			require.Equal(f.t, f.db.count(topicName(i)), w.next[topicName(i)], "client %d, topic %d, complete %v", k, i, ok)
		}
		w.mu.Unlock()
	}
}

func longRun(short, long int) int {
	if os.Getenv("NINES_CHAOS") != "" {
		return long
	}
	return short
}

// One node after the other is killed under load: nothing is lost, doubled or disordered, nobody is told of a gap, and clients of the other nodes
// keep their connections.
func TestProcessesKilled(t *testing.T) {
	rounds, rate := longRun(4, 100), longRun(500, 2000)
	f := startFleet(t, 3, 20)
	ws := append(f.pinned(), f.watch(f.url(0), f.url(1), f.url(2)))
	f.publish(rate)
	begun := time.Now()
	var stalls []time.Duration
	for range rounds {
		i := rand.IntN(3)
		var before []uint64
		for _, w := range ws {
			w.connected(t)
			before = append(before, w.Stats().Connects)
		}
		f.takeStall()
		f.kill(i)
		f.settled(2)
		stalls = append(stalls, f.takeStall())
		for k, w := range ws[:3] {
			if k != i {
				require.Equal(t, before[k], w.Stats().Connects, "the client of a node that lives has connected again")
			}
		}
		f.start(i)
		f.settled(3)
		f.more(100)
	}
	f.finish(ws...)
	for k, w := range ws {
		require.Zero(t, w.gaps, "client %d", k)
	}
	slices.Sort(stalls)
	t.Logf("%d messages in %v over %d kills, %d with one copy; longest wait for an acknowledgement in a round: p50 %v, p99 %v, max %v", f.acked,
		time.Since(begun).Round(time.Second), rounds, f.alone, stalls[len(stalls)/2], stalls[(len(stalls)*99-1)/100], stalls[len(stalls)-1])
}

// All nodes are replaced one by one under load, as a deploy does.
func TestProcessesRestarted(t *testing.T) {
	f := startFleet(t, 3, 20)
	ws := append(f.pinned(), f.watch(f.url(0), f.url(1), f.url(2)))
	f.publish(longRun(500, 2000))
	for range longRun(1, 5) {
		for i := range f.cfg {
			f.stop(i)
			f.more(100)
			f.start(i)
			f.settled(3)
			f.more(100)
		}
	}
	f.finish(ws...)
	for k, w := range ws {
		require.Zero(t, w.gaps, "client %d", k)
	}
	t.Logf("%d messages, longest wait for an acknowledgement %v", f.acked, f.takeStall())
}

// Home and replica of some topics die within 50 ms: what only they had is reported as a gap and filled from the application's database.
func TestHomeAndReplicaKilled(t *testing.T) {
	reported, filled := 0, 0
	for range longRun(1, 10) {
		f := startFleet(t, 3, 20)
		stay := f.watch(f.url(0))
		away := f.watch(f.url(1), f.url(0), f.url(2))
		f.publish(longRun(500, 2000))
		f.more(500)
		f.kill(1, 2)
		f.settled(1)
		f.start(1)
		f.start(2)
		f.settled(3)
		f.finish(stay, away)
		require.NotZero(t, stay.gaps, "nobody was told")
		reported, filled = reported+stay.gaps+away.gaps, filled+stay.filled+away.filled // nothing is missing when all had been shown
		for i := range f.nodes {
			f.kill(i)
		}
	}
	t.Logf("%d gaps reported, %d messages filled", reported, filled)
}
