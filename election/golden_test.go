package election_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"
)

// Golden scenario 4 from outside: a leader whose transaction stands still between Fence and COMMIT while it cannot be heard. Another takes
// over, and the COMMIT fails when it comes. On SQLite, which has one writer, only the end of the process would end it: not here.
func TestTransactionThatStandsStill(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		var dsn string
		if e.driver == "mysql" {
			_, dsn = mariadbOf(t)
			dsn += "?idle_transaction_timeout=3"
		} else {
			_, dsn = lab.Database(t)
		}
		c := electiontest.New()
		a := start(t, c, "a", openPostgres(t, e.driver, dsn), fast)
		eventually(t, "a leads", a.IsLeader)
		first := a.State().Term
		b := start(t, c, "b", openPostgres(t, e.driver, dsn), fast)
		eventually(t, "b knows", func() bool { return b.State().LeaderID == "a" })
		_, err := a.db.Exec(`CREATE TABLE effects (n int)`)
		require.NoError(t, err)
		tx, err := a.db.Begin()
		require.NoError(t, err)
		defer tx.Rollback()
		_, err = tx.Exec(`INSERT INTO effects VALUES (1)`)
		require.NoError(t, err)
		require.NoError(t, a.Fence(within(t), tx, first))
		began := time.Now()
		a.stop()
		<-a.done
		eventually(t, "b leads", b.IsLeader)
		took := time.Since(began)
		t.Logf("b leads after %v, %d acquires were held off", took.Round(time.Millisecond), b.Stats().Blocked)
		require.Greater(t, b.State().Term, first)
		require.Less(t, took, 15*time.Second)
		require.Error(t, tx.Commit(), "committed after the takeover")
		var n int
		require.NoError(t, b.db.Get(&n, `SELECT count(*) FROM effects`))
		require.Zero(t, n)
	})
}

// Golden scenario 7: a fence that failed keeps its lock on MariaDB until the transaction ends. The library ends it: the next takeover is not
// held off.
func TestFailedFenceIsRolledBack(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		a, b := start(t, c, "a", open(), nil), start(t, c, "b", open(), nil)
		eventually(t, "a leads", func() bool { return a.IsLeader() && b.State().LeaderID == "a" })
		// the row says that another holds the term, and a does not know it yet
		_, err := b.db.Exec(`UPDATE nines_lease_terms SET term=term+1, holder='x/1'`)
		require.NoError(t, err)
		tx, err := a.db.Begin()
		require.NoError(t, err)
		require.ErrorIs(t, a.Fence(within(t), tx, a.State().Term), election.ErrDeposed)
		began := time.Now()
		_, err = b.db.Exec(`UPDATE nines_lease_terms SET term=term+1`) // as an acquire does
		require.NoError(t, err)
		require.Less(t, time.Since(began), 900*time.Millisecond, "the failed fence held its lock")
		require.Error(t, tx.Commit())
	})
}

// skew is how far the clock of SQLite, which is that of this process, is set ahead.
var skew atomic.Int64

func init() {
	// The same as the built-in function for the one form that the election uses.
	sqlite.MustRegisterScalarFunction("unixepoch", -1, func(_ *sqlite.FunctionContext, _ []driver.Value) (driver.Value, error) {
		return float64(time.Now().UnixMilli()+skew.Load()) / 1000, nil
	})
}

// Golden scenario 8: the clock of the database is set a minute ahead, and then two minutes back. Nobody is overthrown and nobody lapses;
// terms rise all the same.
func TestDatabaseClockIsSet(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		_, dsn := lab.SQLite(t)
		clockIsSet(t, func() *sqlx.DB { return openSQLite(t, dsn) }, func(seconds int) { skew.Store(int64(seconds) * 1000) })
		skew.Store(0)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		_, dsn := lab.Database(t)
		db := openPostgres(t, "postgres", dsn)
		db.MustExec(`CREATE TABLE skew (us bigint); INSERT INTO skew VALUES (0);
			CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
			'SELECT pg_catalog.clock_timestamp() + (SELECT us FROM public.skew) * interval ''1 microsecond'''`)
		clockIsSet(t, func() *sqlx.DB { return openPostgres(t, "postgres", dsn+" search_path=public,pg_catalog") }, func(seconds int) {
			db.MustExec(`UPDATE skew SET us=$1`, seconds*1_000_000)
		})
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		server := lab.MariaDB(t, 0)
		clockIsSet(t, func() *sqlx.DB { return openPostgres(t, "mysql", server.DSN(0)) }, func(seconds int) {
			// sessions that begin now have that clock, and those that there are end
			server.Exec(0, fmt.Sprintf(`SET GLOBAL init_connect='SET timestamp=UNIX_TIMESTAMP()+%d'`, seconds))
			server.Exec(0, `KILL USER app`)
		})
	})
}

// clockIsSet tries again when the term was lost: a machine that is busy enough does that too, but not each time.
func clockIsSet(t *testing.T, open func() *sqlx.DB, set func(seconds int)) {
	for try := range 3 {
		if clockIsSetOnce(t, fmt.Sprint("try", try), open, set) {
			return
		}
		set(0)
	}
	t.Fatal("the clock of the database decided")
}

func clockIsSetOnce(t *testing.T, name string, open func() *sqlx.DB, set func(seconds int)) bool {
	c := electiontest.New()
	slow := func(cfg *election.Config) { cfg.Name, cfg.TTL = name, 6*time.Second } // sessions are killed here
	a := start(t, c, "a", open(), slow)
	eventually(t, "a leads", a.IsLeader)
	b := start(t, c, "b", open(), slow)
	eventually(t, "b knows", func() bool { return b.State().LeaderID == "a" })
	term := a.State().Term
	for _, seconds := range []int{60, -60} {
		set(seconds)
		renewed := a.Stats().Renewals
		eventually(t, "more than a TTL of renewals", func() bool { return a.Stats().Renewals >= renewed+4 || a.Stats().TermsLost > 0 })
		if a.State().Term != term || b.Stats().Acquires > 0 || a.Stats().TermsLost > 0 {
			t.Logf("%d s: the term was lost: %+v", seconds, b.State())
			return false
		}
		var expires int64
		require.NoError(t, b.db.Get(&expires, `SELECT max(expires_us) FROM nines_lease_beats`))
		ahead := time.Until(time.UnixMicro(expires)).Round(time.Second)
		require.InDelta(t, seconds+6, ahead.Seconds(), 20, "the clock was not set: nothing is tested")
	}
	if a.Resign(within(t)) != nil {
		return false
	}
	eventually(t, "b leads", b.IsLeader)
	require.Greater(t, b.State().Term, term)
	return true
}

// Golden scenario 12: behind a transaction pooler a session lock belongs to whoever comes next. It is found out, no lock is taken, and the
// lease works: its contexts do not flicker, and a leader that dies is followed when the lease is silent.
func TestPooler(t *testing.T) {
	t.Parallel()
	server := lab.Postgres(t, 0)
	pooler := lab.PgBouncer(t, server)
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			dsn := pooler.DSN(0) + " binary_parameters=yes"
			if driver == "pgx" {
				dsn = pooler.DSN(0) + " default_query_exec_mode=exec"
			}
			c := electiontest.New()
			name := func(cfg *election.Config) { cfg.Name = driver }
			a := start(t, c, "a", openPostgres(t, driver, dsn), name)
			eventually(t, "a leads, and knows of the pooler", func() bool { return a.IsLeader() && a.Stats().Pooler })
			b, d := start(t, c, "b", openPostgres(t, driver, dsn), name), start(t, c, "d", openPostgres(t, driver, dsn), name)
			eventually(t, "the others know", func() bool { return b.State().LeaderID == "a" && d.State().LeaderID == "a" })
			first := a.State().Term
			var flickers atomic.Int64
			lead, stop := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = a.Lead(lead, func(ctx context.Context, _ uint64) error {
					<-ctx.Done()
					flickers.Add(1)
					return nil
				})
			}()
			renewed := a.Stats().Renewals
			eventually(t, "it is renewed", func() bool { return a.Stats().Renewals >= renewed+3 })
			require.Zero(t, flickers.Load())
			require.Zero(t, a.Stats().LockLosses)
			stop()
			<-done
			tx, err := a.db.Begin()
			require.NoError(t, err)
			require.NoError(t, a.Commit(within(t), tx, first))

			began := time.Now()
			a.stop()
			<-a.done
			a.db.Close()
			next, term := firstFenced(t, b, d)
			took := time.Since(began)
			t.Logf("fenced work elsewhere after %v", took.Round(time.Millisecond))
			require.Greater(t, term, first)
			require.Greater(t, took, 1900*time.Millisecond, "it did not wait for the lease")
			eventually(t, "it leads unfenced", next.IsLeader)
			require.Zero(t, b.Stats().Evidences+d.Stats().Evidences)
			var locks int
			require.NoError(t, b.db.Get(&locks, `SELECT count(*) FROM pg_locks WHERE locktype='advisory'`))
			require.Zero(t, locks, "a session lock was left in a session of the pooler")
		})
	}
}

// Golden scenario 14: a firewall answers with resets in the place of the leader's host. To all others its session has ended and its process
// is dead, and it hears nothing. By default nobody acts unfenced beside it; with Proven somebody does, until it finds its session lost.
func TestForgedDeath(t *testing.T) {
	onEngines(t, func(t *testing.T, e engine) {
		server := e.server(t, 0)
		for _, early := range []election.EarlyLead{election.Quiet, election.Proven} {
			var overlaps, leads figures
			for round := 0; len(leads) < 1+2*int(early); round++ {
				name := fmt.Sprintf("%d-%d", early, round)
				edit := func(cfg *election.Config) { cfg.Name, cfg.EarlyLead = name, early }
				p := newProxy(t, server.Addr(0))
				c := electiontest.New()
				a := start(t, c, "a", openPostgres(t, e.driver, p.dsn(t, server.DSN(0))), edit)
				eventually(t, "a leads", a.IsLeader)
				b, d := start(t, c, "b", e.pool(t, server, 0), edit), start(t, c, "d", e.pool(t, server, 0), edit)
				lost := func() bool { s := a.Stats(); return s.TermsLost+s.LockLosses > 0 } // on a busy machine
				eventually(t, "its term is older than a TTL", func() bool { return a.Stats().Renewals >= 5 || lost() })
				eventually(t, "the others wait for its lock", func() bool { return e.waiters(t, b.db) == 2 || lost() })
				stop := func() {
					for _, n := range []*node{a, b, d} {
						n.stop()
						<-n.done
					}
				}
				if lost() {
					stop()
					require.Less(t, round, 12, "no round without an accident")
					continue
				}
				cut := time.Now()
				p.sever()
				c.Remove("a", "dead")
				var both, lead time.Duration
				eventually(t, "b leads", func() bool {
					la, lb := a.IsLeader(), b.IsLeader()
					if la && lb && a.IsLeader() && both == 0 {
						lead = time.Since(cut)
						for both = time.Nanosecond; a.IsLeader(); both = time.Since(cut) - lead {
							wait(time.Millisecond)
						}
					}
					return lb
				})
				if lead == 0 {
					lead = time.Since(cut)
				}
				overlaps, leads = append(overlaps, both), append(leads, lead)
				require.False(t, a.IsLeader())
				stop()
			}
			leads.log(t, fmt.Sprintf("early=%d: b leads", early))
			overlaps.log(t, "both could act unfenced for")
			if early == election.Quiet {
				require.Zero(t, overlaps.at(1))
				continue
			}
			require.LessOrEqual(t, overlaps.at(0), 400*time.Millisecond)
			require.Less(t, leads.at(0), 600*time.Millisecond, "nobody made use of the proof")
		}
	})
}
