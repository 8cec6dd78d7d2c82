package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
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

// Supported reports whether the dialect has session locks.
func (l *Lock) Supported() bool { return l.Store.Dialect != dialect.SQLite }

// Close ends the session, and whatever it holds.
func (l *Lock) Close() { l.pin.Discard() }

// ErrPooler says that statements of one connection reach several sessions: a pooler stands between, and a session lock would belong to
// whoever comes next.
var ErrPooler = errors.New("a transaction pooler is between this process and the database: no session locks")

var (
	errTaken   = errors.New("the session lock is taken")
	errYoung   = errors.New("the server has just started: a lock that is free proves nothing")
	errChanged = errors.New("the session changed while it was used")
)

// words are the statements of one dialect; each but ping takes the two keys of the lock.
type words struct{ try, wait, free, session string }

func (l *Lock) words() words {
	if l.Store.Dialect == dialect.Postgres {
		return words{
			try: `SELECT pg_try_advisory_lock($1,$2)`, wait: `SELECT pg_advisory_lock_shared($1,$2) IS NOT NULL`,
			free: `SELECT pg_advisory_unlock_shared($1,$2)`, session: `SELECT ` + identity(dialect.Postgres) + `, pg_backend_pid()`,
		}
	}
	// Names are the server's, of at most 64 bytes. A wait ends by itself: that of a connection that was closed would go on.
	const name = `CONCAT('nines.',MD5(CONCAT(DATABASE(),'/',?)),'.',?)`
	return words{
		try: `SELECT GET_LOCK(` + name + `,0)=1`, wait: `SELECT GET_LOCK(` + name + `,2)=1`,
		free: `SELECT RELEASE_LOCK(` + name + `)=1`, session: `SELECT ` + identity(dialect.MySQL) + `, CONNECTION_ID()`,
	}
}

func (l *Lock) keys(term uint64) []any {
	if l.Store.Dialect != dialect.Postgres {
		return []any{l.Store.Name, term}
	}
	h := fnv.New32a()
	h.Write([]byte("nines.lease." + l.Store.Name))
	return []any{int32(h.Sum32()), int32(term % (1 << 31))}
}

// session names the session that answers: its server and its number there.
func (l *Lock) session(ctx context.Context, c *sql.Conn) (string, error) {
	var id string
	var pid int64
	err := c.QueryRowContext(ctx, l.words().session).Scan(&id, &pid)
	return fmt.Sprintf("%s#%d", id, pid), err
}

// own returns the session of the lock's connection, or ErrPooler. Two connections that are open never have one session, but behind a
// pooler the session that was free last serves whoever asks next. It can be missed there; then the checks of evidence tell.
func (l *Lock) own(ctx context.Context, c *sql.Conn) (string, error) {
	first := ""
	// A statement that is cut off would cost the lease its connection, and what was seen through it.
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	for range 3 {
		mine, err := l.session(ctx, c)
		if err != nil {
			return "", err
		}
		other, err := with(patient, &l.Store.pin, func(c *sql.Conn) (string, error) { return l.session(patient, c) })
		if err != nil {
			return "", err
		}
		if first == "" {
			first = mine
		}
		if mine == other || mine != first {
			return "", ErrPooler
		}
	}
	return first, nil
}

func ask(ctx context.Context, c *sql.Conn, query string, args ...any) (bool, error) {
	var yes sql.NullBool
	err := c.QueryRowContext(ctx, query, args...).Scan(&yes)
	return yes.Bool, err
}

// Hold takes the lock of a term and keeps it until ctx ends or the session may be lost. taken is called with the session's name once
// the lock is held.
func (l *Lock) Hold(ctx context.Context, term uint64, taken func(session string)) error {
	defer l.pin.Discard()
	session, err := with(ctx, &l.pin, func(c *sql.Conn) (string, error) {
		session, err := l.own(ctx, c)
		if err != nil {
			return "", err
		}
		got, err := ask(ctx, c, l.words().try, l.keys(term)...)
		if err == nil && !got {
			err = errTaken
		}
		return session, err
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
		if err := l.poll(ctx, session); err != nil {
			return err
		}
	}
}

// poll asks the session for a sign of life. With the grace it takes 300 ms at most.
func (l *Lock) poll(ctx context.Context, session string) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond-grace)
	defer cancel()
	now, err := with(ctx, &l.pin, func(c *sql.Conn) (string, error) { return l.session(ctx, c) })
	if err == nil && now != session && sessionServer(now) == sessionServer(session) {
		return ErrPooler
	}
	if err == nil && now != session {
		return errChanged
	}
	return err
}

// Wait returns nil when the session named has ended on its server: the lock of its term was freed while this session waited. The
// lock is given back at once, so that all who wait learn of it.
func (l *Lock) Wait(ctx context.Context, term uint64, session string) error {
	_, err := with(ctx, &l.pin, func(c *sql.Conn) (struct{}, error) { return struct{}{}, l.wait(ctx, c, term, session) })
	return err
}

func (l *Lock) wait(ctx context.Context, c *sql.Conn, term uint64, session string) error {
	mine, err := l.own(ctx, c)
	if err != nil {
		return err
	}
	if sessionServer(session) != sessionServer(mine) || session == mine {
		return errors.New("the lock is of another server or of this session")
	}
	if l.Store.Dialect == dialect.MySQL {
		// The name of a session does not tell one run of the server from the next. A holder that goes on after a restart has written its
		// new session, or none, when the server is old enough.
		if young, err := l.Store.fresh(ctx, c); err != nil || young {
			return errors.Join(err, errYoung)
		}
	}
	w := l.words()
	for got := false; !got; {
		if got, err = ask(ctx, c, w.wait, l.keys(term)...); err != nil {
			return err
		}
	}
	ok, err := ask(ctx, c, w.free, l.keys(term)...)
	if err != nil {
		return err
	}
	again, err := l.session(ctx, c)
	if err == nil && (!ok || again != mine) {
		err = errChanged
	}
	return err
}

func sessionServer(session string) string {
	i := strings.LastIndexByte(session, '#')
	if i < 0 {
		return ""
	}
	return session[:i]
}
