package dbrouter_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// patience bounds the waits of tests: generous, since machines are slow, and only reached when something is broken.
const patience = time.Minute

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// open opens a router and closes it at the end of the test.
func open(t *testing.T, cfg dbrouter.Config) *dbrouter.Router {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	r, err := dbrouter.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// databases are the servers on which every product is tested.
func databases(t *testing.T, fn func(t *testing.T, cfg dbrouter.Config)) {
	for name, fresh := range map[string]func(testing.TB) (string, string){"sqlite": lab.SQLite, "postgres": lab.Database} {
		t.Run(name, func(t *testing.T) {
			driver, dsn := fresh(t)
			fn(t, dbrouter.Config{DriverName: driver, DataSource: dsn})
		})
	}
	t.Run("pgx", func(t *testing.T) {
		_, dsn := lab.Database(t)
		fn(t, dbrouter.Config{DriverName: "pgx", DataSource: dsn})
	})
}

// cluster is a primary with a table a and two standbys that have it, behind a router.
func cluster(t *testing.T, driver string, change func(*dbrouter.Config)) (*lab.PostgresCluster, *dbrouter.Router) {
	t.Helper()
	c := lab.Postgres(t, 2)
	c.Exec(0, "CREATE TABLE a (v int)")
	c.Exec(0, "INSERT INTO a VALUES (1)")
	c.Replayed()
	cfg := dbrouter.Config{DriverName: driver, DataSource: c.DSN(0), DataSourceReplicas: []string{c.DSN(1), c.DSN(2)}, MonitorInterval: 200 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	return c, open(t, cfg)
}

// port is the server that answers a read.
func port(ctx context.Context, rd *dbrouter.Reader) (string, error) {
	var p string
	err := rd.GetContext(ctx, &p, "SELECT current_setting('port')")
	return p, err
}

// source returns the statistics of one data source.
func source(r *dbrouter.Router, i int) dbrouter.SourceStats { return r.Stats().Sources[i] }

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

// others are n more databases on the server of lab.Database, which stand for replicas where nothing is replicated.
func others(t testing.TB, n int) (dsns []string) {
	for range n {
		_, dsn := lab.Database(t)
		dsns = append(dsns, dsn)
	}
	return dsns
}
