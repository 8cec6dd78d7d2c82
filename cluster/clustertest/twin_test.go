package clustertest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// slowly is a table that takes its time.
type slowly struct {
	cluster.Discovery
	takes time.Duration
}

func (s slowly) Seeds(ctx context.Context, name string) ([]cluster.Entry, error) {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Discovery.Seeds(ctx, name)
}

// Two servers on one table that cannot see each other: the younger is never ready, however slow the database is, and both are red.
func TestTwinIsNeverReady(t *testing.T) {
	each(t, 12, 300, func(t *testing.T, seed uint64, rng *rand.Rand) {
		net := clustertest.New(seed)
		g := start(t, net, []string{"old"}, insecure)
		defer g.end()
		old := g.nodes[0]
		require.NoError(t, old.WaitReady(t.Context()))
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		switch seed % 3 {
		case 0:
			net.CutPair("old", "young")
		case 1:
			net.CutOneWay("old", "young")
		case 2:
			net.CutOneWay("young", "old")
		}
		young := g.add("young", func(c *cluster.Config) {
			insecure(c)
			c.Discovery = slowly{c.Discovery, time.Duration(rng.IntN(2000)) * time.Millisecond}
		})
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			var ce *cluster.CheckError
			err := young.Check(t.Context())
			require.True(t, errors.As(err, &ce) && !ce.Warning(), "ready: %v", err)
		}
		for _, n := range g.nodes {
			require.Equal(t, cluster.Red, n.Status().Level)
			require.Equal(t, cluster.CodeUnreachable, n.Status().Reasons[0].Code)
			require.Len(t, n.Alive(), 1)
		}
		var ce *cluster.CheckError
		require.True(t, errors.As(old.Check(t.Context()), &ce) && ce.Warning(), "the older has users")
		net.Heal()
		require.NoError(t, young.WaitReady(t.Context()))
		g.agree(5 * time.Second)
	})
}
