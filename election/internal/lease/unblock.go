package lease

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// Unblock ends the sessions that an acquire on the lease's own connection is waiting for. It needs a third connection for a moment. On
// PostgreSQL it works among sessions of one role; on MariaDB it needs the privilege PROCESS.
func (s *Store) Unblock(ctx context.Context, pid int64) error {
	c, err := s.DB.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if s.Dialect == dialect.Postgres {
		_, err = c.ExecContext(ctx, `SELECT pg_terminate_backend(b) FROM unnest(pg_blocking_pids($1)) b`, int32(pid))
		return err
	}
	rows, err := c.QueryContext(ctx, `SELECT DISTINCT b.trx_mysql_thread_id FROM information_schema.INNODB_LOCK_WAITS w
		JOIN information_schema.INNODB_TRX b ON b.trx_id=w.blocking_trx_id JOIN information_schema.INNODB_TRX r ON r.trx_id=w.requesting_trx_id
		WHERE r.trx_mysql_thread_id=?`, pid)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := c.ExecContext(ctx, fmt.Sprintf(`KILL %d`, id)); err != nil {
			return err
		}
	}
	return nil
}

// PID is the session of the lease's own connection.
func (s *Store) PID(ctx context.Context) (int64, error) {
	q := `SELECT pg_backend_pid()`
	if s.Dialect == dialect.MySQL {
		q = `SELECT CONNECTION_ID()`
	}
	return with(ctx, &s.pin, func(c *sql.Conn) (pid int64, err error) {
		err = c.QueryRowContext(ctx, q).Scan(&pid)
		return pid, err
	})
}

// Escalate begins to end the sessions that keep the next Acquire waiting. stop ends that.
func (s *Store) Escalate(ctx context.Context) (stop func()) {
	if s.Dialect == dialect.SQLite {
		return func() {}
	}
	pid, err := s.PID(ctx)
	if err != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
				_ = s.Unblock(ctx, pid) // without the right to do it, the transaction's own timeout ends it
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// Advice is what should be changed about the connections, "" for nothing. PostgreSQL is told by each fence how long its transaction may
// stand still; on MariaDB that is a setting of the session, which is the user's.
func (s *Store) Advice(ctx context.Context) string {
	if s.Dialect != dialect.MySQL {
		return ""
	}
	seconds, err := with(ctx, &s.pin, func(c *sql.Conn) (seconds int64, err error) {
		err = c.QueryRowContext(ctx, `SELECT @@idle_transaction_timeout`).Scan(&seconds)
		return seconds, err
	})
	switch {
	case err != nil && strings.Contains(err.Error(), "Error 1193"):
		return "this server cannot end a transaction that stands still: a process that is stopped between Fence and COMMIT holds up the next leader until its connection ends; see wait_timeout"
	case err != nil || seconds > 0:
		return ""
	}
	return "a process that is stopped between Fence and COMMIT would hold up the next leader: add idle_transaction_timeout=3 to the data source name"
}
