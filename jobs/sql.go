package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/nines-go/nines/internal/dialect"
)

// The column state is the claim's; outcome is the word for people.
const (
	stScheduled = 0 // waits for its time, or for the slot before it
	stAvailable = 1
	stRunning   = 2
	stDone      = 3
)

// The column held says what a waiting job waits for besides its time.
const (
	heldNot     = 0
	heldBySlot  = 1 // until no older job of its schedule is left
	heldByLimit = 2 // its time has come; until its LimitKey has room
)

const (
	outPending   = "pending"
	outRunning   = "running"
	outRetryable = "retryable"
	outSucceeded = "succeeded"
	outWarning   = "warning"
	outFailed    = "failed"
	outSkipped   = "skipped"
	outCancelled = "cancelled"
	outDiscarded = "discarded"
	outSnoozed   = "snoozed" // never in the database: pending or retryable there
)

// nowUS is the database's clock in microseconds since 1970. PostgreSQL's now() stands still in a transaction, and MySQL's NOW() follows
// the session's zone. SQLite's steps are milliseconds.
func nowUS(d dialect.Dialect) string {
	switch d {
	case dialect.Postgres:
		return `(extract(epoch from clock_timestamp())*1000000)::bigint`
	case dialect.MySQL:
		return `TIMESTAMPDIFF(MICROSECOND,'1970-01-01',UTC_TIMESTAMP(6))`
	default:
		return `CAST(unixepoch('now','subsec')*1000 AS INTEGER)*1000`
	}
}

// words are what stands in statements for what the dialects write differently: on PostgreSQL and SQLite the conditions of partial indexes, on
// MySQL the generated columns that are in their place.
func (r *Runner) words() *strings.Replacer {
	words := []string{
		"{waits}", "state=0", "{waits_us}", "run_us", "{available}", "state=1", "{lane}", "state=1 AND queue", "{runs}", "state=2", "{owner}", "state=2 AND owner",
		"{done_us}", "state=3 AND done_us", "{order_done}", "done_us", "{live_of}", "schedule", "{live_key}", "limit_key",
		"{lock}", "FOR UPDATE SKIP LOCKED", "{wait}", "FOR UPDATE",
	}
	switch r.d {
	case dialect.MySQL:
		words = []string{
			"{waits}", "waits_us IS NOT NULL", "{waits_us}", "waits_us", "{available}", "lane IS NOT NULL", "{lane}", "lane", "{runs}", "run_by IS NOT NULL", "{owner}", "run_by",
			"{done_us}", "ended_us", "{order_done}", "ended_us", "{live_of}", "live_of", "{live_key}", "live_limit",
			"{lock}", "FOR UPDATE SKIP LOCKED", "{wait}", "FOR UPDATE",
		}
	case dialect.SQLite:
		words = append(words[:len(words)-4], "{lock}", "", "{wait}", "")
	}
	if _, ok := r.cfg.DB.(interface{ NowUS() int64 }); !ok {
		words = append(words, "{now}", nowUS(r.d))
	}
	return strings.NewReplacer(words...)
}

// q finishes a statement: {now} stands for the database's clock, {lock} for the end of a locking subquery, {wait} for one that waits for the
// lock, ? for an argument; for the others see words.
func (r *Runner) q(query string) string {
	query = r.finish.Replace(query)
	if c, ok := r.cfg.DB.(interface{ NowUS() int64 }); ok {
		query = strings.ReplaceAll(query, "{now}", strconv.FormatInt(c.NowUS(), 10))
	}
	return r.d.Rebind(query)
}

// concat joins expressions of text.
func (r *Runner) concat(parts ...string) string {
	if r.d == dialect.MySQL {
		return `CONCAT(` + strings.Join(parts, `,`) + `)`
	}
	return `(` + strings.Join(parts, ` || `) + `)`
}

// text is an expression as text.
func (r *Runner) text(expr string) string {
	if r.d == dialect.MySQL {
		return `CAST(` + expr + ` AS CHAR)`
	}
	return `CAST(` + expr + ` AS text)`
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func numbers[N int | int64](ns []N) string {
	var b strings.Builder
	for i, n := range ns {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(int64(n), 10))
	}
	return b.String()
}

// execer is what a statement may run on: the database or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// exec runs a statement and returns how many rows it changed. Each statement here changes what it compares, so that the number is exact
// with every driver setting.
func (r *Runner) exec(ctx context.Context, on execer, query string, args ...any) (int64, error) {
	res, err := on.ExecContext(ctx, r.q(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// each runs a query and scan for each row.
func (r *Runner) each(ctx context.Context, on execer, query string, args []any, scan func(rows *sql.Rows) error) error {
	rows, err := on.QueryContext(ctx, r.q(query), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// one scans the first row into dest; sql.ErrNoRows when there is none.
func (r *Runner) one(ctx context.Context, on execer, query string, args []any, dest ...any) error {
	found := false
	err := r.each(ctx, on, query, args, func(rows *sql.Rows) error {
		if found {
			return nil
		}
		found = true
		return rows.Scan(dest...)
	})
	if err == nil && !found {
		return sql.ErrNoRows
	}
	return err
}

// ids runs a query of one number a row.
func (r *Runner) ids(ctx context.Context, on execer, query string, args ...any) ([]int64, error) {
	var out []int64
	err := r.each(ctx, on, query, args, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

// take changes up to limit rows that match where, none of which another process has locked, and returns their ids. On PostgreSQL the rows
// are locked before they are changed, so that two of these never wait for each other.
func (r *Runner) take(ctx context.Context, set, where, order string, limit int, args ...any) ([]int64, error) {
	pick := fmt.Sprintf(`SELECT id FROM nines_jobs j WHERE %s ORDER BY %s LIMIT %d`, where, order, limit)
	switch r.d {
	case dialect.Postgres:
		return r.ids(ctx, r.cfg.DB, `WITH c AS MATERIALIZED (`+pick+` FOR UPDATE OF j SKIP LOCKED) UPDATE nines_jobs u SET `+set+` FROM c WHERE u.id=c.id RETURNING u.id`, args...)
	case dialect.SQLite:
		return r.ids(ctx, r.cfg.DB, `UPDATE nines_jobs AS u SET `+set+` WHERE id IN (`+pick+`) RETURNING id`, args...)
	}
	var out []int64
	err := r.inTx(ctx, func(tx *sql.Tx) error {
		var err error
		if out, err = r.ids(ctx, tx, pick+` FOR UPDATE SKIP LOCKED`, args...); err != nil || len(out) == 0 {
			return err
		}
		_, err = r.exec(ctx, tx, `UPDATE nines_jobs u SET `+set+` WHERE id IN (`+numbers(out)+`)`)
		return err
	})
	return out, err
}

// inTx runs fn in a transaction. On SQLite it begins with a write of nothing: a transaction that reads first and writes later would be
// refused when another process wrote in between, whatever its patience.
func (r *Runner) inTx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	opts := &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	if r.d == dialect.SQLite {
		opts = nil
	}
	tx, err := r.cfg.DB.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if r.d == dialect.SQLite {
		if _, err := tx.ExecContext(ctx, `UPDATE nines_job_nodes SET beat=beat WHERE 0`); err != nil {
			return err
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// turn makes the transaction the only one that decides about something until it ends.
func (r *Runner) turn(ctx context.Context, tx *sql.Tx, name string) error {
	if r.d == dialect.SQLite {
		return nil // it has the only write lock
	}
	for {
		n, err := r.rows(ctx, tx, `SELECT name FROM nines_job_locks WHERE name=? {wait}`, name)
		if err != nil || n > 0 {
			return err
		}
		insert := `INSERT INTO nines_job_locks (name) VALUES (?) ON CONFLICT DO NOTHING`
		if r.d == dialect.MySQL {
			insert = `INSERT INTO nines_job_locks (name) VALUES (?) ON DUPLICATE KEY UPDATE name=name`
		}
		if _, err := r.exec(ctx, tx, insert, name); err != nil {
			return err
		}
	}
}

// rows runs a query and returns how many rows it has.
func (r *Runner) rows(ctx context.Context, on execer, query string, args ...any) (n int, err error) {
	err = r.each(ctx, on, query, args, func(*sql.Rows) error { n++; return nil })
	return n, err
}

// checkTx refuses what is no transaction: a statement there would commit by itself.
func checkTx(tx Tx) error {
	if isNil(tx) {
		return errors.New("jobs: the transaction is nil")
	}
	if reflect.ValueOf(tx).MethodByName("BeginTx").IsValid() {
		return fmt.Errorf("jobs: %T is not a transaction: begin one and give that", tx)
	}
	return nil
}
