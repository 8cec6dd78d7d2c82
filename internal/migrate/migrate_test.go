package migrate_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/nines-go/nines/internal/migrate"
)

func open(t *testing.T, path string) *sqlx.DB {
	db, err := sqlx.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func files(text string) fstest.MapFS {
	return fstest.MapFS{"sqlite/0001_first.sql": {Data: []byte(text)}}
}

const two = "-- two steps\nCREATE TABLE a (x int);\nINSERT INTO a\nVALUES (1);\n"

func TestApplyOnceByMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	var wg sync.WaitGroup
	for range 8 {
		db := open(t, path)
		wg.Go(func() { require.NoError(t, migrate.Apply(t.Context(), db, "test", files(two))) })
	}
	wg.Wait()
	var n int
	require.NoError(t, open(t, path).Get(&n, "SELECT count(*) FROM a"))
	require.Equal(t, 1, n)
}

func TestApplyGoesOnAfterFailure(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	err := migrate.Apply(t.Context(), db, "test", files("CREATE TABLE a (x int);\nINSERT INTO b VALUES (1);\n"))
	var failed *migrate.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "0001_first.sql", failed.File)
	require.Equal(t, 2, failed.Step)
	require.NoError(t, migrate.Apply(t.Context(), db, "test", files(two)), "the first step is recorded, the second is new")
}

func TestApplyRefusesEditedMigration(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	require.NoError(t, migrate.Apply(t.Context(), db, "test", files(two)))
	require.ErrorContains(t, migrate.Apply(t.Context(), db, "test", files("CREATE TABLE a (x int, y int);\n")), "another text")
}

// A context that ends at any moment leaves no lock behind: another process migrates at once.
func TestApplyCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	first, second := open(t, path), open(t, path)
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		_ = migrate.Apply(ctx, first, fmt.Sprint("schema", i), files(fmt.Sprintf("CREATE TABLE t%d (x int);\n", i)))
		cancel()
		require.NoError(t, migrate.Apply(t.Context(), second, fmt.Sprint("schema", i), files(fmt.Sprintf("CREATE TABLE t%d (x int);\n", i))))
	}
}

func TestApplyNeedsDialect(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"))
	require.ErrorContains(t, migrate.Apply(t.Context(), db, "test", fstest.MapFS{}), "sqlite/0001_name.sql")
}
