package election_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/stretchr/testify/require"
)

// Three electors under resignations, transfers, kills, drains and partitions at random: terms rise in the order of commits, no two act
// unfenced at once, and in the end somebody leads.
func TestHistories(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		seed := uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(seed, 2))
		t.Logf("seed %d", seed)
		db := open()
		for _, q := range effects {
			_, err := db.Exec(q)
			require.NoError(t, err)
		}
		c := electiontest.New()
		ids := []string{"a", "b", "c"}
		edit := func(cfg *election.Config) { fast(cfg); cfg.StableFor = 400 * time.Millisecond }
		ctx, cancel := context.WithCancel(within(t))
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		launch := func(id string) *node {
			n := start(t, c, id, open(), edit)
			wg.Go(func() {
				_ = n.LeadFenced(ctx, func(ctx context.Context, term uint64) error {
					for ctx.Err() == nil {
						_ = commitRow(ctx, n.Elector, n.db, term, n.m.ID())
						tick(ctx, 2*time.Millisecond)
					}
					return ctx.Err()
				})
			})
			return n
		}
		var mu sync.Mutex
		nodes := map[string]*node{}
		for _, id := range ids {
			nodes[id] = launch(id)
		}
		both := make(chan int, 1)
		wg.Go(func() {
			bad := 0
			var highest uint64
			for ctx.Err() == nil {
				mu.Lock()
				var leading []uint64
				for _, n := range nodes {
					if s := n.State(); s.Leading {
						leading = append(leading, s.Term)
					}
				}
				mu.Unlock()
				for _, term := range leading {
					if term < highest {
						bad++ // seen after one of a later term
					}
				}
				for _, term := range leading {
					highest = max(highest, term)
				}
				tick(ctx, time.Millisecond)
			}
			both <- bad
		})
		actions := map[string]int{}
		until := time.Now().Add(5 * time.Second)
		for time.Now().Before(until) {
			tick(ctx, 50*time.Millisecond+time.Duration(rng.Int64N(int64(600*time.Millisecond))))
			id, other := ids[rng.IntN(3)], ids[rng.IntN(3)]
			for _, n := range nodes {
				if n.IsLeader() && rng.IntN(3) > 0 {
					id = n.m.ID() // mostly the leader
				}
			}
			short, done := context.WithTimeout(ctx, 2*time.Second)
			switch what := []string{"resign", "transfer", "kill", "drain", "cut"}[rng.IntN(5)]; what {
			case "resign":
				if nodes[id].Resign(short) == nil {
					actions[what]++
				}
			case "transfer":
				if nodes[id].TransferTo(short, other) == nil {
					actions[what]++
				}
			case "kill":
				actions[what]++
				nodes[id].stop()
				<-nodes[id].done
				c.Remove(id, []string{"dead", "failed"}[rng.IntN(2)])
				tick(ctx, time.Duration(rng.Int64N(int64(300*time.Millisecond))))
				mu.Lock()
				nodes[id] = launch(id)
				mu.Unlock()
			case "drain":
				actions[what]++
				c.SetFate(id, "draining")
				tick(ctx, 100*time.Millisecond)
				c.SetFate(id, "alive")
			case "cut":
				if id != other {
					actions[what]++
					c.Cut(id, other, true)
					tick(ctx, time.Duration(rng.Int64N(int64(time.Second))))
					c.Cut(id, other, false)
				}
			}
			done()
		}
		eventually(t, "somebody leads, and all know", func() bool {
			s := nodes["a"].State()
			for _, n := range nodes {
				if o := n.State(); o.LeaderID == "" || o.LeaderID != s.LeaderID {
					return false
				}
			}
			return nodes[s.LeaderID].IsLeader()
		})
		cancel()
		wg.Wait()
		h := herd{t: t, db: db}
		rows, terms, bad := h.disorder()
		t.Logf("%v: %d rows in %d terms, %d out of order", actions, rows, terms, bad)
		require.Zero(t, bad)
		require.Zero(t, <-both, "two could act unfenced at once")
		require.Greater(t, terms, 1)
	})
}

// tick waits, or until ctx ends.
func tick(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
