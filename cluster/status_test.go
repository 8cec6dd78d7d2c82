package cluster_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

func reason(n *running, code string) *cluster.Reason {
	for _, r := range n.Status().Reasons {
		if r.Code == code {
			return &r
		}
	}
	return nil
}

func TestTwoServersOfOneTableThatCannotSeeEachOther(t *testing.T) {
	t.Parallel()
	b := newBoard()
	old := start(t, b, func(c *cluster.Config) { c.NodeName = "old" })
	require.NoError(t, old.WaitReady(within(t)))
	network := faultnet.New(nil)
	network.Cut()
	young := start(t, b, func(c *cluster.Config) { c.NodeName, c.Network = "young", network })
	for _, n := range []*running{old, young} {
		eventually(t, func() bool { return reason(n, cluster.CodeUnreachable) != nil }, nil)
		r := reason(n, cluster.CodeUnreachable)
		require.Equal(t, cluster.Red, r.Level)
		require.Contains(t, r.Text, "TCP")
		require.NotEmpty(t, r.Remedy)
		require.Equal(t, cluster.Red, n.Status().Level)
	}
	var ce *cluster.CheckError
	require.ErrorAs(t, young.Check(context.Background()), &ce)
	require.False(t, ce.Warning(), "the younger is not ready")
	require.ErrorAs(t, old.Check(context.Background()), &ce)
	require.True(t, ce.Warning(), "the older has users")
	network.Heal()
	agree(t, old, young)
	eventually(t, func() bool { return young.Check(context.Background()) == nil && old.Check(context.Background()) == nil }, nil)
}

// A member is cut off. Who joins the others then cannot reach it either, and serves all the same: they know it.
func TestNewcomerBesideAMemberThatIsCutOff(t *testing.T) {
	t.Parallel()
	b := newBoard()
	network := faultnet.New(nil)
	a := start(t, b, nil)
	c := start(t, b, func(c *cluster.Config) { c.Network = network })
	agree(t, a, c)
	network.Cut()
	eventually(t, func() bool { return a.Fate(c.ID()) == cluster.FateFailed }, nil)
	d := start(t, b, nil)
	agree(t, a, d)
	require.NoError(t, d.WaitReady(within(t)))
	require.Never(t, func() bool { r := reason(d, cluster.CodeUnreachable); return r != nil && r.NotReady }, 6*time.Second, 20*time.Millisecond)
	network.Heal()
	agree(t, a, c, d)
}

func TestWrongKeyAndWrongCluster(t *testing.T) {
	b := newBoard()
	a := start(t, b, nil)
	require.NoError(t, a.WaitReady(within(t)))
	other := start(t, b, func(c *cluster.Config) { c.Keys = [][]byte{cluster.NewKey()} })
	eventually(t, func() bool {
		r := reason(other, cluster.CodeUnreachable)
		return r != nil && r.NotReady
	}, nil)
	require.Contains(t, reason(other, cluster.CodeUnreachable).Remedy, "same Keys")
	keyless := start(t, b, func(c *cluster.Config) { c.Keys, c.InsecureNoKeys = nil, true })
	eventually(t, func() bool {
		r := reason(keyless, cluster.CodeUnreachable)
		return r != nil && r.NotReady && r.Level == cluster.Red
	}, nil)
	require.Contains(t, reason(keyless, cluster.CodeUnreachable).Remedy, "this node has no key")
	plain := start(t, cluster.StaticDiscovery(a.Addr()), func(c *cluster.Config) { c.Keys, c.InsecureNoKeys = nil, true })
	require.NoError(t, plain.WaitReady(within(t)))
	require.NotNil(t, reason(plain, cluster.CodeKeyless))
	foreign := start(t, cluster.StaticDiscovery(a.Addr()), func(c *cluster.Config) { c.ClusterName = "other" })
	require.NoError(t, foreign.WaitReady(within(t)))
	for _, n := range []*running{a, other, keyless, plain, foreign} {
		require.Equal(t, []string{n.ID()}, n.Alive())
	}
}

func TestKeyRotation(t *testing.T) {
	b := newBoard()
	k1, k2 := cluster.NewKey(), cluster.NewKey()
	a := start(t, b, func(c *cluster.Config) { c.Keys = [][]byte{k1, k2} })
	d := start(t, b, func(c *cluster.Config) { c.Keys = [][]byte{k2, k1} })
	e := start(t, b, func(c *cluster.Config) { c.Keys = [][]byte{k2} })
	agree(t, a, d, e)
}

func TestVersionsSchemasAndDown(t *testing.T) {
	nodes := group(t, 3, func(i int, c *cluster.Config) {
		c.Version = []string{"1.0.0", "1.1.0", "1.2.0"}[i]
		c.Schema = []int{7, 7, 8}[i]
	})
	level := func(n, of *running) cluster.Level {
		for _, m := range n.Status().Members {
			if m.Member.ID == of.ID() {
				return m.Level
			}
		}
		return -1
	}
	for i, want := range []cluster.Level{cluster.Green, cluster.Amber, cluster.Red} { // its own becomes green when it has seen to everybody
		eventually(t, func() bool { return level(nodes[0], nodes[i]) == want }, nil)
	}
	require.NotNil(t, reason(nodes[0], cluster.CodeSchema))
	var ce *cluster.CheckError
	require.ErrorAs(t, nodes[0].Check(context.Background()), &ce)
	require.True(t, ce.Warning(), "a member that differs does not stop this node")
	nodes[2].kill()
	eventually(t, func() bool { return reason(nodes[0], cluster.CodeDown) != nil }, nil)
	require.Contains(t, reason(nodes[0], cluster.CodeDown).Text, "n2 is down since")
	require.ErrorAs(t, nodes[0].Check(context.Background()), &ce)
	require.True(t, ce.Warning())
	members := nodes[0].Members()
	require.Len(t, members, 3)
	gone := members[slices.IndexFunc(members, func(m cluster.Member) bool { return m.ID == nodes[2].ID() })]
	require.Equal(t, cluster.State(cluster.FateDead), gone.State)
	require.NotEmpty(t, gone.Cause)
	require.Equal(t, nodes[0].ID(), nodes[0].Self().ID)
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct {
		own, other string
		want       cluster.Level
	}{
		{"", "", cluster.Green}, {"1.2.3", "1.2.3", cluster.Green}, {"1.2.3", "1.2.4", cluster.Amber}, {"1.2.3", "1.3.0", cluster.Amber},
		{"v1.2", "1.1", cluster.Amber}, {"1.2.3", "1.4.0", cluster.Red}, {"1.9.0", "2.0.0", cluster.Red}, {"dev", "1.0.0", cluster.Red},
	} {
		got, _ := cluster.CompareVersions(c.own, c.other)
		require.Equal(t, c.want, got, c)
	}
}

func TestPausedNodeIsNotReadyUntilAcknowledged(t *testing.T) {
	network := faultnet.New(nil)
	nodes := group(t, 2, func(i int, c *cluster.Config) {
		if i == 1 {
			c.Network = network
		}
	})
	network.Cut()
	nodes[1].Paused(5 * time.Second)
	require.NotEmpty(t, nodes[1].Tag(nodes[1].ID(), cluster.TagPaused))
	var ce *cluster.CheckError
	require.ErrorAs(t, nodes[1].Check(context.Background()), &ce)
	require.False(t, ce.Warning())
	require.Equal(t, cluster.CodePaused, ce.Reasons[0].Code)
	network.Heal()
	require.NoError(t, nodes[1].WaitReady(within(t)))
	require.Empty(t, nodes[1].Tag(nodes[1].ID(), cluster.TagPaused))
	agree(t, nodes...)
}

func TestStrangersAreBounded(t *testing.T) {
	nodes := group(t, 2, nil)
	var conns []net.Conn
	for range 40 {
		c, err := net.Dial("tcp", nodes[0].Addr())
		require.NoError(t, err)
		defer c.Close()
		conns = append(conns, c)
	}
	eventually(t, func() bool { return nodes[0].Stats().TurnedAway >= 32 }, nil)
	// Those that were dropped see it.
	require.NoError(t, conns[0].SetReadDeadline(time.Now().Add(patience)))
	_, err := conns[0].Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, nodes[1].Send(within(t), nodes[0].ID(), "t", nil))

	// Noise on the port is dropped and counted.
	pc, err := net.Dial("udp", nodes[0].Addr())
	require.NoError(t, err)
	defer pc.Close()
	before := nodes[0].Stats().Refused
	_, err = pc.Write([]byte("FORGED"))
	require.NoError(t, err)
	eventually(t, func() bool { return nodes[0].Stats().Refused > before }, nil)
}

func TestPausedNodeWithoutPeersGoesOn(t *testing.T) {
	ctx := within(t)
	foreign := start(t, newBoard(), func(c *cluster.Config) { c.ClusterName = "other" })
	require.NoError(t, foreign.WaitReady(ctx))
	alone := start(t, cluster.StaticDiscovery(foreign.Addr(), "127.0.0.1:1"), nil)
	require.NoError(t, alone.WaitReady(ctx))
	alone.Paused(5 * time.Second)
	require.NoError(t, alone.WaitReady(ctx))

	// One whose peers are out of reach goes on too, after a time.
	network := faultnet.New(nil)
	nodes := group(t, 2, func(i int, c *cluster.Config) {
		if i == 1 {
			c.Network = network
		}
	})
	network.Cut()
	at := time.Now()
	nodes[1].Paused(5 * time.Second)
	require.NoError(t, nodes[1].WaitReady(ctx))
	require.Greater(t, time.Since(at), 1500*time.Millisecond)
}
