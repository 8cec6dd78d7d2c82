package link_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
	"github.com/nines-go/nines/cluster/internal/seal"
)

func TestConfigIsChecked(t *testing.T) {
	_, err := link.New(link.Config{Retain: -1})
	for _, field := range []string{"Self", "Dial", "OnFrame", "Retain"} {
		require.ErrorContains(t, err, field)
	}
}

func TestPostsAreChecked(t *testing.T) {
	w := newWire(t)
	a, b := pair(t, w, link.Config{}, link.Config{})
	require.ErrorIs(t, a.TryPost("nobody", link.Live, nil), link.ErrNoPeer)
	require.ErrorIs(t, a.TryPost("b", link.Live, make([]byte, link.MaxPayload), []byte("x")), link.ErrTooLarge)
	require.Panics(t, func() { a.TryPost("b", 3, nil) })
	b.stop()
	a.stop()
	require.ErrorIs(t, a.TryPost("b", link.Live, nil), link.ErrClosed)
	require.ErrorIs(t, a.Post(t.Context(), "b", link.Live, nil), link.ErrClosed)
	require.ErrorIs(t, a.TryPost("nobody", link.Live, nil), link.ErrClosed)
	require.Error(t, a.Run(t.Context()))
	here, there := net.Pipe()
	defer there.Close()
	require.ErrorIs(t, a.Accept(here), link.ErrClosed)
}

// TestRunEndsAtAnyTime lets processes end in the middle of everything, and counts what is left.
func TestRunEndsAtAnyTime(t *testing.T) {
	w := newWire(t)
	var wg sync.WaitGroup
	for round := range 20 {
		a := w.start("a"+string(rune('a'+round)), link.Config{Window: 1 << 17, Retain: 1 << 20})
		b := w.start("b"+string(rune('a'+round)), link.Config{Window: 1 << 17, Retain: 1 << 20})
		a.Connect(b.id)
		b.Connect(a.id)
		for _, lane := range []link.Lane{link.Control, link.Live, link.Bulk} {
			wg.Go(func() {
				for {
					if err := a.Post(t.Context(), b.id, lane, make([]byte, 100<<10)); err != nil {
						if !errors.Is(err, link.ErrClosed) && !errors.Is(err, link.ErrGivenUp) {
							t.Errorf("post: %v", err)
						}
						return
					}
				}
			})
		}
		wg.Go(func() { b.Flush(t.Context()) })
		for range round {
			runtime.Gosched()
		}
		wg.Go(func() { b.Forget(a.id) })
		wg.Go(a.stop)
		b.stop()
		wg.Wait()
	}
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	require.NotContains(t, string(stacks), "cluster/internal/link.(", "a goroutine is left")
}

// TestSealedLinksThroughChaos is the whole stack: TLS and keys over connections that break.
func TestSealedLinksThroughChaos(t *testing.T) {
	w := newWire(t)
	s, err := seal.NewStreams("test", [][]byte{bytes.Repeat([]byte{1}, 32)})
	require.NoError(t, err)
	w.seal = s
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	runChaos(t, w, seed, 2*time.Second)
}

// bubble makes processes for a synctest bubble: their network is net.Pipe.
type bubble struct {
	mu     sync.Mutex
	meshes map[string]*link.Mesh
	mute   chan struct{} // not nil: what is written waits for it to close
	refuse bool
}

type bubbleConn struct {
	net.Conn
	b *bubble
}

func (c bubbleConn) Write(p []byte) (int, error) {
	c.b.mu.Lock()
	mute := c.b.mute
	c.b.mu.Unlock()
	if mute != nil {
		<-mute
	}
	return c.Conn.Write(p)
}

func (b *bubble) mesh(ctx context.Context, wg *sync.WaitGroup, id string, cfg link.Config) *link.Mesh {
	cfg.Self, cfg.Cluster = id, "test"
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.OnFrame == nil {
		cfg.OnFrame = func(string, link.Lane, []byte) {}
	}
	cfg.Dial = func(ctx context.Context, to string) (net.Conn, error) {
		b.mu.Lock()
		m, refuse := b.meshes[to], b.refuse
		b.mu.Unlock()
		if m == nil || refuse {
			return nil, errors.Join(errors.New("in-memory"), link.ErrRefused)
		}
		here, there := net.Pipe()
		wg.Go(func() { m.Accept(bubbleConn{there, b}) })
		return bubbleConn{here, b}, nil
	}
	m, err := link.New(cfg)
	if err != nil {
		panic(err)
	}
	b.mu.Lock()
	b.meshes[id] = m
	b.mu.Unlock()
	wg.Go(func() { m.Run(ctx) })
	return m
}

func TestSilenceIsDownAfterASecondAndUpAtTheFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b := &bubble{meshes: make(map[string]*link.Mesh)}
		type event struct {
			what string
			at   time.Duration
		}
		began := time.Now()
		events := make(chan event, 100)
		x := b.mesh(ctx, &wg, "x", link.Config{
			OnUp:   func(string) { events <- event{"up", time.Since(began)} },
			OnDown: func(string) { events <- event{"down", time.Since(began)} },
			OnDead: func(string) { events <- event{"dead", time.Since(began)} },
		})
		b.mesh(ctx, &wg, "y", link.Config{})
		x.Connect("y")
		require.Equal(t, "up", (<-events).what)
		time.Sleep(10 * time.Second)
		require.Empty(t, events, "heartbeats keep it up")
		offset, rtt, ok := x.Offset("y")
		require.True(t, ok)
		require.Zero(t, offset)
		require.Zero(t, rtt)

		mute := make(chan struct{})
		b.mu.Lock()
		b.mute = mute
		b.mu.Unlock()
		muted := time.Since(began)
		down := <-events
		require.Equal(t, "down", down.what)
		require.InDelta(t, time.Second, down.at-muted, float64(300*time.Millisecond))
		time.Sleep(20 * time.Second)
		require.Empty(t, events, "silence is no proof of death")
		b.mu.Lock()
		b.mute = nil
		b.mu.Unlock()
		close(mute)
		healed := time.Since(began)
		up := <-events
		require.Equal(t, "up", up.what)
		require.Less(t, up.at-healed, 100*time.Millisecond)
	})
}

func TestInMemoryRefusalIsProofOfDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b := &bubble{meshes: make(map[string]*link.Mesh)}
		dead := make(chan time.Time, 1)
		x := b.mesh(ctx, &wg, "x", link.Config{OnDead: func(string) { dead <- time.Now() }})
		yctx, kill := context.WithCancel(ctx)
		b.mesh(yctx, &wg, "y", link.Config{})
		x.Connect("y")
		x.Connect("never was")
		time.Sleep(time.Second)
		require.True(t, x.Up("y"))
		require.Empty(t, dead, "a process that was never met cannot be proven dead")
		b.mu.Lock()
		delete(b.meshes, "y")
		b.mu.Unlock()
		killed := time.Now()
		kill()
		require.Less(t, (<-dead).Sub(killed), 30*time.Millisecond)
	})
}
