package link_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
	"github.com/nines-go/nines/cluster/internal/seal"
)

// wire is a set of processes on loopback sockets.
type wire struct {
	t        *testing.T
	wrap     func(net.Conn) net.Conn // of dialled connections; nil is none
	via      func(ctx context.Context, addr string) (net.Conn, error)
	seal     *seal.Streams // nil: bare streams
	compress bool
	mu       sync.Mutex
	addr     map[string]string
}

func newWire(t *testing.T) *wire { return &wire{t: t, addr: make(map[string]string)} }

// proc is one process: a Mesh with its listener.
type proc struct {
	*link.Mesh
	id       string
	listener net.Listener
	cancel   context.CancelFunc
	done     chan struct{}
	conns    sync.WaitGroup

	mu     sync.Mutex
	events []string
}

func (p *proc) note(what string) func(string) {
	return func(id string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, what+" "+id)
	}
}

func (p *proc) saw(event string) func() bool {
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Contains(p.events, event)
	}
}

func (w *wire) dial(ctx context.Context, id string) (net.Conn, error) {
	w.mu.Lock()
	addr, ok := w.addr[id]
	wrap := w.wrap
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("no address of %s", id)
	}
	dial := w.via
	if dial == nil {
		var d net.Dialer
		dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	c, err := dial(ctx, addr)
	if err == nil && wrap != nil {
		c = wrap(c)
	}
	if err == nil && w.seal != nil {
		return w.seal.Client(ctx, c)
	}
	return c, err
}

func (w *wire) start(id string, cfg link.Config) *proc {
	p := &proc{id: id, done: make(chan struct{})}
	cfg.Self, cfg.Cluster, cfg.Dial = id, "test", w.dial
	cfg.OnUp, cfg.OnDown, cfg.OnDead = p.note("up"), p.note("down"), p.note("dead")
	cfg.OnGivenUp, cfg.OnEvicted = p.note("given up"), p.note("evicted by")
	if cfg.OnFrame == nil {
		cfg.OnFrame = func(string, link.Lane, []byte) {}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	m, err := link.New(cfg)
	require.NoError(w.t, err)
	p.Mesh = m
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	w.mu.Lock()
	w.addr[id] = p.listener.Addr().String()
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	var wg sync.WaitGroup
	wg.Go(func() {
		require.NoError(w.t, m.Run(ctx))
		p.listener.Close()
		p.conns.Wait()
		close(p.done)
	})
	p.conns.Go(func() {
		for {
			c, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() {
				if w.seal != nil {
					if c, err = w.seal.Server(ctx, c); err != nil {
						return
					}
				}
				m.Accept(c)
			})
		}
	})
	w.t.Cleanup(p.stop)
	return p
}

// stop ends the process like a crash: its listener is gone before its connections.
func (p *proc) stop() {
	p.listener.Close()
	p.cancel()
	<-p.done
}

func eventually(t *testing.T, cond func() bool, what string) {
	t.Helper()
	require.Eventually(t, cond, 20*time.Second, 2*time.Millisecond, what)
}

// counter checks that the payloads of each lane are numbered without a hole.
type counter struct {
	mu   sync.Mutex
	next map[string]uint64
	bad  string
}

func newCounter() *counter { return &counter{next: make(map[string]uint64)} }

func (c *counter) onFrame(from string, lane link.Lane, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := from + " " + lane.String()
	n := binary.BigEndian.Uint64(payload)
	if n != c.next[key] && c.bad == "" {
		c.bad = fmt.Sprintf("%s: %d came where %d was next", key, n, c.next[key])
	}
	for i, b := range payload[8:] {
		if b != fill(n, i) && c.bad == "" {
			c.bad = fmt.Sprintf("%s: frame %d of %d bytes is changed at %d", key, n, len(payload), i)
		}
	}
	c.next[key] = n + 1
}

func fill(n uint64, i int) byte { return byte(n*31 + uint64(i)*7 + uint64(i>>8)) }

func numbered(n uint64, size int) []byte {
	b := make([]byte, 8+size)
	binary.BigEndian.PutUint64(b, n)
	for i := range b[8:] {
		b[8+i] = fill(n, i)
	}
	return b
}

func (c *counter) got(from string, lane link.Lane) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next[from+" "+lane.String()]
}

func (c *counter) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Empty(t, c.bad)
}

func TestFramesArriveInOrderOnRealSockets(t *testing.T) {
	w := newWire(t)
	got := newCounter()
	a := w.start("a", link.Config{OnFrame: got.onFrame})
	b := w.start("b", link.Config{OnFrame: got.onFrame})
	a.Connect("b")
	b.Connect("a")
	const n = 20000
	var wg sync.WaitGroup
	for _, pair := range [][2]*proc{{a, b}, {b, a}} {
		for _, lane := range []link.Lane{link.Control, link.Live, link.Bulk} {
			wg.Go(func() {
				for i := range uint64(n) {
					body := numbered(i, 100)
					if err := pair[0].Post(t.Context(), pair[1].id, lane, body[:5], body[5:]); err != nil {
						t.Errorf("post: %v", err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	for _, id := range []string{"a", "b"} {
		for _, lane := range []link.Lane{link.Control, link.Live, link.Bulk} {
			eventually(t, func() bool { return got.got(id, lane) == n }, id+lane.String())
		}
	}
	got.check(t)
	require.NoError(t, a.Flush(t.Context()))
	require.Zero(t, a.Stats().Peers["b"].Retained)
	eventually(t, func() bool { _, _, ok := a.Offset("b"); return ok }, "offset")
}
