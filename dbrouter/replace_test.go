package dbrouter_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
)

// Reconfigure and Recycle under load, search replicas included: no call fails, each write runs once. A configuration that does not work leaves the
// old one serving.
func testReplace(t *testing.T, s *setup) {
	s.Exec(0, "CREATE TABLE once (v int)")
	s.Replayed()
	cfg := s.config()
	cfg.DataSourceReplicas, cfg.DataSourceSearchReplicas = cfg.DataSourceReplicas[:1], cfg.DataSourceReplicas[1:]
	cfg.MonitorInterval = time.Hour // a busy machine must not look like a replica that hangs: its transactions would be ended
	cfg.QueryTimeout = time.Hour    // which ends transactions behind a pooler
	var out syncBuffer
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	r := open(t, cfg)
	ctx := t.Context()
	var calls, written atomic.Int64
	var failure atomic.Pointer[error]
	var stop atomic.Bool
	var wg sync.WaitGroup
	const put = "INSERT INTO once VALUES (1)"
	kinds := []func() (writes int64, err error){
		func() (int64, error) { return 0, r.Replica().GetContext(ctx, new(int), "SELECT 1") },
		func() (int64, error) { return 0, r.Search().SelectContext(ctx, &[]int{}, "SELECT 1") },
		func() (int64, error) {
			rows, err := r.Search().QueryContext(ctx, "SELECT 1 UNION SELECT 2")
			if err != nil {
				return 0, err
			}
			n := 0
			for rows.Next() {
				n++
			}
			if err := rows.Err(); err != nil || n != 2 {
				return 0, fmt.Errorf("%d rows: %w", n, err)
			}
			return 0, rows.Close()
		},
		func() (int64, error) {
			tx, err := r.Replica().BeginReadx(ctx)
			if err != nil {
				return 0, err
			}
			if err := tx.GetContext(ctx, new(int), "SELECT 1"); err != nil {
				return 0, err
			}
			return 0, tx.Commit()
		},
		func() (int64, error) { _, err := r.Master().ExecContext(ctx, put); return 1, err },
		func() (int64, error) {
			return 1, r.RunTx(ctx, nil, func(tx *sqlx.Tx) error { _, err := tx.ExecContext(ctx, put); return err })
		},
		func() (int64, error) {
			conn, err := r.Master().Conn(ctx)
			if err != nil {
				return 0, err
			}
			defer conn.Close()
			_, err = conn.ExecContext(ctx, put)
			return 1, err
		},
		func() (int64, error) {
			sctx, _ := dbrouter.WithSession(ctx)
			if _, err := r.Master().ExecContext(sctx, put); err != nil {
				return 0, err
			}
			return 1, r.Replica().GetContext(sctx, new(int), "SELECT count(*) FROM once")
		},
	}
	for w := range workers {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				writes, err := kinds[(w+n)%len(kinds)]()
				if kind := (w + n) % len(kinds); err != nil && (kind == 2 || kind == 3) && strings.Contains(out.String(), "out of use") {
					t.Logf("rows or a transaction on a source that was taken for hung: %v", err)
					continue
				}
				if err != nil {
					failure.CompareAndSwap(nil, &err)
					return
				}
				written.Add(writes)
				calls.Add(1)
			}
		})
	}
	times := 40
	enough := int64(rounds(times*50, 100_000))
	long, err := r.Master().BeginTxx(ctx, &sql.TxOptions{})
	require.NoError(t, err)
	_, err = long.ExecContext(ctx, put)
	require.NoError(t, err)
	var swaps time.Duration
	for i := range times {
		began := time.Now()
		if i%2 == 0 {
			require.NoError(t, r.Recycle(ctx))
		} else {
			cfg.DataSourceReplicas, cfg.DataSourceSearchReplicas = cfg.DataSourceSearchReplicas, cfg.DataSourceReplicas
			require.NoError(t, r.Reconfigure(ctx, cfg))
		}
		swaps += time.Since(began)
		was := calls.Load()
		eventually(t, "calls go on", func() bool { return calls.Load() >= was+enough/int64(times) || failure.Load() != nil })
		if failure.Load() != nil {
			break
		}
	}
	require.NoError(t, long.Commit(), "a transaction begun before the first one")
	faulty := cfg
	faulty.DataSource = s.through(0, "127.0.0.1:1")
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	err = r.Reconfigure(short, faulty)
	cancel()
	require.ErrorContains(t, err, "cannot be used")
	require.NotContains(t, err.Error(), "hunter2")
	faulty.DataSource = ""
	require.ErrorContains(t, r.Reconfigure(ctx, faulty), "DataSource is empty")
	was := calls.Load()
	eventually(t, "calls go on", func() bool { return calls.Load() > was+100 || failure.Load() != nil })
	stop.Store(true)
	wg.Wait()
	if e := failure.Load(); e != nil {
		require.NoError(t, *e)
	}
	var rows int64
	require.NoError(t, r.Master().GetContext(ctx, &rows, "SELECT count(*) FROM once"))
	require.Equal(t, written.Load()+1, rows, "each write ran once")
	eventually(t, "old pools are closed", func() bool { return r.Stats().DrainingPools == 0 })
	t.Logf("%s: %d replacements, %v each, under %d calls, 0 failed", s.name, times, (swaps / time.Duration(times)).Round(100*time.Microsecond), calls.Load())
}

// What a session has begun at the master may write after a read of it: the next read sees that, too.
func TestSessionSeesWhatItsPinsWrite(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			c, r := cluster(t, driver, func(cfg *dbrouter.Config) { cfg.DataSourceReplicas = cfg.DataSourceReplicas[:1] })
			m := r.Master()
			const many = "INSERT INTO a SELECT 1 FROM generate_series(1, 100000) RETURNING repeat('x', 200)"
			for name, begin := range map[string]func(ctx context.Context) (finish func() error){
				"transaction": func(ctx context.Context) func() error {
					tx, err := m.BeginTx(ctx, nil)
					require.NoError(t, err)
					_, err = tx.ExecContext(ctx, "INSERT INTO a VALUES (1)")
					require.NoError(t, err)
					return tx.Commit
				},
				"connection": func(ctx context.Context) func() error {
					conn, err := m.Connx(ctx)
					require.NoError(t, err)
					return func() error {
						_, err := conn.ExecContext(ctx, "INSERT INTO a VALUES (1)")
						require.NoError(t, conn.Close())
						return err
					}
				},
				"rows": func(ctx context.Context) func() error {
					rows, err := m.QueryContext(ctx, many) // committed when the last row has been taken
					require.NoError(t, err)
					require.True(t, rows.Next())
					return func() error {
						for rows.Next() {
						}
						require.NoError(t, rows.Err())
						return rows.Close()
					}
				},
			} {
				ctx, _ := dbrouter.WithSession(t.Context())
				count := func() (n int) {
					require.NoError(t, r.Replica().GetContext(ctx, &n, "SELECT count(*) FROM a"))
					return n
				}
				var here int
				require.NoError(t, m.GetContext(t.Context(), &here, "SELECT count(*) FROM a"))
				finish := begin(ctx)
				eventually(t, "a replica serves the session", func() bool {
					p, err := port(ctx, r.Replica())
					return err == nil && "127.0.0.1:"+p == c.Addr(1)
				})
				c.PauseReplay(1)
				require.Equal(t, here, count(), name)
				require.NoError(t, finish())
				require.Greater(t, count(), here, name)
				c.ResumeReplay(1)
			}
		})
	}
}
