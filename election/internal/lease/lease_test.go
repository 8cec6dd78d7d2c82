package lease_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/internal/migrate"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// place is a database that several processes can open.
type place struct {
	d    dialect.Dialect
	open func() *sqlx.DB // a pool of its own, as another process would have
}

func places(t *testing.T, fn func(t *testing.T, p place)) {
	t.Run("sqlite", func(t *testing.T) { fn(t, sqliteAt(t)) })
	t.Run("postgres", func(t *testing.T) { fn(t, postgresAt(t)) })
	t.Run("mariadb", func(t *testing.T) { fn(t, mariadbAt(t, "")) })
}

func sqliteAt(t *testing.T) place {
	_, dsn := lab.SQLite(t)
	return prepare(t, place{d: dialect.SQLite, open: func() *sqlx.DB {
		db, err := sqlx.Open("sqlite", dsn+"&_pragma=synchronous(off)") // what is tested is not the disk
		require.NoError(t, err)
		db.SetMaxOpenConns(1)
		t.Cleanup(func() { db.Close() })
		return db
	}})
}

func postgresAt(t *testing.T) place {
	driver, dsn := lab.Database(t)
	return prepare(t, place{d: dialect.Postgres, open: func() *sqlx.DB {
		db, err := sqlx.Open(driver, dsn)
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		return db
	}})
}

func mariadbAt(t *testing.T, options string) place {
	_, dsn := lab.MySQL(t)
	db, err := sqlx.Open("mysql", dsn)
	require.NoError(t, err)
	defer db.Close()
	require.Eventually(t, func() bool { // what a server that has just started says is not believed
		var name string
		var seconds int
		return db.QueryRow(`SHOW GLOBAL STATUS LIKE 'Uptime'`).Scan(&name, &seconds) == nil && seconds >= 2
	}, 30*time.Second, 50*time.Millisecond)
	return prepare(t, place{d: dialect.MySQL, open: func() *sqlx.DB {
		db, err := sqlx.Open("mysql", dsn+options)
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		return db
	}})
}

func prepare(t *testing.T, p place) place {
	require.NoError(t, migrate.Apply(t.Context(), p.open(), "election", election.Migrations()))
	return p
}

func (p place) store(ttl time.Duration) *lease.Store { return lease.New(p.open(), p.d, "x", ttl) }

func still() core.Now { return core.Now{} }

func take(t *testing.T, s *lease.Store, holder string) uint64 {
	t.Helper()
	row, err := s.Look(t.Context())
	require.NoError(t, err)
	got, err := s.Acquire(t.Context(), row, holder, still)
	require.NoError(t, err)
	require.Equal(t, core.Granted, got.Outcome)
	return got.Term
}

// The row is made once, whoever looks first, and can be acquired by exactly one of those who saw it.
func TestFirstAcquire(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		var wg, looked sync.WaitGroup
		var granted atomic.Int64
		looked.Add(6)
		for i := range 6 {
			s := p.store(time.Second)
			t.Cleanup(s.Close)
			wg.Go(func() {
				row, err := s.Look(t.Context())
				if err != nil {
					t.Error(err)
				}
				looked.Done()
				looked.Wait()
				got, err := s.Acquire(t.Context(), row, fmt.Sprintf("n%d/1", i), still)
				if err != nil {
					t.Error(err)
				}
				if got.Outcome == core.Granted {
					granted.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, granted.Load())
	})
}

// What a row says has to be exactly what was seen: another beat, term, holder or server is another state.
func TestAcquireComparesEverything(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		s := p.store(time.Second)
		defer s.Close()
		term := take(t, s, "a/1")
		row, err := s.Look(t.Context())
		require.NoError(t, err)
		require.Equal(t, term, row.Term)
		for name, change := range map[string]func(r *core.Row){
			"beat": func(r *core.Row) { r.Beat++ }, "holder": func(r *core.Row) { r.Holder = "b/1" },
			"term": func(r *core.Row) { r.Term++ }, "server": func(r *core.Row) { r.Identity = "other" },
		} {
			o := row
			change(&o)
			got, err := s.Acquire(t.Context(), o, "c/1", still)
			require.NoError(t, err, name)
			require.Equal(t, core.Lost, got.Outcome, name)
		}
		_, ok, err := s.Renew(t.Context(), term, "b/1", "")
		require.NoError(t, err)
		require.False(t, ok, "renewed for another holder of the same term")
		_, ok, err = s.Renew(t.Context(), term, "a/1", "")
		require.NoError(t, err)
		require.True(t, ok)
	})
}

// A released or revoked lease gives no further fence, though its term has not changed yet. On MariaDB, where the takeover queues before
// later fences, it does until the term has changed.
func TestNoFenceAfterRevoke(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		s, db := p.store(time.Second), p.open()
		defer s.Close()
		term := take(t, s, "a/1")
		fence := func() bool {
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			defer tx.Rollback()
			ok, err := s.Fence(t.Context(), tx, term, "a/1")
			require.NoError(t, err)
			return ok
		}
		require.True(t, fence())
		row, err := s.Look(t.Context())
		require.NoError(t, err)
		done, err := s.Revoke(t.Context(), row)
		require.NoError(t, err)
		require.True(t, done)
		require.Equal(t, p.d == dialect.MySQL, fence())
		_, ok, err := s.Renew(t.Context(), term, "a/1", "")
		require.NoError(t, err)
		require.False(t, ok)
	})
}

// Golden scenario 3: a snapshot that is older than the takeover never leads to a commit, at any level of isolation.
func TestFenceIgnoresOldSnapshots(t *testing.T) {
	p := postgresAt(t)
	levels := []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}
	maria := mariadbAt(t, "")
	for _, level := range levels {
		t.Run("mariadb "+level.String(), func(t *testing.T) { oldSnapshot(t, maria, level) })
	}
	for _, level := range levels {
		t.Run(level.String(), func(t *testing.T) {
			s, db := lease.New(p.open(), p.d, level.String()[:4], time.Second), p.open()
			defer s.Close()
			old := take(t, s, "a/1")
			begin := func() *sql.Tx {
				tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
				require.NoError(t, err)
				_, err = tx.Exec(`SELECT count(*) FROM nines_lease_terms`) // takes the snapshot
				require.NoError(t, err)
				return tx
			}
			tx, newer := begin(), begin()
			defer tx.Rollback()
			defer newer.Rollback()
			term := take(t, s, "b/1")
			ok, err := s.Fence(t.Context(), tx, old, "a/1")
			require.False(t, ok && err == nil, "fenced by a term that has ended")
			ok, err = s.Fence(t.Context(), newer, term, "b/1")
			if level == sql.LevelReadCommitted {
				require.NoError(t, err)
				require.True(t, ok)
			} else {
				require.False(t, ok && err == nil, "a snapshot from before the term began was fenced")
			}
		})
	}
	t.Run("sqlite", func(t *testing.T) {
		p := sqliteAt(t)
		s := p.store(time.Second)
		old := take(t, s, "a/1")
		db := p.open()
		c, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer c.Close()
		_, err = c.ExecContext(t.Context(), `BEGIN DEFERRED`)
		require.NoError(t, err)
		var n int
		require.NoError(t, c.QueryRowContext(t.Context(), `SELECT count(*) FROM nines_lease_terms`).Scan(&n))
		take(t, s, "b/1")
		ok, err := s.Fence(t.Context(), c, old, "a/1")
		require.False(t, ok && err == nil)
		_, _ = c.ExecContext(t.Context(), `ROLLBACK`)
	})
}

// oldSnapshot: a locking read of MariaDB sees the newest row whatever the snapshot is, so that a new leader is fenced at all levels.
func oldSnapshot(t *testing.T, p place, level sql.IsolationLevel) {
	s, db := lease.New(p.open(), p.d, level.String()[:4], time.Second), p.open()
	defer s.Close()
	old := take(t, s, "a/1")
	begin := func() *sql.Tx {
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
		require.NoError(t, err)
		var n int
		if level == sql.LevelSerializable { // a plain read would lock the rows, and hold the takeover off
			_, err = tx.Exec(`DO 1`)
		} else {
			err = tx.QueryRow(`SELECT count(*) FROM nines_lease_terms`).Scan(&n) // takes the snapshot
		}
		require.NoError(t, err)
		return tx
	}
	tx, newer := begin(), begin()
	defer tx.Rollback()
	defer newer.Rollback()
	term := take(t, s, "b/1")
	ok, err := s.Fence(t.Context(), tx, old, "a/1")
	require.False(t, ok && err == nil, "fenced by a term that has ended")
	require.NoError(t, tx.Rollback())
	ok, err = s.Fence(t.Context(), newer, term, "b/1")
	require.NoError(t, err)
	require.True(t, ok)
}

// Golden scenario 4: a holder that is stopped between Fence and COMMIT holds a takeover off for the lock timeout and the transaction's
// own idle timeout at most, and its COMMIT fails when it goes on.
func TestStoppedBetweenFenceAndCommit(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		stoppedInTheFence(t, postgresAt(t), `INSERT INTO effects VALUES ($1)`)
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		stoppedInTheFence(t, mariadbAt(t, "?idle_transaction_timeout=3"), `INSERT INTO effects VALUES (?)`)
	})
}

func stoppedInTheFence(t *testing.T, p place, insert string) {
	s, db := p.store(time.Second), p.open()
	defer s.Close()
	term := take(t, s, "a/1")
	_, err := db.Exec(`CREATE TABLE effects (term bigint)`)
	require.NoError(t, err)
	tx, err := db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.Exec(insert, int64(term))
	require.NoError(t, err)
	ok, err := s.Fence(t.Context(), tx, term, "a/1")
	require.NoError(t, err)
	require.True(t, ok)
	began := time.Now()
	row, err := s.Look(t.Context())
	require.NoError(t, err)
	tries := 0
	for {
		got, err := s.Acquire(t.Context(), row, "b/1", still)
		if got.Outcome == core.Granted {
			break
		}
		require.Equal(t, core.Blocked, got.Outcome, "%v", err)
		tries++
		require.Less(t, tries, 30)
	}
	t.Logf("taken over after %v, %d tries were blocked", time.Since(began), tries)
	require.Less(t, time.Since(began), 10*time.Second) // 3 s, and a busy machine
	require.Positive(t, tries, "the fence did not hold the takeover off")
	require.Error(t, tx.Commit(), "a fenced transaction was committed after the takeover")
	var n int
	require.NoError(t, db.Get(&n, `SELECT count(*) FROM effects`))
	require.Zero(t, n)
}

// The same, but the candidate ends the transaction that holds it off.
func TestEscalate(t *testing.T) {
	t.Run("postgres", func(t *testing.T) { escalate(t, postgresAt(t)) })
	t.Run("mariadb", func(t *testing.T) { // with the privilege to see who blocks
		server := lab.MariaDB(t, 0)
		escalate(t, prepare(t, place{d: dialect.MySQL, open: func() *sqlx.DB {
			db, err := sqlx.Open("mysql", server.RootDSN(0))
			require.NoError(t, err)
			t.Cleanup(func() { db.Close() })
			return db
		}}))
	})
}

func escalate(t *testing.T, p place) {
	s, db := p.store(time.Second), p.open()
	defer s.Close()
	term := take(t, s, "a/1")
	tx, err := db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	ok, err := s.Fence(t.Context(), tx, term, "a/1")
	require.NoError(t, err)
	require.True(t, ok)
	row, err := s.Look(t.Context())
	require.NoError(t, err)
	stop := s.Escalate(t.Context())
	began := time.Now()
	got, err := s.Acquire(t.Context(), row, "b/1", still)
	stop()
	require.NoError(t, err)
	require.Equal(t, core.Granted, got.Outcome)
	t.Logf("taken over after %v", time.Since(began))
	require.Error(t, tx.Commit())
}

// Golden scenario 5: overlapping fenced transactions of a live leader could hold a takeover off for ever; a revoke ends that, because
// it gets no further fence.
func TestRevokeAgainstStreams(t *testing.T) {
	t.Run("postgres", func(t *testing.T) { streams(t, postgresAt(t)) })
	t.Run("mariadb", func(t *testing.T) { streams(t, mariadbAt(t, "")) })
}

func streams(t *testing.T, p place) {
	s := p.store(time.Second)
	defer s.Close()
	term := take(t, s, "a/1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var fenced atomic.Int64
	var revokedAt atomic.Pointer[time.Time]
	var late atomic.Int64
	for range 6 {
		db := p.open()
		wg.Go(func() {
			for ctx.Err() == nil {
				tx, err := db.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				began := time.Now()
				ok, err := s.Fence(context.Background(), tx, term, "a/1")
				if err != nil || !ok {
					_ = tx.Rollback()
					return
				}
				if at := revokedAt.Load(); at != nil && began.After(*at) {
					late.Add(1)
				}
				fenced.Add(1)
				wait, done := context.WithTimeout(ctx, 40*time.Millisecond)
				<-wait.Done()
				done()
				_ = tx.Commit()
			}
		})
	}
	require.Eventually(t, func() bool { return fenced.Load() > 30 }, 20*time.Second, time.Millisecond)
	row, err := s.Look(t.Context())
	require.NoError(t, err)
	began := time.Now()
	done, err := s.Revoke(t.Context(), row)
	require.NoError(t, err)
	require.True(t, done)
	now := time.Now()
	revokedAt.Store(&now)
	row, err = s.Look(t.Context())
	require.NoError(t, err)
	got, err := s.Acquire(t.Context(), row, "b/1", still)
	took := time.Since(began)
	require.NoError(t, err)
	require.Equal(t, core.Granted, got.Outcome)
	t.Logf("taken over %v after the revoke, %d fences before", took, fenced.Load())
	require.Less(t, took, time.Second) // 40 ms of transactions, and a busy machine
	cancel()
	wg.Wait()
	if p.d == dialect.Postgres {
		require.Zero(t, late.Load(), "a fence was granted after the revoke")
	}
}

// Golden scenario 18: a COMMIT whose wait was cut off counts as unknown, though the driver may call it a success.
func TestCancelledCommitIsUnknown(t *testing.T) {
	server := lab.Postgres(t, 0) // of its own: the setting is the server's
	p := prepare(t, place{d: dialect.Postgres, open: func() *sqlx.DB {
		db, err := sqlx.Open("postgres", server.DSN(0))
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		return db
	}})
	s, db := p.store(time.Second), p.open()
	defer s.Close()
	row, err := s.Look(t.Context())
	require.NoError(t, err)
	_, err = db.Exec(`ALTER SYSTEM SET synchronous_standby_names='nobody'`)
	require.NoError(t, err)
	reset := func() {
		_, _ = db.Exec(`ALTER SYSTEM RESET synchronous_standby_names`)
		_, _ = db.Exec(`SELECT pg_reload_conf()`)
	}
	defer reset()
	_, err = db.Exec(`SELECT pg_reload_conf()`)
	require.NoError(t, err)
	require.Eventually(t, func() bool { // a background process has to learn of it too
		short, done := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer done()
		_, _ = db.ExecContext(short, `CREATE TABLE IF NOT EXISTS probe (n int)`)
		_, _ = db.ExecContext(short, `INSERT INTO probe VALUES (1)`)
		return short.Err() != nil
	}, 20*time.Second, 10*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := s.Acquire(ctx, row, "a/1", still)
	require.Error(t, err)
	require.Equal(t, core.Unknown, got.Outcome)
	reset()
	require.Eventually(t, func() bool {
		row, err := s.Look(t.Context())
		return err == nil && row.Holder == "a/1"
	}, 10*time.Second, 10*time.Millisecond, "it was committed all the same")
}
