package jobs_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

// heartless is a database that refuses heartbeats, and nothing else, when it is told to.
type heartless struct {
	jobs.DB
	refuses atomic.Bool
	last    atomic.Int64 // when the last heartbeat was sent that was taken
}

func (h *heartless) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if !strings.Contains(query, "beat=beat+1") {
		return h.DB.ExecContext(ctx, query, args...)
	}
	if h.refuses.Load() {
		return nil, errors.New("refused")
	}
	h.last.Store(time.Now().UnixNano())
	return h.DB.ExecContext(ctx, query, args...)
}

// TestLeaseLapses: a node whose heartbeats are not taken ends its own jobs before others may take them. Each try is timed; the best of three counts.
func TestLeaseLapses(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		const lease = 2 * time.Second
		var took []time.Duration
		for range 3 {
			b.db()
			db := &heartless{DB: open(t, b.driver, b.dsn)}
			r, err := jobs.New(jobs.Config{DB: db, Poll: 20 * time.Millisecond, NoScheduler: true, Logger: logger(t)})
			require.NoError(t, err)
			r.Hasten(lease)
			running, ended := make(chan bool, 9), make(chan error, 9)
			addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
				running <- true
				err := until(ctx)
				ended <- err
				return err
			}, nil)
			stop := b.run(r)
			id, err := r.Enqueue(t.Context(), note{}, nil)
			require.NoError(t, err)
			<-running
			db.refuses.Store(true)
			select {
			case err := <-ended:
				require.ErrorIs(t, err, jobs.ErrStale)
			case <-time.After(patience):
				t.Fatal("its context does not end")
			}
			took = append(took, time.Since(time.Unix(0, db.last.Load())))
			require.NoError(t, r.Cancel(t.Context(), id))
			stop()
			if took[len(took)-1] < lease {
				break
			}
		}
		t.Logf("ended %v after the last heartbeat that was taken; others wait %v", took, lease)
		require.Less(t, took[len(took)-1], lease)
	})
}

// TestSuccession: a process with the cluster ID of one before it takes over at once, without waiting for the other's lease.
func TestSuccession(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		var took []time.Duration
		for range 3 {
			r := b.runner(func(cfg *jobs.Config) { cfg.Cluster = (&town{}).join("a") })
			attempt := make(chan int, 1)
			addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error { attempt <- job.Attempt; return nil }, nil)
			id, err := r.Enqueue(t.Context(), note{}, nil)
			require.NoError(t, err)
			b.exec(`INSERT INTO nines_job_nodes (id, node, host, beat, seen_us, scheduling, working) VALUES ('old','a','',7,0,0,1)`)
			b.exec(`UPDATE nines_jobs SET state=2, attempt=1, owner='old', node='a' WHERE id=?`, id)
			began := time.Now()
			stop := b.run(r)
			select {
			case n := <-attempt:
				require.Equal(t, 2, n)
			case <-time.After(patience):
				t.Fatal("the job does not run")
			}
			took = append(took, time.Since(began))
			b.becomes(r, id, "succeeded")
			stop()
			if took[len(took)-1] < 10*time.Second {
				break
			}
		}
		t.Logf("after %v; the lease is 15s", took)
		require.Less(t, took[len(took)-1], 10*time.Second)
	})
}
