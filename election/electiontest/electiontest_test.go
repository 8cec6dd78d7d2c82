package electiontest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"
	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// elector is what a program may call of either.
type elector interface {
	IsLeader() bool
	State() election.State
	Watch(ctx context.Context) iter.Seq[election.State]
	Lead(ctx context.Context, fn func(ctx context.Context, term uint64) error) error
	LeadFenced(ctx context.Context, fn func(ctx context.Context, term uint64) error) error
	Fence(ctx context.Context, tx election.Tx, term uint64) error
	Commit(ctx context.Context, tx election.CommitTx, term uint64) error
}

var (
	_ elector             = (*election.Elector)(nil)
	_ elector             = (*electiontest.Leader)(nil)
	_ election.Membership = (*cluster.Node)(nil)
)

func TestFakeCluster(t *testing.T) {
	c := electiontest.New()
	n := 0
	electiontest.TestMembership(t, func(*testing.T) (election.Membership, func()) {
		n++
		id := fmt.Sprint("m", n)
		return c.Join(id), func() { c.Remove(id, "left") }
	})
}

func TestRealCluster(t *testing.T) {
	var seeds []string
	electiontest.TestMembership(t, func(t *testing.T) (election.Membership, func()) {
		node, err := cluster.New(cluster.Config{
			ClusterName: "t", Discovery: cluster.StaticDiscovery(seeds...), InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { _ = node.Run(context.Background()) })
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(t, node.WaitReady(ctx))
		seeds = append(seeds, node.Addr())
		return node, func() {
			require.NoError(t, node.Shutdown(context.Background()))
			wg.Wait()
		}
	})
}

func TestDatabases(t *testing.T) {
	pgx := func(t testing.TB) (string, string) {
		_, dsn := lab.Database(t)
		return "pgx", dsn
	}
	for name, open := range map[string]func(testing.TB) (driver, dsn string){"sqlite": lab.SQLite, "lib/pq": lab.Database, "pgx": pgx, "mariadb": lab.MySQL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			driver, dsn := open(t)
			electiontest.TestDB(t, func(t *testing.T) election.DB {
				db, err := sqlx.Open(driver, dsn)
				require.NoError(t, err)
				t.Cleanup(func() { db.Close() })
				if driver == "sqlite" {
					db.SetMaxOpenConns(1)
				}
				return db
			})
		})
	}
}

// The stand-in keeps what the documentation of an Elector says.
func TestLeader(t *testing.T) {
	l := electiontest.NewLeader("a")
	require.False(t, l.IsLeader())
	require.False(t, l.State().Known)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	type entry struct {
		kind string
		term uint64
	}
	entries := make(chan entry, 10)
	ended := make(chan error, 10)
	work := func(kind string) func(ctx context.Context, term uint64) error {
		return func(ctx context.Context, term uint64) error {
			entries <- entry{kind, term}
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return ctx.Err()
		}
	}
	wg.Go(func() { _ = l.Lead(ctx, work("lead")) })
	wg.Go(func() { _ = l.LeadFenced(ctx, work("fenced")) })
	term := l.GrantFenced()
	require.Equal(t, entry{"fenced", term}, <-entries)
	require.False(t, l.IsLeader())
	require.Empty(t, entries)
	require.Equal(t, term, l.Grant())
	require.Equal(t, entry{"lead", term}, <-entries)
	require.True(t, l.IsLeader())
	require.NoError(t, l.Fence(ctx, nil, term))
	l.Revoke("b")
	require.ErrorIs(t, <-ended, election.ErrNotLeader)
	require.ErrorIs(t, <-ended, election.ErrNotLeader)
	require.Equal(t, "b", l.State().LeaderID)
	require.ErrorIs(t, l.Fence(ctx, nil, term), election.ErrDeposed)
	require.Greater(t, l.Grant(), term+1)
	<-entries
	<-entries
	require.True(t, l.IsLeader())
	boom := errors.New("boom")
	require.ErrorIs(t, l.Lead(ctx, func(context.Context, uint64) error { return boom }), boom)
	ctx2, cancel2 := context.WithCancel(ctx)
	cancel2()
	for range l.Watch(ctx2) {
		t.Fatal("a state after the end of the context")
	}
	// a context that is looked at has ended as soon as the leadership has
	_ = l.Lead(ctx, func(ctx context.Context, _ uint64) error {
		require.NoError(t, ctx.Err())
		l.Revoke("")
		require.Error(t, ctx.Err())
		cancel()
		return nil
	})
	l.Wait()
}
