package cluster

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/migrate"
)

// DB is what SQLDiscovery needs: *sqlx.DB and *dbrouter.Master satisfy it. Give it the master.
type DB interface {
	DriverName() string
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	Conn(ctx context.Context) (*sql.Conn, error)
}

//go:embed migrations
var migrations embed.FS

// Migrations is the SQL of the discovery table by dialect. SQLDiscovery applies it before its first statement; it is exported for those who
// let another tool own their schema.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return sub
}

// entryType is the value of the type column of the rows that are ours.
const entryType = "nines"

// staleAfter is the age at which a row counts as a process that is gone without a word.
const staleAfter = 30 * time.Minute

type sqlTable struct {
	db DB

	mu    sync.Mutex
	ready bool
	d     dialect.Dialect
}

// SQLDiscovery keeps the table ClusterDiscovery: one row per process, keyed by its ID, renewed each 60 s, ignored and deleted by any node when
// it was not renewed for 30 min, deleted when the process leaves. All times are the database's. The table is created at first use.
func SQLDiscovery(db DB) Discovery { return &sqlTable{db: db} }

func (t *sqlTable) validate() error {
	if t.db == nil || isTypedNil(t.db) {
		return errors.New("SQLDiscovery has a nil database; open it before New")
	}
	if _, err := dialect.Of(t.db.DriverName()); err != nil {
		return err
	}
	return nil
}

func (t *sqlTable) prepare(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready {
		return nil
	}
	d, err := dialect.Of(t.db.DriverName())
	if err != nil {
		return err
	}
	if err := migrate.Apply(ctx, t.db, "cluster", Migrations()); err != nil {
		return err
	}
	t.d, t.ready = d, true
	return nil
}

// now is the database's clock in milliseconds since 1970.
func (t *sqlTable) now() string {
	switch t.d {
	case dialect.Postgres:
		return `CAST(EXTRACT(EPOCH FROM clock_timestamp())*1000 AS bigint)`
	case dialect.MySQL:
		return `CAST(UNIX_TIMESTAMP(NOW(3))*1000 AS SIGNED)`
	}
	return `CAST((julianday('now')-2440587.5)*86400000 AS INTEGER)`
}

func (t *sqlTable) Register(ctx context.Context, e Entry) error {
	if err := t.prepare(ctx); err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	if _, err := t.db.ExecContext(ctx, t.d.Rebind(`DELETE FROM ClusterDiscovery WHERE id=?`), e.ID); err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	_, err := t.db.ExecContext(ctx, t.d.Rebind(`INSERT INTO ClusterDiscovery (id, type, clustername, hostname, gossipport, port, createat, lastpingat) VALUES (?,?,?,?,?,?,`+t.now()+`,`+t.now()+`)`),
		e.ID, entryType, e.ClusterName, e.Hostname, e.GossipPort, e.Port)
	if err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	return nil
}

func (t *sqlTable) Heartbeat(ctx context.Context, id string) error {
	if err := t.prepare(ctx); err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	res, err := t.db.ExecContext(ctx, t.d.Rebind(`UPDATE ClusterDiscovery SET lastpingat=`+t.now()+` WHERE id=?`), id)
	if err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 { // MySQL counts rows that were changed, and a second heartbeat in one millisecond changes nothing
		if there, err := t.has(ctx, id); err != nil || !there {
			return errors.Join(errors.New("cluster: the row of this process is gone from ClusterDiscovery"), err)
		}
	}
	if _, err := t.db.ExecContext(ctx, t.d.Rebind(`DELETE FROM ClusterDiscovery WHERE type=? AND lastpingat<`+t.now()+`-?`), entryType, staleAfter.Milliseconds()); err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	return nil
}

func (t *sqlTable) has(ctx context.Context, id string) (bool, error) {
	rows, err := t.db.QueryContext(ctx, t.d.Rebind(`SELECT id FROM ClusterDiscovery WHERE id=?`), id)
	if err != nil {
		return false, fmt.Errorf("cluster: discovery table: %w", err)
	}
	defer rows.Close()
	return rows.Next(), rows.Err()
}

func (t *sqlTable) Seeds(ctx context.Context, clusterName string) ([]Entry, error) {
	if err := t.prepare(ctx); err != nil {
		return nil, fmt.Errorf("cluster: discovery table: %w", err)
	}
	rows, err := t.db.QueryContext(ctx, t.d.Rebind(`SELECT id, type, clustername, hostname, gossipport, port, createat, lastpingat FROM ClusterDiscovery WHERE type=? AND clustername=? AND lastpingat>`+t.now()+`-? ORDER BY lastpingat DESC, id`),
		entryType, clusterName, staleAfter.Milliseconds())
	if err != nil {
		return nil, fmt.Errorf("cluster: discovery table: %w", err)
	}
	defer rows.Close()
	var entries []Entry
	for rows.Next() {
		var e Entry
		var created, pinged int64
		if err := rows.Scan(&e.ID, &e.Type, &e.ClusterName, &e.Hostname, &e.GossipPort, &e.Port, &created, &pinged); err != nil {
			return nil, fmt.Errorf("cluster: discovery table: %w", err)
		}
		e.CreateAt, e.LastPingAt = time.UnixMilli(created), time.UnixMilli(pinged)
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cluster: discovery table: %w", err)
	}
	return entries, nil
}

func (t *sqlTable) Deregister(ctx context.Context, id string) error {
	if err := t.prepare(ctx); err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	if _, err := t.db.ExecContext(ctx, t.d.Rebind(`DELETE FROM ClusterDiscovery WHERE id=?`), id); err != nil {
		return fmt.Errorf("cluster: discovery table: %w", err)
	}
	return nil
}
