package cluster_test

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

func TestJudgesStandWithTheirMember(t *testing.T) {
	nodes := group(t, 2, nil)
	a, b := nodes[0], nodes[1]
	before := a.Status()
	stop := a.Judge(func(m cluster.Member) []cluster.Reason {
		if m.ID != b.ID() {
			return nil
		}
		return []cluster.Reason{{Code: "other", Text: "is different", Remedy: "make it the same", Level: cluster.Red}}
	})
	s := a.Status()
	require.Equal(t, cluster.Red, s.Level)
	require.Equal(t, "other", s.Reasons[0].Code, "the worst comes first")
	for _, m := range s.Members {
		require.Equal(t, m.Member.ID == b.ID(), m.Level == cluster.Red)
	}
	var ce *cluster.CheckError
	require.ErrorAs(t, a.Check(within(t)), &ce)
	require.Equal(t, "make it the same", ce.Remedy())
	require.True(t, ce.Warning())
	require.NotEqual(t, cluster.Red, b.Status().Level, "each node has its own judges")
	stop()
	stop()
	require.Equal(t, before.Level, a.Status().Level)
	require.Panics(t, func() { a.Judge(nil) })
}

func TestMACsAgreeUnderEveryKeyInCommon(t *testing.T) {
	one, two := cluster.NewKey(), cluster.NewKey()
	node := func(keys ...[]byte) *cluster.Node {
		n, err := cluster.New(cluster.Config{ClusterName: "test", Discovery: newBoard(), Keys: keys, Logger: quiet})
		require.NoError(t, err)
		return n
	}
	a, b := node(one).MAC("p", []byte("x")), node(two, one).MAC("p", []byte("x"))
	require.Len(t, a, 1)
	require.Len(t, b, 2)
	require.Equal(t, a[0], b[1])
	require.NotEqual(t, b[0].KeyID, b[1].KeyID)
	require.NotEqual(t, a[0].MAC, node(one).MAC("p", []byte("y"))[0].MAC)
	require.NotEqual(t, a[0].MAC, node(one).MAC("q", []byte("x"))[0].MAC)
	n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	require.NoError(t, err)
	require.Empty(t, n.MAC("p", nil))
}

// What HandleInline has done is done for every later message of the sender, whatever its topic and however busy its handler was before.
func TestInlineHandlersKeepTheOrderOfAllTopics(t *testing.T) {
	nodes := group(t, 2, nil)
	a, b := nodes[0], nodes[1]
	const count = 5000
	var done atomic.Uint64
	var late atomic.Int64
	b.HandleInline("first", func(_ context.Context, _ string, p []byte) ([]byte, error) {
		done.Store(binary.BigEndian.Uint64(p))
		return nil, nil
	})
	end := make(chan struct{})
	b.Handle("then", func(_ context.Context, _ string, p []byte) ([]byte, error) {
		i := binary.BigEndian.Uint64(p)
		if done.Load() < i {
			late.Add(1)
		}
		if i == count {
			close(end)
		}
		return nil, nil
	})
	for i := uint64(1); i <= count; i++ {
		p := binary.BigEndian.AppendUint64(nil, i)
		require.NoError(t, a.Post(within(t), b.ID(), "first", p))
		require.NoError(t, a.Post(within(t), b.ID(), "then", p))
	}
	select {
	case <-end:
	case <-within(t).Done():
		t.Fatal("the messages did not come")
	}
	require.Zero(t, late.Load())
	require.Panics(t, func() { b.HandleInline("", nil) })
}

// A node counts whoever comes into reach before it handles its first message.
func TestMeetingsAreCountedBeforeTheFirstMessage(t *testing.T) {
	d := newBoard()
	a := start(t, d, nil)
	was := a.Meetings()
	at := make(chan uint64, 1)
	a.Handle("hello", func(context.Context, string, []byte) ([]byte, error) {
		select {
		case at <- a.Meetings():
		default:
		}
		return nil, nil
	})
	b := start(t, d, nil)
	agree(t, a, b)
	require.NoError(t, b.Post(within(t), a.ID(), "hello", nil))
	require.Greater(t, <-at, was)
}
