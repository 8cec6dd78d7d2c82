package lab

import (
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// SQLite returns a fresh database file: WAL, five seconds of patience, write locks taken at BEGIN.
func SQLite(t testing.TB) (driver, dsn string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "test.db")
	return "sqlite", "file:" + file + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate"
}
