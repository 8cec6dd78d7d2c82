package cache_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/cache"
	"github.com/nines-go/nines/internal/faultnet"
)

// The race test has five members: three that are well, one that is cut off again and again, and one in a process of its own that is stopped
// again and again. Each round writes, invalidates, and then tells everybody, by messages that take two ways: whoever is told must not show the old value.

const (
	childEnv   = "NINES_CACHE_TEST_CHILD" // JSON of childConfig: this process is the member that is stopped
	raceKeys   = 64
	topicTold  = "event"
	topicTruth = "truth"
)

type childConfig struct {
	Key, Seed, Truth string // of the cluster, address, ID of the node that knows the truth
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}

// told is one event: the value of a key is at least v.
func told(key, v int) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(key)), uint64(v))
}

func readTold(b []byte) (key, v int) {
	return int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint64(b[4:]))
}

// witness has a member look at its cache for each event that it is told, and report what is old.
func witness(s *server, bad func(string), seen *atomic.Int64) {
	s.Handle(topicTold, func(ctx context.Context, from string, b []byte) ([]byte, error) {
		key, least := readTold(b)
		if v, err := s.Get(ctx, fmt.Sprint(key)); err == nil && v < least {
			bad(fmt.Sprintf("%s showed %d of key %d when %s told it of %d", s.Self().Name, v, key, from, least))
		}
		seen.Add(1)
		return nil, nil
	})
}

// child is the member that is stopped. It prints "up", then what it finds that is old, and at the end how many events it saw.
func child(text string) int {
	var cc childConfig
	if err := json.Unmarshal([]byte(text), &cc); err != nil {
		panic(err)
	}
	key, err := cluster.ParseKey(cc.Key)
	if err != nil {
		panic(err)
	}
	n, err := cluster.New(cluster.Config{
		ClusterName: "test", NodeName: "stopped", Discovery: cluster.StaticDiscovery(cc.Seed), Keys: [][]byte{key}, BindAddr: "127.0.0.1:0", Logger: quiet,
	})
	if err != nil {
		panic(err)
	}
	c, err := cache.New(cache.Config[int]{Node: n, Name: "numbers", Load: func(ctx context.Context, key string) (int, error) {
		return cluster.RequestJSON[int](ctx, n, cc.Truth, topicTruth, key)
	}})
	if err != nil {
		panic(err)
	}
	var seen atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{n, c, cancel, make(chan struct{})}
	witness(s, func(text string) { fmt.Println("old:", text) }, &seen)
	go func() { defer close(s.done); _ = n.Run(ctx) }()
	if err := n.WaitReady(ctx); err != nil {
		panic(err)
	}
	fmt.Println("up")
	for i := 0; ; i++ { // keep the cache full until standard input ends
		if i == 0 {
			go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
		}
		if ctx.Err() != nil {
			break
		}
		_, _ = c.Get(ctx, fmt.Sprint(i%raceKeys))
	}
	fmt.Println("seen:", seen.Load(), "drops:", c.Stats().Drops, "hits:", c.Stats().Hits)
	return 0
}

func TestNoNodeShowsAnEventWithTheOldValue(t *testing.T) {
	rounds, faults := 1500, 1
	if os.Getenv("NINES_CHAOS") != "" {
		rounds, faults = 100_000, 20
	}
	db := newTruth()
	db.hold = func(string) { // some loads take longer than an invalidation
		if rand.IntN(4) == 0 {
			<-time.After(time.Duration(rand.Int64N(int64(time.Millisecond))))
		}
	}
	network := faultnet.New(nil)
	key := cluster.NewKey()
	run := func(i int, change func(*cluster.Config), seeds ...string) *server {
		cfg := cluster.Config{ClusterName: "test", Discovery: cluster.StaticDiscovery(seeds...), Keys: [][]byte{key}, BindAddr: "127.0.0.1:0", Logger: quiet, NodeName: fmt.Sprint("n", i)}
		if change != nil {
			change(&cfg)
		}
		s := serve(t, cfg, db.load, 0)
		t.Cleanup(s.end)
		require.NoError(t, s.WaitReady(within(t)))
		return s
	}
	var well []*server
	for i := range 3 {
		var seeds []string
		if i > 0 {
			seeds = []string{well[0].Addr()}
		}
		well = append(well, run(i, nil, seeds...))
	}
	cut := run(3, func(c *cluster.Config) { c.NodeName, c.Network = "cut", network }, well[0].Addr())
	cluster.HandleJSON(well[0].Node, topicTruth, func(ctx context.Context, _ string, key string) (int, error) { return db.load(ctx, key) })

	var bad atomic.Value
	report := func(text string) { bad.CompareAndSwap(nil, text) }
	var seen, seenCut atomic.Int64
	for _, s := range well {
		witness(s, report, &seen)
	}
	witness(cut, report, &seenCut)
	stopped := startChild(t, childConfig{Key: cluster.FormatKey(key), Seed: well[0].Addr(), Truth: well[0].ID()}, report)
	ids := func(s *server) (all []string) {
		for _, m := range s.Members() {
			if m.ID != s.ID() && m.State != cluster.FateLeft && m.State != cluster.FateDead {
				all = append(all, m.ID)
			}
		}
		return all
	}
	whole := func() bool {
		for _, s := range append([]*server{cut}, well...) {
			if len(s.Alive()) != 5 {
				return false
			}
			for _, m := range s.Members() {
				if m.State != cluster.FateAlive {
					return false
				}
			}
		}
		return true
	}
	eventually(t, whole)

	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for _, s := range append([]*server{cut}, well...) { // readers, so that loads are under way
		others.Go(func() {
			for ctx.Err() == nil {
				_, _ = s.Get(ctx, fmt.Sprint(rand.IntN(raceKeys)))
				if rand.IntN(100) == 0 {
					<-time.After(time.Millisecond)
				}
			}
		})
	}
	var turned, done atomic.Int64    // faults that are over, rounds
	pause := func(d time.Duration) { // bounded, and over with the test
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	others.Go(func() {
		for range faults {
			pause(300 * time.Millisecond)
			network.Cut()
			stopped.signal(t, syscall.SIGSTOP)
			pause(1500*time.Millisecond + time.Duration(rand.Int64N(int64(2*time.Second))))
			network.Heal()
			pause(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
			stopped.signal(t, syscall.SIGCONT)
			eventually(t, func() bool { return whole() || ctx.Err() != nil })
			turned.Add(1)
			t.Log("fault", turned.Load(), "is over after", done.Load(), "rounds")
		}
	})

	var last [raceKeys]struct {
		sync.Mutex
		v int
	}
	var writers sync.WaitGroup
	for _, s := range well {
		writers.Go(func() {
			for bad.Load() == nil && (done.Add(1) <= int64(rounds) || turned.Load() < int64(faults)) {
				k := rand.IntN(raceKeys)
				last[k].Lock() // writers of one key one after the other, as its row would have them
				last[k].v++
				v := last[k].v
				db.set(fmt.Sprint(k), v)
				err := s.Invalidate(within(t), fmt.Sprint(k))
				last[k].Unlock()
				if err != nil {
					report("Invalidate: " + err.Error())
					return
				}
				event := told(k, v)
				for _, id := range ids(s) {
					_ = s.TryPost(id, topicTold, event)
				}
				o := well[rand.IntN(len(well))] // and on another way: whoever it is, it has heard of the event
				for _, id := range ids(o) {
					_ = o.TryPost(id, topicTold, event)
				}
			}
		})
	}
	writers.Wait()
	eventually(t, whole)
	cancel()
	others.Wait()
	out := stopped.end(t)
	require.Nil(t, bad.Load())
	t.Log(done.Load(), "rounds;", seen.Load(), "events seen by those that are well,", seenCut.Load(), "by the one that was cut; the one that was stopped:", out)
	require.NotZero(t, seen.Load())
	require.NotZero(t, seenCut.Load())
	for _, s := range append([]*server{cut}, well...) {
		require.NotZero(t, s.Cache.Stats().Hits)
	}
	require.NotContains(t, out, "seen: 0 ")
}

type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan string
}

func startChild(t *testing.T, cc childConfig, report func(string)) *process {
	text, err := json.Marshal(cc)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd, stdin, make(chan string, 1)}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	up := make(chan struct{})
	go func() {
		last := ""
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			switch last = lines.Text(); {
			case last == "up":
				close(up)
			case strings.HasPrefix(last, "old:"):
				report(last)
			}
		}
		p.done <- last
	}()
	select {
	case <-up:
	case <-time.After(patience):
		t.Fatal("the child did not come up")
	}
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Error(err)
	}
}

// end returns the last line that the process printed.
func (p *process) end(t *testing.T) string {
	require.NoError(t, p.stdin.Close())
	select {
	case last := <-p.done:
		require.NoError(t, p.cmd.Wait())
		return last
	case <-time.After(patience):
		t.Fatal("the child did not end")
		return ""
	}
}
