package wsfanout_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

const patience = 20 * time.Second

// who authenticates by the user parameter.
func who(r *http.Request) (wsfanout.Identity, error) {
	u := r.URL.Query().Get("user")
	if u == "" {
		return wsfanout.Identity{}, wsfanout.ErrForbidden
	}
	return wsfanout.Identity{User: u, Session: r.URL.Query().Get("session")}, nil
}

func anyone(context.Context, wsfanout.Identity, string) error { return nil }

// server is a hub behind a real listener.
type server struct {
	hub  *wsfanout.Hub
	http *httptest.Server
	done chan struct{}
	stop context.CancelFunc // the hard stop

	small bool // kernel buffers

	mu    sync.Mutex
	conns []net.Conn
}

func (s *server) track(c net.Conn, state http.ConnState) {
	if state == http.StateNew && s.small {
		_ = c.(*net.TCPConn).SetWriteBuffer(4096)
	}
	if state == http.StateHijacked {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conns = append(s.conns, c)
	}
}

// drop cuts all sockets, as a network does.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *server) url(user string) string { return s.http.URL + "/?user=" + user }

// switcher is one address with changing hubs, as a restarted server has.
type switcher struct {
	mu sync.Mutex
	h  http.Handler
}

func (s *switcher) set(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h = h
}

func (s *switcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.h
	s.mu.Unlock()
	h.ServeHTTP(w, r)
}

// start runs a hub until the end of the test.
func start(t testing.TB, cfg wsfanout.Config) *server { return startWith(t, cfg, false) }

// startSmall has small kernel buffers: who does not read is soon felt.
func startSmall(t testing.TB, cfg wsfanout.Config) *server { return startWith(t, cfg, true) }

func startWith(t testing.TB, cfg wsfanout.Config, small bool) *server {
	t.Helper()
	if cfg.Authenticate == nil && cfg.AuthenticateFrame == nil {
		cfg.Authenticate = who
	}
	if cfg.Authorize == nil {
		cfg.Authorize = anyone
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	hub, err := wsfanout.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{small: small, hub: hub, done: make(chan struct{}), stop: cancel}
	s.http = httptest.NewUnstartedServer(&switcher{h: hub})
	s.http.Config.ConnState = s.track
	s.http.Start()
	go func() { defer close(s.done); hub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-s.done
		s.http.Close()
	})
	return s
}

// settled waits until the hubs can take a failure.
func settled(t testing.TB, servers ...*server) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, s := range servers {
			if !s.hub.Stats().Settled {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "hubs did not settle")
}

// listener is a client that writes down all it is shown.
type listener struct {
	*client.Client
	mu   sync.Mutex
	got  []client.Message
	gaps []client.Gap
	last client.Hello
}

func (l *listener) ids(topic string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for _, m := range l.got {
		if m.Topic == topic {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (l *listener) gapCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.gaps)
}

func (l *listener) hello() client.Hello {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func listenOn(t testing.TB, cfg client.Config) *listener {
	t.Helper()
	l := listen(t, cfg)
	l.subscribed(t, 1)
	return l
}

func listen(t testing.TB, cfg client.Config) *listener {
	t.Helper()
	l := &listener{}
	cfg.OnMessage = func(m client.Message) { l.mu.Lock(); l.got = append(l.got, m); l.mu.Unlock() }
	cfg.OnGap = func(g client.Gap) { l.mu.Lock(); l.gaps = append(l.gaps, g); l.mu.Unlock() }
	cfg.OnHello = func(h client.Hello) { l.mu.Lock(); l.last = h; l.mu.Unlock() }
	if cfg.MinRetry == 0 {
		cfg.MinRetry, cfg.MaxRetry = 50*time.Millisecond, 500*time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, cfg)
	require.NoError(t, err)
	l.Client = c
	t.Cleanup(func() { c.Close() })
	return l
}

// subscribed waits until the client has as many answers.
func (l *listener) subscribed(t testing.TB, n uint64) {
	t.Helper()
	require.Eventually(t, func() bool { s := l.Stats(); return s.Fresh+s.Resumed+s.Gaps >= n }, patience, 5*time.Millisecond, "not subscribed")
}

func (l *listener) sees(t testing.TB, topic string, want []string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(l.ids(topic)) >= len(want) }, patience, 5*time.Millisecond, "saw %v of %v", l.ids(topic), want)
	require.Equal(t, want, l.ids(topic))
}

func publish(t testing.TB, s *server, topic, id string) wsfanout.Position {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := s.hub.Publish(ctx, topic, fmt.Appendf(nil, `{"id":%q}`, id), &wsfanout.PublishOptions{ID: id})
	require.NoError(t, err)
	return p
}

func TestOneNode(t *testing.T) {
	s := start(t, wsfanout.Config{Node: "one", Version: "v1", ConfigVersion: "c7"})
	settled(t, s)
	l := listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{"room"}})
	l.subscribed(t, 1)
	require.Equal(t, client.Hello{Conn: l.hello().Conn, Node: "one", Version: "v1", Config: "c7", Count: 1}, l.hello())

	var want []string
	for i := range 50 {
		id := fmt.Sprint("m", i)
		p := publish(t, s, "room", id)
		require.Equal(t, uint64(i+1), p.Offset)
		require.Equal(t, 1, p.Copies)
		want = append(want, id)
	}
	again := publish(t, s, "room", "m10")
	require.Equal(t, uint64(11), again.Offset, "the same ID has the same place")
	l.sees(t, "room", want)
	require.Equal(t, s.hub.Home("room"), again.Epoch[2:])

	// Away and back: what came meanwhile is there, once.
	at := l.Cursors()
	l.Close()
	want = nil
	for i := 50; i < 60; i++ {
		publish(t, s, "room", fmt.Sprint("m", i))
		want = append(want, fmt.Sprint("m", i))
	}
	back := listen(t, client.Config{URLs: []string{s.url("ann")}, Cursors: at})
	back.sees(t, "room", want)
	require.Equal(t, uint64(1), back.Stats().Resumed)
	require.Zero(t, back.gapCount())
}
