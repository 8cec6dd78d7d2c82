package dbrouter_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A caller's own deadline condemns no replica.
func TestDeadlineCondemnsNobody(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		_, dsn := lab.Database(t)
		// Only what is suspected is probed: who is condemned stays so.
		r := open(t, dbrouter.Config{DriverName: driver, DataSource: dsn, DataSourceReplicas: others(t, 1), MonitorInterval: 100 * time.Hour})
		require.NoError(t, r.Replica().GetContext(t.Context(), new(int), "SELECT 1"))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, r.Replica().GetContext(ctx, new(string), "SELECT pg_sleep(30)::text"))
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
		require.True(t, source(r, 1).Healthy)
		require.Zero(t, r.Stats().ReadsMoved)
	}
}

// A caller whose deadline ends gets its answer then, also from a frozen master.
func TestDeadlineOnFrozenServers(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			c, r := cluster(t, driver, nil)
			c.Pause(0)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := r.Master().ExecContext(ctx, "INSERT INTO a VALUES (2)")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(began), 20*time.Second)
			eventually(t, "the master is reported", func() bool { return !source(r, 0).Healthy })
			require.Error(t, r.Check(t.Context()))
			require.NoError(t, r.Replica().GetContext(t.Context(), new(int), "SELECT v FROM a LIMIT 1"))
			c.Resume(0)
			eventually(t, "the master is back", func() bool { return source(r, 0).Healthy })
			_, err = r.Master().ExecContext(t.Context(), "INSERT INTO a VALUES (3)")
			require.NoError(t, err)
			require.NoError(t, r.Check(t.Context()))
		})
	}
}

// Rows and transactions on a replica that freezes end when it is found out, not when the caller's patience ends.
func TestRowsOfFrozenReplicaEnd(t *testing.T) {
	t.Parallel()
	c, r := cluster(t, "postgres", func(cfg *dbrouter.Config) { cfg.DataSourceReplicas = cfg.DataSourceReplicas[:1] })
	rows, err := r.Replica().QueryContext(t.Context(), "SELECT i, repeat('x', 20000), pg_sleep(0.01)::text FROM generate_series(1, 100000) AS i")
	require.NoError(t, err)
	require.True(t, rows.Next())
	c.Pause(1)
	for rows.Next() {
	}
	require.Error(t, rows.Err())
	c.Resume(1)
}

func TestSearch(t *testing.T) {
	t.Parallel()
	c, r := cluster(t, "postgres", func(cfg *dbrouter.Config) {
		cfg.DataSourceReplicas, cfg.DataSourceSearchReplicas = cfg.DataSourceReplicas[:1], cfg.DataSourceReplicas[1:]
	})
	serves := func(rd *dbrouter.Reader, i int) func() bool {
		return func() bool { return "127.0.0.1:"+must(port(t.Context(), rd)) == c.Addr(i) }
	}
	eventually(t, "searches go to the search replica", serves(r.Search(), 2))
	eventually(t, "reads go to the replica", serves(r.Replica(), 1))
	require.Equal(t, c.Addr(0), "127.0.0.1:"+must(port(dbrouter.UseMaster(t.Context()), r.Search())))
	c.Kill(2)
	eventually(t, "searches fall to the replicas", serves(r.Search(), 1))
	c.Kill(1)
	eventually(t, "then to the master", serves(r.Search(), 0))
	eventually(t, "as do reads", serves(r.Replica(), 0))
	var warning interface{ Warning() bool }
	require.ErrorAs(t, r.Check(t.Context()), &warning)
	require.True(t, warning.Warning())
	c.Start(2)
	eventually(t, "the search replica is back", func() bool { return source(r, 2).Healthy })
	eventually(t, "searches go there", serves(r.Search(), 2))
	require.True(t, serves(r.Replica(), 0)(), "reads do not go to search replicas")
}

func TestOpensWithReplicasDown(t *testing.T) {
	t.Parallel()
	c := lab.Postgres(t, 1)
	c.Kill(1)
	r := open(t, dbrouter.Config{DriverName: "postgres", DataSource: c.DSN(0), DataSourceReplicas: []string{c.DSN(1)}, MonitorInterval: 100 * time.Millisecond})
	require.Equal(t, c.Addr(0), "127.0.0.1:"+must(port(t.Context(), r.Replica())))
	require.False(t, source(r, 1).Healthy)
	require.NotContains(t, fmt.Sprint(r.Stats()), "hunter2")
	c.Start(1)
	eventually(t, "the replica comes into use", func() bool { return source(r, 1).Healthy })
	eventually(t, "it serves", func() bool { return c.Addr(1) == "127.0.0.1:"+must(port(t.Context(), r.Replica())) })
}

// What a Reader is given never writes on a replica, even on one that would accept it; it runs on the master.
func TestNoWriteOnReplica(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			c := lab.Postgres(t, 0)
			c.Exec(0, "CREATE DATABASE other")
			_, spare := lab.Database(t)
			cfg := dbrouter.Config{DriverName: driver, DataSource: c.DSN(0), DataSourceReplicas: []string{spare}, DataSourceSearchReplicas: []string{spare},
				MonitorInterval: 100 * time.Hour}
			r := open(t, cfg)
			replica := must(sql.Open("postgres", spare))
			defer replica.Close()
			c.Exec(0, "CREATE TABLE a (v int)")
			_, err := replica.ExecContext(t.Context(), "CREATE TABLE a (v int)")
			require.NoError(t, err)
			ctx := t.Context()
			for _, rd := range []*dbrouter.Reader{r.Replica(), r.Search()} {
				var v int
				require.NoError(t, rd.GetContext(ctx, &v, "INSERT INTO a VALUES (1) RETURNING v"))
				require.NoError(t, rd.SelectContext(ctx, &[]int{}, "INSERT INTO a VALUES (1) RETURNING v"))
				require.NoError(t, rd.QueryRowxContext(ctx, "INSERT INTO a VALUES (1) RETURNING v").Scan(&v))
				rows, err := rd.QueryxContext(ctx, "INSERT INTO a VALUES (1) RETURNING v")
				require.NoError(t, err)
				require.NoError(t, rows.Close())
				plain, err := rd.QueryContext(ctx, "INSERT INTO a VALUES (1) RETURNING v")
				require.NoError(t, err)
				require.NoError(t, plain.Close())
				tx, err := rd.BeginReadx(ctx)
				require.NoError(t, err)
				_, err = tx.ExecContext(ctx, "INSERT INTO a VALUES (1)")
				require.Error(t, err)
				require.NoError(t, tx.Rollback())
			}
			var n int
			require.NoError(t, replica.QueryRowContext(ctx, "SELECT count(*) FROM a").Scan(&n))
			require.Zero(t, n, "on the replica")
			require.NoError(t, r.Master().GetContext(ctx, &n, "SELECT count(*) FROM a"))
			require.Equal(t, 10, n, "on the master")
			require.EqualValues(t, 10, r.Stats().ReadsToMaster)
		})
	}
}

func TestPromotedReplicaServesNoReads(t *testing.T) {
	t.Parallel()
	c, r := cluster(t, "postgres", nil)
	eventually(t, "the standby is known", func() bool { return source(r, 1).Standby })
	c.Promote(1)
	eventually(t, "it is out", func() bool { return !source(r, 1).Healthy })
	require.Contains(t, source(r, 1).LastError, "accepts writes")
	eventually(t, "the other one serves", func() bool { return source(r, 2).Healthy })
}

// The master moves behind a list of hosts (as behind a name): writes find it without anybody's help.
func TestMasterMoves(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			c := lab.Postgres(t, 1)
			c.Exec(0, "CREATE TABLE a (v int)")
			c.Replayed()
			_, p0, _ := strings.Cut(c.Addr(0), ":")
			_, p1, _ := strings.Cut(c.Addr(1), ":")
			r := open(t, dbrouter.Config{DriverName: driver, MonitorInterval: 100 * time.Millisecond,
				DataSource: fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%s,%s user=app password=hunter2 dbname=app sslmode=disable target_session_attrs=read-write", p0, p1)})
			ctx := t.Context()
			_, err := r.Master().ExecContext(ctx, "INSERT INTO a VALUES (1)")
			require.NoError(t, err)
			before := r.Master().Generation()
			eventually(t, "the prober is connected", func() bool { return source(r, 0).Latency > 0 })
			c.SetReadOnly(0, true)
			c.Promote(1)
			began := time.Now()
			refused := 0
			eventually(t, "writes go to the new master", func() bool {
				_, err := r.Master().ExecContext(ctx, "INSERT INTO a VALUES (2)")
				if err != nil {
					refused++
				}
				return err == nil
			})
			t.Logf("%d writes refused; the new master took one after %v", refused, time.Since(began).Round(time.Millisecond))
			var p string
			require.NoError(t, r.Master().GetContext(ctx, &p, "SELECT current_setting('port')"))
			require.Equal(t, p1, p, "%+v", r.Stats())
			require.NotEqual(t, before, r.Master().Generation(), "%+v", r.Stats())
		})
	}
}

// However many calls a frozen master is asked, no more wait for it than the pool has connections.
func TestFrozenMasterHoldsNoMoreThanThePool(t *testing.T) {
	c := lab.Postgres(t, 0)
	r := open(t, dbrouter.Config{DriverName: "postgres", DataSource: c.DSN(0), MaxOpenConns: 20, MonitorInterval: 100 * time.Hour})
	c.Pause(0)
	for range 12 {
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := r.Master().ExecContext(ctx, "SELECT 1")
				assert.Error(t, err)
			})
		}
		wg.Wait()
		require.LessOrEqual(t, source(r, 0).Frozen, 20+5, "as many as the pool may have, and those that were let in at once")
	}
	require.GreaterOrEqual(t, source(r, 0).Frozen, 5)
	c.Resume(0)
	eventually(t, "it serves again", func() bool { _, err := r.Master().ExecContext(t.Context(), "SELECT 1"); return err == nil })
	eventually(t, "nothing is left", func() bool { return source(r, 0).Frozen == 0 })
}

// A session reads what it wrote, however far the replicas trail; others read on the replicas.
func TestSessionReadsItsWrites(t *testing.T) {
	t.Parallel()
	c, r := cluster(t, "postgres", func(cfg *dbrouter.Config) { cfg.MonitorInterval = 100 * time.Hour })
	c.PauseReplay(1)
	c.PauseReplay(2)
	m, rd := r.Master(), r.Replica()
	count := func(ctx context.Context) (n int) {
		require.NoError(t, rd.GetContext(ctx, &n, "SELECT count(*) FROM a"))
		return n
	}
	writes := map[string]func(ctx context.Context) error{
		"exec": func(ctx context.Context) error {
			_, err := m.ExecContext(ctx, "INSERT INTO a VALUES (1)")
			return err
		},
		"query": func(ctx context.Context) error {
			return m.GetContext(ctx, new(int), "INSERT INTO a VALUES (1) RETURNING v")
		},
		"reader": func(ctx context.Context) error {
			return rd.GetContext(ctx, new(int), "INSERT INTO a VALUES (1) RETURNING v")
		},
		"tx": func(ctx context.Context) error {
			return r.RunTx(ctx, nil, func(tx *sqlx.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO a VALUES (1)")
				return err
			})
		},
		"conn": func(ctx context.Context) error {
			conn, err := m.Conn(ctx)
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.ExecContext(ctx, "INSERT INTO a VALUES (1)")
			return err
		},
	}
	rows := 1
	for name, write := range writes {
		ctx, s := dbrouter.WithSession(t.Context())
		require.NoError(t, m.PingContext(ctx))
		require.False(t, s.Wrote(), name)
		require.Equal(t, 1, count(ctx), name)
		require.NoError(t, write(ctx), name)
		rows++
		inner, same := dbrouter.WithSession(ctx)
		require.Equal(t, s, same)
		require.Equal(t, rows, count(inner), name)
		require.Equal(t, rows, count(dbrouter.UseMaster(t.Context())))
	}
}

// Behind a transaction pooler a session is shared with strangers: nothing is set on it, and reads are made read only one by one.
func TestPooler(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			_, writable := lab.Database(t)
			c, r := cluster(t, driver, func(cfg *dbrouter.Config) {
				cfg.DataSourceReplicas[1] = writable
				cfg.Pooler, cfg.MonitorInterval, cfg.QueryTimeout = true, 100*time.Hour, 10*time.Second
			})
			ctx := t.Context()
			require.True(t, source(r, 1).Healthy)
			require.False(t, source(r, 2).Healthy, "it is no replica")
			require.Contains(t, source(r, 2).LastError, "accepts writes")
			var v string
			require.NoError(t, r.Master().GetContext(ctx, &v, "SELECT current_setting('statement_timeout')"))
			require.Equal(t, "0", v)
			var inTx bool
			require.NoError(t, r.Replica().GetContext(ctx, &inTx, "SELECT now() < statement_timestamp()"))
			require.True(t, inTx)
			require.Equal(t, c.Addr(1), "127.0.0.1:"+must(port(ctx, r.Replica())))
			require.NoError(t, r.Replica().GetContext(ctx, new(int), "INSERT INTO a VALUES (1) RETURNING v"))
			require.NoError(t, r.Replica().QueryRowxContext(ctx, "INSERT INTO a VALUES (1) RETURNING v").Scan(new(int)))
			rows, err := r.Replica().QueryxContext(ctx, "SELECT v FROM a")
			require.NoError(t, err)
			require.NoError(t, rows.Close())
			var n int
			require.NoError(t, r.Master().GetContext(ctx, &n, "SELECT count(*) FROM a"))
			require.Equal(t, 3, n)
		})
	}
}
