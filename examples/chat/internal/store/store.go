// Package store is the SQL of the chat server: users, sessions, rooms and messages. Writes go to the master, history to replicas, searches to
// search replicas.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nines-go/nines/dbrouter"
)

// Errors of the store.
var (
	ErrNotFound = errors.New("store: not found")                             // User, Session, Room
	ErrTaken    = errors.New("store: name is taken")                         // CreateUser, CreateRoom
	ErrConflict = errors.New("store: the ID belongs to a different message") // AddMessage
)

//go:embed migrations
var migrations embed.FS

// Store is safe for concurrent use.
type Store struct {
	db     *dbrouter.Router
	driver string
}

// New makes a store on db.
func New(db *dbrouter.Router) *Store { return &Store{db: db, driver: db.Master().DriverName()} }

// Migrate brings the tables up to date; any number of servers may call it at once.
func (s *Store) Migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return s.db.Migrate(ctx, "chat", files)
}

// insert adds what follows INSERT INTO and reports false when a row with that key was there.
func (s *Store) insert(ctx context.Context, what string, args ...any) (bool, error) {
	query := "INSERT INTO " + what + " ON CONFLICT DO NOTHING"
	if s.driver == "mysql" {
		query = "INSERT IGNORE INTO " + what
	}
	m := s.db.Master()
	res, err := m.ExecContext(ctx, m.Rebind(query), args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// find reads one row, from the master when the replica does not have it (yet).
func (s *Store) find(ctx context.Context, dest any, query string, args ...any) error {
	query = s.db.Master().Rebind(query)
	err := s.db.Replica().GetContext(ctx, dest, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		err = s.db.Master().GetContext(ctx, dest, query, args...)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

func millis(t time.Time) int64 { return t.UnixMilli() }

// Beat counts one run of the heartbeat in tx.
func (s *Store) Beat(ctx context.Context, tx *sql.Tx, node string) error {
	_, err := tx.ExecContext(ctx, s.db.Master().Rebind(`UPDATE chat_heartbeat SET runs=runs+1, node=?, at=? WHERE id=1`), node, millis(time.Now()))
	return err
}

// Heartbeat tells how often Beat was committed, where and when last.
func (s *Store) Heartbeat(ctx context.Context) (runs int64, node string, at time.Time, err error) {
	var row struct {
		Runs int64
		Node string
		At   int64
	}
	err = s.db.Replica().GetContext(ctx, &row, `SELECT runs, node, at FROM chat_heartbeat WHERE id=1`)
	return row.Runs, row.Node, time.UnixMilli(row.At), err
}

// Begin starts a transaction on the master.
func (s *Store) Begin(ctx context.Context) (*sql.Tx, error) {
	tx, err := s.db.Master().BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return tx, nil
}
