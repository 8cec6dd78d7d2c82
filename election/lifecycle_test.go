package election_test

import (
	"context"
	"database/sql"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/stretchr/testify/require"
)

// running counts the goroutines that are inside the election package.
func running() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	return strings.Count(string(buf), "nines/election.(*")
}

func TestShutdownBeforeRun(t *testing.T) {
	c := electiontest.New()
	e, err := election.New(election.Config{Members: c.Join("a"), Logger: quiet()})
	require.NoError(t, err)
	require.Error(t, e.Check(t.Context()))
	require.NoError(t, e.Shutdown(within(t)))
	require.NoError(t, e.Shutdown(within(t)))
	require.NoError(t, e.Run(within(t)))
	require.ErrorIs(t, e.Lead(within(t), nil), election.ErrClosed)
	require.ErrorIs(t, e.Resign(within(t)), election.ErrClosed)
	require.ErrorIs(t, e.TransferTo(within(t), "a"), election.ErrClosed)
	require.ErrorIs(t, e.Check(t.Context()), election.ErrClosed)
	_, err = e.Forward(within(t), "x", nil)
	require.ErrorIs(t, err, election.ErrClosed)
	require.False(t, e.IsLeader())
	require.Error(t, e.Run(within(t)), "a second Run")
}

// Run, Shutdown, callbacks and calls race; in the end nothing runs and nobody holds the lease.
func TestLifecycleRace(t *testing.T) {
	inTurn(t, func(t *testing.T, open func() *sqlx.DB) {
		db := open()
		for round := range 6 {
			c := electiontest.New()
			e, err := election.New(election.Config{Members: c.Join("a"), DB: db, Logger: quiet()})
			require.NoError(t, err)
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(context.Background())
			wg.Go(func() { _ = e.Run(ctx) })
			for range 2 {
				wg.Go(func() {
					_ = e.LeadFenced(within(t), func(ctx context.Context, _ uint64) error { <-ctx.Done(); return nil })
				})
				wg.Go(func() {
					_ = e.Lead(within(t), func(ctx context.Context, _ uint64) error { <-ctx.Done(); return nil })
				})
				wg.Go(func() {
					for range e.Watch(within(t)) {
					}
				})
				wg.Go(func() {
					for n := 0; n < round*20; n++ {
						_, _, _ = e.IsLeader(), e.State(), e.Stats()
						_ = e.Resign(ctx)
						runtime.Gosched()
					}
					if err := e.Shutdown(within(t)); err != nil {
						t.Errorf("Shutdown: %v", err)
					}
				})
			}
			wg.Wait()
			cancel()
		}
		eventually(t, "no goroutine is left", func() bool { return running() == 0 })
		var holder string
		require.NoError(t, db.Get(&holder, `SELECT holder FROM nines_lease_beats`))
		require.Empty(t, holder)
	})
}

// The end of Run's context is the hard stop: the lease is not given back, and callbacks have ended.
func TestHardStop(t *testing.T) {
	_, dsn := sqliteOf(t)
	c := electiontest.New()
	db := openSQLite(t, dsn)
	a := start(t, c, "a", db, nil)
	ended := make(chan error, 1)
	go func() {
		ended <- a.Lead(context.Background(), func(ctx context.Context, _ uint64) error { <-ctx.Done(); return nil })
	}()
	eventually(t, "Lead runs", func() bool { return a.Stats().Running == 1 })
	a.stop()
	<-a.done
	require.ErrorIs(t, <-ended, election.ErrClosed)
	require.False(t, a.IsLeader())
	var holder string
	require.NoError(t, db.Get(&holder, `SELECT holder FROM nines_lease_beats`))
	require.True(t, strings.HasPrefix(holder, "a/"))
	eventually(t, "no goroutine is left", func() bool { return running() == 0 })
}

// swapDB is a stable handle on pools that are replaced, as dbrouter's is.
type swapDB struct {
	driver string
	mu     sync.Mutex
	db     *sqlx.DB
	gen    atomic.Uint64
}

func (s *swapDB) DriverName() string { return s.driver }
func (s *swapDB) Generation() uint64 { return s.gen.Load() }
func (s *swapDB) Conn(ctx context.Context) (*sql.Conn, error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	return db.Conn(ctx)
}

// When the pool is replaced the connections are given back, and leadership goes on.
func TestGeneration(t *testing.T) {
	t.Parallel()
	driver, dsn := postgresOf(t)
	old := openPostgres(t, driver, dsn)
	s := &swapDB{driver: driver, db: old}
	c := electiontest.New()
	m := c.Join("a")
	e, err := election.New(election.Config{Members: m, DB: s, Logger: quiet()})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(context.Background()) })
	defer wg.Wait()
	defer e.Shutdown(context.Background())
	eventually(t, "it leads with a session lock", func() bool { return e.IsLeader() && old.Stats().InUse == 2 })
	term := e.State().Term
	s.point(openPostgres(t, driver, dsn))
	eventually(t, "the old pool is free", func() bool { return old.Stats().InUse == 0 })
	eventually(t, "the new one has both", func() bool { return s.db.Stats().InUse == 2 && e.IsLeader() })
	require.Equal(t, term, e.State().Term)
}

// An application that uses up the pool does not cost the leadership.
func TestExhaustedPool(t *testing.T) {
	t.Parallel()
	driver, dsn := postgresOf(t)
	db := openPostgres(t, driver, dsn)
	db.SetMaxOpenConns(4)
	c := electiontest.New()
	a := start(t, c, "a", db, nil)
	eventually(t, "it leads with a session lock", func() bool { return a.IsLeader() && db.Stats().InUse == 2 })
	for range 2 {
		conn, err := db.Conn(within(t))
		require.NoError(t, err)
		defer conn.Close()
	}
	term := a.State().Term
	renewals := a.Stats().Renewals
	eventually(t, "renewals go on", func() bool { return a.Stats().Renewals > renewals+1 })
	require.Equal(t, term, a.State().Term)
	require.True(t, a.IsLeader())
}

// Golden scenario 16: on SQLite a leader keeps its lease behind the write streams of its own process.
func TestSQLiteLeaderBehindWriters(t *testing.T) {
	t.Parallel()
	_, dsn := sqliteOf(t)
	db := openSQLite(t, dsn)
	c := electiontest.New()
	a := start(t, c, "a", db, nil)
	eventually(t, "a leads", a.IsLeader)
	_, err := db.Exec(`CREATE TABLE w (n int)`)
	require.NoError(t, err)
	term := a.State().Term
	for _, fence := range []bool{false, true} {
		writers(t, a, db, term, fence)
	}
}

func writers(t *testing.T, a *node, db *sqlx.DB, term uint64, fence bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds(4, 30))*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var writes, fenced atomic.Int64
	for i := range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				tx, err := db.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = tx.Exec(`INSERT INTO w VALUES (1)`)
				if fence && i == 0 {
					if err := a.Commit(context.Background(), tx, term); err != nil {
						t.Error(err)
						return
					}
					fenced.Add(1)
				} else if err := tx.Commit(); err != nil {
					t.Error(err)
				}
				writes.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d writes, %d of them fenced; %d renewals", writes.Load(), fenced.Load(), a.Stats().Renewals)
	require.Equal(t, term, a.State().Term)
	require.True(t, a.IsLeader())
	require.Zero(t, a.Stats().TermsLost)
}
