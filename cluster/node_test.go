package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

func TestThreeNodesJoinTalkAndLeave(t *testing.T) {
	ctx := within(t)
	b := newBoard()
	var nodes []*running
	for i := range 3 {
		nodes = append(nodes, start(t, b, func(c *cluster.Config) { c.NodeName = fmt.Sprintf("n%d", i) }))
	}
	agree(t, nodes...)
	for _, n := range nodes {
		require.NoError(t, n.WaitReady(ctx))
		require.NoError(t, n.Check(ctx))
		require.Equal(t, cluster.Green, n.Status().Level)
		n.Handle("echo", func(_ context.Context, from string, p []byte) ([]byte, error) {
			return []byte(n.ID() + string(p)), nil
		})
	}
	require.Equal(t, 3, b.len())
	got := nodes[0].Gather(ctx, "echo", []byte("!"))
	require.Len(t, got, 3)
	for id, r := range got {
		require.NoError(t, r.Err)
		require.Equal(t, id+"!", string(r.Payload))
	}
	require.NoError(t, nodes[1].Broadcast(ctx, "echo", nil))

	require.NoError(t, nodes[2].Shutdown(ctx))
	<-nodes[2].done
	require.NoError(t, nodes[2].err)
	agree(t, nodes[:2]...)
	require.Equal(t, cluster.FateLeft, nodes[0].Fate(nodes[2].ID()))
	require.Equal(t, 2, b.len())
	require.Nil(t, nodes[2].Alive())
	require.ErrorIs(t, nodes[2].Send(ctx, nodes[0].ID(), "echo", nil), cluster.ErrClosed)
	require.ErrorIs(t, nodes[0].Send(ctx, nodes[2].ID(), "echo", nil), cluster.ErrNoMember)
	require.ErrorIs(t, nodes[2].Check(ctx), cluster.ErrClosed)
}

func TestHardStopIsSeenAsDeathAtOnce(t *testing.T) {
	nodes := group(t, 3, nil)
	at := time.Now()
	nodes[1].kill()
	<-nodes[1].done
	require.NoError(t, nodes[1].err)
	for _, n := range []*running{nodes[0], nodes[2]} {
		eventually(t, func() bool { return n.Fate(nodes[1].ID()) == cluster.FateDead }, func() string { return n.Fate(nodes[1].ID()) })
	}
	t.Log("known dead after", time.Since(at))
	agree(t, nodes[0], nodes[2])
}

func TestRequestEndsWithTheProcess(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 2, nil)
	asked := make(chan struct{})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	nodes[1].Handle("slow", func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	res := make(chan error, 1)
	go func() {
		_, err := nodes[0].Request(ctx, nodes[1].ID(), "slow", nil)
		res <- err
	}()
	<-asked
	nodes[1].kill()
	require.ErrorIs(t, <-res, cluster.ErrNoMember)
}

func TestErrorsOfHandlersTravel(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	nodes := group(t, 2, nil)
	nodes[1].Handle("bad", func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("no way") })
	for _, asker := range nodes {
		_, err := asker.Request(ctx, nodes[1].ID(), "bad", nil)
		var re *cluster.RemoteError
		require.ErrorAs(t, err, &re)
		require.Equal(t, cluster.RemoteError{From: nodes[1].ID(), Topic: "bad", Text: "no way"}, *re)
		_, err = asker.Request(ctx, nodes[1].ID(), "nobody", nil)
		require.ErrorIs(t, err, cluster.ErrNoHandler)
	}
	_, err := nodes[0].Request(ctx, cluster.NewID(), "bad", nil)
	require.ErrorIs(t, err, cluster.ErrNoMember)
	require.ErrorIs(t, nodes[0].Post(ctx, nodes[1].ID(), "t", make([]byte, cluster.DefaultMaxMessage+1)), cluster.ErrTooLarge)

	type q struct{ A, B int }
	cluster.HandleJSON(nodes[1].Node, "sum", func(_ context.Context, _ string, v q) (int, error) { return v.A + v.B, nil })
	sum, err := cluster.RequestJSON[int](ctx, nodes[0].Node, nodes[1].ID(), "sum", q{2, 3})
	require.NoError(t, err)
	require.Equal(t, 5, sum)
}

func TestTagsTravel(t *testing.T) {
	b := newBoard()
	a := start(t, b, nil)
	require.NoError(t, a.SetTag("color", "red"))
	require.NoError(t, a.WaitReady(within(t)))
	c := start(t, b, nil)
	changed := make(chan struct{}, 1)
	defer c.Notify(changed)()
	eventually(t, func() bool { return len(c.Alive()) == 2 }, nil)
	require.Equal(t, "red", c.Tag(a.ID(), "color"), "whoever sees the member sees its tags")
	require.NoError(t, a.SetTag("color", "blue"))
	require.Equal(t, "blue", a.Tag(a.ID(), "color"))
	for c.Tag(a.ID(), "color") != "blue" {
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatal("no notice of the tag")
		}
	}
	for i := range 15 {
		require.NoError(t, a.SetTag(fmt.Sprint("k", i), "v"))
	}
	require.ErrorContains(t, a.SetTag("one too many", "v"), "17th")
	require.NoError(t, a.SetTag("k0", ""))
	require.NoError(t, a.SetTag("one too many", "v"))
	require.Error(t, a.SetTag(cluster.TagPaused, "v"))
	require.Error(t, a.SetTag("", "v"))
	require.Error(t, a.SetTag("k", string(make([]byte, 257))))
}

func TestDrainIsKnownWhenItReturns(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 3, nil)
	require.NoError(t, nodes[0].Drain(ctx))
	for _, n := range nodes {
		require.Equal(t, cluster.FateDraining, n.Fate(nodes[0].ID()))
		require.Contains(t, n.Alive(), nodes[0].ID())
	}
	err := nodes[0].Check(ctx)
	var ce *cluster.CheckError
	require.ErrorAs(t, err, &ce)
	require.False(t, ce.Warning())
	require.NotEmpty(t, ce.Remedy())
	require.NoError(t, nodes[1].Check(ctx))
}

func TestSingle(t *testing.T) {
	ctx := within(t)
	n := start(t, nil, func(c *cluster.Config) { *c = cluster.Config{Single: true, Logger: quiet} })
	require.NoError(t, n.WaitReady(ctx))
	require.Equal(t, []string{n.ID()}, n.Alive())
	require.Empty(t, n.Addr())
	got := make(chan string, 3)
	n.Handle("t", func(_ context.Context, from string, p []byte) ([]byte, error) { got <- string(p); return p, nil })
	require.NoError(t, n.Post(ctx, n.ID(), "t", []byte("1")))
	require.NoError(t, n.Send(ctx, n.ID(), "t", []byte("2")))
	require.NoError(t, n.Broadcast(ctx, "t", []byte("3")))
	for _, want := range []string{"1", "2", "3"} {
		require.Equal(t, want, <-got)
	}
	require.ErrorIs(t, n.Post(ctx, cluster.NewID(), "t", nil), cluster.ErrNoMember)
	require.NoError(t, n.Check(ctx))
	require.NoError(t, n.Shutdown(ctx))
	<-n.done
	require.NoError(t, n.err)
	require.Nil(t, n.Alive())
}
