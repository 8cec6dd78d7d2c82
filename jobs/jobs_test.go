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

	"github.com/nines-go/nines/jobs"
)

func TestStates(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		r := b.runner(nil)
		var tries atomic.Int64
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			switch job.Args.Text {
			case "warn":
				return jobs.Warn(errors.New("half of it"))
			case "discard":
				return fmt.Errorf("wrapped: %w", jobs.Discard(errors.New("no such user")))
			case "fail":
				return errors.New("again")
			case "twice":
				if job.Attempt < 3 {
					return errors.New("not yet")
				}
				tries.Store(int64(job.Attempt))
			case "panic":
				panic("kaboom")
			case "slow":
				return until(ctx)
			case "progress":
				require.NoError(t, job.Progress(ctx, 40, "almost half"))
				return until(ctx)
			}
			return nil
		}, &jobs.WorkerOptions{MaxAttempts: 3, Backoff: time.Millisecond, Timeout: 2 * time.Second})
		b.run(r)
		enqueue := func(text string, o *jobs.EnqueueOptions) int64 {
			id, err := r.Enqueue(ctx, note{Text: text}, o)
			require.NoError(t, err)
			return id
		}
		ids := map[string]int64{}
		for _, text := range []string{"ok", "warn", "discard", "fail", "twice", "panic", "progress"} {
			ids[text] = enqueue(text, nil)
		}
		slow := enqueue("slow", &jobs.EnqueueOptions{MaxAttempts: 1})
		later := enqueue("ok", &jobs.EnqueueOptions{RunAt: time.Now().Add(time.Hour)})

		ok := b.becomes(r, ids["ok"], "succeeded")
		require.Equal(t, 1, ok.Attempt)
		require.False(t, ok.Finished.IsZero())
		require.JSONEq(t, `{"Text":"ok","N":0}`, ok.Args)
		require.Contains(t, b.becomes(r, ids["warn"], "warning").Error, "half of it")
		require.Equal(t, 1, b.becomes(r, ids["discard"], "discarded").Attempt)
		require.Equal(t, 3, b.becomes(r, ids["fail"], "failed").Attempt)
		require.Equal(t, 3, b.becomes(r, ids["twice"], "succeeded").Attempt)
		require.EqualValues(t, 3, tries.Load())
		panicked := b.becomes(r, ids["panic"], "failed")
		require.Contains(t, panicked.Error, "kaboom")
		require.Contains(t, panicked.Error, "jobs_test.go")
		eventually(t, func() bool { return b.info(r, ids["progress"]).Progress == 40 }, "progress is seen")
		require.Equal(t, "almost half", b.info(r, ids["progress"]).Note)
		require.NoError(t, r.Cancel(ctx, ids["progress"]))
		b.becomes(r, ids["progress"], "cancelled")
		require.Contains(t, b.becomes(r, slow, "failed").Error, "timed out after 2s")
		require.Equal(t, "pending", b.info(r, later).State)

		require.NoError(t, r.Cancel(ctx, later))
		require.Equal(t, "cancelled", b.info(r, later).State)
		require.NoError(t, r.Cancel(ctx, later), "again is no error")
		require.ErrorIs(t, r.Cancel(ctx, 1<<40), jobs.ErrNotFound)
		require.ErrorIs(t, r.Retry(ctx, 1<<40), jobs.ErrNotFound)
		require.NoError(t, r.Retry(ctx, later))
		b.becomes(r, later, "succeeded")
		require.NoError(t, r.Retry(ctx, ids["fail"]))
		eventually(t, func() bool { i := b.info(r, ids["fail"]); return i.State == "failed" && i.Attempt == 3 }, "three more attempts")
		s := r.Stats()
		require.EqualValues(t, 1, s.Warned)
		require.EqualValues(t, 1, s.Discarded)
		require.Zero(t, s.Taken)
	})
}

func TestTransactions(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		db := b.db()
		b.exec(`CREATE TABLE effects (job bigint NOT NULL)`)
		r := b.runner(nil)
		work := open(t, b.driver, b.dsn)
		var mode atomic.Value
		mode.Store("")
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			require.Error(t, job.CompleteTx(ctx, work), "a database is no transaction")
			tx, err := work.BeginTxx(ctx, nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			if _, err := tx.ExecContext(ctx, tx.Rebind(`INSERT INTO effects VALUES (?)`), job.ID); err != nil {
				return err
			}
			if err := job.CompleteTx(ctx, tx); err != nil {
				return err
			}
			switch {
			case job.Args.Text == "forget" && job.Attempt == 1:
				return nil // rolled back, and says all is well
			case job.Args.Text == "late error":
				require.NoError(t, tx.Commit())
				return errors.New("after the commit")
			case job.Args.Text == "error" && job.Attempt == 1:
				return errors.New("before the commit")
			}
			return tx.Commit()
		}, &jobs.WorkerOptions{Backoff: time.Millisecond})
		b.run(r)
		for _, text := range []string{"plain", "forget", "error", "late error"} {
			tx, err := db.BeginTxx(ctx, nil)
			require.NoError(t, err)
			lost, err := r.EnqueueTx(ctx, tx, note{Text: text}, nil)
			require.NoError(t, err)
			require.NotZero(t, lost)
			require.NoError(t, tx.Rollback())

			tx, err = db.BeginTxx(ctx, nil)
			require.NoError(t, err)
			id, err := r.EnqueueTx(ctx, tx, note{Text: text}, &jobs.EnqueueOptions{UniqueKey: text})
			require.NoError(t, err)
			same, err := r.EnqueueTx(ctx, tx, note{Text: text}, &jobs.EnqueueOptions{UniqueKey: text})
			require.ErrorIs(t, err, jobs.ErrDuplicate, "and the transaction goes on")
			require.Equal(t, id, same)
			require.NoError(t, tx.Commit())
			b.becomes(r, id, "succeeded")
			require.EqualValues(t, 1, b.number(`SELECT count(*) FROM effects WHERE job=?`, id), text)
		}
		require.EqualValues(t, 4, b.number(`SELECT count(*) FROM nines_jobs`))
		for _, notTx := range []jobs.Tx{db, db.DB, nil} {
			_, err := r.EnqueueTx(ctx, notTx, note{}, nil)
			require.Error(t, err)
		}
		conn, err := db.Connx(ctx)
		require.NoError(t, err)
		defer conn.Close()
		_, err = r.EnqueueTx(ctx, conn, note{}, nil)
		require.ErrorContains(t, err, "not a transaction")
	})
}

func TestPriorityAndQueues(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(func(cfg *jobs.Config) { cfg.Queues = map[string]int{"one": 1, "three": 3} })
		var mu sync.Mutex
		var order []int
		var now, most, ones atomic.Int64
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			if job.Args.Text == "three" {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				eventually(t, func() bool { return most.Load() == 3 }, "three at once")
				now.Add(-1)
				return nil
			}
			if ones.Add(1) != 1 {
				t.Error("two at once in a queue of one")
			}
			mu.Lock()
			order = append(order, job.Args.N)
			mu.Unlock()
			ones.Add(-1)
			return nil
		}, nil)
		var want []int
		for i := range 6 {
			_, err := r.Enqueue(t.Context(), note{N: i}, &jobs.EnqueueOptions{Queue: "one", Priority: 10 - i})
			require.NoError(t, err)
			want = append([]int{i}, want...)
		}
		n, err := r.EnqueueMany(t.Context(), []jobs.Args{note{Text: "three"}, note{Text: "three"}, note{Text: "three"}, note{Text: "three"}, note{Text: "three"}}, &jobs.EnqueueOptions{Queue: "three"})
		require.NoError(t, err)
		require.Equal(t, 5, n)
		other, err := r.Enqueue(t.Context(), note{}, &jobs.EnqueueOptions{Queue: "nobody's"})
		require.NoError(t, err)
		b.run(r)
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_jobs WHERE state=3`) == 11 }, "all run")
		require.Equal(t, want, order)
		require.EqualValues(t, 3, most.Load())
		require.Equal(t, "pending", b.info(r, other).State)
	})
}
