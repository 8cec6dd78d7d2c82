package jobs_test

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/internal/migrate"
	"github.com/nines-go/nines/jobs"
)

// patience bounds every wait; the machines that run the tests are slow and shared.
const patience = 30 * time.Second

var databases = []struct {
	name string
	open func(testing.TB) (driver, dsn string)
}{{"sqlite", sqlite}, {"postgres", lab.Database}, {"pgx", pgx}, {"mariadb", lab.MySQL}}

// sqlite is a file whose writers are patient and wait for no disk: the machines that run the tests are slow and shared.
func sqlite(t testing.TB) (driver, dsn string) {
	driver, dsn = lab.SQLite(t)
	return driver, strings.Replace(dsn, "busy_timeout(5000)", "busy_timeout(60000)", 1) + "&_pragma=synchronous(off)"
}

// pgx is PostgreSQL through the other driver.
func pgx(t testing.TB) (driver, dsn string) {
	_, dsn = lab.Database(t)
	return "pgx", dsn
}

// forEach runs fn on every database.
func forEach(t *testing.T, fn func(t *testing.T, b *bench)) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) {
			driver, dsn := d.open(t)
			fn(t, &bench{t: t, driver: driver, dsn: dsn})
		})
	}
}

// bench is one database and the runners on it.
type bench struct {
	t           *testing.T
	driver, dsn string
	first       *sqlx.DB
}

func open(t testing.TB, driver, dsn string) *sqlx.DB {
	db, err := sqlx.Open(driver, dsn)
	require.NoError(t, err)
	if driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// db is a pool for the test's own statements, with the tables in it.
func (b *bench) db() *sqlx.DB {
	if b.first == nil {
		b.first = open(b.t, b.driver, b.dsn)
		require.NoError(b.t, migrate.Apply(b.t.Context(), b.first, "jobs", jobs.Migrations()))
	}
	return b.first
}

func (b *bench) q(query string) string {
	d, err := dialect.Of(b.driver)
	require.NoError(b.t, err)
	return d.Rebind(query)
}

func (b *bench) exec(query string, args ...any) {
	b.t.Helper()
	_, err := b.db().Exec(b.q(query), args...)
	require.NoError(b.t, err)
}

func (b *bench) number(query string, args ...any) int64 {
	b.t.Helper()
	var n sql.NullInt64
	require.NoError(b.t, b.db().Get(&n, b.q(query), args...))
	return n.Int64
}

// postgres reports whether it is PostgreSQL, by whichever driver.
func (b *bench) postgres() bool { return b.driver == "postgres" || b.driver == "pgx" }

func logger(t testing.TB) *slog.Logger {
	if os.Getenv("JOBS_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// runner makes a runner on a pool of its own that is not running.
func (b *bench) runner(edit func(cfg *jobs.Config)) *jobs.Runner {
	b.t.Helper()
	b.db()
	cfg := jobs.Config{DB: open(b.t, b.driver, b.dsn), Poll: 50 * time.Millisecond, Logger: logger(b.t)}
	if edit != nil {
		edit(&cfg)
	}
	r, err := jobs.New(cfg)
	require.NoError(b.t, err)
	return r
}

// run runs r until the end of the test, or until what it returns is called.
func (b *bench) run(r *jobs.Runner) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			require.NoError(b.t, err)
		case <-time.After(patience):
			b.t.Error("Run does not return")
		}
	}
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) info(r *jobs.Runner, id int64) jobs.Info {
	b.t.Helper()
	for i, err := range r.List(b.t.Context(), jobs.Filter{IDs: []int64{id}}) {
		require.NoError(b.t, err)
		return i
	}
	b.t.Fatalf("job %d is not there", id)
	return jobs.Info{}
}

// becomes waits until the job has the state.
func (b *bench) becomes(r *jobs.Runner, id int64, state string) jobs.Info {
	b.t.Helper()
	eventually(b.t, func() bool { return b.info(r, id).State == state }, "job %d becomes %s", id, state)
	return b.info(r, id)
}

func eventually(t testing.TB, fn func() bool, msg string, args ...any) {
	t.Helper()
	require.Eventuallyf(t, fn, patience, 5*time.Millisecond, msg, args...)
}

func shutdown(t testing.TB, r *jobs.Runner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, r.Shutdown(ctx))
}

// note is a kind of job whose worker does as its text says.
type note struct {
	Text string
	N    int
}

func (note) Kind() string { return "note" }

func addNote(t testing.TB, r *jobs.Runner, fn func(ctx context.Context, job *jobs.Job[note]) error, opts *jobs.WorkerOptions) {
	t.Helper()
	require.NoError(t, jobs.AddWorker(r, fn, opts))
}

func until(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// idle is a runner whose database is never asked.
func (b *bench) idle() *jobs.Runner {
	db, err := sqlx.Open(b.driver, b.dsn)
	if err != nil {
		panic(err)
	}
	r, err := jobs.New(jobs.Config{DB: db})
	if err != nil {
		panic(err)
	}
	return r
}
