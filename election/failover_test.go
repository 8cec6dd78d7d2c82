package election_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

// point makes a handle lead to another server, or with nil to none, as a router does after a fail-over.
func (s *swapDB) point(db *sqlx.DB) {
	s.mu.Lock()
	s.db = db
	s.mu.Unlock()
	s.gen.Add(1)
}

func (s *swapDB) open() (*sqlx.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil, errors.New("no route to the database")
	}
	return s.db, nil
}

func startOn(t *testing.T, c *electiontest.Cluster, id string, db *swapDB) *node {
	return start(t, c, id, nil, func(cfg *election.Config) { cfg.DB = db; cfg.TTL = 2 * time.Second })
}

// watchUnfenced notes when each elector may act unfenced, and reports at the end whether two could at once.
func watchUnfenced(t *testing.T, nodes ...*node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	go func() {
		both := 0
		for ctx.Err() == nil {
			n := 0
			for _, x := range nodes {
				if x.IsLeader() {
					n++
				}
			}
			again := 0 // a moment at which all of them answer yes twice is not a hand over between two questions
			for _, x := range nodes {
				if x.IsLeader() {
					again++
				}
			}
			if n > 1 && again > 1 {
				both++
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		done <- both
	}()
	return func() {
		cancel()
		require.Zero(t, <-done, "two could act unfenced at once")
	}
}

// server is a master with copies.
type server interface {
	DSN(i int) string
	Addr(i int) string
	Kill(i int)
	Start(i int)
	Promote(i int)
	Replayed()
	Exec(i int, query string)
}

// engine is a kind of server that can fail over.
type engine struct {
	driver string
	server func(t *testing.T, copies int) server
	detach func(s server, i int) // copy i receives no more
	locks  string                // how many sessions wait for a session lock
}

var engines = map[string]engine{
	"postgres": {
		driver: "postgres", server: func(t *testing.T, n int) server { return lab.Postgres(t, n) },
		detach: func(s server, i int) {
			s.Exec(i, `ALTER SYSTEM SET primary_conninfo=''`)
			s.Exec(i, `SELECT pg_reload_conf()`)
		},
		locks: `SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND NOT granted AND database=(SELECT oid FROM pg_database WHERE datname=current_database())`,
	},
	"mariadb": {
		driver: "mysql", server: func(t *testing.T, n int) server { return lab.MariaDB(t, n) },
		detach: func(s server, i int) { s.Exec(i, `STOP SLAVE IO_THREAD`) },
		locks:  `SELECT count(*) FROM information_schema.processlist WHERE db=DATABASE() AND info LIKE 'SELECT GET_LOCK%,2)=1'`,
	},
}

func onEngines(t *testing.T, fn func(t *testing.T, e engine)) {
	t.Parallel()
	for name, e := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, e)
		})
	}
}

func (e engine) pool(t *testing.T, s server, i int) *sqlx.DB {
	return openPostgres(t, e.driver, s.DSN(i))
}

// waiters counts the sessions that wait for a session lock in this database.
func (e engine) waiters(t *testing.T, db *sqlx.DB) (n int) {
	require.NoError(t, db.Get(&n, e.locks))
	return n
}

// detached waits until the copy receives no more.
func (e engine) detached(t *testing.T, s server, alone *sqlx.DB) {
	e.detach(s, 1)
	eventually(t, "the copy does not receive any more", func() bool {
		if e.driver == "mysql" {
			return true // STOP SLAVE has waited for it
		}
		var n int
		return alone.Get(&n, `SELECT count(*) FROM pg_stat_wal_receiver`) == nil && n == 0
	})
}

// Golden scenario 9: the restart of the server frees the session lock, which proves nothing: nobody is overthrown for it, and the term
// goes on when the server is back in time.
func TestServerRestart(t *testing.T) { onEngines(t, serverRestart) }

func serverRestart(t *testing.T, e engine) {
	server := e.server(t, 0)
	c := electiontest.New()
	a := start(t, c, "a", e.pool(t, server, 0), nil)
	eventually(t, "a leads", a.IsLeader)
	b := start(t, c, "b", e.pool(t, server, 0), nil)
	eventually(t, "b waits for the lock", func() bool { return e.waiters(t, a.db) == 1 })
	term := a.State().Term
	stop := watchUnfenced(t, a, b)
	began := time.Now()
	server.Kill(0)
	server.Start(0)
	t.Logf("the server was away for %v", time.Since(began).Round(time.Millisecond))
	eventually(t, "a leader again, and its lock is waited for", func() bool {
		return (a.IsLeader() && b.State().LeaderID == "a" || b.IsLeader() && a.State().LeaderID == "b") && a.State().Known && b.State().Known && a.Stats().Fault == "" && b.Stats().Fault == ""
	})
	t.Logf("led again after %v, term kept: %v", time.Since(began).Round(time.Millisecond), a.State().Term == term)
	require.Less(t, time.Since(began), 15*time.Second)
	require.Zero(t, a.Stats().Revokes+b.Stats().Revokes, "the freed lock was taken for evidence")
	stop()
}

// Golden scenario 10: the newest acquire is lost with the master. The promoted copy knows an older term; the next term is larger all the
// same, nobody acts before the trust of the lost one has ended, and the lost one is deposed.
func TestLostAcquire(t *testing.T) { onEngines(t, lostAcquire) }

func lostAcquire(t *testing.T, e engine) {
	server := e.server(t, 1)
	c := electiontest.New()
	da, db := &swapDB{driver: e.driver, db: e.pool(t, server, 0)}, &swapDB{driver: e.driver, db: e.pool(t, server, 0)}
	b := startOn(t, c, "b", db)
	eventually(t, "b leads", b.IsLeader)
	server.Replayed()
	alone := e.pool(t, server, 1)
	e.detached(t, server, alone)
	a := startOn(t, c, "a", da)
	eventually(t, "a knows", func() bool { return a.State().LeaderID == "b" })
	eventually(t, "a leads", func() bool {
		if b.IsLeader() {
			_ = b.TransferTo(within(t), "a")
		}
		return a.IsLeader()
	})
	lost := a.State().Term
	stop := watchUnfenced(t, a, b)
	server.Kill(0)
	killed := time.Now()
	server.Promote(1)
	da.point(e.pool(t, server, 1))
	db.point(e.pool(t, server, 1))
	var old uint64
	require.NoError(t, alone.Get(&old, `SELECT term FROM nines_lease_terms`))
	require.Less(t, old, lost, "the acquire was not lost: nothing is tested")
	tx, err := da.db.Begin()
	require.NoError(t, err)
	require.ErrorIs(t, a.Commit(within(t), tx, lost), election.ErrDeposed)
	var next uint64
	eventually(t, "a new term", func() bool {
		for _, n := range []*node{a, b} {
			if s := n.State(); n.IsLeader() && s.Term != lost {
				next = s.Term
				return true
			}
		}
		return false
	})
	t.Logf("term %d was lost, the copy had %d; term %d began %v after the master died", lost, old, next, time.Since(killed).Round(time.Millisecond))
	require.Greater(t, next, lost)
	require.GreaterOrEqual(t, time.Since(killed), 2*time.Second-2*time.Second/3-100*time.Millisecond, "before the trust of the lost leader can have ended")
	stop()
}

// Golden scenario 11: a holder that lapsed unseen, and was followed by one whose acquire was lost, finds its own old row on the
// promoted copy. It is not renewed.
func TestLapsedHolderOnACopy(t *testing.T) { onEngines(t, lapsedHolderOnACopy) }

func lapsedHolderOnACopy(t *testing.T, e engine) {
	server := e.server(t, 1)
	c := electiontest.New()
	da, db := &swapDB{driver: e.driver, db: e.pool(t, server, 0)}, &swapDB{driver: e.driver, db: e.pool(t, server, 0)}
	a := startOn(t, c, "a", da)
	eventually(t, "a leads", a.IsLeader)
	b := startOn(t, c, "b", db)
	eventually(t, "b knows", func() bool { return b.State().LeaderID == "a" })
	first := a.State().Term
	server.Replayed()
	e.detached(t, server, e.pool(t, server, 1))
	stop := watchUnfenced(t, a, b)
	da.point(nil)
	eventually(t, "b took over", b.IsLeader)
	second := b.State().Term
	require.Greater(t, second, first)
	server.Kill(0)
	server.Promote(1)
	da.point(e.pool(t, server, 1))
	db.point(e.pool(t, server, 1))
	eventually(t, "a new term", func() bool {
		if a.IsLeader() {
			require.NotEqual(t, first, a.State().Term, "the lapsed holder was renewed")
		}
		return a.IsLeader() && a.State().Term > second || b.IsLeader() && b.State().Term > second
	})
	stop()
}
