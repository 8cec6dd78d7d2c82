package link_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
	"github.com/nines-go/nines/internal/faultnet"
)

// pair starts a and b with a link between them.
func pair(t *testing.T, w *wire, ca, cb link.Config) (a, b *proc) {
	t.Helper()
	a, b = w.start("a", ca), w.start("b", cb)
	a.Connect("b")
	b.Connect("a")
	eventually(t, func() bool { return a.Up("b") && b.Up("a") }, "link")
	return a, b
}

func TestACrashIsProvenByRefusedDials(t *testing.T) {
	w := newWire(t)
	a, b := pair(t, w, link.Config{}, link.Config{})
	began := time.Now()
	b.stop()
	eventually(t, a.saw("dead b"), "proof of death")
	t.Logf("known after %v", time.Since(began))
	require.True(t, a.saw("down b")())
	require.False(t, a.Up("b"))
}

func TestOneSideMayDialForBoth(t *testing.T) {
	w := newWire(t)
	a, b := w.start("a", link.Config{}), w.start("b", link.Config{})
	b.Connect("a")
	eventually(t, func() bool { return a.Up("b") && b.Up("a") }, "link")
	b.stop()
	eventually(t, a.saw("dead b"), "proof of death by the side that did not dial")
}

func TestACutLinkIsDownAndLosesNothing(t *testing.T) {
	w := newWire(t)
	cable := faultnet.New(nil)
	w.via = cable.Dial
	got := newCounter()
	a, b := pair(t, w, link.Config{OnFrame: got.onFrame}, link.Config{OnFrame: got.onFrame})
	cable.Cut()
	for i := range uint64(1000) {
		require.NoError(t, a.TryPost("b", link.Live, numbered(i, 1000)))
		require.NoError(t, b.TryPost("a", link.Live, numbered(i, 1000)))
	}
	began := time.Now()
	eventually(t, func() bool { return a.saw("down b")() && b.saw("down a")() }, "silence is noticed")
	t.Logf("noticed after %v", time.Since(began))
	cable.Heal()
	began = time.Now()
	eventually(t, func() bool { return got.got("a", link.Live) == 1000 && got.got("b", link.Live) == 1000 }, "all arrives")
	t.Logf("healed after %v", time.Since(began))
	eventually(t, func() bool { return a.Up("b") && b.Up("a") }, "up again")
	got.check(t)
	require.False(t, a.saw("dead b")())
	require.False(t, b.saw("dead a")())
}

func TestABlockedHandlerStopsOnlyItsLane(t *testing.T) {
	w := newWire(t)
	block := make(chan struct{})
	unblock := sync.OnceFunc(func() { close(block) })
	got := newCounter()
	b := w.start("b", link.Config{Retain: 2 << 20})
	w.start("a2", link.Config{Window: 256 << 10, OnFrame: func(from string, lane link.Lane, payload []byte) {
		if lane == link.Live {
			<-block
		}
		got.onFrame(from, lane, payload)
	}})
	t.Cleanup(unblock) // before the processes are stopped, also when the test has failed
	b.Connect("a2")
	eventually(t, func() bool { return b.Up("a2") }, "link")
	live := uint64(0)
	var err error
	for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); { // what is on its way may still make room once or twice
		for b.TryPost("a2", link.Live, numbered(live, 4000)) == nil {
			live++
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err = b.Post(ctx, "a2", link.Live, numbered(live, 4000)); err == nil {
			live++
		}
		cancel()
	}
	require.ErrorIs(t, err, link.ErrBackpressure)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, b.TryPost("a2", link.Live, numbered(live, 4000)), link.ErrBackpressure)
	for i := range uint64(100) {
		require.NoError(t, b.TryPost("a2", link.Control, numbered(i, 10)))
	}
	eventually(t, func() bool { return got.got("b", link.Control) == 100 }, "control passes")
	require.Zero(t, got.got("b", link.Live))
	unblock()
	eventually(t, func() bool { return got.got("b", link.Live) == live }, "live goes on")
	require.NoError(t, b.Post(t.Context(), "a2", link.Live, numbered(live, 4000)))
	got.check(t)
}

func TestGivenUpIsForEver(t *testing.T) {
	w := newWire(t)
	cable := faultnet.New(nil)
	w.via = cable.Dial
	got := newCounter()
	a, b := pair(t, w, link.Config{Retain: 1 << 20}, link.Config{OnFrame: got.onFrame})
	cable.Cut()
	eventually(t, func() bool { return !a.Up("b") }, "down")
	a.GiveUp("b")
	require.False(t, a.saw("given up b")(), "there is room: the word alone ends nothing")
	n := uint64(0)
	for ; ; n++ {
		if err := a.TryPost("b", link.Live, numbered(n, 1000)); err != nil {
			require.ErrorIs(t, err, link.ErrGivenUp)
			break
		}
	}
	eventually(t, a.saw("given up b"), "told")
	require.ErrorIs(t, a.Post(t.Context(), "b", link.Control, []byte("x")), link.ErrGivenUp)
	cable.Heal()
	eventually(t, b.saw("evicted by a"), "the other side is told when it returns")
	require.Zero(t, got.got("a", link.Live), "nothing of the broken stream is delivered")
	require.ErrorIs(t, b.TryPost("a", link.Control, []byte("x")), link.ErrGivenUp)
	a.Connect("b")
	require.ErrorIs(t, a.TryPost("b", link.Control, []byte("x")), link.ErrGivenUp)
}

func TestGiveUpIsTakenBackByAReturn(t *testing.T) {
	w := newWire(t)
	cable := faultnet.New(nil)
	w.via = cable.Dial
	got := newCounter()
	a, _ := pair(t, w, link.Config{}, link.Config{OnFrame: got.onFrame})
	cable.Cut()
	eventually(t, func() bool { return !a.Up("b") }, "down")
	require.NoError(t, a.TryPost("b", link.Live, numbered(0, 10)))
	a.GiveUp("b")
	cable.Heal()
	eventually(t, func() bool { return got.got("a", link.Live) == 1 }, "delivered")
	require.False(t, a.saw("given up b")())
}

func TestForgottenIsForEver(t *testing.T) {
	w := newWire(t)
	a, b := pair(t, w, link.Config{}, link.Config{})
	a.Forget("b")
	eventually(t, b.saw("evicted by a"), "told")
	require.ErrorIs(t, a.TryPost("b", link.Live, []byte("x")), link.ErrGivenUp)
	require.False(t, b.saw("dead a")())
	require.ErrorIs(t, a.TryPost("c", link.Live, []byte("x")), link.ErrNoPeer)
}

// TestALostStateIsAnEviction replaces a process by another one of the same ID: its streams cannot be continued.
func TestALostStateIsAnEviction(t *testing.T) {
	w := newWire(t)
	a, b := pair(t, w, link.Config{}, link.Config{})
	require.NoError(t, a.Post(t.Context(), "b", link.Live, []byte("x")))
	require.NoError(t, a.Flush(t.Context()))
	b.stop()
	eventually(t, a.saw("dead b"), "dead")
	b2 := w.start("b", link.Config{OnFrame: func(string, link.Lane, []byte) { t.Error("delivered into a new process") }})
	b2.Connect("a")
	eventually(t, func() bool { return a.saw("given up b")() && b2.saw("evicted by a")() }, "a hole is refused")
}

func TestManyPeersWithCrossedDials(t *testing.T) {
	w := newWire(t)
	var procs []*proc
	var got []*counter
	for i := range 6 {
		got = append(got, newCounter())
		procs = append(procs, w.start(fmt.Sprintf("p%d", i), link.Config{OnFrame: got[i].onFrame}))
	}
	for _, p := range procs {
		for _, q := range procs {
			if p != q {
				p.Connect(q.id)
				require.NoError(t, p.TryPost(q.id, link.Live, numbered(0, 10)))
			}
		}
	}
	all := func() bool {
		for _, p := range procs {
			for _, q := range procs {
				if p != q && !p.Up(q.id) {
					return false
				}
			}
		}
		return true
	}
	eventually(t, all, "all links")
	require.Never(t, func() bool { return !all() }, 500*time.Millisecond, 10*time.Millisecond, "links stay")
	for i, c := range got {
		c.check(t)
		for j, p := range procs {
			require.Equal(t, i != j, c.got(p.id, link.Live) == 1)
		}
	}
}
