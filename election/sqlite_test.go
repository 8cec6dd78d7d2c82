package election_test

import (
	"context"
	"testing"
	"time"

	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

// Three electors on one SQLite file: the lowest ID leads; when its process is killed without a trace the next one takes over by the
// silence of the lease, when its death is proven at once.
func TestSQLiteFailover(t *testing.T) {
	t.Parallel()
	for _, fate := range []string{"dead", "failed"} {
		t.Run(fate, func(t *testing.T) {
			t.Parallel()
			path, c := sqliteDSN(t), electiontest.New()
			var nodes []*node
			for _, id := range []string{"a", "b", "c"} {
				nodes = append(nodes, start(t, c, id, openSQLite(t, path), fast))
			}
			eventually(t, "a leads", func() bool { return nodes[0].IsLeader() && nodes[2].State().LeaderID == "a" })
			first := nodes[0].State().Term
			began := time.Now()
			nodes[0].stop()
			<-nodes[0].done
			c.Remove("a", fate)
			next, term := firstFenced(t, nodes[1:]...)
			fenced := time.Since(began)
			require.Greater(t, term, first)
			eventually(t, "it leads unfenced", next.IsLeader)
			t.Logf("%s: fenced work after %v, unfenced after %v", fate, fenced, time.Since(began))
			for _, n := range nodes[1:] {
				eventually(t, "all see it", func() bool { return n.State().LeaderID == next.m.ID() })
			}
		})
	}
}

// A leader that shuts down is followed at once, without waiting for its lease.
func TestSQLiteShutdown(t *testing.T) {
	path, c := sqliteDSN(t), electiontest.New()
	a, b := start(t, c, "a", openSQLite(t, path), nil), start(t, c, "b", openSQLite(t, path), nil)
	eventually(t, "a leads", a.IsLeader)
	began := time.Now()
	require.NoError(t, a.Shutdown(context.Background()))
	eventually(t, "b leads", b.IsLeader)
	t.Logf("b leads %v after the shutdown of a began", time.Since(began))
	require.Less(t, time.Since(began), 2500*time.Millisecond, "it waited for the lease")
}

func sqliteDSN(t *testing.T) string {
	_, dsn := lab.SQLite(t)
	return dsn
}
