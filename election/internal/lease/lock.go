package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// Lock is the session lock that lets followers learn at once that a leader's session has ended. It is named by lease and term, so a
// former leader that was stopped never blocks the next one. It proves only that a session ended on a server.
type Lock struct {
	Store *Store
	pin   Pin
}

// NewLock returns the session lock of a lease, on a connection of its own.
func NewLock(s *Store) *Lock { return &Lock{Store: s, pin: Pin{DB: s.DB, Pinned: true}} }

// Supported reports whether the dialect has session locks that are used here.
func (l *Lock) Supported() bool { return l.Store.Dialect == dialect.Postgres }

// Close ends the session, and whatever it holds.
func (l *Lock) Close() { l.pin.Discard() }

func (l *Lock) keys(term uint64) (int32, int32) {
	h := fnv.New32a()
	h.Write([]byte("nines.lease." + l.Store.Name))
	return int32(h.Sum32()), int32(term % (1 << 31))
}

// Hold takes the lock of a term and keeps it until ctx ends or the session may be lost. taken is called with the session's name once
// the lock is held.
func (l *Lock) Hold(ctx context.Context, term uint64, taken func(session string)) error {
	defer l.pin.Discard()
	k1, k2 := l.keys(term)
	session, err := with(ctx, &l.pin, func(c *sql.Conn) (string, error) {
		var got bool
		var id string
		var pid int64
		if err := c.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1,$2), `+identity(l.Store.Dialect)+`, pg_backend_pid()`, k1, k2).Scan(&got, &id, &pid); err != nil {
			return "", err
		}
		if !got {
			return "", errors.New("the session lock is taken")
		}
		return fmt.Sprintf("%s#%d", id, pid), nil
	})
	if err != nil {
		return err
	}
	taken(session)
	gen := Generation(l.Store.DB)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if Generation(l.Store.DB) != gen {
			return errors.New("the pool was replaced")
		}
		if err := l.poll(ctx); err != nil {
			return err
		}
	}
}

// poll asks the session for a sign of life. With the grace it takes 300 ms at most.
func (l *Lock) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond-grace)
	defer cancel()
	_, err := with(ctx, &l.pin, func(c *sql.Conn) (one int, err error) {
		return one, c.QueryRowContext(ctx, `SELECT 1`).Scan(&one)
	})
	return err
}

// Wait returns nil when the session named has ended on its server: the lock of its term was freed while this session waited. The
// lock is given back at once, and it is shared, so that all who wait learn of it.
func (l *Lock) Wait(ctx context.Context, term uint64, session string) error {
	k1, k2 := l.keys(term)
	_, err := with(ctx, &l.pin, func(c *sql.Conn) (struct{}, error) { return struct{}{}, l.wait(ctx, c, k1, k2, session) })
	return err
}

func (l *Lock) wait(ctx context.Context, c *sql.Conn, k1, k2 int32, session string) error {
	var id, again string
	var pid, pidAgain int64
	if err := c.QueryRowContext(ctx, `SELECT `+identity(l.Store.Dialect)+`, pg_backend_pid()`).Scan(&id, &pid); err != nil {
		return err
	}
	if sessionServer(session) != id || session == fmt.Sprintf("%s#%d", id, pid) {
		return errors.New("the lock is of another server or of this session")
	}
	if _, err := c.ExecContext(ctx, `SELECT pg_advisory_lock_shared($1,$2)`, k1, k2); err != nil {
		return err
	}
	var ok bool
	if err := c.QueryRowContext(ctx, `SELECT pg_advisory_unlock_shared($1,$2), `+identity(l.Store.Dialect)+`, pg_backend_pid()`, k1, k2).Scan(&ok, &again, &pidAgain); err != nil {
		return err
	}
	if !ok || id != again || pid != pidAgain {
		return errors.New("the session changed while it waited")
	}
	return nil
}

func sessionServer(session string) string {
	i := strings.LastIndexByte(session, '#')
	if i < 0 {
		return ""
	}
	return session[:i]
}

// Unblock ends the sessions that an acquire on the lease's own connection is waiting for. It needs a third connection for a moment.
func (s *Store) Unblock(ctx context.Context, pid int64) error {
	c, err := s.DB.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.ExecContext(ctx, `SELECT pg_terminate_backend(b) FROM unnest(pg_blocking_pids($1)) b`, int32(pid))
	return err
}

// PID is the session of the lease's own connection.
func (s *Store) PID(ctx context.Context) (int64, error) {
	return with(ctx, &s.pin, func(c *sql.Conn) (pid int64, err error) {
		err = c.QueryRowContext(ctx, `SELECT pg_backend_pid()`).Scan(&pid)
		return pid, err
	})
}

// Escalate begins to end the sessions that keep the next Acquire waiting. stop ends that.
func (s *Store) Escalate(ctx context.Context) (stop func()) {
	if s.Dialect != dialect.Postgres {
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
