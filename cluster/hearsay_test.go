package cluster_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

func TestGoodbyeByHearsay(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.HeardLeft(idB, 0, s.now) // it talks to us
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.LinkDown(idB, s.now)
	s.GossipLeave(idB)
	s.expect(idB, cluster.FateFailed, idA)
	s.HeardLeft(idB, time.Minute, s.now)
	s.expect(idB, cluster.FateLeft, idA)
	require.Equal(t, s.now.Add(-time.Minute), s.Since(idB))
	require.Empty(t, s.Lost())

	s.join(idC) // who missed the goodbye takes it for a death
	s.expect(idC, cluster.FateAlive, idA, idC)
	s.LinkDown(idC, s.now)
	s.Bury(idC, s.now)
	s.expect(idC, cluster.FateDead, idA)
	s.HeardLeft(idC, 0, s.now)
	s.expect(idC, cluster.FateLeft, idA)
	s.GossipJoin(idC, s.now)
	s.LinkUp(idC, s.now)
	s.expect(idC, cluster.FateLeft, idA)

	never := cluster.MakeID(4000, 1) // was here before us
	s.HeardLeft(never, 23*time.Hour, s.now)
	s.expect(never, cluster.FateLeft, idA)
	s.HeardLeft(idA, 0, s.now) // and we are here
	s.expect(idA, cluster.FateAlive, idA)
	s.HeardLeft("nonsense", 0, s.now)
	s.pass(2 * time.Hour).Refresh(s.now)
	require.Empty(t, s.Fate(never), "word of it ends 24 h after the goodbye, not after the word")
}

// A member is cut off while another leaves; a third joins after that. Both learn from the rest that it left.
func TestWhoMissedTheGoodbyeLearnsIt(t *testing.T) {
	ctx := within(t)
	network := faultnet.New(nil)
	var b *board
	nodes := group(t, 4, func(i int, c *cluster.Config) {
		if i == 3 {
			c.Network = network
		}
		b = c.Discovery.(*board)
	})
	cut, leaves := nodes[3], nodes[1]
	network.Cut()
	eventually(t, func() bool { return nodes[0].Fate(cut.ID()) == cluster.FateFailed }, nil)
	require.NoError(t, leaves.Shutdown(ctx))
	<-leaves.done
	require.Equal(t, cluster.FateLeft, nodes[0].Fate(leaves.ID()))
	eventually(t, func() bool { return cut.Fate(leaves.ID()) == cluster.FateFailed }, func() string { return cut.Fate(leaves.ID()) })
	network.Heal()
	eventually(t, func() bool { return cut.Fate(leaves.ID()) == cluster.FateLeft }, func() string { return cut.Fate(leaves.ID()) })
	agree(t, nodes[0], nodes[2], cut)

	young := start(t, b, nil)
	agree(t, nodes[0], nodes[2], cut, young)
	eventually(t, func() bool { return young.Fate(leaves.ID()) == cluster.FateLeft }, func() string { return young.Fate(leaves.ID()) })
	for _, m := range young.Members() {
		require.NotEqual(t, leaves.ID(), m.ID, "it never met it")
	}
}

func TestEvents(t *testing.T) {
	nodes := group(t, 2, nil)
	a, c := nodes[0], nodes[1]
	kinds := func() (kinds []string) {
		for _, e := range a.Events() {
			require.Equal(t, c.ID(), e.Member.ID)
			require.WithinDuration(t, time.Now(), e.At, time.Minute)
			kinds = append(kinds, e.Kind)
		}
		return kinds
	}
	contains := func(kind string) func() bool {
		return func() bool {
			return slices.Contains(kinds(), kind)
		}
	}
	require.Equal(t, cluster.EventJoined, kinds()[0])
	require.NoError(t, c.SetTag("k", "v"))
	eventually(t, contains(cluster.EventUpdated), nil)
	require.NoError(t, c.Shutdown(within(t)))
	eventually(t, contains(cluster.EventLeft), nil)
	require.Equal(t, cluster.EventLeft, a.Events()[len(a.Events())-1].Kind)
	dead := start(t, cluster.StaticDiscovery(a.Addr()), nil)
	agree(t, a, dead)
	dead.kill()
	eventually(t, func() bool { e := a.Events(); return e[len(e)-1].Kind == cluster.EventDead }, nil)
	require.Equal(t, dead.ID(), a.Events()[len(a.Events())-1].Member.ID)
}

func TestFlags(t *testing.T) {
	ctx := within(t)
	b := newBoard()
	a := start(t, b, nil)
	require.NoError(t, a.WaitReady(ctx))
	c := start(t, b, nil)
	agree(t, a, c)
	changed := make(chan struct{}, 1)
	defer c.Notify(changed)()
	require.NoError(t, a.SetFlag(ctx, "busy", "search", time.Hour))
	eventually(t, func() bool { _, _, ok := c.Flag("busy"); return ok }, nil)
	value, left, ok := c.Flag("busy")
	require.True(t, ok)
	require.Equal(t, "search", value)
	require.InDelta(t, time.Hour, left, float64(time.Minute))
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("no notice of the flag")
	}
	require.NoError(t, a.SetFlag(ctx, "short", "", 700*time.Millisecond))

	late := start(t, b, nil)
	require.NoError(t, late.WaitReady(ctx))
	eventually(t, func() bool { _, _, ok := late.Flag("busy"); return ok }, nil)
	value, left, ok = late.Flag("busy")
	require.True(t, ok)
	require.Equal(t, "search", value)
	require.LessOrEqual(t, left, time.Hour)
	require.Equal(t, a.ID(), late.Flags()[0].By)
	require.Equal(t, "busy", late.Status().Flags[0].Name)

	for _, n := range []*running{a, c, late} {
		eventually(t, func() bool { _, _, ok := n.Flag("short"); return !ok }, nil)
	}
	agree(t, a, c, late)
	require.NoError(t, late.ClearFlag(ctx, "busy")) // by another
	for _, n := range []*running{a, c, late} {
		eventually(t, func() bool { return len(n.Flags()) == 0 }, nil)
	}
	require.NoError(t, late.ClearFlag(ctx, "never set"))
	require.Error(t, a.SetFlag(ctx, "", "", time.Second))
	require.Error(t, a.SetFlag(ctx, "x", string(make([]byte, 257)), time.Second))
	require.ErrorContains(t, a.SetFlag(ctx, "x", "", 0), "ClearFlag")
	for i := range 64 {
		require.NoError(t, a.SetFlag(ctx, string(rune('A'+i)), "", time.Minute))
	}
	require.ErrorContains(t, a.SetFlag(ctx, "one more", "", time.Minute), "65th")
	require.NoError(t, a.SetFlag(ctx, "A", "again", time.Minute))
}

// Both halves set one flag while they are apart, and one takes another back.
func TestFlagsMerge(t *testing.T) {
	ctx := within(t)
	network := faultnet.New(nil)
	nodes := group(t, 3, func(i int, c *cluster.Config) {
		if i == 2 {
			c.Network = network
		}
	})
	require.NoError(t, nodes[0].SetFlag(ctx, "ends", "", 1500*time.Millisecond))
	require.NoError(t, nodes[0].SetFlag(ctx, "back", "", time.Hour))
	network.Cut()
	eventually(t, func() bool { return nodes[0].Fate(nodes[2].ID()) == cluster.FateFailed && len(nodes[2].Alive()) == 1 }, nil)
	require.NoError(t, nodes[0].SetFlag(ctx, "busy", "here", time.Hour))
	require.NoError(t, nodes[2].SetFlag(ctx, "busy", "there", time.Hour))
	require.NoError(t, nodes[2].ClearFlag(ctx, "back"))
	_, _, ok := nodes[0].Flag("back")
	require.True(t, ok)
	eventually(t, func() bool { return len(nodes[0].Flags()) == 2 }, nil) // "ends" has
	network.Heal()
	agree(t, nodes...)
	eventually(t, func() bool {
		for _, n := range nodes {
			f := n.Flags()
			if len(f) != 1 || f[0].Name != "busy" || f[0].Value != "there" { // the same version: the higher ID
				return false
			}
		}
		return true
	}, nil)
}

func TestFlagsOfOneNode(t *testing.T) {
	ctx := within(t)
	n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	require.NoError(t, err)
	require.NoError(t, n.SetFlag(ctx, "early", "", time.Hour))
	r := run(t, n)
	require.NoError(t, n.SetFlag(ctx, "short", "", 50*time.Millisecond))
	eventually(t, func() bool { return len(n.Flags()) == 1 }, nil)
	r.kill()
	<-r.done
	require.ErrorIs(t, n.SetFlag(context.Background(), "late", "", time.Hour), cluster.ErrClosed)
}

func TestReasonsOfTagsAndVersions(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	codes := func() (codes []string) {
		for _, r := range s.Reasons(idB, s.now) {
			require.NotEmpty(t, r.Text)
			require.NotEmpty(t, r.Remedy)
			codes = append(codes, r.Code)
		}
		return codes
	}
	require.Empty(t, codes())
	s.SetTags(idA, "1.4.0", map[string]string{"filestore.id": "one"})
	s.SetTags(idB, "1.4.0", nil)
	require.Empty(t, codes(), "a node without a store differs from nobody")
	s.SetTags(idB, "1.4.0", map[string]string{"filestore.id": "two"})
	require.Equal(t, []string{cluster.CodeStore}, codes())
	require.Equal(t, cluster.Red, s.Reasons(idB, s.now)[0].Level)
	s.SetTags(idB, "1.5.0", map[string]string{"filestore.id": "one"})
	require.Equal(t, []string{cluster.CodeVersion}, codes())
	require.Contains(t, s.Reasons(idB, s.now)[0].Text, "one minor version from this node's 1.4.0, since ")

	require.False(t, s.NobodySchedules())
	no := map[string]string{"election.candidate": "no"}
	s.SetTags(idA, "1", no)
	require.False(t, s.NobodySchedules())
	s.SetTags(idB, "1", no)
	require.True(t, s.NobodySchedules())
}
