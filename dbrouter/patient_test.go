package dbrouter_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// What lib/pq can do it can do behind the router's own connections, too.
func TestLibPQKeepsItsAbilities(t *testing.T) {
	_, dsn := lab.Database(t)
	m := open(t, dbrouter.Config{DriverName: "postgres", DataSource: dsn}).Master()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, ctx := range map[string]context.Context{"with deadline": ctx, "without": context.Background()} {
		t.Run(name, func(t *testing.T) {
			_, err := m.ExecContext(ctx, "DROP TABLE IF EXISTS a; CREATE TABLE a (v numeric(7,2), b bytea)")
			require.NoError(t, err)

			tx, err := m.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
			require.NoError(t, err)
			st, err := tx.PrepareContext(ctx, "COPY a (v, b) FROM STDIN")
			require.NoError(t, err)
			for i := range 1000 {
				_, err := st.ExecContext(ctx, i, []byte{byte(i), byte(i >> 8)})
				require.NoError(t, err)
			}
			_, err = st.ExecContext(ctx)
			require.NoError(t, err)
			require.NoError(t, st.Close())
			require.NoError(t, tx.Commit())

			rows, err := m.QueryContext(ctx, "SELECT v, b FROM a ORDER BY v; SELECT 'second'")
			require.NoError(t, err)
			types, err := rows.ColumnTypes()
			require.NoError(t, err)
			require.Equal(t, "NUMERIC", types[0].DatabaseTypeName())
			precision, scale, ok := types[0].DecimalSize()
			require.True(t, ok)
			require.Equal(t, []int64{7, 2}, []int64{precision, scale})
			var all [][]byte
			for rows.Next() {
				var v string
				var b []byte
				require.NoError(t, rows.Scan(&v, &b))
				all = append(all, b)
			}
			require.Len(t, all, 1000)
			for i, b := range all {
				require.Equal(t, []byte{byte(i), byte(i >> 8)}, b)
			}
			require.True(t, rows.NextResultSet())
			require.True(t, rows.Next())
			var s string
			require.NoError(t, rows.Scan(&s))
			require.Equal(t, "second", s)
			require.False(t, rows.Next())
			require.False(t, rows.NextResultSet())
			require.NoError(t, rows.Err())
			require.NoError(t, rows.Close())

			rows, err = m.QueryContext(ctx, "SELECT i FROM generate_series(1, 20000) AS i")
			require.NoError(t, err)
			require.True(t, rows.Next())
			require.NoError(t, rows.Close(), "rows need not be read to their end")

			_, err = m.ExecContext(ctx, "INSERT INTO a VALUES ('x')")
			var answer *pq.Error
			require.ErrorAs(t, err, &answer)
			var n int
			require.NoError(t, m.GetContext(ctx, &n, "SELECT count(*) FROM a WHERE v < $1", 10))
			require.Equal(t, 10, n)
		})
	}
}

// A statement that its caller gives up is cancelled on the server, and the pool goes on.
func TestCancelledStatementEndsOnTheServer(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		_, dsn := lab.Database(t)
		m := open(t, dbrouter.Config{DriverName: driver, DataSource: dsn, MaxOpenConns: 2}).Master()
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := m.ExecContext(ctx, "SELECT pg_sleep(600)")
			require.Error(t, err)
			cancel()
		}
		eventually(t, "the statements are over", func() bool {
			var n int
			err := m.GetContext(t.Context(), &n, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep(600)'")
			return err == nil && n == 0
		})
	}
}

// The server ends a statement that runs longer than QueryTimeout, also where the router gives it no deadline.
func TestQueryTimeout(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		_, dsn := lab.Database(t)
		r := open(t, dbrouter.Config{DriverName: driver, DataSource: dsn, DataSourceReplicas: others(t, 1), QueryTimeout: 100 * time.Millisecond})
		_, err := r.Master().ExecContext(t.Context(), "SELECT pg_sleep(600)")
		require.Error(t, err)
		require.Error(t, r.Replica().GetContext(t.Context(), new(string), "SELECT pg_sleep(600)::text"))
		require.ErrorContains(t, r.Master().QueryRowContext(t.Context(), "SELECT pg_sleep(600)::text").Scan(new(string)), "statement timeout")
		require.ErrorContains(t, r.Replica().QueryRowxContext(t.Context(), "SELECT pg_sleep(600)::text").Scan(new(string)), "statement timeout")
	}
}
