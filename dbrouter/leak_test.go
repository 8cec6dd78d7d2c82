package dbrouter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// Whatever callers do with what they are given, every connection is given back and no goroutine stays.
func TestNothingIsPinned(t *testing.T) {
	run := func(t *testing.T, cfg dbrouter.Config) {
		r := open(t, cfg)
		m, rd := r.Master(), r.Replica()
		ctx, _ := dbrouter.WithSession(t.Context())
		_, err := m.ExecContext(ctx, "CREATE TABLE pins (v int)")
		require.NoError(t, err)
		idle := func() bool {
			for _, s := range r.Stats().Sources {
				if s.Pool.InUse > 0 {
					return false
				}
			}
			return true
		}
		steps := map[string]func(ctx context.Context){
			"transaction given up": func(ctx context.Context) {
				tx, err := m.BeginTxx(ctx, nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(ctx, "INSERT INTO pins VALUES (1)")
				require.NoError(t, err)
				require.NoError(t, tx.Rollback())
			},
			"transaction cancelled": func(ctx context.Context) {
				ctx, cancel := context.WithCancel(ctx)
				tx, err := m.BeginTxx(ctx, nil)
				require.NoError(t, err)
				_, err = tx.ExecContext(ctx, "INSERT INTO pins VALUES (1)")
				require.NoError(t, err)
				cancel()
			},
			"prepared statements": func(ctx context.Context) {
				tx, err := m.BeginTxx(ctx, nil)
				require.NoError(t, err)
				st, err := tx.PreparexContext(ctx, m.Rebind("SELECT count(*) FROM pins WHERE v = ?"))
				require.NoError(t, err)
				require.NoError(t, st.GetContext(ctx, new(int), 1))
				require.NoError(t, tx.Commit())
				conn, err := m.Connx(ctx)
				require.NoError(t, err)
				st, err = conn.PreparexContext(ctx, m.Rebind("SELECT count(*) FROM pins WHERE v = ?"))
				require.NoError(t, err)
				require.NoError(t, st.GetContext(ctx, new(int), 1))
				require.NoError(t, errors.Join(st.Close(), conn.Close()))
			},
			"rows left open": func(ctx context.Context) {
				ctx, cancel := context.WithCancel(ctx)
				for range 3 {
					rows, err := rd.QueryContext(ctx, "SELECT 1 UNION SELECT 2")
					require.NoError(t, err)
					require.True(t, rows.Next())
				}
				tx, err := rd.BeginReadx(ctx)
				require.NoError(t, err)
				require.NoError(t, tx.GetContext(ctx, new(int), "SELECT 1"))
				cancel()
			},
			"a row not scanned": func(ctx context.Context) {
				ctx, cancel := context.WithCancel(ctx)
				rd.QueryRowxContext(ctx, "SELECT 1")
				cancel()
			},
			"panic in a transaction": func(ctx context.Context) {
				require.Panics(t, func() { _ = r.RunTx(ctx, nil, func(*sqlx.Tx) error { panic("mine") }) })
			},
			"cancelled before": func(ctx context.Context) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				_, err := m.ExecContext(ctx, "SELECT 1")
				require.Error(t, err)
				require.Error(t, rd.GetContext(ctx, new(int), "SELECT 1"))
			},
			"errors": func(ctx context.Context) {
				require.Error(t, rd.GetContext(ctx, new(int), "SELECT nothing FROM nowhere"))
				require.Error(t, rd.SelectContext(ctx, &[]struct{}{}, "SELECT 1 AS x"))
				_, err := m.NamedExecContext(ctx, "INSERT INTO pins VALUES (:none)", map[string]any{})
				require.Error(t, err)
			},
		}
		for name, step := range steps {
			step(ctx)
			eventually(t, name+": connections are back", idle)
		}
		settle := func() int { runtime.GC(); return runtime.NumGoroutine() }
		eventually(t, "quiet", func() bool { n := settle(); <-time.After(20 * time.Millisecond); return settle() <= n })
		before := settle()
		for range 20 {
			for name, step := range steps {
				step(ctx)
				eventually(t, name+": connections are back", idle)
			}
		}
		eventually(t, "no goroutine stays", func() bool { return settle() <= before+cfg.MaxOpenConns+4 })
		require.NoError(t, r.Recycle(ctx))
		eventually(t, "old pools are closed", func() bool { return r.Stats().DrainingPools == 0 })
	}
	databases(t, func(t *testing.T, cfg dbrouter.Config) {
		cfg.MaxOpenConns = 4
		if cfg.DriverName == "postgres" || cfg.DriverName == "pgx" {
			cfg.DataSourceReplicas = others(t, 1)
		}
		run(t, cfg)
	})
}

// syncBuffer may be written to by many.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// No password shows in a log, an error or the statistics, whatever goes wrong.
func TestPasswordsStaySecret(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry-passw0rd"
	var out syncBuffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	say := func(v any) {
		if err, ok := v.(error); ok {
			v = err.Error()
		}
		fmt.Fprintf(&out, "%v %+v\n", v, v)
		if b, err := json.Marshal(v); err == nil {
			_, _ = out.Write(b)
		}
	}
	ctx := t.Context()
	_, pg := lab.Database(t)
	_, my := lab.MySQL(t)
	for driver, dsns := range map[string][]string{
		"postgres": {"host=127.0.0.1 port=1 user=app password=%s dbname=x sslmode=disable", "postgres://app:%s@127.0.0.1:1/x?sslmode=disable",
			"postgres://app:%s@127.0.0.1:port/x", "postgres://app:%s%%zz@h/x", "host=127.0.0.1 port=1 password='%s' user=app nonsense", "postgres://app:%s@127.0.0.1:1,127.0.0.2:1/x?sslmode=disable"},
		"pgx": {"host=127.0.0.1 port=1 user=app password=%s dbname=x sslmode=disable", "postgres://app:%s@127.0.0.1:1/x?sslmode=disable", "postgres://app:%s@127.0.0.1:port/x",
			"postgres://app:%s@h/x?sslmode=nonsense", "host=127.0.0.1 port=many password=%s"},
		"mysql": {"app:%s@tcp(127.0.0.1:1)/x", "app:%s@tcp(127.0.0.1:1", "app:%s@nowhere/x", "app:%s@tcp(127.0.0.1:1)/x?timeout=much", "app:%s@/x?tls=unknown"},
	} {
		good := map[string]string{"postgres": pg, "pgx": pg, "mysql": my}[driver]
		for _, dsn := range dsns {
			dsn = fmt.Sprintf(dsn, canary)
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			began := time.Now()
			_, err := dbrouter.Open(short, dbrouter.Config{DriverName: driver, DataSource: dsn, Logger: logger, Trace: true})
			require.Error(t, err, dsn)
			require.ErrorContains(t, err, "DataSource")
			require.Less(t, time.Since(began), patience)
			say(err)
			cancel()
			r, err := dbrouter.Open(ctx, dbrouter.Config{DriverName: driver, DataSource: good, DataSourceReplicas: []string{dsn}, Logger: logger, Trace: true,
				MonitorInterval: 10 * time.Millisecond, FollowMaster: true, SlowQuery: time.Nanosecond})
			if err != nil {
				say(err) // it cannot be read
				continue
			}
			say(r.Check(ctx))
			_, err = r.Master().ExecContext(ctx, "SELECT 1 FROM nowhere")
			say(err)
			say(r.Stats())
			short, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
			say(r.Reconfigure(short, dbrouter.Config{DriverName: driver, DataSource: dsn, Logger: logger}))
			cancel()
			require.NoError(t, r.Close())
		}
	}
	// A server that refuses the password.
	_, err := dbrouter.Open(ctx, dbrouter.Config{DriverName: "mysql", DataSource: strings.Replace(my, "hunter2", canary, 1), Logger: logger})
	require.ErrorContains(t, err, "Access denied")
	say(err)
	require.NotContains(t, out.String(), canary)
	require.Contains(t, out.String(), "***")
}
