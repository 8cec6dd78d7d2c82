package dbrouter_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

func TestMasterAndReaders(t *testing.T) {
	databases(t, func(t *testing.T, cfg dbrouter.Config) {
		r, ctx := open(t, cfg), t.Context()
		files := fstest.MapFS{}
		for _, d := range []string{"postgres", "sqlite"} {
			files[d+"/0001_people.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL);\n")}
		}
		require.NoError(t, r.Migrate(ctx, "test", files))
		require.NoError(t, r.Migrate(ctx, "test", files))

		m := r.Master()
		require.Equal(t, cfg.DriverName, m.DriverName())
		require.NoError(t, m.PingContext(ctx))
		_, err := m.ExecContext(ctx, m.Rebind("INSERT INTO people (id, name) VALUES (?, ?)"), 1, "ada")
		require.NoError(t, err)
		_, err = m.NamedExecContext(ctx, "INSERT INTO people (id, name) VALUES (:id, :name)", map[string]any{"id": 2, "name": "grace"})
		require.NoError(t, err)
		type person struct {
			ID   int
			Name string
		}
		want := []person{{1, "ada"}, {2, "grace"}}
		for _, rd := range []*dbrouter.Reader{r.Replica(), r.Search()} {
			var got []person
			require.NoError(t, rd.SelectContext(ctx, &got, "SELECT id, name FROM people ORDER BY id"))
			require.Equal(t, want, got)
			var one person
			require.NoError(t, rd.GetContext(ctx, &one, m.Rebind("SELECT id, name FROM people WHERE id = ?"), 2))
			require.Equal(t, want[1], one)
			require.NoError(t, rd.QueryRowxContext(ctx, "SELECT id, name FROM people WHERE id = 1").StructScan(&one))
			require.Equal(t, want[0], one)
			require.ErrorIs(t, rd.GetContext(ctx, &one, "SELECT id, name FROM people WHERE id = 3"), sql.ErrNoRows)
			rows, err := rd.QueryxContext(ctx, "SELECT id, name FROM people ORDER BY id")
			require.NoError(t, err)
			got = nil
			for rows.Next() {
				require.NoError(t, rows.StructScan(&one))
				got = append(got, one)
			}
			require.NoError(t, rows.Close())
			require.Equal(t, want, got)
			tx, err := rd.BeginReadx(ctx)
			require.NoError(t, err)
			require.NoError(t, tx.SelectContext(ctx, &got, "SELECT id, name FROM people ORDER BY id"))
			require.Equal(t, want, got)
			_, err = tx.ExecContext(ctx, "DELETE FROM people")
			require.Error(t, err, "a transaction of a Reader is read only")
			require.NoError(t, tx.Rollback())
		}
		var n int
		require.NoError(t, m.GetContext(ctx, &n, "SELECT count(*) FROM people"))
		require.Equal(t, 2, n)
		require.NoError(t, r.Check(ctx))

		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
		_, err = m.ExecContext(ctx, "DELETE FROM people")
		require.ErrorIs(t, err, dbrouter.ErrClosed)
		require.ErrorIs(t, r.Replica().GetContext(ctx, &n, "SELECT 1"), dbrouter.ErrClosed)
		require.ErrorIs(t, r.Recycle(ctx), dbrouter.ErrClosed)
		require.ErrorIs(t, r.Check(ctx), dbrouter.ErrClosed)
	})
}

// A transaction begun before Recycle commits after it while the new pool serves.
func TestTransactionSurvivesRecycle(t *testing.T) {
	databases(t, func(t *testing.T, cfg dbrouter.Config) {
		r, ctx := open(t, cfg), t.Context()
		m := r.Master()
		_, err := m.ExecContext(ctx, "CREATE TABLE a (v int)")
		require.NoError(t, err)
		before := m.Generation()
		tx, err := m.BeginTxx(ctx, nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(ctx, "INSERT INTO a VALUES (1)")
		require.NoError(t, err)
		require.NoError(t, r.Recycle(ctx))
		require.NotEqual(t, before, m.Generation())
		require.Equal(t, 1, r.Stats().DrainingConns)
		var n int
		require.NoError(t, r.Replica().GetContext(ctx, &n, "SELECT count(*) FROM a"))
		require.Zero(t, n)
		require.NoError(t, tx.Commit())
		require.NoError(t, m.GetContext(ctx, &n, "SELECT count(*) FROM a"))
		require.Equal(t, 1, n)
		eventually(t, "the old pool is closed", func() bool { return r.Stats().DrainingPools == 0 })
	})
}

// A call that waits for a connection of a pool which is then replaced and closed runs on the new one.
func TestWaiterMovesToTheNewPool(t *testing.T) {
	databases(t, func(t *testing.T, cfg dbrouter.Config) {
		cfg.MaxOpenConns, cfg.DrainTimeout = 1, time.Nanosecond
		r, ctx := open(t, cfg), t.Context()
		hold := func() func() {
			a, err := r.Master().BeginTx(ctx, nil)
			require.NoError(t, err)
			if cfg.DriverName != "sqlite" {
				return func() { require.NoError(t, a.Commit()) }
			}
			b, err := r.Replica().BeginReadx(ctx)
			require.NoError(t, err)
			return func() { require.NoError(t, errors.Join(a.Rollback(), b.Rollback())) }
		}
		calls := map[string]func() error{
			"master exec":    func() error { _, err := r.Master().ExecContext(ctx, "SELECT 1"); return err },
			"master get":     func() error { return r.Master().GetContext(ctx, new(int), "SELECT 1") },
			"master row":     func() error { return r.Master().QueryRowContext(ctx, "SELECT 1").Scan(new(int)) },
			"replica get":    func() error { return r.Replica().GetContext(ctx, new(int), "SELECT 1") },
			"replica select": func() error { return r.Replica().SelectContext(ctx, &[]int{}, "SELECT 1") },
			"replica row":    func() error { return r.Replica().QueryRowxContext(ctx, "SELECT 1").Scan(new(int)) },
		}
		for name, call := range calls {
			release := hold()
			waiting := func() (n int64) {
				for _, s := range r.Stats().Sources {
					n += s.Pool.WaitCount
				}
				return n
			}
			before := waiting()
			answer := make(chan error, 1)
			go func() { answer <- call() }()
			eventually(t, "the call waits", func() bool { return waiting() > before })
			require.NoError(t, r.Recycle(ctx))
			if cfg.DriverName == "sqlite" && strings.HasPrefix(name, "master") {
				release() // the file's write lock is free again only now
				release = func() {}
			}
			require.NoError(t, <-answer, name)
			release()
		}
	})
}

func TestRunTxRepeats(t *testing.T) {
	databases(t, func(t *testing.T, cfg dbrouter.Config) {
		r, ctx := open(t, cfg), t.Context()
		_, err := r.Master().ExecContext(ctx, "CREATE TABLE a (v int)")
		require.NoError(t, err)
		tries := 0
		require.NoError(t, r.RunTx(ctx, nil, func(tx *sqlx.Tx) error {
			tries++
			_, err := tx.ExecContext(ctx, "INSERT INTO a VALUES (1)")
			require.NoError(t, err)
			if tries < 3 {
				return conflict{}
			}
			return nil
		}))
		require.Equal(t, 3, tries)
		require.Error(t, r.RunTx(ctx, nil, func(tx *sqlx.Tx) error { tries++; return errors.New("mine") }))
		require.Equal(t, 4, tries, "what is not the server's conflict is not repeated")
		var n int
		require.NoError(t, r.Master().GetContext(ctx, &n, "SELECT count(*) FROM a"))
		require.Equal(t, 1, n, "what was given up left nothing")
	})
}

// conflict is an error like PostgreSQL's for a serialization failure.
type conflict struct{}

func (conflict) Error() string    { return "conflict" }
func (conflict) SQLState() string { return "40001" }

func TestConfigFaults(t *testing.T) {
	pg, my := "host=h user=u password=hunter2 dbname=d", "u:hunter2@tcp(h:3306)/d"
	for name, x := range map[string]struct {
		cfg  dbrouter.Config
		want []string
	}{
		"everything": {dbrouter.Config{DriverName: "pqx", DataSourceReplicas: []string{""}, MaxOpenConns: -1, MonitorInterval: -1, DrainTimeout: -2, TokenTTL: -3,
			FenceOldMaster: -4, SlowQuery: -5, WhenLagging: 9, TokenKey: []byte("short")},
			[]string{`DriverName: driver name "pqx" is not known`, "registered here: mysql, pgx, pgx/v5, postgres, sqlite", "DataSource is empty: set it", "DataSourceReplicas[0] is empty",
				"MaxOpenConns is -1", "MonitorInterval is -1ns", "DrainTimeout is -2ns", "TokenTTL is -3ns", "FenceOldMaster is -4ns", "SlowQuery is -5ns", "WhenLagging is 9", "TokenKey has 5 bytes"}},
		"no driver":             {dbrouter.Config{DriverName: "sqlite3", DataSource: "x"}, []string{`"sqlite3" is not registered: import its driver, _ "github.com/mattn/go-sqlite3"`}},
		"replicas of a file":    {dbrouter.Config{DriverName: "sqlite", DataSource: "x", DataSourceReplicas: []string{"y"}}, []string{"SQLite has no replicas"}},
		"the master's server":   {dbrouter.Config{DriverName: "postgres", DataSource: pg, DataSourceReplicas: []string{"postgres://other@h:5432/d"}}, []string{`DataSourceReplicas[0] "postgres://other@h:5432/d" is the server of DataSource`}},
		"the same twice":        {dbrouter.Config{DriverName: "mysql", DataSource: my, DataSourceSearchReplicas: []string{"u@tcp(a)/d", "v@tcp(a:3306)/d?x=1"}}, []string{"DataSourceSearchReplicas[1]", "is the server of DataSourceSearchReplicas[0], too"}},
		"MySQL's for lib/pq":    {dbrouter.Config{DriverName: "postgres", DataSource: my}, []string{`DataSource "u:***@tcp(h:3306)/d" is one for MySQL`}},
		"PostgreSQL's":          {dbrouter.Config{DriverName: "mysql", DataSource: pg}, []string{"is one for PostgreSQL"}},
		"a URL for MySQL":       {dbrouter.Config{DriverName: "mysql", DataSource: "mysql://u:hunter2@h/d"}, []string{"is a URL: the MySQL driver wants"}},
		"a server's for a file": {dbrouter.Config{DriverName: "sqlite", DataSource: "postgres://u:hunter2@h/d"}, []string{"is a URL of a server"}},
		"a file's for a server": {dbrouter.Config{DriverName: "pgx", DataSource: "file:x.db"}, []string{"is one for SQLite"}},
		"not a URL":             {dbrouter.Config{DriverName: "postgres", DataSource: "postgres://u:hunter2%zz@h/d"}, []string{"is not a URL", "write % as %25"}},
		"neither":               {dbrouter.Config{DriverName: "postgres", DataSource: "localhost"}, []string{"neither key=value pairs nor a URL"}},
		"a port of words":       {dbrouter.Config{DriverName: "postgres", DataSource: "postgres://u:hunter2@h:port/d"}, []string{"is not a URL"}},
		"MySQL's own complaint": {dbrouter.Config{DriverName: "mysql", DataSource: "u:hunter2@nowhere(h)/d", DataSourceReplicas: []string{"u:hunter2@tcp(h"}}, []string{`DataSourceReplicas[0] "u:***@tcp(h"`}},
		"SQLite's own":          {dbrouter.Config{DriverName: "sqlite", DataSource: "/nowhere/at/all/x.db"}, []string{`DataSource "/nowhere/at/all/x.db" cannot be used`}},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, err := dbrouter.Open(t.Context(), x.cfg)
			require.Error(t, err)
			for _, w := range x.want {
				require.ErrorContains(t, err, w)
			}
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), "_pragma")
			require.Less(t, time.Since(began), 6*time.Second, "it is told at once")
		})
	}
	_, dsn := lab.SQLite(t)
	r := open(t, dbrouter.Config{DriverName: "sqlite", DataSource: dsn})
	require.PanicsWithValue(t, "dbrouter: Middleware needs Config.TokenKey: set it to 32 random bytes, the same on all servers", func() { r.Middleware(nil) })
}

func TestMasterAway(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := dbrouter.Open(ctx, dbrouter.Config{DriverName: driver, Logger: quiet(),
			DataSource: "postgres://app:hunter2@127.0.0.1:1/app?sslmode=disable"})
		require.ErrorContains(t, err, `DataSource "postgres://app:***@127.0.0.1:1/app?sslmode=disable" cannot be used`)
		require.ErrorContains(t, err, "start that database or correct DataSource")
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestRedact(t *testing.T) {
	for dsn, want := range map[string]string{
		"host=h password=secret dbname=d":            "host=h password=*** dbname=d",
		`host=h password='se \' cret' dbname=d`:      "host=h password=*** dbname=d",
		"postgres://u:se@cret@h:1/d?sslmode=disable": "postgres://u:***@h:1/d?sslmode=disable",
		"postgres://u@h/d?password=secret&x=1":       "postgres://u@h/d?password=***&x=1",
		"u:se:c@ret@tcp(h:3306)/d?parseTime=true":    "u:***@tcp(h:3306)/d?parseTime=true",
		"file:/tmp/x.db?_pragma=busy_timeout(5000)":  "file:/tmp/x.db?_pragma=busy_timeout(5000)",
		"postgres://h:5432/d?sslpassword=secret":     "postgres://h:5432/d?sslpassword=***",
		"user=u PASSWORD = secret host=h":            "user=u PASSWORD = *** host=h",
	} {
		require.Equal(t, want, dbrouter.Redact(dsn))
	}
}

// A password that is not escaped for a URL is not shown by the complaint about it either.
func TestRedactInHidesWhatIsNotEscaped(t *testing.T) {
	dsn := strings.Replace("postgres://app:PASSWORD@db/x", "PASSWORD", "se%ret", 1)
	_, err := url.Parse(dsn)
	require.Error(t, err)
	text := dbrouter.RedactIn(err.Error(), dsn)
	require.NotContains(t, text, "%re")
	require.NotContains(t, text, "se%ret")
	require.Contains(t, text, "write % as %25")
}
