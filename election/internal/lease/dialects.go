package lease

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/nines-go/nines/internal/dialect"
)

// identity names one run of one server: a lease can only be compared within it. On PostgreSQL the timeline comes from the name of the
// WAL file; the control file still names the old one for seconds after a promotion.
func (s *Store) identity() string { return identity(s.Dialect) }

func identity(d dialect.Dialect) string {
	switch d {
	case dialect.Postgres:
		return `CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE (extract(epoch from pg_postmaster_start_time())*1000000)::bigint||'/'||substr(pg_walfile_name(pg_current_wal_lsn()),1,8) END`
	case dialect.MySQL:
		return `CASE WHEN @@read_only THEN 'standby' ELSE CONCAT_WS('/',@@hostname,@@port,@@server_id) END`
	default:
		return `'sqlite'`
	}
}

// now is the database's clock in µs since 1970: shown to people, and the floor of a new term.
func (s *Store) now() string {
	switch s.Dialect {
	case dialect.Postgres:
		return `(extract(epoch from clock_timestamp())*1000000)::bigint`
	case dialect.MySQL:
		return `TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))`
	default:
		return `CAST(unixepoch('now','subsec')*1000000 AS INTEGER)`
	}
}

// begin: on MySQL all reads of the lease's transactions are locking ones, which see the newest row at any level of isolation.
func (s *Store) begin() string {
	switch s.Dialect {
	case dialect.Postgres:
		return `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE`
	case dialect.MySQL:
		return `START TRANSACTION READ WRITE`
	default:
		return `BEGIN IMMEDIATE`
	}
}

// beforeAcquire bounds the wait for fenced transactions, and makes the server keep the grant over a crash of its own.
func (s *Store) beforeAcquire(ctx context.Context, c *sql.Conn) error {
	var q string
	switch s.Dialect {
	case dialect.Postgres:
		q = `SELECT set_config('lock_timeout','1s',true), set_config('synchronous_commit','on',true)`
	case dialect.MySQL:
		q = `SET SESSION innodb_lock_wait_timeout=1` // the connection is the lease's own
	default:
		return nil
	}
	_, err := c.ExecContext(ctx, q)
	return err
}

func (s *Store) forUpdate() string {
	if s.Dialect == dialect.SQLite {
		return ``
	}
	return ` FOR UPDATE`
}

// nextBeat: MySQL has no UPDATE … RETURNING, but hands back what went through LAST_INSERT_ID.
func (s *Store) nextBeat() string {
	if s.Dialect == dialect.MySQL {
		return `LAST_INSERT_ID(beat+1)`
	}
	return `beat+1`
}

func (s *Store) ignoreDup(insert string) string {
	if s.Dialect == dialect.MySQL {
		return insert + ` ON DUPLICATE KEY UPDATE name=name`
	}
	return insert + ` ON CONFLICT (name) DO NOTHING`
}

// isLockTimeout tells a wait for a lock that was given up from other faults.
func isLockTimeout(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "55P03"
	}
	text := err.Error()
	return strings.Contains(text, "SQLITE_BUSY") || strings.Contains(text, "database is locked") || strings.Contains(text, "Error 1205")
}

// NoTable tells that the lease tables are not there: the database is another one than before.
func NoTable(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "42P01"
	}
	text := err.Error()
	return strings.Contains(text, "no such table") || strings.Contains(text, "Error 1146")
}
