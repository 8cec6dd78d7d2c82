// Package lease speaks SQL for the election: it reads and writes the row that decides who leads, and checks it inside users'
// transactions. What to write when is decided elsewhere.
package lease

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/internal/dialect"
)

// DB is the master database.
type DB interface {
	DriverName() string
	Conn(ctx context.Context) (*sql.Conn, error)
}

// Tx is a transaction of the user.
type Tx = interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Store is one lease in one database. One statement runs at a time.
type Store struct {
	DB      DB
	Dialect dialect.Dialect
	Name    string
	TTL     time.Duration

	pin   Pin
	grown atomic.Uint64 // the connection whose server has run for long enough
}

// New returns the lease called name.
func New(db DB, d dialect.Dialect, name string, ttl time.Duration) *Store {
	return &Store{DB: db, Dialect: d, Name: name, TTL: ttl, pin: Pin{DB: db, Pinned: d != dialect.SQLite}}
}

// Close ends the pinned connection, whose settings are not those of the pool's others.
func (s *Store) Close() { s.pin.Discard() }

// Look reads the row, and makes it when there is none.
func (s *Store) Look(ctx context.Context) (core.Row, error) {
	return counted(ctx, &s.pin, func(c *sql.Conn, n uint64) (core.Row, error) {
		row, err := s.look(ctx, c)
		if errors.Is(err, sql.ErrNoRows) {
			if err := s.create(ctx, c); err != nil {
				return row, err
			}
			row, err = s.look(ctx, c)
		}
		if s.Dialect != dialect.MySQL || err != nil {
			return row, err
		}
		row.Conn = n
		if core.HolderID(row.Holder) == "" && s.grown.Load() != n {
			row.Fresh, err = s.fresh(ctx, c)
			if !row.Fresh && err == nil {
				s.grown.Store(n)
			}
		}
		return row, err
	})
}

// fresh reports whether the server has run for less than a lease and a second. Its last run may have lost what it had granted, and nothing
// but its age tells that there was one: a lease that looks free then is waited for like a silent one.
func (s *Store) fresh(ctx context.Context, c *sql.Conn) (bool, error) {
	var name, text string
	if err := c.QueryRowContext(ctx, `SHOW GLOBAL STATUS LIKE 'Uptime'`).Scan(&name, &text); err != nil {
		return false, err
	}
	seconds, err := strconv.ParseInt(text, 10, 32)
	return err != nil || time.Duration(seconds)*time.Second < s.TTL+time.Second, nil // a clock that was set back makes it nonsense
}

func (s *Store) look(ctx context.Context, c *sql.Conn) (r core.Row, err error) {
	q := s.bind(`SELECT term, holder, beat, server, lock_session, ` + s.identity() + ` FROM nines_lease_beats WHERE name=?`)
	err = c.QueryRowContext(ctx, q, s.Name).Scan(&r.Term, &r.Holder, &r.Beat, &r.Server, &r.LockSession, &r.Identity)
	return r, err
}

// create makes the row, released on the server that is asked: it can be acquired at once.
func (s *Store) create(ctx context.Context, c *sql.Conn) error {
	var id string
	if err := c.QueryRowContext(ctx, `SELECT `+s.identity()).Scan(&id); err != nil {
		return err
	}
	if id == core.Standby {
		return errors.New("the database takes no writes: it is a standby")
	}
	return s.inTx(ctx, c, func() error {
		if _, err := c.ExecContext(ctx, s.bind(s.ignoreDup(`INSERT INTO nines_lease_beats (name, term, holder, beat, server, lock_session, expires_us) VALUES (?, 0, '', 0, ?, '', 0)`)), s.Name, id); err != nil {
			return err
		}
		_, err := c.ExecContext(ctx, s.bind(s.ignoreDup(`INSERT INTO nines_lease_terms (name, term, holder) VALUES (?, 0, '')`)), s.Name)
		return err
	})
}

// Acquired is what came of an acquire.
type Acquired struct {
	Outcome  core.Outcome
	Term     uint64
	Identity string
	Sent     core.Now // read right before the statement that writes the beat was sent: trust counts from there
	blocked  error
}

// errHeld says that the row is not as it was seen.
var errHeld = errors.New("the lease is held")

// Acquire takes the lease if its row is still as o says. The error goes with the outcomes Blocked, Unknown and Failed.
func (s *Store) Acquire(ctx context.Context, o core.Row, holder string, clock func() core.Now) (Acquired, error) {
	began := clock()
	got, err := counted(ctx, &s.pin, func(c *sql.Conn, n uint64) (Acquired, error) {
		if o.Conn != 0 && o.Conn != n {
			return Acquired{Outcome: core.Lost}, nil // what was seen was seen on another connection, perhaps of another run of the server
		}
		return s.acquire(ctx, c, o, holder, clock)
	})
	if errors.Is(err, errStuck) { // it may still happen
		got = Acquired{Outcome: core.Unknown, Identity: o.Identity, Sent: began}
	} else if got.Outcome == "" {
		got.Outcome = core.Failed // no connection
	} else if err == nil {
		err = got.blocked
	}
	return got, err
}

func (s *Store) acquire(ctx context.Context, c *sql.Conn, o core.Row, holder string, clock func() core.Now) (Acquired, error) {
	got := Acquired{Outcome: core.Failed}
	sent := false
	err := s.inTxCommit(ctx, c, func() error {
		if err := s.beforeAcquire(ctx, c); err != nil {
			return err
		}
		var row core.Row
		var us int64
		q := s.bind(`SELECT term, holder, beat, ` + s.identity() + `, ` + s.now() + ` FROM nines_lease_beats WHERE name=?` + s.forUpdate())
		if err := c.QueryRowContext(ctx, q, s.Name).Scan(&row.Term, &row.Holder, &row.Beat, &row.Identity, &us); err != nil {
			return err
		}
		if row.Term != o.Term || row.Holder != o.Holder || row.Beat != o.Beat || row.Identity != o.Identity {
			return errHeld
		}
		got.Identity = row.Identity
		got.Term = max(o.Term+1, uint64(max(us, 0)/1000))
		n, err := affected(c.ExecContext(ctx, s.bind(`UPDATE nines_lease_terms SET term=?, holder=? WHERE name=? AND term=?`), got.Term, holder, s.Name, o.Term))
		if err != nil {
			return err
		}
		if n != 1 {
			return errHeld
		}
		got.Sent = clock()
		n, err = affected(c.ExecContext(ctx, s.bind(`UPDATE nines_lease_beats SET term=?, holder=?, beat=beat+1, server=`+s.identity()+`, lock_session='', expires_us=`+s.now()+`+? WHERE name=?`),
			got.Term, holder, s.TTL.Microseconds(), s.Name))
		if err == nil && n != 1 {
			return errHeld
		}
		return err
	}, &sent)
	switch {
	case err == nil:
		got.Outcome = core.Granted
	case errors.Is(err, errHeld) && !errors.Is(err, errDirty):
		got.Outcome = core.Lost
		return got, nil
	case sent:
		got.Outcome = core.Unknown
	case isLockTimeout(err):
		got.Outcome = core.Blocked
		if !errors.Is(err, errDirty) { // the connection is as good as before, and what was seen on it
			got.blocked = err
			return got, nil
		}
	}
	return got, err
}

// Renew writes the next beat. ok is false when the lease is not the holder's any more.
func (s *Store) Renew(ctx context.Context, term uint64, holder, lock string) (identity string, ok bool, err error) {
	identity, err = with(ctx, &s.pin, func(c *sql.Conn) (string, error) { return s.renew(ctx, c, term, holder, lock) })
	return identity, identity != "", err
}

// renew answers with the identity of the server, "" when there is no such row.
func (s *Store) renew(ctx context.Context, tx Tx, term uint64, holder, lock string) (identity string, err error) {
	set := `UPDATE nines_lease_beats SET beat=` + s.nextBeat() + `, server=` + s.identity() + `, lock_session=?, expires_us=` + s.now() + `+? WHERE name=? AND holder=? AND term=?`
	args := []any{lock, s.TTL.Microseconds(), s.Name, holder, term}
	if s.Dialect != dialect.MySQL {
		err := tx.QueryRowContext(ctx, s.bind(set+` RETURNING server`), args...).Scan(&identity)
		if errors.Is(err, sql.ErrNoRows) {
			return "", nil
		}
		return identity, err
	}
	res, err := tx.ExecContext(ctx, set, args...)
	if err != nil {
		return "", err
	}
	beat, err := res.LastInsertId()
	if err != nil || beat == 0 {
		return "", err
	}
	err = tx.QueryRowContext(ctx, `SELECT `+s.identity()).Scan(&identity)
	return identity, err
}

// Release gives the lease back, with the mark of how. It does nothing on another run of the server than the one that took the last
// write: a copy may lack what another holder did since.
func (s *Store) Release(ctx context.Context, term uint64, holder, mark string) error {
	_, err := with(ctx, &s.pin, func(c *sql.Conn) (sql.Result, error) {
		return c.ExecContext(ctx, s.bind(`UPDATE nines_lease_beats SET holder=?, lock_session='', beat=beat+1, expires_us=0 WHERE name=? AND term=? AND holder=? AND server=`+s.identity()), mark, s.Name, term, holder)
	})
	return err
}

// Revoke takes the lease from its holder if the row is still as o says: no transaction is fenced by that term any more.
func (s *Store) Revoke(ctx context.Context, o core.Row) (done bool, err error) {
	return with(ctx, &s.pin, func(c *sql.Conn) (bool, error) {
		n, err := affected(c.ExecContext(ctx, s.bind(`UPDATE nines_lease_beats SET holder='`+core.Revoked+`', server=`+s.identity()+`, lock_session='', beat=beat+1, expires_us=0 WHERE name=? AND term=? AND holder=? AND beat=?`),
			s.Name, o.Term, o.Holder, o.Beat))
		return n == 1, err
	})
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *Store) bind(q string) string { return s.Dialect.Rebind(q) }

// errDirty says that a connection may be inside a transaction that could not be ended.
var errDirty = errors.New("the transaction could not be rolled back")

// inTx runs fn between BEGIN and COMMIT on a pinned connection.
func (s *Store) inTx(ctx context.Context, c *sql.Conn, fn func() error) error {
	var sent bool
	return s.inTxCommit(ctx, c, fn, &sent)
}

// inTxCommit sets sent when COMMIT was sent: from there on an error says nothing about whether it happened. database/sql's own
// transactions are not used, because they answer a COMMIT that raced with a context without telling which way it went.
func (s *Store) inTxCommit(ctx context.Context, c *sql.Conn, fn func() error, sent *bool) error {
	_, err := c.ExecContext(ctx, s.begin())
	if err == nil {
		err = fn()
	}
	if err == nil {
		*sent = true
		if _, err = c.ExecContext(ctx, `COMMIT`); err == nil {
			return ctx.Err() // a wait for a standby that was cancelled ends as a success with a warning
		}
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// Also after a BEGIN that failed: one that was cancelled may have happened all the same, and on SQLite keep all writers out.
	if _, rerr := c.ExecContext(back, `ROLLBACK`); rerr != nil && !strings.Contains(rerr.Error(), "no transaction is active") {
		return errors.Join(err, errDirty, rerr)
	}
	return err
}
