package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

func TestPostsArriveInOrderOnceEach(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 3, nil)
	const each = 3000
	type key struct{ from, topic string }
	var mu sync.Mutex
	next := map[key]uint64{}
	busy := map[key]bool{}
	var total atomic.Int64
	faults := make(chan string, 100)
	for _, topic := range []string{"a", "b"} {
		nodes[0].Handle(topic, func(_ context.Context, from string, p []byte) ([]byte, error) {
			k := key{from, topic}
			seq := binary.BigEndian.Uint64(p)
			mu.Lock()
			if busy[k] || next[k] != seq {
				faults <- fmt.Sprint(k, " got ", seq, " want ", next[k], " busy ", busy[k])
			}
			next[k], busy[k] = seq+1, true
			mu.Unlock()
			mu.Lock()
			busy[k] = false
			mu.Unlock()
			total.Add(1)
			return nil, nil
		})
	}
	var wg sync.WaitGroup
	for _, n := range nodes { // the first one posts to itself
		for _, topic := range []string{"a", "b"} {
			wg.Go(func() {
				for i := range uint64(each) {
					b := binary.BigEndian.AppendUint64(nil, i)
					b = append(b, make([]byte, rand.N(200))...)
					var err error
					switch {
					case i%100 == 7:
						err = n.Send(ctx, nodes[0].ID(), topic, b)
					default:
						err = n.Post(ctx, nodes[0].ID(), topic, b)
					}
					if err != nil {
						faults <- err.Error()
						return
					}
				}
			})
		}
	}
	wg.Wait()
	eventually(t, func() bool { return total.Load() == 6*each || len(faults) > 0 }, func() string { return fmt.Sprint(total.Load()) })
	close(faults)
	for f := range faults {
		t.Error(f)
	}
}

func TestAnySize(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	b := newBoard()
	var nodes []*running
	for range 2 {
		n, err := cluster.New(cluster.Config{ClusterName: "test", Discovery: b, Keys: [][]byte{testKey}, BindAddr: "127.0.0.1:0", Logger: logger()})
		require.NoError(t, err)
		nodes = append(nodes, run(t, n))
	}
	agree(t, nodes...)
	nodes[1].Handle("echo", func(_ context.Context, _ string, p []byte) ([]byte, error) { return bytes.Clone(p), nil })
	for _, size := range []int{0, 1, 1400, 64 << 10, 300 << 10, 5 << 20} {
		p := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		got, err := nodes[0].Request(ctx, nodes[1].ID(), "echo", p)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got), size)
	}
	sum := make(chan [32]byte, 1)
	nodes[1].Handle("largest", func(_ context.Context, _ string, p []byte) ([]byte, error) { sum <- sha256.Sum256(p); return nil, nil })
	p := make([]byte, cluster.DefaultMaxMessage)
	p[0], p[len(p)-1] = 1, 2
	require.NoError(t, nodes[0].PostBulk(ctx, nodes[1].ID(), "largest", p))
	require.Equal(t, sha256.Sum256(p), <-sum)
}

func TestSlowHandlerSlowsOnlyItsSenderAndOnlyAfterTheBuffer(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	nodes := group(t, 3, nil)
	release := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	var slow, quick atomic.Int64
	nodes[0].Handle("slow", func(context.Context, string, []byte) ([]byte, error) {
		<-release
		slow.Add(1)
		return nil, nil
	})
	nodes[0].Handle("quick", func(context.Context, string, []byte) ([]byte, error) { quick.Add(1); return nil, nil })
	to := nodes[0].ID()
	require.NoError(t, nodes[1].Send(ctx, to, "slow", make([]byte, 1<<20)))
	require.NoError(t, nodes[1].Send(ctx, to, "quick", nil), "the other topics of that sender go on")
	eventually(t, func() bool { return quick.Load() == 1 }, nil)

	// Without end it must come to a stop: nothing grows without bound.
	accepted := 1
	for full := false; !full; {
		require.Less(t, accepted, 100)
		switch err := nodes[1].TryPost(to, "slow", make([]byte, 1<<20)); {
		case err == nil:
			accepted++
			continue
		default:
			require.ErrorIs(t, err, cluster.ErrBackpressure)
		}
		// Some of it may still be on its way into the buffers of the other side.
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		err := nodes[1].Post(short, to, "slow", make([]byte, 1<<20))
		cancel()
		if full = err != nil; full {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		} else {
			accepted++
		}
	}
	require.NoError(t, nodes[2].Send(ctx, to, "quick", nil), "another sender is not slowed")
	_, err := nodes[1].Request(ctx, nodes[2].ID(), "none", nil)
	require.ErrorIs(t, err, cluster.ErrNoHandler)
	letGo()
	eventually(t, func() bool { return slow.Load() == int64(accepted) }, func() string { return fmt.Sprint(slow.Load(), " of ", accepted) })
}

func TestAnswersOvertakeMessages(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 2, nil)
	flooded, flooder := nodes[0], nodes[1]
	flooder.Handle("leaf", func(context.Context, string, []byte) ([]byte, error) { return []byte("x"), nil })
	var done, failed atomic.Int64
	flooded.Handle("flood", func(ctx context.Context, from string, _ []byte) ([]byte, error) {
		if _, err := flooded.Request(ctx, from, "leaf", nil); err != nil {
			failed.Add(1)
		}
		done.Add(1)
		return nil, nil
	})
	const count = 24 // MiB: more than the buffers before the handler hold
	for range count {
		require.NoError(t, flooder.Post(ctx, flooded.ID(), "flood", make([]byte, 1<<20)))
	}
	eventually(t, func() bool { return done.Load() == count }, func() string { return fmt.Sprint(done.Load()) })
	require.Zero(t, failed.Load())
}

func TestMessagesWaitForTheirHandler(t *testing.T) {
	ctx := within(t)
	nodes := group(t, 2, nil)
	to := nodes[1].ID()
	for i := range 100 {
		require.NoError(t, nodes[0].Post(ctx, to, "late", []byte{byte(i)}))
	}
	require.NoError(t, nodes[0].Send(ctx, to, "late", []byte{100}), "taken by the process")
	got := make(chan byte, 200)
	stop := nodes[1].Handle("late", func(_ context.Context, _ string, p []byte) ([]byte, error) { got <- p[0]; return nil, nil })
	for i := range 101 {
		require.Equal(t, byte(i), <-got)
	}
	stop()
	stop()
	require.NoError(t, nodes[0].Send(ctx, to, "late", []byte{1}))
	eventually(t, func() bool { return nodes[1].Stats().Unhandled == 1 }, nil)
	_, err := nodes[0].Request(ctx, to, "late", nil)
	require.ErrorIs(t, err, cluster.ErrNoHandler)
	require.Zero(t, nodes[1].ParkedTopics())
	require.Empty(t, got)
}

func TestTheNewestHandlerIsInCharge(t *testing.T) {
	ctx := within(t)
	n := start(t, nil, func(c *cluster.Config) { *c = cluster.Config{Single: true, Logger: quiet} })
	say := func(s string) func(context.Context, string, []byte) ([]byte, error) {
		return func(context.Context, string, []byte) ([]byte, error) { return []byte(s), nil }
	}
	ask := func() string {
		b, err := n.Request(ctx, n.ID(), "t", nil)
		require.NoError(t, err)
		return string(b)
	}
	stop1 := n.Handle("t", say("1"))
	stop2 := n.Handle("t", say("2"))
	require.Equal(t, "2", ask())
	stop2()
	require.Equal(t, "1", ask())
	stop1()
	_, err := n.Request(ctx, n.ID(), "t", nil)
	require.ErrorIs(t, err, cluster.ErrNoHandler)
	require.Panics(t, func() { n.Handle("", say("")) })
	require.Panics(t, func() { n.Handle("t", nil) })
}

func TestATopicThatIsTooLongIsNamed(t *testing.T) {
	ctx := within(t)
	n := start(t, nil, func(c *cluster.Config) { *c = cluster.Config{Single: true, Logger: quiet} })
	long := "election/" + strings.Repeat("n", 300) // as products put topics together
	const says = "has 309 bytes; use 1 to 255 (MaxTopic), names that are part of it included"
	handler := func(context.Context, string, []byte) ([]byte, error) { return nil, nil }
	for _, fn := range []func(){func() { n.Handle(long, handler) }, func() { n.HandleInline(long, handler) }} {
		func() {
			defer func() { require.Contains(t, recover(), says) }()
			fn()
		}()
	}
	_, err := n.Request(ctx, n.ID(), long, nil)
	require.ErrorContains(t, err, says)
	require.ErrorContains(t, n.Send(ctx, n.ID(), long, nil), says)
	require.ErrorContains(t, n.Post(ctx, n.ID(), long, nil), says)
	require.ErrorContains(t, n.TryPost(n.ID(), long, nil), says)
	require.ErrorContains(t, n.PostBulk(ctx, n.ID(), long, nil), says)
	require.ErrorContains(t, n.Broadcast(ctx, long, nil), says)
	full := strings.Repeat("t", cluster.MaxTopic)
	n.Handle(full, handler)
	require.NoError(t, n.Send(ctx, n.ID(), full, nil))
}

func TestSendBeforeRunWaits(t *testing.T) {
	ctx := within(t)
	n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	require.NoError(t, err)
	require.ErrorIs(t, n.TryPost(n.ID(), "t", nil), cluster.ErrNoMember)
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	require.ErrorIs(t, n.Post(short, n.ID(), "t", nil), context.DeadlineExceeded)
	res := make(chan error, 1)
	go func() { res <- n.Send(ctx, n.ID(), "t", nil) }()
	run(t, n)
	require.NoError(t, <-res)
}

func FuzzEnvelope(f *testing.F) {
	f.Add(cluster.Envelope(1, "topic", 0))
	f.Add(append(cluster.Envelope(4, "topic", 1<<40), "body"...))
	f.Add(append(cluster.Envelope(5, "", 7), 0))
	f.Add([]byte{5, 0, 1})
	f.Add([]byte{1, 200, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, topic, id, body, err := cluster.OpenEnvelope(b)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(topic)+len(body), len(b))
		again := append(cluster.Envelope(kind, topic, id), body...)
		k2, t2, i2, b2, err := cluster.OpenEnvelope(again)
		require.NoError(t, err)
		require.Equal(t, []any{kind, topic, id}, []any{k2, t2, i2})
		require.True(t, bytes.Equal(body, b2))
	})
}
