package wsfanouttest

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

// Patience is how long this package waits for what should happen at once.
const Patience = 20 * time.Second

// ByUser authenticates by the parameters user and session of the URL. It is for tests alone.
func ByUser(r *http.Request) (wsfanout.Identity, error) {
	u := r.URL.Query().Get("user")
	if u == "" {
		return wsfanout.Identity{}, wsfanout.ErrForbidden
	}
	return wsfanout.Identity{User: u, Session: r.URL.Query().Get("session")}, nil
}

// Server is a running hub behind a listener on 127.0.0.1.
type Server struct {
	Hub *wsfanout.Hub
	URL string // of the endpoint, without a user

	stop context.CancelFunc
	done chan struct{}
	http *httptest.Server
}

// Start runs a hub until the end of the test and waits until it serves. Without Authenticate, users are who they say (see ByUser); without Authorize they
// may subscribe to everything.
func Start(t testing.TB, cfg wsfanout.Config) *Server {
	t.Helper()
	if cfg.Authenticate == nil && cfg.AuthenticateFrame == nil {
		cfg.Authenticate = ByUser
	}
	if cfg.Authorize == nil {
		cfg.Authorize = func(context.Context, wsfanout.Identity, string) error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	hub, err := wsfanout.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{Hub: hub, stop: cancel, done: make(chan struct{}), http: httptest.NewServer(hub)}
	s.URL = s.http.URL
	var run sync.WaitGroup
	run.Go(func() {
		defer close(s.done)
		if err := hub.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.Kill()
		run.Wait()
		s.http.Close()
	})
	wait(t, "the hub serves", func() bool { return hub.Check(ctx) == nil })
	return s
}

// Kill ends the hub at once, as the death of its process does: sockets are cut, nobody is told. In a Network kill the Transport first.
func (s *Server) Kill() {
	s.stop()
	s.http.CloseClientConnections()
	<-s.done
}

// Settled waits until the next failure may come, on all of these nodes.
func Settled(t testing.TB, servers ...*Server) {
	t.Helper()
	wait(t, "hubs settle", func() bool {
		return !slices.ContainsFunc(servers, func(s *Server) bool { return !s.Hub.Stats().Settled })
	})
}

// Listener is a client that writes down what it is shown.
type Listener struct {
	*client.Client

	mu       sync.Mutex
	messages []client.Message
	gaps     []client.Gap
}

// Listen connects a user to topics and waits until all of them are subscribed. It ends with the test.
func Listen(t testing.TB, s *Server, user string, topics ...string) *Listener {
	t.Helper()
	return ListenWith(t, client.Config{URLs: []string{s.URL + "/?user=" + url.QueryEscape(user)}, Topics: topics})
}

// ListenWith is Listen with a Config, of which it sets OnMessage and OnGap.
func ListenWith(t testing.TB, cfg client.Config) *Listener {
	t.Helper()
	l := &Listener{}
	cfg.OnMessage = func(m client.Message) { l.mu.Lock(); defer l.mu.Unlock(); l.messages = append(l.messages, m) }
	cfg.OnGap = func(g client.Gap) { l.mu.Lock(); defer l.mu.Unlock(); l.gaps = append(l.gaps, g) }
	if cfg.MinRetry == 0 {
		cfg.MinRetry, cfg.MaxRetry = 20*time.Millisecond, 500*time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	c, err := client.Dial(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.Client = c
	t.Cleanup(func() { _ = c.Close() })
	topics := map[string]bool{}
	for _, name := range cfg.Topics {
		topics[name] = true
	}
	for name := range cfg.Cursors {
		topics[name] = true
	}
	wait(t, "topics are subscribed", func() bool {
		n := c.Stats()
		return int(n.Fresh+n.Resumed+n.Gaps) >= len(topics)
	})
	return l
}

// Messages are those that it was shown so far, of all topics.
func (l *Listener) Messages() []client.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.messages)
}

// Gaps are the reports that it got so far.
func (l *Listener) Gaps() []client.Gap {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.gaps)
}

// Wait waits for the first n messages and returns all there are.
func (l *Listener) Wait(t testing.TB, n int) []client.Message {
	t.Helper()
	wait(t, "messages arrive", func() bool { return len(l.Messages()) >= n })
	return l.Messages()
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("wsfanouttest: not within %v: %s", Patience, what)
		}
	}
}
