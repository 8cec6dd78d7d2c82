package dbrouter_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/dbrouter/internal/question"
)

// noop is a driver that does nothing, as fast as it can: what is left is what stands before it.
type noop struct{}

func (noop) Connect(context.Context) (driver.Conn, error) { return noopConn{}, nil }
func (noop) Driver() driver.Driver                        { return noop{} }
func (noop) Open(string) (driver.Conn, error)             { return noopConn{}, nil }

type noopConn struct{}

func (noopConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (noopConn) Close() error                        { return nil }
func (noopConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (noopConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(0), nil
}
func (noopConn) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if query == question.Postgres {
		return &noopRows{columns: []string{"a", "b", "c", "d", "e", "f"}, values: []driver.Value{false, int64(1), int64(1 << 24), nil, int64(8192), int64(1 << 24)}}, nil
	}
	return &noopRows{columns: oneColumn, values: oneValue}, nil
}

var (
	oneColumn = []string{"v"}
	oneValue  = []driver.Value{int64(1)}
)

type noopRows struct {
	columns []string
	values  []driver.Value
	done    bool
}

func (r *noopRows) Columns() []string { return r.columns }
func (r *noopRows) Close() error      { return nil }
func (r *noopRows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	copy(dest, r.values)
	return nil
}

func noopRouter(b testing.TB) *dbrouter.Router {
	r, err := dbrouter.Open(b.Context(), dbrouter.Config{DriverName: "pgx", DataSource: "host=a", DataSourceReplicas: []string{"host=b", "host=c"}, Logger: quiet(),
		Connector: func(string) (driver.Connector, error) { return noop{}, nil }})
	require.NoError(b, err)
	b.Cleanup(func() { r.Close() })
	return r
}

// cpu reports the time of the processor that an operation takes, which other work on the machine does not change.
func cpu(b *testing.B, run func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportAllocs()
	before := used()
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkNoop is the price of the router over a driver that costs nothing: choosing alone, and whole calls beside sqlx's own.
func BenchmarkNoop(b *testing.B) {
	r := noopRouter(b)
	direct := sqlx.NewDb(sql.OpenDB(noop{}), "pgx")
	defer direct.Close()
	deadline, cancel := context.WithTimeout(b.Context(), time.Second*20)
	defer cancel()
	session, _ := dbrouter.WithSession(deadline)
	wrote, _ := dbrouter.WithSession(deadline)
	_, err := r.Master().ExecContext(wrote, "UPDATE a SET v = 1")
	require.NoError(b, err)
	require.NoError(b, r.Replica().GetContext(wrote, new(int), "SELECT 1"))
	const query = "SELECT id, name, created_at FROM posts WHERE channel_id = $1 ORDER BY created_at DESC LIMIT 60"
	for _, x := range []struct {
		name string
		ctx  context.Context
	}{{"deadline", deadline}, {"session", session}, {"session that wrote", wrote}} {
		b.Run("choose/"+x.name, func(b *testing.B) {
			rd := r.Replica()
			cpu(b, func() { rd.Choose(x.ctx, query) })
		})
	}
	var v int
	b.Run("get/sqlx", func(b *testing.B) {
		cpu(b, func() { _ = direct.GetContext(deadline, &v, query, 1) })
	})
	for _, x := range []struct {
		name string
		ctx  context.Context
	}{{"deadline", deadline}, {"session", session}, {"session that wrote", wrote}} {
		b.Run("get/router, "+x.name, func(b *testing.B) {
			rd := r.Replica()
			cpu(b, func() { _ = rd.GetContext(x.ctx, &v, query, 1) })
		})
	}
	b.Run("get/router, master", func(b *testing.B) {
		m := r.Master()
		cpu(b, func() { _ = m.GetContext(deadline, &v, query, 1) })
	})
	b.Run("exec/sqlx", func(b *testing.B) {
		cpu(b, func() { _, _ = direct.ExecContext(deadline, query) })
	})
	b.Run("exec/router", func(b *testing.B) {
		cpu(b, func() { _, _ = r.Master().ExecContext(deadline, query) })
	})
}

func TestChoosingAllocatesNothing(t *testing.T) {
	r := noopRouter(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	session, _ := dbrouter.WithSession(ctx)
	_, err := r.Master().ExecContext(session, "UPDATE a SET v = 1")
	require.NoError(t, err)
	require.NoError(t, r.Replica().GetContext(session, new(int), "SELECT 1"))
	for _, rd := range []*dbrouter.Reader{r.Replica(), r.Search()} {
		for _, ctx := range []context.Context{ctx, session} {
			rd.Choose(ctx, "SELECT 1")
			require.Zero(t, testing.AllocsPerRun(1000, func() { rd.Choose(ctx, "SELECT 1") }))
		}
	}
}

// BenchmarkRecycle is the time in which all pools are replaced, and of it the part in which calls could notice: the swap of one pointer.
func BenchmarkRecycle(b *testing.B) {
	r := noopRouter(b)
	for b.Loop() {
		if err := r.Recycle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
