package election_test

import (
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

func openPostgres(t *testing.T, driver, dsn string) *sqlx.DB {
	db, err := sqlx.Open(driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// A leader whose session ends without a word is followed at once for fenced work, by the freed session lock; unfenced work waits until
// its lease must have ended. Nothing tells the cluster here: it still thinks that the leader is alive.
func TestPostgresFailover(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			_, dsn := lab.Database(t)
			c := electiontest.New()
			var nodes []*node
			for _, id := range []string{"a", "b", "c"} {
				nodes = append(nodes, start(t, c, id, openPostgres(t, driver, dsn), nil))
			}
			eventually(t, "a leads", func() bool {
				return nodes[0].IsLeader() && nodes[1].State().LeaderID == "a" && nodes[2].State().LeaderID == "a"
			})
			require.Eventually(t, func() bool { return waiters(t, nodes[0].db) == 2 }, patience, 20*time.Millisecond)
			first := nodes[0].State().Term
			began := time.Now()
			nodes[0].stop()
			<-nodes[0].done
			nodes[0].db.Close()
			next, term := firstFenced(t, nodes[1:]...)
			fenced := time.Since(began)
			require.Greater(t, term, first)
			eventually(t, "it leads unfenced", next.IsLeader)
			t.Logf("fenced work after %v, unfenced after %v", fenced, time.Since(began))
			if nodes[0].Stats().LockLosses == 0 { // on a busy machine its poll may have been late, and the others not yet waiting again
				require.Less(t, fenced, 2*time.Second, "it waited for the lease")
			}
			require.Greater(t, time.Since(began), 1900*time.Millisecond, "it did not wait for the old lease")
		})
	}
}

// waiters counts the sessions that wait for an advisory lock in this database.
func waiters(t *testing.T, db *sqlx.DB) (n int) {
	require.NoError(t, db.Get(&n, `SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND NOT granted AND database=(SELECT oid FROM pg_database WHERE datname=current_database())`))
	return n
}
