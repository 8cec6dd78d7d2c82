package election_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/stretchr/testify/require"
)

type strangeDB struct{ *sqlx.DB }

func (strangeDB) DriverName() string { return "oracle" }

func TestNewReportsEveryFault(t *testing.T) {
	var noMember *electiontest.Member
	var noDB *sqlx.DB
	_, err := election.New(election.Config{
		Members: noMember, DB: noDB, Name: "a b", TTL: time.Millisecond, StableFor: -1, Quorum: -1, EarlyLead: -1,
	})
	require.Error(t, err)
	_, err2 := election.New(election.Config{Members: electiontest.New().Join("a"), EarlyLead: 7, Name: strings.Repeat("n", 129)})
	require.ErrorContains(t, err2, "EarlyLead is 7: use Quiet or Proven")
	require.ErrorContains(t, err2, "use at most 128 bytes")
	_, err2 = election.New(election.Config{Members: electiontest.New().Join("a"), Quorum: 3, EarlyLead: election.Proven})
	require.ErrorContains(t, err2, "EarlyLead is Proven: leave it out without a DB")
	for _, part := range []string{"Members is a nil *electiontest.Member", "DB is a nil *sqlx.DB", `Name is "a b"`, "TTL is 1ms: use 1s to 5m0s", "StableFor", "Quorum", "EarlyLead"} {
		require.ErrorContains(t, err, part)
	}
	_, err = election.New(election.Config{Members: electiontest.New().Join("a"), DB: strangeDB{}})
	require.ErrorContains(t, err, `"oracle"`)
	_, err = election.New(election.Config{})
	require.ErrorContains(t, err, "Members is nil")
	_, err = election.NewMutex(nil, "")
	require.ErrorContains(t, err, "db is nil")
	require.ErrorContains(t, err, "name")
}

// Before the first settled view the answer is unknown, never "me".
func TestUnknownBeforeTheViewIsSettled(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		m := c.JoinUnsettled("a")
		e, err := election.New(election.Config{Members: m, DB: open(), Logger: quiet()})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = e.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		var seen []election.State
		for s := range e.Watch(within(t)) {
			seen = append(seen, s)
			if !s.Known {
				require.Empty(t, s.LeaderID)
			}
			if s.Reason == "the cluster's view is not settled yet" {
				m.Settle()
			}
			if s.Leading {
				break
			}
		}
		require.Greater(t, len(seen), 1)
		require.True(t, e.IsLeader())
		require.NoError(t, e.Check(ctx))
	})
}

// Lead runs fn while this node leads, ends its context with the leadership, and waits again.
func TestLead(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		a := start(t, c, "a", open(), nil)
		eventually(t, "a leads", a.IsLeader)
		b := start(t, c, "b", open(), nil)
		eventually(t, "b knows", func() bool { return b.State().LeaderID == "a" })
		type entry struct {
			node string
			term uint64
		}
		entries := make(chan entry, 10)
		ended := make(chan error, 10)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(within(t))
		for name, n := range map[string]*node{"a": a, "b": b} {
			wg.Go(func() {
				err := n.Lead(ctx, func(ctx context.Context, term uint64) error {
					entries <- entry{name, term}
					<-ctx.Done()
					ended <- context.Cause(ctx)
					return ctx.Err()
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Lead: %v", err)
				}
			})
		}
		first := <-entries
		require.Equal(t, "a", first.node)
		require.NoError(t, a.Resign(within(t)))
		require.ErrorIs(t, <-ended, election.ErrNotLeader)
		second := <-entries
		require.Equal(t, "b", second.node)
		require.Greater(t, second.term, first.term)
		require.ErrorIs(t, a.Resign(within(t)), election.ErrNotLeader)
		require.NoError(t, b.TransferTo(within(t), "a"))
		require.ErrorIs(t, <-ended, election.ErrNotLeader)
		third := <-entries
		require.Equal(t, "a", third.node)
		require.Greater(t, third.term, second.term)
		require.Error(t, a.TransferTo(within(t), "z"))
		require.True(t, a.IsLeader())
		cancel()
		wg.Wait()
		boom := errors.New("boom")
		require.ErrorIs(t, a.Lead(within(t), func(context.Context, uint64) error { return boom }), boom)
	})
}

// A transfer to a node that is not the lowest sticks: it is not undone for the sake of IDs.
func TestTransferToAHigherID(t *testing.T) {
	t.Parallel()
	_, dsn := sqliteOf(t)
	c := electiontest.New()
	edit := func(cfg *election.Config) { cfg.StableFor = 300 * time.Millisecond }
	a, b, d := start(t, c, "a", openSQLite(t, dsn), edit), start(t, c, "b", openSQLite(t, dsn), edit), start(t, c, "d", openSQLite(t, dsn), edit)
	eventually(t, "a leads", func() bool { return a.IsLeader() && d.State().LeaderID == "a" && b.State().LeaderID == "a" })
	require.NoError(t, a.TransferTo(within(t), "d"))
	eventually(t, "d knows too", func() bool { return d.State().LeaderID == "d" })
	term := d.State().Term
	require.Never(t, func() bool { return d.State().Term != term }, 900*time.Millisecond, 20*time.Millisecond)
}

// A lower ID that comes back takes over by handover, and only after it was there for StableFor.
func TestReturningLowerID(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		edit := func(cfg *election.Config) { cfg.StableFor = 500 * time.Millisecond }
		b := start(t, c, "b", open(), edit)
		eventually(t, "b leads", b.IsLeader)
		came := time.Now()
		a := start(t, c, "a", open(), edit)
		eventually(t, "a leads", a.IsLeader)
		require.GreaterOrEqual(t, time.Since(came), 500*time.Millisecond)
		require.Zero(t, b.Stats().LostRaces)
		eventually(t, "b knows", func() bool { return b.State().LeaderID == "a" })
	})
}

// A leader that is being drained, or that noticed a pause of its own, gives way without being asked.
func TestNotEligibleAnyMore(t *testing.T) {
	for name, fault := range map[string]func(c *electiontest.Cluster, n *node){
		"draining": func(c *electiontest.Cluster, n *node) { c.SetFate("a", "draining") },
		"paused":   func(c *electiontest.Cluster, n *node) { _ = n.m.SetTag("nines.paused", "2s") },
	} {
		t.Run(name, func(t *testing.T) {
			_, dsn := sqliteOf(t)
			c := electiontest.New()
			a, b := start(t, c, "a", openSQLite(t, dsn), nil), start(t, c, "b", openSQLite(t, dsn), nil)
			eventually(t, "a leads", func() bool { return a.IsLeader() && b.State().LeaderID == "a" })
			began := time.Now()
			fault(c, a)
			eventually(t, "b leads", b.IsLeader)
			t.Logf("b leads after %v", time.Since(began))
			require.Less(t, time.Since(began), 2500*time.Millisecond)
		})
	}
}

func TestNonCandidate(t *testing.T) {
	t.Parallel()
	_, dsn := sqliteOf(t)
	c := electiontest.New()
	a := start(t, c, "a", openSQLite(t, dsn), func(cfg *election.Config) { cfg.NonCandidate = true })
	b := start(t, c, "b", openSQLite(t, dsn), nil)
	eventually(t, "b leads", b.IsLeader)
	eventually(t, "a knows", func() bool { return a.State().LeaderID == "b" })
	require.Equal(t, "no", b.m.Tag("a", "election.candidate"))
	require.Error(t, b.TransferTo(within(t), "a"))
	b.stop()
	c.Remove("b", "dead")
	eventually(t, "nobody leads", func() bool { return a.State().LeaderID == "" })
	require.False(t, a.IsLeader())
}

// What is not a transaction is refused without a query, and what is one is rolled back when its fence fails.
func TestFenceRefuses(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		c := electiontest.New()
		db := open()
		a := start(t, c, "a", open(), nil)
		eventually(t, "a leads", a.IsLeader)
		term := a.State().Term
		require.ErrorContains(t, a.Fence(within(t), db, term), "BeginTx")
		require.ErrorContains(t, a.Fence(within(t), db.DB, term), "BeginTx")
		var none *sql.Tx
		require.ErrorContains(t, a.Fence(within(t), none, term), "nil")

		tx, err := db.Beginx()
		require.NoError(t, err)
		require.ErrorIs(t, a.Fence(within(t), tx, term-1), election.ErrDeposed)
		require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)

		tx, err = db.Beginx()
		require.NoError(t, err)
		_, err = tx.Exec(`CREATE TABLE effects (n int)`)
		require.NoError(t, err)
		require.NoError(t, a.Fence(within(t), tx, term))
		require.NoError(t, a.Commit(within(t), tx, term))

		require.NoError(t, a.Shutdown(within(t)))
		tx, err = db.Beginx()
		require.NoError(t, err)
		require.ErrorIs(t, a.Commit(within(t), tx, term), election.ErrClosed)
		require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
	})
}

// Golden scenario 6: a fence inside a savepoint that was rolled back is gone; Commit finds out.
func TestFenceInASavepoint(t *testing.T) {
	t.Parallel()
	driver, dsn := postgresOf(t)
	c := electiontest.New()
	db := openPostgres(t, driver, dsn)
	_, err := db.Exec(`CREATE TABLE effects (n int)`)
	require.NoError(t, err)
	a := start(t, c, "a", openPostgres(t, driver, dsn), nil)
	eventually(t, "a leads", a.IsLeader)
	term := a.State().Term
	tx, err := db.Beginx()
	require.NoError(t, err)
	_, err = tx.Exec(`INSERT INTO effects VALUES (1)`)
	require.NoError(t, err)
	_, err = tx.Exec(`SAVEPOINT s`)
	require.NoError(t, err)
	require.NoError(t, a.Fence(within(t), tx, term))
	_, err = tx.Exec(`ROLLBACK TO SAVEPOINT s`)
	require.NoError(t, err)
	// another takes over, which a does not know yet
	_, err = db.Exec(`UPDATE nines_lease_beats SET term=term+1, holder='b/1', beat=beat+1`)
	require.NoError(t, err)
	_, err = db.Exec(`UPDATE nines_lease_terms SET term=term+1, holder='b/1'`)
	require.NoError(t, err)
	require.ErrorIs(t, a.Commit(within(t), tx, term), election.ErrDeposed)
	var n int
	require.NoError(t, db.Get(&n, `SELECT count(*) FROM effects`))
	require.Zero(t, n)
}

// A database that cannot be reached: the elector keeps trying, says so, and does not claim to lead.
func TestUnreachableDatabase(t *testing.T) {
	t.Parallel()
	c := electiontest.New()
	db, err := sqlx.Open("postgres", "postgres://x@127.0.0.1:1/x?sslmode=disable&connect_timeout=1")
	require.NoError(t, err)
	defer db.Close()
	a := start(t, c, "a", db, nil)
	eventually(t, "Check says so", func() bool {
		err := a.Check(context.Background())
		var r interface{ Remedy() string }
		return err != nil && errors.As(err, &r) && r.Remedy() != "" && a.Stats().Faults > 1
	})
	require.ErrorContains(t, a.Check(context.Background()), "database")
	require.False(t, a.IsLeader())
	require.False(t, a.State().Known)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, a.Lead(ctx, func(context.Context, uint64) error { return nil }), context.DeadlineExceeded)
	require.NoError(t, a.Shutdown(within(t)))
}

// Watch gives each state once, skips none that is the last, and ends with Shutdown.
func TestWatch(t *testing.T) {
	_, dsn := sqliteOf(t)
	c := electiontest.New()
	a := start(t, c, "a", openSQLite(t, dsn), nil)
	var states []election.State
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range a.Watch(context.Background()) {
			states = append(states, s)
		}
	}()
	eventually(t, "a leads", a.IsLeader)
	require.NoError(t, a.Shutdown(within(t)))
	<-done
	for i := 1; i < len(states); i++ {
		require.NotEqual(t, states[i-1], states[i])
	}
	last := states[len(states)-1]
	require.Equal(t, "closed", last.Reason)
	require.False(t, last.Leading)
	n := 0
	for s := range a.Watch(context.Background()) {
		n++
		require.Equal(t, last, s)
	}
	require.Equal(t, 1, n)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range a.Watch(ctx) {
		t.Fatal("a state after the end of the context")
	}
}

// Requests reach the leader's node with the term, follow a change of leadership, and end with ErrNoLeader when there is none.
func TestForward(t *testing.T) {
	t.Parallel()
	_, dsn := sqliteOf(t)
	c := electiontest.New()
	var nodes []*node
	for _, id := range []string{"a", "b"} {
		n := start(t, c, id, openSQLite(t, dsn), nil)
		n.HandleLeader("greet", func(_ context.Context, term uint64, p []byte) ([]byte, error) {
			if string(p) == "bad" {
				return nil, errors.New("no such name")
			}
			return fmt.Appendf(nil, "%s greets %s in %d", id, p, term), nil
		})
		nodes = append(nodes, n)
	}
	a, b := nodes[0], nodes[1]
	answer, err := b.Forward(within(t), "greet", []byte("x"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("a greets x in %d", a.State().Term), string(answer))
	answer, err = a.Forward(within(t), "greet", []byte("y"))
	require.NoError(t, err)
	require.Contains(t, string(answer), "a greets y")
	_, err = b.Forward(within(t), "greet", []byte("bad"))
	var le *election.LeaderError
	require.ErrorAs(t, err, &le)
	require.Equal(t, election.LeaderError{LeaderID: "a", Text: "no such name"}, *le)

	// while leadership moves, each request is answered by one that led
	ctx, cancel := context.WithCancel(within(t))
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := a.Forward(ctx, "greet", []byte("z")); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	require.NoError(t, a.TransferTo(within(t), "b"))
	eventually(t, "b leads", b.IsLeader)
	require.NoError(t, b.TransferTo(within(t), "a"))
	cancel()
	wg.Wait()

	a.stop()
	c.Remove("a", "failed")
	answer, err = b.Forward(within(t), "greet", []byte("again"))
	require.NoError(t, err)
	require.Contains(t, string(answer), "b greets again")
	c.SetFate("b", "draining")
	eventually(t, "nobody leads", func() bool { return b.State().LeaderID == "" })
	short, cancelShort := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancelShort()
	_, err = b.Forward(short, "greet", nil)
	require.ErrorIs(t, err, election.ErrNoLeader)
}
