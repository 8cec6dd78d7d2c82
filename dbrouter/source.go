package dbrouter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/internal/dialect"
)

// role is what a data source is configured as.
type role string

const (
	roleMaster  role = "master"
	roleRead    role = "reads of the master" // SQLite's second pool
	roleReplica role = "replica"
	roleSearch  role = "search replica"
)

var errHung = errors.New("dbrouter: the data source does not answer")

// source is one generation of one data source: its pool, and what the probes know of it.
type source struct {
	role    role
	dsn     string
	name    string // dsn without password
	dialect dialect.Dialect
	db      *sqlx.DB
	conns   *connector
	probe   *sql.DB // a connection of its own, so that a full pool cannot look like a dead server
	kick    chan struct{}
	stop    context.CancelFunc // ends its prober
	retired atomic.Bool        // another generation has taken over; a closed pool then means: call again

	mu      sync.Mutex
	state   state
	life    context.Context // ends when the source is found hung: reads in flight are moved
	endLife context.CancelCauseFunc
	healthy bool
	good    int  // good probes since it was taken out of use
	misses  int  // probes in a row without an answer in time
	standby bool // it was a standby when last seen so
	plain   bool // it does not know the dialect's probe
}

// state is what Stats tells of a source.
type state struct {
	last      observation
	lag       int64 // bytes; -1 where unknown
	err       error // why it is out of use, or the last failure
	errAt     time.Time
	downSince time.Time
}

func newSource(cfg *Config, d dialect.Dialect, r role, dsn string) (*source, error) {
	s := &source{role: r, dsn: dsn, name: redact(dsn), dialect: d, kick: make(chan struct{}, 1), healthy: true}
	s.state.lag = -1
	s.life, s.endLife = context.WithCancelCause(context.Background())
	readOnly := r != roleMaster
	c, err := newConnector(cfg.DriverName, dsn, cfg.session(d, readOnly), cfg.MaxOpenConns)
	if err != nil {
		return nil, s.wrap(err)
	}
	s.conns = c
	s.db = sqlx.NewDb(sql.OpenDB(c), cfg.DriverName)
	open := cfg.MaxOpenConns
	if d == dialect.SQLite && r == roleMaster {
		open = 1
	}
	s.db.SetMaxOpenConns(open)
	s.setIdle(cfg)
	s.db.SetConnMaxLifetime(max(cfg.ConnMaxLifetime, 0))
	s.db.SetConnMaxIdleTime(max(cfg.ConnMaxIdleTime, 0))
	p, err := newConnector(cfg.DriverName, dsn, nil, maxLeft)
	if err != nil {
		return nil, errors.Join(s.wrap(err), s.db.Close())
	}
	s.probe = sql.OpenDB(p)
	s.probe.SetMaxOpenConns(1)
	return s, nil
}

func (s *source) setIdle(cfg *Config) {
	idle := cfg.MaxIdleConns
	if s.dialect == dialect.SQLite && s.role == roleMaster {
		idle = max(min(idle, 1), 0)
	}
	if idle <= 0 {
		idle = -1
	}
	s.db.SetMaxIdleConns(idle)
}

// dropIdle closes the idle connections: after a fault they are likely to be dead.
func (s *source) dropIdle(cfg *Config) {
	if s.dialect == dialect.SQLite {
		return
	}
	s.db.SetMaxIdleConns(-1)
	s.setIdle(cfg)
}

// wrap gives an error the name of the source and takes the password out.
func (s *source) wrap(err error) error {
	return &sourceError{text: fmt.Sprintf("%s %q: %s", s.role, s.name, redactIn(err.Error(), s.dsn)), err: err}
}

// suspect asks for a probe now.
func (s *source) suspect() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// warm opens n connections and puts them into the pool.
func (s *source) warm(ctx context.Context, n int) error {
	conns := make([]*sql.Conn, max(n, 1))
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() { conns[i], errs[i] = s.db.DB.Conn(ctx) })
	}
	wg.Wait()
	for _, c := range conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return s.db.PingContext(ctx)
}

func (s *source) close() error {
	if s.stop != nil {
		s.stop()
	}
	return errors.Join(s.db.Close(), s.probe.Close())
}
