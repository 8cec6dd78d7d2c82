package cache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/cache"
	"github.com/nines-go/nines/cluster/clustertest"
	"github.com/nines-go/nines/internal/faultnet"
)

const patience = 30 * time.Second // nothing waits that long on an idle machine

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// truth is where values are kept: a database that never forgets.
type truth struct {
	mu     sync.Mutex
	values map[string]int
	hold   func(key string) // called between reading and returning, when set
	loads  atomic.Int64
}

func newTruth() *truth { return &truth{values: map[string]int{}} }

func (s *truth) set(key string, v int) {
	s.mu.Lock()
	s.values[key] = v
	s.mu.Unlock()
}

func (s *truth) load(_ context.Context, key string) (int, error) {
	s.loads.Add(1)
	s.mu.Lock()
	v, hold := s.values[key], s.hold
	s.mu.Unlock()
	if hold != nil {
		hold(key)
	}
	return v, nil
}

// server is a Node with a cache.
type server struct {
	*cluster.Node
	*cache.Cache[int]
	kill context.CancelFunc
	done chan struct{}
}

func serve(t testing.TB, cfg cluster.Config, load func(context.Context, string) (int, error), ttl time.Duration) *server {
	t.Helper()
	n, err := cluster.New(cfg)
	require.NoError(t, err)
	c, err := cache.New(cache.Config[int]{Node: n, Name: "numbers", Load: load, TTL: ttl})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{n, c, cancel, make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = n.Run(ctx)
	}()
	return s
}

func (s *server) end() { s.kill(); <-s.done }

// linger lets the timers of the gossip library run out, so that a bubble can end.
func linger() { time.Sleep(5 * time.Second) }

// servers runs count of them on loopback and waits until all see all.
func servers(t testing.TB, count int, db *truth, change func(i int, c *cluster.Config)) []*server {
	t.Helper()
	key := cluster.NewKey()
	var all []*server
	addr := ""
	for i := range count {
		cfg := cluster.Config{ClusterName: "test", Discovery: cluster.StaticDiscovery(), Keys: [][]byte{key}, BindAddr: "127.0.0.1:0", Logger: quiet, NodeName: fmt.Sprint("n", i)}
		if i > 0 {
			cfg.Discovery = cluster.StaticDiscovery(addr)
		}
		if change != nil {
			change(i, &cfg)
		}
		s := serve(t, cfg, db.load, 0)
		t.Cleanup(s.end)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		require.NoError(t, s.WaitReady(ctx))
		cancel()
		all = append(all, s)
		addr = all[0].Addr()
	}
	eventually(t, func() bool {
		for _, s := range all {
			if len(s.Alive()) != count || s.Node.Stats().Links != count-1 {
				return false
			}
		}
		return true
	})
	return all
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatal("gave up waiting")
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func get(t testing.TB, s *server, key string) int {
	t.Helper()
	v, err := s.Get(within(t), key)
	require.NoError(t, err)
	return v
}

func TestNewReportsEveryFault(t *testing.T) {
	_, err := cache.New(cache.Config[int]{TTL: -1, Max: -1})
	for _, field := range []string{"Node", "Name", "Load", "TTL", "Max"} {
		require.ErrorContains(t, err, "cache: "+field)
	}
}

// TestNobodyReadsTheOldValueAfterInvalidate writes and invalidates on one node while all nodes read without pause, so that loads of the old value
// are under way wherever an invalidation arrives.
func TestNobodyReadsTheOldValueAfterInvalidate(t *testing.T) {
	db := newTruth()
	db.hold = func(string) { <-time.After(time.Millisecond) } // the value is read, and old by the time it is kept
	nodes := servers(t, 3, db, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const keys = 4
	var floor [keys]atomic.Int64 // what everybody must see at least: its Invalidate has returned
	bad := make(chan string, 1)
	var wg sync.WaitGroup
	for _, s := range nodes {
		for r := range 2 {
			wg.Go(func() {
				for i := r; ctx.Err() == nil; i++ {
					k := i % keys
					if i%64 == 0 { // on a busy machine the links want to run too
						<-time.After(time.Millisecond)
					}
					least := floor[k].Load()
					v, err := s.Get(ctx, fmt.Sprint(k))
					if err == nil && int64(v) < least {
						select {
						case bad <- fmt.Sprintf("%s read %d of key %d after %d was published", s.ID(), v, k, least):
						default:
						}
					}
				}
			})
		}
	}
	for v := 1; v <= 150 && len(bad) == 0; v++ {
		k := v % keys
		db.set(fmt.Sprint(k), v)
		require.NoError(t, nodes[v%3].Invalidate(within(t), fmt.Sprint(k)))
		floor[k].Store(int64(v))
	}
	cancel()
	wg.Wait()
	select {
	case s := <-bad:
		t.Fatal(s)
	default:
	}
	hits := uint64(0)
	for _, s := range nodes {
		hits += s.Cache.Stats().Hits
	}
	t.Log(hits, "hits,", db.loads.Load(), "loads")
	require.NotZero(t, hits)
}

func TestInvalidateAll(t *testing.T) {
	db := newTruth()
	nodes := servers(t, 2, db, nil)
	for _, s := range nodes {
		require.Zero(t, get(t, s, "a"))
		require.Zero(t, get(t, s, "b"))
	}
	db.set("a", 1)
	db.set("b", 2)
	require.NoError(t, nodes[0].InvalidateAll(within(t)))
	for _, s := range nodes {
		require.Equal(t, 1, get(t, s, "a"))
		require.Equal(t, 2, get(t, s, "b"))
	}
}

func TestCutNodeDropsWhenItReturns(t *testing.T) {
	db := newTruth()
	network := faultnet.New(nil)
	nodes := servers(t, 3, db, func(i int, c *cluster.Config) {
		if i == 2 {
			c.Network = network
		}
	})
	cut := nodes[2]
	require.Zero(t, get(t, cut, "k"))
	require.Zero(t, get(t, cut, "other"))
	network.Cut()
	db.set("k", 1)
	db.set("other", 1) // by a node that forgot to invalidate: only the drop brings it
	at := time.Now()
	require.NoError(t, nodes[0].Invalidate(within(t), "k"), "it waits until the member has failed")
	require.Less(t, time.Since(at), patience*2/3, "and not until ctx ends")
	require.Equal(t, cluster.FateFailed, nodes[0].Fate(cut.ID()))
	t.Log("invalidated after", time.Since(at).Round(time.Millisecond))
	require.Equal(t, 1, get(t, nodes[1], "k"))
	require.Zero(t, get(t, cut, "k"), "the cut node has not heard of it")

	network.Heal()
	eventually(t, func() bool { return get(t, cut, "k") == 1 && get(t, cut, "other") == 1 })
	eventually(t, func() bool { return nodes[0].Fate(cut.ID()) == cluster.FateAlive })
	db.set("k", 2)
	require.NoError(t, nodes[0].Invalidate(within(t), "k"))
	require.Equal(t, 2, get(t, cut, "k"))
}

// TestAPairThatIsCutIsReachedThroughTheThird: the invalidation goes the way of all messages.
func TestAPairThatIsCutIsReachedThroughTheThird(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := clustertest.New(1)
		defer linger()
		db := newTruth()
		var nodes []*server
		for _, h := range []string{"a", "b", "c"} {
			s := serve(t, net.Config(h), db.load, 0)
			defer s.end()
			require.NoError(t, s.WaitReady(t.Context()))
			nodes = append(nodes, s)
		}
		time.Sleep(5 * time.Second)
		net.CutPair("a", "b")
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.NoError(t, nodes[0].Invalidate(ctx, "k"))
	})
}

func TestKilledMemberHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := clustertest.New(1)
		defer linger()
		db := newTruth()
		var nodes []*server
		for _, h := range []string{"a", "b", "c"} {
			s := serve(t, net.Config(h), db.load, 0)
			defer s.end()
			require.NoError(t, s.WaitReady(t.Context()))
			nodes = append(nodes, s)
		}
		time.Sleep(5 * time.Second)
		net.Kill("c")
		at := time.Now()
		require.NoError(t, nodes[0].Invalidate(t.Context(), "k"))
		require.Less(t, time.Since(at), time.Second)
	})
}

// TestNewcomerHasOthersDrop: two that met late may each have invalidated without the other.
func TestNewcomerHasOthersDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := clustertest.New(1)
		defer linger()
		db := newTruth()
		net.Partition([]string{"a"})
		a, b := serve(t, net.Config("a"), db.load, 0), serve(t, net.Config("b"), db.load, 0)
		defer a.end()
		defer b.end()
		time.Sleep(5 * time.Second)
		require.Len(t, a.Alive(), 1)
		require.Zero(t, get(t, b, "k"))
		db.set("k", 1)
		require.NoError(t, a.Invalidate(t.Context(), "k"))
		require.Zero(t, get(t, b, "k"))
		net.Heal()
		for len(b.Alive()) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, 1, get(t, b, "k"))
	})
}

func TestSingle(t *testing.T) {
	db := newTruth()
	s := serve(t, cluster.Config{Single: true, Logger: quiet}, db.load, 0)
	defer s.end()
	require.NoError(t, s.WaitReady(within(t)))
	require.Zero(t, get(t, s, "k"))
	db.set("k", 1)
	require.Zero(t, get(t, s, "k"))
	require.EqualValues(t, 1, db.loads.Load())
	require.NoError(t, s.Invalidate(within(t), "k"))
	require.Equal(t, 1, get(t, s, "k"))
	require.NoError(t, s.Invalidate(within(t)))
	require.NoError(t, s.Check(within(t)))

	require.NoError(t, s.Node.Shutdown(within(t)))
	require.ErrorIs(t, s.Invalidate(within(t), "k"), cluster.ErrClosed)
	db.set("k", 2)
	require.Equal(t, 2, get(t, s, "k"), "nothing is kept after the Node's end")
	require.NoError(t, s.Cache.Close())
	require.NoError(t, s.Cache.Close())
	require.ErrorIs(t, s.Cache.Check(within(t)), cache.ErrClosed)
	require.ErrorIs(t, s.InvalidateAll(within(t)), cache.ErrClosed)
}

// Check is the cache's.
func (s *server) Check(ctx context.Context) error { return s.Cache.Check(ctx) }

func TestEntriesAgeAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := newTruth()
		n, err := cluster.New(clustertest.New(1).Config("a"))
		require.NoError(t, err)
		c, err := cache.New(cache.Config[int]{Node: n, Name: "n", Load: db.load, TTL: time.Minute, Max: 50})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		defer func() { cancel(); <-done; linger() }()
		go func() { defer close(done); _ = n.Run(ctx) }()

		_, err = c.Get(ctx, "k")
		require.NoError(t, err)
		require.Zero(t, c.Stats().Entries, "before the view has settled nothing is kept")
		require.True(t, c.Stats().Bypassed)
		require.NoError(t, n.WaitReady(ctx))
		_, _ = c.Get(ctx, "k")
		db.set("k", 1)
		time.Sleep(59 * time.Second)
		v, _ := c.Get(ctx, "k")
		require.Zero(t, v)
		time.Sleep(time.Second)
		v, _ = c.Get(ctx, "k")
		require.Equal(t, 1, v)
		for i := range 1000 {
			_, _ = c.Get(ctx, fmt.Sprint(i))
		}
		require.LessOrEqual(t, c.Stats().Entries, 51)
	})
}

func TestLoadsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
		require.NoError(t, err)
		var loads atomic.Int64
		broken := errors.New("broken")
		c, err := cache.New(cache.Config[int]{Node: n, Name: "n", Load: func(ctx context.Context, key string) (int, error) {
			k := loads.Add(1)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
			if key == "bad" {
				return 0, broken
			}
			if key == "panic" {
				panic("as the test wants")
			}
			return int(k), nil
		}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		defer func() { cancel(); <-done; linger() }()
		go func() { defer close(done); _ = n.Run(ctx) }()
		require.NoError(t, n.WaitReady(ctx))

		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				v, err := c.Get(ctx, "k")
				require.NoError(t, err)
				require.Equal(t, 1, v)
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, loads.Load())
		for range 2 {
			_, err = c.Get(ctx, "bad")
			require.ErrorIs(t, err, broken)
		}
		require.EqualValues(t, 3, loads.Load(), "errors are not kept")

		// The one that loads gives up: the others do not fail with it.
		first, giveUp := context.WithCancel(ctx)
		wg.Go(func() {
			_, err := c.Get(first, "c")
			require.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				v, err := c.Get(ctx, "c")
				require.NoError(t, err)
				require.Equal(t, 5, v)
			})
		}
		synctest.Wait()
		giveUp()
		wg.Wait()

		require.Panics(t, func() { _, _ = c.Get(ctx, "panic") })
		require.Panics(t, func() { _, _ = c.Get(ctx, "panic") }, "and it can be tried again")

		// An invalidation during a load: its callers have the value, nobody else.
		got := make(chan int, 1)
		go func() { v, _ := c.Get(ctx, "i"); got <- v }()
		synctest.Wait()
		require.NoError(t, c.Invalidate(ctx, "i"))
		v, err := c.Get(ctx, "i")
		require.NoError(t, err)
		require.Equal(t, <-got+1, v)
	})
}
