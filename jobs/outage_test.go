package jobs_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/jobs"
)

// TestDatabaseOutage: the database answers nobody for a while, or is killed and started again. What was enqueued runs, each slot has its row, and
// all goes on.
func TestDatabaseOutage(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (b *bench, away, back func()){
		"postgres paused": func(t *testing.T) (*bench, func(), func()) {
			c := lab.Postgres(t, 0)
			return &bench{t: t, driver: "postgres", dsn: c.DSN(0)}, func() { c.Pause(0) }, func() { c.Resume(0) }
		},
		"pgx killed": func(t *testing.T) (*bench, func(), func()) {
			c := lab.Postgres(t, 0)
			return &bench{t: t, driver: "pgx", dsn: c.DSN(0)}, func() { c.Kill(0) }, func() { c.Start(0) }
		},
		"mariadb killed": func(t *testing.T) (*bench, func(), func()) {
			c := lab.MariaDB(t, 0)
			return &bench{t: t, driver: "mysql", dsn: c.DSN(0)}, func() { c.Kill(0) }, func() { c.Start(0) }
		},
		"sqlite locked": func(t *testing.T) (*bench, func(), func()) {
			driver, dsn := lab.SQLite(t)
			b := &bench{t: t, driver: driver, dsn: dsn + "&_pragma=synchronous(off)"}
			var tx *sql.Tx
			return b, func() {
				locker, err := sql.Open(driver, strings.Replace(dsn, "_txlock=immediate", "_txlock=exclusive", 1))
				require.NoError(t, err)
				t.Cleanup(func() { locker.Close() })
				tx, err = locker.Begin()
				require.NoError(t, err)
			}, func() { require.NoError(t, tx.Rollback()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, away, back := open(t)
			b.outage(away, back)
		})
	}
}

func (b *bench) outage(away, back func()) {
	t := b.t
	var runners []*jobs.Runner
	var ran sync.Map
	for range 2 {
		r := b.runner(func(cfg *jobs.Config) { cfg.Queues = map[string]int{"default": 20} })
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error { ran.Store(job.ID, true); return nil }, &jobs.WorkerOptions{Backoff: time.Millisecond})
		require.NoError(t, r.Schedule("seconds", jobs.Every(time.Second), note{}, everySlot))
		b.run(r)
		runners = append(runners, r)
	}
	stop := make(chan struct{})
	var known []int64
	var refused atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			id, err := runners[0].Enqueue(ctx, note{}, nil)
			cancel()
			if err == nil {
				known = append(known, id)
			} else {
				refused.Add(1)
			}
		}
	})
	count := func(r *jobs.Runner) int64 { return r.Stats().Succeeded }
	eventually(t, func() bool {
		return count(runners[0])+count(runners[1]) > 50 && b.number(`SELECT count(*) FROM nines_jobs WHERE schedule IS NOT NULL`) > 0
	}, "they work")
	away()
	length := 4 * time.Second
	if chaos {
		length = 30 * time.Second
	}
	// Not ended by a condition: nothing may happen. A driver that connects may heed no context, hence the goroutine.
	said := make(chan error, 1)
	go func() { said <- checkWithin(runners[0]) }()
	<-time.After(length)
	back()
	require.Error(t, <-said, "it says so")
	began := time.Now()
	before := count(runners[0]) + count(runners[1])
	eventually(t, func() bool { return count(runners[0])+count(runners[1]) > before+50 }, "they work again")
	t.Logf("%v away, %d refused meanwhile, 50 jobs done %v after the return", length, refused.Load(), time.Since(began).Round(time.Millisecond))
	close(stop)
	wg.Wait()
	eventually(t, func() bool {
		return b.number(`SELECT count(*) FROM nines_jobs WHERE state<3 AND schedule IS NULL`) == 0
	}, "all end")
	eventually(t, func() bool {
		return b.number(`SELECT max(due_us) FROM nines_jobs`)-b.number(`SELECT min(due_us) FROM nines_jobs`) >= length.Microseconds()-1e6
	}, "slots are caught up")
	for _, r := range runners {
		shutdown(t, r)
	}
	require.Zero(t, b.number(`SELECT count(*) FROM nines_jobs WHERE state=2`), "nothing is left running")
	for _, id := range known {
		_, ok := ran.Load(id)
		require.True(t, ok, "job %d", id)
	}
	require.EqualValues(t, len(known), b.number(`SELECT count(*) FROM nines_jobs WHERE outcome='succeeded' AND schedule IS NULL`)-b.unknown(known))
	rows := b.number(`SELECT count(*) FROM nines_jobs WHERE schedule IS NOT NULL`)
	first, last := b.number(`SELECT min(due_us) FROM nines_jobs`), b.number(`SELECT max(due_us) FROM nines_jobs`)
	require.Equal(t, (last-first)/1e6+1, rows, "each slot has its row")
}

// unknown counts the jobs whose Enqueue was not answered although the database had taken them.
func (b *bench) unknown(known []int64) (n int64) {
	var ids []int64
	require.NoError(b.t, b.db().Select(&ids, `SELECT id FROM nines_jobs WHERE schedule IS NULL AND outcome='succeeded'`))
	for _, id := range ids {
		if !slices.Contains(known, id) {
			n++
		}
	}
	return n
}

func checkWithin(r *jobs.Runner) error {
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	return r.Check(ctx)
}

// forgetful is a database whose answers to claims are lost while it is told to lose them: the claim is made all the same.
type forgetful struct {
	jobs.DB
	lose atomic.Int64
}

var errLost = errors.New("the answer was lost")

func (f *forgetful) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := f.DB.QueryContext(ctx, query, args...)
	if err == nil && strings.Contains(query, "attempt+1") && f.lose.Add(-1) >= 0 {
		for rows.Next() {
		}
		return nil, errors.Join(errLost, rows.Close())
	}
	return rows, err
}

// TestLostClaims: a claim whose answer is lost was made; the jobs run all the same, in the same process, and the attempt does not count.
func TestLostClaims(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		if b.driver == "mysql" {
			return // it claims in a transaction, which is lost with its answer: COMMIT alone is not
		}
		b.db()
		db := &forgetful{DB: open(t, b.driver, b.dsn)}
		r, err := jobs.New(jobs.Config{DB: db, Poll: 20 * time.Millisecond, NoScheduler: true, Logger: logger(t)})
		require.NoError(t, err)
		r.Hasten(3 * time.Second)
		var attempts sync.Map
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error { attempts.Store(job.ID, job.Attempt); return nil }, nil)
		many := make([]jobs.Args, 30)
		for n := range many {
			many[n] = note{N: n}
		}
		_, err = r.EnqueueMany(t.Context(), many, nil)
		require.NoError(t, err)
		db.lose.Store(2)
		b.run(r)
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_jobs WHERE outcome='succeeded'`) == 30 }, "all run")
		require.Less(t, db.lose.Load(), int64(0), "answers were lost")
		attempts.Range(func(_, n any) bool { require.Equal(t, 1, n); return true })
		require.Zero(t, r.Stats().Rescued)
	})
}
