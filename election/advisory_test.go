package election_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/stretchr/testify/require"
)

// Without a database the lowest ID leads, after it has gone the next one, and what is cut off has a leader of its own.
func TestAdvisory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := electiontest.New()
		nodes := map[string]*node{}
		for _, id := range []string{"a", "b", "c"} {
			nodes[id] = start(t, c, id, nil, nil)
		}
		leads := func(want string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			for id, n := range nodes {
				require.Equal(t, want, n.State().LeaderID, id)
				require.Equal(t, id == want, n.IsLeader(), id)
			}
		}
		leads("a")
		first := nodes["c"].State().Term
		require.NotZero(t, first)
		require.Error(t, nodes["a"].Fence(t.Context(), nil, first))

		c.Cut("a", "b", true)
		c.Cut("a", "c", true)
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, nodes["a"].IsLeader())
		require.True(t, nodes["b"].IsLeader(), "the other side has one too: that is what advisory means")
		require.Greater(t, nodes["c"].State().Term, first)
		c.Cut("a", "b", false)
		c.Cut("a", "c", false)
		leads("a")

		require.NoError(t, nodes["a"].Resign(t.Context()))
		leads("b")
		require.NoError(t, nodes["b"].TransferTo(t.Context(), "c"))
		leads("c")
		nodes["c"].stop()
		<-nodes["c"].done
		c.Remove("c", "dead")
		delete(nodes, "c")
		leads("a")
		require.NoError(t, nodes["a"].Shutdown(t.Context()))
		c.Remove("a", "left")
		delete(nodes, "a")
		leads("b")

		// a lower ID that comes takes over by handover
		nodes["aa"] = start(t, c, "aa", nil, nil)
		leads("b")
		time.Sleep(11 * time.Second)
		leads("aa")
	})
}

// With a quorum the smaller side of a partition has no leader.
func TestQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := electiontest.New()
		var nodes []*node
		for i := range 3 {
			nodes = append(nodes, start(t, c, fmt.Sprint(i), nil, func(cfg *election.Config) { cfg.Quorum = 3 }))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, nodes[0].IsLeader())
		ended := make(chan error, 1)
		go func() {
			_ = nodes[0].Lead(t.Context(), func(ctx context.Context, _ uint64) error {
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return nil
			})
		}()
		synctest.Wait()
		c.Cut("0", "1", true)
		c.Cut("0", "2", true)
		require.ErrorIs(t, <-ended, election.ErrNotLeader)
		require.Equal(t, election.State{Known: true, Term: nodes[0].State().Term, Since: nodes[0].State().Since, Reason: "fewer members than a majority are here"}, nodes[0].State())
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, nodes[1].IsLeader())
		require.NoError(t, nodes[1].Check(t.Context()))
		require.Error(t, nodes[0].Check(t.Context()))
		for _, n := range nodes {
			require.NoError(t, n.Shutdown(context.Background()))
		}
	})
}
