// Package migrate brings a database schema up to date, once for the whole cluster.
//
// Files are <dialect>/<NNNN>_<name>.sql, each one or more statements that end with a semicolon at the end of a line. Every statement is a step
// of its own, run under the dialect's lock and recorded in nines_migrations, so that any number of processes may call Apply at once:
// one runs a step, the others wait and find it done. Where DDL is transactional (PostgreSQL, SQLite) a step and its record commit
// together; on MySQL and MariaDB a crash between the two makes the step run again, so steps there are written to be repeatable.
package migrate

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/nines-go/nines/internal/dialect"
)

// DB is the master database; *sqlx.DB and *dbrouter.Master satisfy it.
type DB interface {
	DriverName() string
	Conn(ctx context.Context) (*sql.Conn, error)
}

// Error is a step that failed; the steps before it are done and recorded.
type Error struct {
	Name string // of the schema
	File string
	Step int // from 1, within the file
	Err  error
}

func (e *Error) Error() string {
	return fmt.Sprintf("migrate %s: %s, statement %d: %v", e.Name, e.File, e.Step, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

type step struct {
	file string
	n    int
	sql  string
}

func (s step) sum() string {
	h := sha256.Sum256([]byte(s.sql))
	return hex.EncodeToString(h[:16])
}

const ledger = `CREATE TABLE IF NOT EXISTS nines_migrations (name varchar(100) NOT NULL, file varchar(200) NOT NULL, step int NOT NULL, sum varchar(32) NOT NULL, PRIMARY KEY (name, file, step))`

// Apply runs the steps of files that the schema called name does not have yet, in the order of the file names.
// A step that was recorded with another text is an error: an applied migration must not be edited.
func Apply(ctx context.Context, db DB, name string, files fs.FS) error {
	d, err := dialect.Of(db.DriverName())
	if err != nil {
		return fmt.Errorf("migrate %s: %w", name, err)
	}
	steps, err := read(d, files)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", name, err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("migrate %s: %w", name, err)
	}
	defer conn.Close()
	if done, err := recorded(ctx, d, conn, name); err == nil && upToDate(done, steps) {
		return nil
	}
	unlock, err := lock(ctx, d, conn, name)
	if err != nil {
		return fmt.Errorf("migrate %s: lock: %w", name, err)
	}
	defer unlock()
	if err := inTx(ctx, d, conn, name, func() error { _, err := conn.ExecContext(ctx, ledger); return err }); err != nil {
		return fmt.Errorf("migrate %s: %w", name, err)
	}
	for _, s := range steps {
		err := inTx(ctx, d, conn, name, func() error { return s.apply(ctx, d, conn, name) })
		if err != nil {
			return &Error{Name: name, File: s.file, Step: s.n, Err: err}
		}
	}
	return nil
}

func (s step) apply(ctx context.Context, d dialect.Dialect, conn *sql.Conn, name string) error {
	var sum string
	err := conn.QueryRowContext(ctx, d.Rebind(`SELECT sum FROM nines_migrations WHERE name=? AND file=? AND step=?`), name, s.file, s.n).Scan(&sum)
	switch {
	case err == nil && sum == s.sum():
		return nil
	case err == nil:
		return errors.New("was applied with another text: write a new migration instead of editing an applied one")
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if _, err := conn.ExecContext(ctx, s.sql); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, d.Rebind(`INSERT INTO nines_migrations (name, file, step, sum) VALUES (?,?,?,?)`), name, s.file, s.n, s.sum())
	return err
}

func recorded(ctx context.Context, d dialect.Dialect, conn *sql.Conn, name string) (map[string]string, error) {
	rows, err := conn.QueryContext(ctx, d.Rebind(`SELECT file, step, sum FROM nines_migrations WHERE name=?`), name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	done := map[string]string{}
	for rows.Next() {
		var file, sum string
		var n int
		if err := rows.Scan(&file, &n, &sum); err != nil {
			return nil, err
		}
		done[fmt.Sprint(file, "#", n)] = sum
	}
	return done, rows.Err()
}

func upToDate(done map[string]string, steps []step) bool {
	for _, s := range steps {
		if done[fmt.Sprint(s.file, "#", s.n)] != s.sum() {
			return false
		}
	}
	return true
}

// read returns the steps of one dialect in order.
func read(d dialect.Dialect, files fs.FS) ([]step, error) {
	names, err := fs.Glob(files, path.Join(string(d), "*.sql"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no migrations for dialect %s: want files %s/0001_name.sql", d, d)
	}
	sort.Strings(names)
	var steps []step
	for _, file := range names {
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, err
		}
		for i, stmt := range split(string(text)) {
			steps = append(steps, step{file: path.Base(file), n: i + 1, sql: stmt})
		}
	}
	return steps, nil
}

// split cuts a file into statements: a statement ends with a semicolon at the end of a line. Lines that are comments are left out.
func split(text string) []string {
	var stmts []string
	var b strings.Builder
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "--") {
			continue
		}
		b.WriteString(line)
		if strings.HasSuffix(trimmed, ";") {
			stmts = append(stmts, strings.TrimSuffix(strings.TrimSpace(b.String()), ";"))
			b.Reset()
		}
	}
	if rest := strings.TrimSpace(b.String()); rest != "" {
		stmts = append(stmts, rest)
	}
	return stmts
}

// lock takes the lock that spans several transactions, where the dialect has one on its session. PostgreSQL locks in each transaction
// instead, which also holds behind a transaction pooler; SQLite has one writer.
func lock(ctx context.Context, d dialect.Dialect, conn *sql.Conn, name string) (func(), error) {
	if d != dialect.MySQL {
		return func() {}, nil
	}
	key := "nines.migrate." + name
	for {
		var got sql.NullInt64
		if err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(?, 5)`, key).Scan(&got); err != nil {
			return nil, err
		}
		if got.Int64 == 1 {
			return func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), `DO RELEASE_LOCK(?)`, key) }, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// inTx runs fn in a transaction that excludes other migrators of the schema.
func inTx(ctx context.Context, d dialect.Dialect, conn *sql.Conn, name string, fn func() error) error {
	begin := map[dialect.Dialect]string{dialect.Postgres: `BEGIN`, dialect.MySQL: `START TRANSACTION`, dialect.SQLite: `BEGIN IMMEDIATE`}[d]
	rollback := func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`) }
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		rollback() // a cancelled BEGIN may have taken effect
		return err
	}
	err := func() error {
		if d == dialect.Postgres {
			h := fnv.New64a()
			h.Write([]byte("nines.migrate." + name))
			if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(h.Sum64())); err != nil {
				return err
			}
		}
		if err := fn(); err != nil {
			return err
		}
		_, err := conn.ExecContext(ctx, `COMMIT`)
		return err
	}()
	if err != nil {
		rollback()
	}
	return err
}
