package wsfanout_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

// stream publishes at nodes that run until stop is called, each message until somebody has it, and returns what was acknowledged.
func (g *group) stream(t testing.TB, topic string, alive func(i int) bool) (stop func() []string, count func() int) {
	var mu sync.Mutex
	var acked []string
	done := make(chan struct{})
	var wg sync.WaitGroup
	for p := range 2 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				id := fmt.Sprintf("p%d-%d", p, n)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				for i := n; ctx.Err() == nil; i++ {
					if !alive(i % len(g.all)) {
						continue
					}
					try, stop := context.WithTimeout(ctx, time.Second) // a node that stands still must not hold the stream up
					_, err := g.all[i%len(g.all)].hub.Publish(try, topic, []byte(`1`), &wsfanout.PublishOptions{ID: id})
					if stop(); err == nil {
						mu.Lock()
						acked = append(acked, id)
						mu.Unlock()
						break
					}
				}
				cancel()
			}
		})
	}
	stop = sync.OnceValue(func() []string { close(done); wg.Wait(); return acked })
	t.Cleanup(func() { stop() })
	return stop,
		func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
}

// complete checks that the clients saw all of want once, in one order, without a gap.
func complete(t testing.TB, topic string, want []string, ls ...*listener) {
	t.Helper()
	for i, l := range ls {
		require.Eventually(t, func() bool { return len(unique(l.ids(topic))) >= len(want) }, patience, 10*time.Millisecond,
			"client %d saw %d of %d: %+v", i, len(l.ids(topic)), len(want), l.Stats())
		seen := unique(l.ids(topic))
		for _, id := range want {
			require.True(t, seen[id], "client %d: %s", i, id)
		}
		require.Len(t, l.ids(topic), len(seen), "client %d: nothing twice", i)
		require.Zero(t, l.gapCount(), "client %d", i)
		require.Equal(t, ls[0].ids(topic), l.ids(topic), "client %d: one order", i)
	}
}

// clients returns one or more clients so that each node has one.
func (g *group) clients(t testing.TB, topic string) (ls []*listener) {
	t.Helper()
	var urls []string
	for _, s := range g.all {
		urls = append(urls, s.url("ann"))
	}
	on := map[string]bool{}
	for len(on) < len(g.all) { // a client begins at any of its URLs
		l := listen(t, client.Config{URLs: urls, Topics: []string{topic}})
		l.subscribed(t, 1)
		on[l.hello().Node] = true
		ls = append(ls, l)
	}
	return ls
}

// Each node in turn is replaced by a new one while messages flow: nothing is lost, doubled or reported.
func TestRollingRestart(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{DrainSpread: 50 * time.Millisecond})
	var mu sync.Mutex
	gone := map[int]bool{}
	alive := func(i int) bool { mu.Lock(); defer mu.Unlock(); return !gone[i] }
	ls := g.clients(t, "room")
	stop, count := g.stream(t, "room", alive)
	// Clients know all addresses, as behind a proxy: those of the new nodes are the old ones.
	for i := range 3 {
		n := count()
		require.Eventually(t, func() bool { return count() > n+20 }, patience, time.Millisecond)
		mu.Lock()
		gone[i] = true
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		begun := time.Now()
		require.NoError(t, g.all[i].hub.Shutdown(ctx))
		require.Less(t, time.Since(begun), 9*time.Second, "the hand-over did not run into its limit")
		cancel()
		g.net.Leave(g.at[i])
		tr := g.net.Join(fmt.Sprint("new", i))
		s := start(t, wsfanout.Config{Transport: tr, DrainSpread: 50 * time.Millisecond})
		g.all[i].http.Config.Handler.(*switcher).set(s.hub)
		mu.Lock()
		s.http = g.all[i].http
		g.at[i], g.all[i], gone[i] = tr, s, false
		mu.Unlock()
		settled(t, g.all...)
	}
	n := count()
	require.Eventually(t, func() bool { return count() > n+20 }, patience, time.Millisecond)
	complete(t, "room", stop(), ls...)
	for _, s := range g.all {
		require.Zero(t, s.hub.Stats().Gaps)
	}
}

// The home stands still for longer than the others wait, and comes back: its clients miss nothing and are told of no gap.
func TestPausedHome(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{})
	h := g.homeOf(t, "room")
	ls := g.clients(t, "room")
	paused := g.at[h]
	var mu sync.Mutex
	out := false
	stop, count := g.stream(t, "room", func(i int) bool { mu.Lock(); defer mu.Unlock(); return !out || i != h })
	require.Eventually(t, func() bool { return count() > 50 }, patience, time.Millisecond)
	g.net.Pause(paused)
	mu.Lock()
	out = true
	mu.Unlock()
	for i, o := range g.at {
		if i != h {
			g.net.SetFate(paused, o, "failed")
		}
	}
	n := count()
	require.Eventually(t, func() bool { return count() > n+50 }, patience, time.Millisecond, "the others go on")
	g.net.Resume(paused)
	for i, o := range g.at {
		if i != h {
			g.net.SetFate(paused, o, "alive")
		}
	}
	mu.Lock()
	out = false
	mu.Unlock()
	n = count()
	require.Eventually(t, func() bool { return count() > n+50 }, patience, time.Millisecond, "and with it again")
	complete(t, "room", stop(), ls...)
}

// Two halves go on by themselves. When they are joined, those who miss what the other half acknowledged are told.
func TestCutHealsWithGap(t *testing.T) {
	g := startGroup(t, 2, wsfanout.Config{})
	ls := []*listener{
		listen(t, client.Config{URLs: []string{g.all[0].url("ann")}, Topics: []string{"room"}}),
		listen(t, client.Config{URLs: []string{g.all[1].url("bob")}, Topics: []string{"room"}}),
	}
	for _, l := range ls {
		l.subscribed(t, 1)
	}
	require.Equal(t, 2, publish(t, g.all[0], "room", "before").Copies)
	g.net.Cut(g.at[0], g.at[1])
	require.Equal(t, 1, publish(t, g.all[0], "room", "left").Copies)
	require.Equal(t, 1, publish(t, g.all[1], "room", "right").Copies)
	ls[0].sees(t, "room", []string{"before", "left"})
	ls[1].sees(t, "room", []string{"before", "right"})
	g.net.Heal(g.at[0], g.at[1])
	tries := 0
	require.Eventually(t, func() bool { tries++; return publish(t, g.all[0], "other", fmt.Sprint(tries)).Copies == 2 }, patience, 10*time.Millisecond)
	settled(t, g.all...)
	publish(t, g.all[0], "room", "after")
	for i, l := range ls {
		require.Eventually(t, func() bool {
			return unique(l.ids("room"))["after"] && l.gapCount() > 0
		}, patience, 10*time.Millisecond, "client %d: %v, gaps %d", i, l.ids("room"), l.gapCount())
		// A publish that was on its way when the halves parted may be taken by both of them. Then it comes again, after a gap.
		require.LessOrEqual(t, len(l.ids("room"))-len(unique(l.ids("room"))), l.gapCount(), "client %d: nothing twice without a gap: %v", i, l.ids("room"))
	}
}

// With MinCopies 2 a node that is alone refuses rather than acknowledge.
func TestNoReplica(t *testing.T) {
	net := wsfanouttest.NewNetwork()
	defer net.Close()
	hub, err := wsfanout.New(wsfanout.Config{Transport: net.Join("A"), MinCopies: 2, Authenticate: who})
	require.NoError(t, err)
	hub.SetUncertain(3 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hub.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	_, err = hub.Publish(t.Context(), "room", nil, &wsfanout.PublishOptions{ID: "m"})
	require.ErrorIs(t, err, wsfanout.ErrNoReplica)
}

// Run, Shutdown and everything else at the same time: each returns, nothing is left.
func TestRaceThem(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 5 {
		g := &group{net: wsfanouttest.NewNetwork()}
		var wg sync.WaitGroup
		for i := range 2 {
			tr := g.net.Join(string(rune('A' + i)))
			hub, err := wsfanout.New(wsfanout.Config{Transport: tr, Authenticate: who, Authorize: anyone, DrainSpread: time.Millisecond})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			wg.Go(func() { require.NoError(t, hub.Run(ctx)) })
			for n := range 4 {
				wg.Go(func() {
					for {
						c, stop := context.WithTimeout(ctx, 100*time.Millisecond)
						_, err := hub.Publish(c, fmt.Sprint("room", n), []byte(`1`), nil)
						stop()
						if err == wsfanout.ErrClosed {
							return
						}
						hub.Stats()
						hub.Home("room")
						_, _ = hub.Presence(c, "room")
						_ = hub.Check(c)
					}
				})
			}
			for range 2 {
				wg.Go(func() {
					<-time.After(300 * time.Millisecond)
					_ = hub.Shutdown(ctx)
				})
			}
			defer cancel()
		}
		wg.Wait()
		g.net.Close()
	}
	noMore(t, before)
}

// noMore waits until there are no more goroutines than before.
func noMore(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("goroutines are left:\n%s", stacks())
		}
	}
}

func stacks() string {
	b := make([]byte, 1<<20)
	s := string(b[:runtime.Stack(b, true)])
	return s[:strings.LastIndex(s, "\n")]
}

// A hard stop with open sockets leaves nothing either.
func TestHardStopLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("stop", func(t *testing.T) {
		g := startGroup(t, 2, wsfanout.Config{})
		for i := range 10 {
			listen(t, client.Config{URLs: []string{g.all[i%2].url("ann")}, Topics: []string{"room"}})
		}
		publish(t, g.all[0], "room", "m")
		for _, s := range g.all {
			s.stop()
			<-s.done
			require.Zero(t, s.hub.Stats().Conns)
		}
	})
	noMore(t, before)
}
