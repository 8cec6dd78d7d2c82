package lab_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
)

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestDatabasesAreApart(t *testing.T) {
	for name, fresh := range map[string]func(testing.TB) (string, string){"sqlite": lab.SQLite, "postgres": lab.Database, "mysql": lab.MySQL} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				db := open(t, first(fresh(t)), second(fresh(t)))
				_, err := db.ExecContext(t.Context(), "CREATE TABLE a (v int)")
				require.NoError(t, err)
			}
		})
	}
}

func first(a, _ string) string  { return a }
func second(_, b string) string { return b }

func TestPostgresFaults(t *testing.T) {
	began := time.Now()
	c := lab.Postgres(t, 2)
	t.Logf("primary and two standbys after %v", time.Since(began).Round(10*time.Millisecond))
	dbs := []*sql.DB{open(t, "postgres", c.DSN(0)), open(t, "postgres", c.DSN(1)), open(t, "postgres", c.URL(2))}
	count := func(i int) (n int, err error) {
		err = dbs[i].QueryRowContext(t.Context(), "SELECT count(*) FROM a").Scan(&n)
		return n, err
	}
	counts := func(i, want int) func() bool {
		return func() bool { n, err := count(i); return err == nil && n == want }
	}
	c.Exec(0, "CREATE TABLE a (v int)")
	c.Replayed()
	require.True(t, counts(1, 0)() && counts(2, 0)())

	c.PauseReplay(1)
	c.Exec(0, "INSERT INTO a VALUES (1)")
	require.Eventually(t, counts(2, 1), time.Minute, 5*time.Millisecond)
	require.True(t, counts(1, 0)(), "a standby that does not replay shows the past")
	c.ResumeReplay(1)
	c.Replayed()
	require.True(t, counts(1, 1)())

	c.Pause(1)
	answered := make(chan error, 1)
	go func() { _, err := count(1); answered <- err }()
	select {
	case err := <-answered:
		t.Fatalf("a paused server answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	c.Resume(1)
	require.NoError(t, <-answered)

	c.Kill(2)
	_, err := count(2)
	require.Error(t, err)
	c.Start(2)
	require.Eventually(t, counts(2, 1), time.Minute, 5*time.Millisecond)

	c.SetReadOnly(0, true)
	_, err = dbs[0].ExecContext(t.Context(), "INSERT INTO a VALUES (2)")
	require.ErrorContains(t, err, "read-only")
	c.Promote(1)
	_, err = dbs[1].ExecContext(t.Context(), "INSERT INTO a VALUES (2)")
	require.NoError(t, err)
	c.Follow(2, 1)
	require.Eventually(t, counts(2, 2), time.Minute, 5*time.Millisecond)
	c.SetReadOnly(0, false)
}
