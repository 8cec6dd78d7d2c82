package election_test

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// noSync keeps a busy disk out of tests of leases.
const noSync = "&_pragma=synchronous(off)"

const patience = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func logger(t *testing.T) *slog.Logger {
	if os.Getenv("ELECTION_LOG") == "" {
		return quiet()
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// openSQLite opens a pool of one write connection on a file, as dbrouter does.
func openSQLite(t *testing.T, dsn string) *sqlx.DB {
	db, err := sqlx.Open("sqlite", dsn+noSync)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

// node is one elector with its member and its own pool.
type node struct {
	*election.Elector
	m    *electiontest.Member
	db   *sqlx.DB
	stop context.CancelFunc // kills: nothing is given back
	done chan struct{}
}

func start(t *testing.T, c *electiontest.Cluster, id string, db *sqlx.DB, edit func(cfg *election.Config)) *node {
	m := c.Join(id)
	cfg := election.Config{Members: m, Logger: logger(t).With("node", id)}
	if db != nil {
		cfg.DB = db
	}
	if edit != nil {
		edit(&cfg)
	}
	e, err := election.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Elector: e, m: m, db: db, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		_ = e.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-n.done })
	return n
}

func eventually(t *testing.T, what string, fn func() bool) {
	t.Helper()
	require.Eventually(t, fn, patience, 5*time.Millisecond, what)
}

func fast(cfg *election.Config) { cfg.TTL = 1200 * time.Millisecond }

// inTurn is databases for tests that count goroutines: nothing else runs beside them.
func inTurn(t *testing.T, fn func(t *testing.T, open func() *sqlx.DB)) {
	_, file := lab.SQLite(t)
	t.Run("sqlite", func(t *testing.T) { fn(t, func() *sqlx.DB { return openSQLite(t, file) }) })
	driver, dsn := lab.Database(t)
	t.Run("postgres", func(t *testing.T) { fn(t, func() *sqlx.DB { return openPostgres(t, driver, dsn) }) })
	driver2, dsn2 := mariadbOf(t)
	t.Run("mariadb", func(t *testing.T) { fn(t, func() *sqlx.DB { return openPostgres(t, driver2, dsn2) }) })
}

// databases runs fn on a fresh SQLite file and on a fresh PostgreSQL database; each open is a pool of its own, as of another process.
func databases(t *testing.T, fn func(t *testing.T, open func() *sqlx.DB)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		_, dsn := lab.SQLite(t)
		fn(t, func() *sqlx.DB { return openSQLite(t, dsn) })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		driver, dsn := lab.Database(t)
		fn(t, func() *sqlx.DB { return openPostgres(t, driver, dsn) })
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		driver, dsn := mariadbOf(t)
		fn(t, func() *sqlx.DB { return openPostgres(t, driver, dsn) })
	})
}

// mariadbOf is a database on a server that has run for long enough: what looks free on one that has just started is waited for.
func mariadbOf(t testing.TB) (driver, dsn string) {
	driver, dsn = lab.MySQL(t)
	db, err := sqlx.Open(driver, dsn)
	require.NoError(t, err)
	defer db.Close()
	require.Eventually(t, func() bool {
		var name string
		var seconds int
		return db.QueryRow(`SHOW GLOBAL STATUS LIKE 'Uptime'`).Scan(&name, &seconds) == nil && seconds >= 4
	}, patience, 50*time.Millisecond)
	return driver, dsn
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func sqliteOf(t *testing.T) (driver, dsn string)   { return lab.SQLite(t) }
func postgresOf(t *testing.T) (driver, dsn string) { return lab.Database(t) }

// firstFenced returns the node that gets to do fenced work first, and its term. On a busy machine that need not be the next in line.
func firstFenced(t *testing.T, nodes ...*node) (*node, uint64) {
	type win struct {
		n    *node
		term uint64
	}
	ctx, cancel := context.WithCancel(within(t))
	wins := make(chan win, len(nodes))
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			_ = n.LeadFenced(ctx, func(_ context.Context, term uint64) error {
				wins <- win{n, term}
				return nil
			})
		})
	}
	defer wg.Wait()
	defer cancel()
	select {
	case w := <-wins:
		return w.n, w.term
	case <-ctx.Done():
		t.Fatal("nobody leads")
		return nil, 0
	}
}
