package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

func TestNewReportsAllFaults(t *testing.T) {
	_, err := jobs.New(jobs.Config{
		Leader: (*heir)(nil), Cluster: (*citizen)(nil), Queues: map[string]int{"two words": 0}, Poll: time.Millisecond, Keep: time.Second,
	})
	for _, part := range []string{"Config.DB is nil", "Config.Leader is a nil *jobs_test.heir", "Config.Cluster is a nil", `Config.Queues is "two words"`, "Config.Queues is 0", "Config.Poll is 1ms", "Config.Keep is 1s"} {
		require.ErrorContains(t, err, part)
	}
}

func TestAddWorkerFaults(t *testing.T) {
	r := (&bench{driver: "sqlite", dsn: ":memory:"}).idle()
	fn := func(ctx context.Context, job *jobs.Job[note]) error { return nil }
	require.Error(t, jobs.AddWorker[note](r, nil, nil))
	require.Error(t, jobs.AddWorker(r, fn, &jobs.WorkerOptions{MaxAttempts: -1}))
	require.NoError(t, jobs.AddWorker(r, fn, nil))
	require.ErrorContains(t, jobs.AddWorker(r, fn, nil), "has a worker already")
}

// TestShutdownGivesBack: what does not end in time goes back without counting, and runs elsewhere.
func TestShutdownGivesBack(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(nil)
		var quick atomic.Bool
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			if job.Args.Text == "quick" {
				quick.Store(true)
				eventually(t, func() bool { return errors.Is(errOf(r), jobs.ErrClosed) }, "Shutdown has begun")
				return nil // ends within the patience: its result counts
			}
			err := until(ctx)
			if !errors.Is(err, jobs.ErrShutdown) {
				t.Errorf("cause is %v", err)
			}
			return err
		}, &jobs.WorkerOptions{MaxAttempts: 1})
		b.run(r)
		slow, err := r.Enqueue(t.Context(), note{Text: "slow"}, nil)
		require.NoError(t, err)
		fast, err := r.Enqueue(t.Context(), note{Text: "quick"}, nil)
		require.NoError(t, err)
		b.becomes(r, slow, "running")
		eventually(t, quick.Load, "quick runs")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.NoError(t, r.Shutdown(ctx), "it ends within its deadline")
		require.Zero(t, b.number(`SELECT count(*) FROM nines_job_nodes`))

		second := b.runner(nil)
		require.Equal(t, "succeeded", b.info(second, fast).State)
		i := b.info(second, slow)
		require.Equal(t, "pending", i.State)
		require.Equal(t, 0, i.Attempt)
		attempt := make(chan int, 1)
		addNote(t, second, func(ctx context.Context, job *jobs.Job[note]) error { attempt <- job.Attempt; return nil }, nil)
		b.run(second)
		b.becomes(second, slow, "succeeded")
		require.Equal(t, 1, <-attempt)
	})
}

func errOf(r *jobs.Runner) error { return r.Cancel(context.Background(), -1) }

func TestMethodsAfterShutdown(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(nil)
		shutdown(t, r)
		shutdown(t, r)
		require.NoError(t, r.Run(t.Context()), "it was asked to stop before")
		_, err := r.Enqueue(t.Context(), note{}, nil)
		errs := []error{err, r.Cancel(t.Context(), 1), r.Retry(t.Context(), 1), r.RunNow(t.Context(), "x"), r.Pause(t.Context(), "x", true), r.Check(t.Context()), r.Schedule("x", jobs.Daily("03:00"), note{}, nil)}
		_, err = r.EnqueueMany(t.Context(), []jobs.Args{note{}}, nil)
		errs = append(errs, err)
		for _, err := range r.List(t.Context(), jobs.Filter{}) {
			errs = append(errs, err)
		}
		for i, err := range errs {
			require.ErrorIs(t, err, jobs.ErrClosed, i)
		}
		require.Len(t, errs, 9)
	})
}

// TestRaceRunAndShutdown: whatever meets, Run and Shutdown end, and nothing is left behind.
func TestRaceRunAndShutdown(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		b.db()
		work := open(t, b.driver, b.dsn)
		round := func() {
			r, err := jobs.New(jobs.Config{DB: work, Poll: 10 * time.Millisecond, Logger: logger(t), Cluster: (&town{}).join("x")})
			require.NoError(t, err)
			addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error { return nil }, nil)
			require.NoError(t, r.Schedule("s", jobs.Every(time.Second), note{}, nil))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := r.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() { _, _ = r.Enqueue(ctx, note{}, nil); r.Stats(); _ = r.Check(ctx) })
			for range 2 {
				wg.Go(func() { shutdown(t, r) })
			}
			wg.Wait()
		}
		round()
		before := runtime.NumGoroutine()
		for range 10 {
			round()
		}
		eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, "no goroutine is left")
		require.Zero(t, b.number(`SELECT count(*) FROM nines_job_nodes`))
	})
}

// TestDatabaseComesLate: Run waits for a database that is not there.
func TestRunWaitsForTheDatabase(t *testing.T) {
	file := t.TempDir() + "/not/yet/there.db"
	b := &bench{t: t, driver: "sqlite", dsn: "file:" + file}
	b.first = open(t, b.driver, b.dsn)
	r := b.runner(nil)
	b.run(r)
	eventually(t, func() bool { return r.Stats().Faults > 0 }, "it tries")
	require.Error(t, r.Check(t.Context()))
	shutdown(t, r)
}

// TestClaimUsesItsIndex: finished and future jobs cost a claim nothing.
func TestClaimUsesItsIndex(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(nil)
		b.exec(`INSERT INTO nines_jobs (kind, queue, state, outcome, priority, run_us, deadline_us, attempt, uncounted, max_attempts, node, held, cancel, args, progress, note, error, created_us, started_us, done_us)
			WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<79)
			SELECT 'note','default', CASE WHEN b.i=0 THEN 1 WHEN b.i<5 THEN 0 ELSE 3 END,'pending',0,a.i*80+b.i,0,0,0,0,'',0,0,'{}',0,'','',0,0,0 FROM n a, n b`)
		explain, args := "EXPLAIN ", []any{"default", "note", 100, "me", "", "me"}
		switch b.driver {
		case "mysql":
			b.exec(`ANALYZE TABLE nines_jobs`)
			args = args[:3]
		case "sqlite":
			explain, args = "EXPLAIN QUERY PLAN ", []any{"me", "", "default", "note", 100, "me"}
			fallthrough
		default:
			b.exec(`ANALYZE`)
		}
		plan, err := b.db().Queryx(explain+r.ClaimSQL(), args...)
		require.NoError(t, err)
		defer plan.Close()
		var text strings.Builder
		for plan.Next() {
			line, err := plan.SliceScan()
			require.NoError(t, err)
			fmt.Fprintf(&text, "%s\n", line)
		}
		require.NoError(t, plan.Err())
		require.Contains(t, text.String(), "nines_jobs_claim")
		// Then come the rows that it found, by their key or, of few, however they like.
		require.NotContains(t, text.String(), "Sort")
		require.NotContains(t, text.String(), "filesort")
		require.NotContains(t, text.String(), "TEMP B-TREE")
	})
}

// TestMixedLoad: claims, rescues, cancels and inserts at once, on every database without an error, and each job ends once.
func TestMixedLoad(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		const n = 300
		w := &town{}
		var runs sync.Map
		var runners []*jobs.Runner
		for i := range 3 {
			r := b.runner(func(cfg *jobs.Config) {
				cfg.Cluster = w.join(fmt.Sprint("n", i))
				cfg.Queues = map[string]int{"default": 20}
			})
			addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
				count, _ := runs.LoadOrStore(job.ID, new(atomic.Int64))
				count.(*atomic.Int64).Add(1)
				if job.Args.N%7 == 0 && job.Attempt == 1 {
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
				for k := range n / 3 {
					id, err := r.Enqueue(context.Background(), note{N: k}, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if k%20 == 0 {
						if err := runners[(i+1)%3].Cancel(context.Background(), id); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_jobs WHERE state=3`) == n }, "all end")
		cancelled := b.number(`SELECT count(*) FROM nines_jobs WHERE outcome='cancelled'`)
		require.LessOrEqual(t, cancelled, int64(n/20))
		require.Equal(t, int64(n), cancelled+b.number(`SELECT count(*) FROM nines_jobs WHERE outcome='succeeded'`))
		var faults, taken int64
		for _, r := range runners {
			s := r.Stats()
			faults, taken = faults+s.Faults, taken+s.Taken
		}
		require.Zero(t, faults)
		require.Zero(t, taken)
		runs.Range(func(id, count any) bool {
			require.LessOrEqual(t, count.(*atomic.Int64).Load(), int64(2), "job %v", id)
			return true
		})
	})
}
