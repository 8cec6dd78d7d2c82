package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/console"
	"github.com/nines-go/nines/jobs"
)

// most counts how many are at work at once, and how many were at most.
type most struct{ now, most atomic.Int64 }

func (m *most) enter() (leave func()) {
	n := m.now.Add(1)
	for old := m.most.Load(); n > old && !m.most.CompareAndSwap(old, n); old = m.most.Load() {
	}
	return func() { m.now.Add(-1) }
}

// TestLimitsAcrossNodes: three nodes at full speed. Of a key and of a queue no more run at once than the limits say, jobs that fail and are
// retried among them, and all run.
func TestLimitsAcrossNodes(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		w := &town{}
		keys := map[string]*most{}
		for k := range 4 {
			keys[fmt.Sprint("k", k)] = &most{}
		}
		var queue most
		var runners []*jobs.Runner
		for i := range 3 {
			r := b.runner(func(cfg *jobs.Config) {
				cfg.Cluster = w.join(fmt.Sprint("n", i))
				cfg.Queues = map[string]int{"default": 20, "narrow": 20}
				cfg.ClusterLimits = map[string]int{"narrow": 3}
				cfg.NoScheduler = true
			})
			addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
				m := &queue
				if job.Args.Text != "" {
					m = keys[job.Args.Text]
				}
				defer m.enter()()
				<-time.After(2 * time.Millisecond) // work
				if job.Args.N%9 == 0 && job.Attempt == 1 {
					return errors.New("once more")
				}
				return nil
			}, &jobs.WorkerOptions{Backoff: time.Millisecond})
			b.run(r)
			runners = append(runners, r)
		}
		var wg sync.WaitGroup
		for i, r := range runners {
			wg.Go(func() {
				for n := range 20 {
					key := fmt.Sprint("k", n%4)
					_, err := r.Enqueue(context.Background(), note{Text: key, N: n}, &jobs.EnqueueOptions{LimitKey: key, LimitMax: 1 + n%4%2})
					if err != nil {
						t.Error(err)
					}
				}
				var many []jobs.Args
				for n := range 20 {
					many = append(many, note{N: i*20 + n})
				}
				if _, err := r.EnqueueMany(context.Background(), many, &jobs.EnqueueOptions{Queue: "narrow"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_jobs WHERE outcome='succeeded'`) == 120 }, "all run")
		for key, m := range keys {
			limit := int64(1)
			if key == "k1" || key == "k3" {
				limit = 2
			}
			require.LessOrEqual(t, m.most.Load(), limit, key)
		}
		require.LessOrEqual(t, queue.most.Load(), int64(3))
		require.Greater(t, queue.most.Load(), int64(1), "they do run beside each other")
		for _, r := range runners {
			require.Zero(t, r.Stats().Faults)
		}
	})
}

// TestCard: Stats, Check and Actions make a card of the console.
func TestCard(t *testing.T) {
	driver, dsn := databases[0].open(t)
	b := &bench{t: t, driver: driver, dsn: dsn}
	r := b.runner(nil)
	addNote(t, r, func(context.Context, *jobs.Job[note]) error { return nil }, nil)
	require.NoError(t, r.Schedule("yearly", jobs.Cron("@yearly"), note{}, nil))
	card := console.Of("jobs", r.Stats, r.Check)
	for name, do := range r.Actions() {
		card.Actions = append(card.Actions, console.Action{Name: name, Run: do})
	}
	press := func(name, arg string) error {
		for _, a := range card.Actions {
			if a.Name == name {
				return a.Run(t.Context(), arg)
			}
		}
		return errors.New("no such button")
	}
	b.run(r)
	require.NoError(t, press("run schedule now", "yearly"))
	var id int64
	eventually(t, func() bool {
		for i, err := range r.List(t.Context(), jobs.Filter{Schedule: "yearly", States: []string{"succeeded"}}) {
			require.NoError(t, err)
			id = i.ID
		}
		return id != 0
	}, "it runs")
	require.NoError(t, press("retry job", fmt.Sprint(id)))
	require.NoError(t, press("cancel job", fmt.Sprint(id)))
	require.ErrorContains(t, press("cancel job", "x"), `"x" is not the ID`)
	require.NoError(t, press("pause schedule", "yearly"))
	eventually(t, func() bool { s := card.Stats().(jobs.Stats); return len(s.Schedules) == 1 && s.Schedules[0].Paused }, "it is paused")
	require.NoError(t, press("resume schedule", "yearly"))
	require.NoError(t, press("remove schedule", "yearly"))
	eventually(t, func() bool { return len(card.Stats().(jobs.Stats).Schedules) == 0 }, "it is gone")
	eventually(t, func() bool { return card.Check(t.Context()) == nil }, "all is well")
}
