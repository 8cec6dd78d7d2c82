package election_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/stretchr/testify/require"
)

// A topic fits the cluster's limit together with the election's name, or is refused with both numbers.
func TestTopicsFitTheCluster(t *testing.T) {
	for _, name := range []string{"", "x", strings.Repeat("n", 128)} {
		c := electiontest.New()
		c.LimitTopics(255)
		m := c.Join("a")
		e, err := election.New(election.Config{Members: m, Name: name, Logger: quiet()})
		require.NoError(t, err)
		fn := func(context.Context, uint64, []byte) ([]byte, error) { return nil, nil }
		longest := strings.Repeat("t", 240-len(name))
		if name == "" {
			longest = longest[:240-len("default")]
		}
		require.NotPanics(t, func() { e.HandleLeader(longest, fn)() })
		require.PanicsWithValue(t, panicText{"which is what the election's name of"}, func() { handle(e, longest+"t", fn) })
		require.PanicsWithValue(t, panicText{"has 0 bytes"}, func() { handle(e, "", fn) })
		require.PanicsWithValue(t, panicText{"nil function"}, func() { handle(e, "x", nil) })
		_, err = e.Forward(within(t), longest+"t", nil)
		require.ErrorContains(t, err, "use 1 to")
	}
}

type panicText struct{ part string }

// handle panics with the part of the message that it looks for.
func handle(e *election.Elector, topic string, fn func(context.Context, uint64, []byte) ([]byte, error)) {
	defer func() {
		text, _ := recover().(string)
		for _, part := range []string{"which is what the election's name of", "nil function"} {
			if strings.Contains(text, part) && !strings.Contains(text, "has 0 bytes") {
				panic(panicText{part})
			}
		}
		panic(panicText{"has 0 bytes"})
	}()
	e.HandleLeader(topic, fn)
}

// The context of Lead has ended before Lead starts elsewhere, each time that a leader loses the database.
func TestLeadEndsBeforeTheNextBegins(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		type entry struct {
			from, to time.Time
			term     uint64
		}
		var mu sync.Mutex
		var entries []*entry
		ctx, cancel := context.WithCancel(within(t))
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		dbs, nodes := map[string]*swapDB{}, map[string]*node{}
		for _, id := range []string{"a", "b", "c"} {
			pool := open()
			db := &swapDB{driver: pool.DriverName(), db: pool}
			n := start(t, c, id, nil, func(cfg *election.Config) { fast(cfg); cfg.DB = db })
			dbs[id], nodes[id] = db, n
			wg.Go(func() {
				_ = n.Lead(ctx, func(ctx context.Context, term uint64) error {
					x := &entry{from: time.Now(), term: term}
					mu.Lock()
					entries = append(entries, x)
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					x.to = time.Now()
					mu.Unlock()
					return nil
				})
			})
		}
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(entries) }
		for round := range 3 {
			var leader string
			eventually(t, "somebody is in Lead", func() bool {
				for id, n := range nodes {
					if n.IsLeader() {
						leader = id
					}
				}
				return leader != "" && count() > round
			})
			before := count()
			pool, _ := dbs[leader].open()
			dbs[leader].point(nil)
			eventually(t, "another is", func() bool { return count() > before })
			dbs[leader].point(pool)
		}
		cancel()
		wg.Wait()
		require.GreaterOrEqual(t, len(entries), 4)
		for i := range len(entries) - 1 {
			between := entries[i+1].from.Sub(entries[i].to)
			t.Logf("%v between two in Lead", between.Round(time.Millisecond))
			require.Positive(t, between, "two in Lead at once")
			require.Greater(t, entries[i+1].term, entries[i].term)
		}
	})
}

// stuckMember is a cluster that stops answering.
type stuckMember struct {
	*electiontest.Member
	stuck atomic.Bool
	gate  chan struct{}
}

func (m *stuckMember) Alive() []string {
	if m.stuck.Load() {
		<-m.gate
	}
	return m.Member.Alive()
}

// Contexts end in time also while the protocol loop hangs in somebody else's code.
func TestContextsEndWithoutTheLoop(t *testing.T) {
	t.Parallel()
	_, dsn := sqliteOf(t)
	m := &stuckMember{Member: electiontest.New().Join("a"), gate: make(chan struct{})}
	e, err := election.New(election.Config{Members: m, DB: openSQLite(t, dsn), TTL: time.Second, Logger: quiet()})
	require.NoError(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	wg.Go(func() { _ = e.Run(ctx) })
	eventually(t, "it leads", e.IsLeader)
	began := make(chan struct{}, 2)
	ended := make(chan time.Time, 2)
	fn := func(ctx context.Context, _ uint64) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- time.Now()
		return errors.New("over")
	}
	lead, stop := context.WithCancel(context.Background())
	wg.Go(func() { _ = e.Lead(lead, fn) })
	wg.Go(func() { _ = e.LeadFenced(lead, fn) })
	<-began
	<-began
	stuck := time.Now()
	m.stuck.Store(true)
	for range 2 {
		at := <-ended
		require.Less(t, at.Sub(stuck), 10*time.Second)
		t.Logf("ended after %v", at.Sub(stuck).Round(time.Millisecond))
	}
	require.False(t, e.IsLeader())
	require.False(t, e.State().Leading)
	m.stuck.Store(false)
	close(m.gate)
	stop()
}

// Code of the user that never comes back stops nothing: not the renewals, and not the handover.
func TestUserCodeIsNotOnTheLoop(t *testing.T) {
	t.Parallel()
	_, dsn := sqliteOf(t)
	c := electiontest.New()
	a := start(t, c, "a", openSQLite(t, dsn), fast)
	eventually(t, "a leads", a.IsLeader)
	gate := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(gate)
	var inside sync.WaitGroup
	inside.Add(4)
	hang := func() { inside.Done(); <-gate }
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	wg.Go(func() {
		for range a.Watch(ctx) {
			hang()
			return
		}
	})
	wg.Go(func() { _ = a.Lead(ctx, func(context.Context, uint64) error { hang(); return nil }) })
	wg.Go(func() { _ = a.LeadFenced(ctx, func(context.Context, uint64) error { hang(); return nil }) })
	a.HandleLeader("hang", func(context.Context, uint64, []byte) ([]byte, error) { hang(); return nil, nil })
	wg.Go(func() { _, _ = a.Forward(ctx, "hang", nil) })
	inside.Wait()
	renewed := a.Stats().Renewals
	eventually(t, "renewals go on", func() bool { return a.Stats().Renewals >= renewed+3 })
	require.True(t, a.IsLeader())
	b := start(t, c, "b", openSQLite(t, dsn), fast)
	eventually(t, "b takes over", func() bool { return a.TransferTo(within(t), "b") == nil || b.IsLeader() })
	eventually(t, "b leads", b.IsLeader)
}

// Watch: the current state first, never the same twice, terms that never fall, and the last state always, however slow the consumer is
// and however fast the states change.
func TestWatchNeverMissesTheLast(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range rounds(50, 1000) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(round)))
			c := electiontest.New()
			nodes := map[string]*node{}
			for _, id := range []string{"a", "b", "c"} {
				nodes[id] = start(t, c, id, nil, func(cfg *election.Config) { cfg.StableFor = time.Second })
			}
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			last := map[string]election.State{}
			cuts := round%2 == 0 // the term of a side is lower than what the other has seen
			var mu sync.Mutex
			for id, n := range nodes {
				slow := time.Duration(rng.Int64N(int64(300 * time.Millisecond)))
				wg.Go(func() {
					var before election.State
					first := true
					for s := range n.Watch(ctx) {
						if !first && s == before {
							t.Errorf("%s: %+v twice", id, s)
						}
						if !cuts && s.Term < before.Term && s.Reason != "closed" {
							t.Errorf("%s: term %d after %d", id, s.Term, before.Term)
						}
						before, first = s, false
						mu.Lock()
						last[id] = s
						mu.Unlock()
						time.Sleep(slow)
					}
				})
			}
			for range 20 {
				time.Sleep(time.Duration(rng.Int64N(int64(200 * time.Millisecond))))
				ids := []string{"a", "b", "c"}
				x, y := ids[rng.IntN(3)], ids[rng.IntN(3)]
				switch rng.IntN(3) {
				case 0:
					_ = nodes[x].Resign(ctx)
				case 1:
					c.SetFate(x, []string{"draining", "alive", "suspect"}[rng.IntN(3)])
				case 2:
					if x != y && cuts {
						c.Cut(x, y, rng.IntN(2) == 0)
					}
				}
			}
			for i, x := range []string{"a", "b", "c"} {
				c.SetFate(x, "alive")
				c.Cut(x, []string{"b", "c", "a"}[i], false)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			for id, n := range nodes {
				mu.Lock()
				got := last[id]
				mu.Unlock()
				require.Equal(t, n.State(), got, id)
			}
			for _, n := range nodes {
				require.NoError(t, n.Shutdown(context.Background()))
			}
			time.Sleep(time.Second)
			synctest.Wait()
			for id := range nodes {
				require.Equal(t, "closed", last[id].Reason)
			}
			cancel()
			wg.Wait()
		})
	}
}

// A rolling restart: each node in turn is shut down and replaced by a younger one. Leadership is handed over, nobody waits for a lease.
func TestRollingRestart(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		ctx, cancel := context.WithCancel(within(t))
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		var mu sync.Mutex
		var began, ended []time.Time
		launch := func(id string) *node {
			n := start(t, c, id, open(), nil)
			wg.Go(func() {
				_ = n.Lead(ctx, func(ctx context.Context, _ uint64) error {
					mu.Lock()
					began = append(began, time.Now())
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					ended = append(ended, time.Now())
					mu.Unlock()
					return nil
				})
			})
			return n
		}
		var nodes []*node
		for _, id := range []string{"a", "b", "c"} {
			nodes = append(nodes, launch(id))
		}
		eventually(t, "all know who leads", func() bool {
			for _, n := range nodes {
				if n.State().LeaderID != nodes[0].State().LeaderID || n.State().LeaderID == "" {
					return false
				}
			}
			return true
		})
		for i, id := range []string{"d", "e", "f"} {
			old := nodes[i]
			require.NoError(t, old.Shutdown(within(t)))
			c.Remove(old.m.ID(), "left")
			n := launch(id)
			nodes = append(nodes, n)
			eventually(t, "the new one knows who leads", func() bool { return n.State().LeaderID > old.m.ID() })
		}
		cancel()
		wg.Wait()
		mu.Lock()
		defer mu.Unlock()
		var gaps figures
		for i := 1; i < len(began); i++ {
			gaps = append(gaps, began[i].Sub(ended[i-1]))
		}
		gaps.log(t, "nobody in Lead for")
		require.GreaterOrEqual(t, len(gaps), 3)
		require.Less(t, gaps.at(1), 2500*time.Millisecond, "it waited for the lease")
		require.Less(t, gaps.at(0), 500*time.Millisecond)
	})
}

// A holder of a mutex that loses the database is told before another has it, and what it still has open is refused.
func TestMutexIsLostBeforeAnotherHasIt(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		pool := open()
		db := &swapDB{driver: pool.DriverName(), db: pool}
		m, err := election.NewMutex(db, "m")
		require.NoError(t, err)
		first, err := m.Lock(within(t))
		require.NoError(t, err)
		lost := make(chan time.Time, 1)
		context.AfterFunc(first.Context(), func() { lost <- time.Now() })
		other, err := election.NewMutex(open(), "m")
		require.NoError(t, err)
		_, err = other.TryLock(within(t))
		require.ErrorIs(t, err, election.ErrLocked)
		cut := time.Now()
		db.point(nil)
		second, err := other.Lock(within(t))
		require.NoError(t, err)
		has := time.Now()
		at := <-lost
		t.Logf("lost after %v, another has it after %v", at.Sub(cut).Round(time.Millisecond), has.Sub(cut).Round(time.Millisecond))
		require.True(t, at.Before(has), "two had it")
		require.Greater(t, second.Token(), first.Token())
		require.ErrorIs(t, context.Cause(first.Context()), election.ErrDeposed)
		tx, err := pool.Begin()
		require.NoError(t, err)
		require.ErrorIs(t, first.Fence(within(t), tx), election.ErrDeposed)
		db.point(pool)
		require.ErrorIs(t, first.Unlock(within(t)), election.ErrDeposed)
		tx, err = open().Begin()
		require.NoError(t, err)
		require.NoError(t, second.Fence(within(t), tx))
		require.NoError(t, tx.Commit())
		require.NoError(t, second.Unlock(within(t)))
	})
}
