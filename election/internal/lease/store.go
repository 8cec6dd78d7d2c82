// Package lease speaks SQL for the election: it reads and writes the row that decides who leads, and checks it inside users'
// transactions. What to write when is decided elsewhere.
package lease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
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

	pin Pin
}

// New returns the lease called name.
func New(db DB, d dialect.Dialect, name string, ttl time.Duration) *Store {
	return &Store{DB: db, Dialect: d, Name: name, TTL: ttl, pin: Pin{DB: db, Pinned: d != dialect.SQLite}}
}

// Close gives the pinned connection back.
func (s *Store) Close() { s.pin.Close() }

// Look reads the row, and makes it when there is none.
func (s *Store) Look(ctx context.Context) (row core.Row, err error) {
	err = s.pin.With(ctx, func(c *sql.Conn) error {
		row, err = s.look(ctx, c)
		if errors.Is(err, sql.ErrNoRows) {
			if err := s.create(ctx, c); err != nil {
				return err
			}
			row, err = s.look(ctx, c)
		}
		return err
	})
	return row, err
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
}

// errHeld says that the row is not as it was seen.
var errHeld = errors.New("the lease is held")

// Acquire takes the lease if its row is still as o says. before is called right before the statement that writes the beat is sent:
// trust counts from there. The error goes with the outcomes Blocked, Unknown and Failed.
func (s *Store) Acquire(ctx context.Context, o core.Row, holder string, before func()) (got Acquired, err error) {
	got.Outcome = core.Failed
	err = s.pin.With(ctx, func(c *sql.Conn) error {
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
			before()
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
		case errors.Is(err, errHeld):
			got.Outcome = core.Lost
			return nil
		case sent:
			got.Outcome = core.Unknown
		case isLockTimeout(err):
			got.Outcome = core.Blocked
		}
		return err
	})
	return got, err
}

// Renew writes the next beat. ok is false when the lease is not the holder's any more.
func (s *Store) Renew(ctx context.Context, term uint64, holder, lock string) (identity string, ok bool, err error) {
	err = s.pin.With(ctx, func(c *sql.Conn) error {
		identity, ok, err = s.renew(ctx, c, term, holder, lock)
		return err
	})
	return identity, ok, err
}

func (s *Store) renew(ctx context.Context, tx Tx, term uint64, holder, lock string) (identity string, ok bool, err error) {
	set := `UPDATE nines_lease_beats SET beat=` + s.nextBeat() + `, server=` + s.identity() + `, lock_session=?, expires_us=` + s.now() + `+? WHERE name=? AND holder=? AND term=?`
	args := []any{lock, s.TTL.Microseconds(), s.Name, holder, term}
	if s.Dialect != dialect.MySQL {
		err := tx.QueryRowContext(ctx, s.bind(set+` RETURNING server`), args...).Scan(&identity)
		if errors.Is(err, sql.ErrNoRows) {
			return "", false, nil
		}
		return identity, err == nil, err
	}
	res, err := tx.ExecContext(ctx, set, args...)
	if err != nil {
		return "", false, err
	}
	beat, err := res.LastInsertId()
	if err != nil || beat == 0 {
		return "", false, err
	}
	err = tx.QueryRowContext(ctx, `SELECT `+s.identity()).Scan(&identity)
	return identity, err == nil, err
}

// Release gives the lease back, with the mark of how. It does nothing on another run of the server than the one that took the last
// write: a copy may lack what another holder did since.
func (s *Store) Release(ctx context.Context, term uint64, holder, mark string) error {
	return s.pin.With(ctx, func(c *sql.Conn) error {
		_, err := c.ExecContext(ctx, s.bind(`UPDATE nines_lease_beats SET holder=?, lock_session='', beat=beat+1, expires_us=0 WHERE name=? AND term=? AND holder=? AND server=`+s.identity()), mark, s.Name, term, holder)
		return err
	})
}

// Revoke takes the lease from its holder if the row is still as o says: no transaction is fenced by that term any more.
func (s *Store) Revoke(ctx context.Context, o core.Row) (done bool, err error) {
	err = s.pin.With(ctx, func(c *sql.Conn) error {
		n, err := affected(c.ExecContext(ctx, s.bind(`UPDATE nines_lease_beats SET holder='`+core.Revoked+`', lock_session='', beat=beat+1, expires_us=0 WHERE name=? AND term=? AND holder=? AND beat=?`),
			s.Name, o.Term, o.Holder, o.Beat))
		done = n == 1
		return err
	})
	return done, err
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *Store) bind(q string) string { return s.Dialect.Rebind(q) }

// inTx runs fn between BEGIN and COMMIT on a pinned connection.
func (s *Store) inTx(ctx context.Context, c *sql.Conn, fn func() error) error {
	var sent bool
	return s.inTxCommit(ctx, c, fn, &sent)
}

// inTxCommit sets sent when COMMIT was sent: from there on an error says nothing about whether it happened. database/sql's own
// transactions are not used, because they answer a COMMIT that raced with a context without telling which way it went.
func (s *Store) inTxCommit(ctx context.Context, c *sql.Conn, fn func() error, sent *bool) error {
	if _, err := c.ExecContext(ctx, s.begin()); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		*sent = true
		if _, err = c.ExecContext(ctx, `COMMIT`); err == nil {
			return ctx.Err() // a wait for a standby that was cancelled ends as a success with a warning
		}
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, rerr := c.ExecContext(back, `ROLLBACK`); rerr != nil && errors.Is(err, errHeld) {
		return fmt.Errorf("rollback: %w", rerr)
	}
	return err
}

// Pin is a connection that is kept, or taken for each use.
type Pin struct {
	DB     DB
	Pinned bool

	mu   sync.Mutex
	conn *sql.Conn
	gen  uint64
}

// Generation is the number of the DB's pool where it has one: a pinned connection of an older pool has to be given back.
func Generation(db DB) uint64 {
	if g, ok := db.(interface{ Generation() uint64 }); ok {
		return g.Generation()
	}
	return 0
}

// With runs fn on the connection. A pinned connection on which fn failed is thrown away, whatever state it is in.
func (p *Pin) With(ctx context.Context, fn func(c *sql.Conn) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	gen := Generation(p.DB)
	if p.conn != nil && p.gen != gen {
		p.conn.Close()
		p.conn = nil
	}
	c := p.conn
	if c == nil {
		var err error
		if c, err = p.DB.Conn(ctx); err != nil {
			return err
		}
	}
	if !p.Pinned {
		defer c.Close()
		return fn(c)
	}
	p.conn, p.gen = c, gen
	err := fn(c)
	if err != nil {
		p.discard()
	}
	return err
}

func (p *Pin) discard() {
	_ = p.conn.Raw(func(any) error { return driver.ErrBadConn })
	p.conn.Close()
	p.conn = nil
}

// Close gives the connection back, or throws it away when it may hold locks.
func (p *Pin) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// Discard throws the connection away, and its session with it.
func (p *Pin) Discard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.discard()
	}
}
