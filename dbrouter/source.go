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
	dsn     string // as the driver gets it
	name    string // as it was configured, without password
	dialect dialect.Dialect
	db      *sqlx.DB
	conns   *connector
	probe   *sql.DB // connections of its own, so that a full pool cannot look like a dead server
	kick    chan struct{}
	stop    context.CancelFunc // ends its prober
	retired atomic.Bool        // another generation has taken over; a closed pool then means: call again

	asker   asker
	applied atomic.Pointer[position] // how far it was when last asked; nil: not known
	mute    atomic.Bool              // it does not tell
	stuck   atomic.Pointer[position] // what it did not reach while a session waited
	words   atomic.Int32             // question.Words that it understands

	flights flights
	counts  *counts // of the data source in its role, over its generations

	mu      sync.Mutex
	state   state
	healthy bool
	lags    bool // it is out of use for nothing else
	good    int  // good probes since it was taken out of use
	weight  int  // its share of the reads, of fullWeight
	misses  int  // probes in a row without an answer in time
	standby bool // it was a standby when last seen so, or must be one
	plain   int  // answers that did not tell the role
	deposed bool // it was the master and has not been seen as a standby since
}

// counts are what happened at a source.
type counts struct {
	failed atomic.Uint64 // calls that met it away, and were made elsewhere or failed
	moved  atomic.Uint64 // reads that came from another source that was away
	slow   atomic.Uint64 // statements slower than SlowQuery
}

// state is what Stats tells of a source.
type state struct {
	last      observation
	lag       int64         // bytes; -1 where unknown
	age       time.Duration // -1 where unknown
	err       error         // why it is out of use, or the last failure
	errAt     time.Time
	downSince time.Time
}

func newSource(cfg *Config, d dialect.Dialect, r role, field, dsn string) (*source, error) {
	s := &source{role: r, dsn: dsn, name: redact(dsn), dialect: d, kick: make(chan struct{}, 1), counts: &counts{}, healthy: true, weight: fullWeight}
	if d == dialect.SQLite {
		s.dsn = sqliteSource(cfg.DriverName, dsn)
	}
	s.state.lag, s.state.age = -1, -1
	s.standby = cfg.FollowMaster && (r == roleReplica || r == roleSearch)
	c, err := newConnector(cfg, s.dsn, cfg.session(d, r != roleMaster), cfg.MaxOpenConns)
	if err != nil {
		return nil, s.wrap(field, err)
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
	p, err := newConnector(cfg, s.dsn, nil, maxLeft)
	if err != nil {
		return nil, errors.Join(s.wrap(field, err), s.db.Close())
	}
	s.probe = sql.OpenDB(p)
	s.probe.SetMaxOpenConns(2) // one for the prober, one for sessions that ask
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
func (s *source) wrap(field string, err error) error {
	return &sourceError{text: fmt.Sprintf("%s %q: %s", field, s.name, redactIn(err.Error(), s.dsn)), err: err}
}

// suspect asks for a probe now.
func (s *source) suspect() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// inUse reports whether the source serves reads.
func (s *source) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healthy && !s.retired.Load()
}

// isDeposed reports whether the source was the master and has not been seen as a standby since.
func (s *source) isDeposed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deposed
}

// exclude takes a source out of use before anybody uses it.
func (s *source) exclude(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healthy, s.weight, s.state.err, s.state.errAt, s.state.downSince = false, 1, err, time.Now(), time.Now()
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
