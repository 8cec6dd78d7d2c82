package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/client"
)

const patience = 20 * time.Second

// hub is the other side by hand: each connection runs the script of its number, the last one those that follow.
type hub struct {
	*httptest.Server
	mu     sync.Mutex
	number int
	seen   []string // counts of the handshakes
}

type side struct {
	t  testing.TB
	ws *websocket.Conn
}

func (s *side) send(format string, args ...any) {
	_ = s.ws.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, format, args...))
}

// subscribe reads the client's subscription and returns its ref and topics.
func (s *side) subscribe() (ref int, topics map[string]string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := s.ws.Read(ctx)
	if err != nil {
		return 0, nil
	}
	var f struct {
		Ref    int
		Topics map[string]string
	}
	_ = json.Unmarshal(b, &f)
	return f.Ref, f.Topics
}

func serve(t testing.TB, scripts ...func(s *side)) *hub {
	h := &hub{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		h.mu.Lock()
		script := scripts[min(h.number, len(scripts)-1)]
		h.number++
		h.seen = append(h.seen, r.URL.Query().Get("count"))
		h.mu.Unlock()
		s := &side{t, ws}
		s.send(`{"type":"hello","conn":"c","node":"n"}`)
		script(s)
	}))
	t.Cleanup(h.Close)
	return h
}

func stay(s *side) { _, _, _ = s.ws.Read(context.Background()) }

type record struct {
	mu     sync.Mutex
	shown  []string
	gaps   []client.Gap
	frames int
	states []client.State
}

func (r *record) config(url string) client.Config {
	return client.Config{
		URLs: []string{url}, Topics: []string{"t"}, MinRetry: 10 * time.Millisecond, MaxRetry: 20 * time.Millisecond,
		OnMessage: func(m client.Message) { r.mu.Lock(); r.shown = append(r.shown, m.ID); r.mu.Unlock() },
		OnGap:     func(g client.Gap) { r.mu.Lock(); r.gaps = append(r.gaps, g); r.mu.Unlock() },
		OnFrame:   func([]byte) { r.mu.Lock(); r.frames++; r.mu.Unlock() },
		OnState:   func(s client.State) { r.mu.Lock(); r.states = append(r.states, s); r.mu.Unlock() },
	}
}

func (r *record) is(t testing.TB, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.shown) >= len(want) }, patience, time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(t, want, r.shown)
}

func dial(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client.Dial(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// Only the answer to the last request counts; nothing is shown before it, twice, or over a hole.
func TestRule(t *testing.T) {
	var r record
	h := serve(t, func(s *side) {
		ref, topics := s.subscribe()
		require.Equal(t, map[string]string{"t": ""}, topics)
		s.send(`{"type":"message","topic":"t","epoch":"1.A","offset":8,"id":"early","data":1}`)
		s.send(`{"type":"subscribed","topic":"t","kind":"fresh","epoch":"1.A","offset":90}`)              // the hub's own
		s.send(`{"type":"subscribed","topic":"t","ref":99,"kind":"fresh","epoch":"1.A","offset":80}`)     // of another request
		s.send(`{"type":"subscribed","topic":"u","ref":%d,"kind":"fresh","epoch":"1.A","offset":1}`, ref) // of no topic
		s.send(`{"type":"subscribed","topic":"t","ref":%d,"kind":"fresh","epoch":"1.A","offset":5}`, ref)
		s.send(`{"type":"message","topic":"t","epoch":"1.A","offset":6,"id":"a","data":{"x":1}}`)
		s.send(`{"type":"skip","topic":"t","epoch":"1.A","offset":7}`)
		s.send(`{"type":"ephemeral","topic":"t","data":"typing"}`)
		s.send(`{"type":"something newer","topic":"t"}`)
		s.send(`{"type":"message","topic":"t","epoch":"1.A","offset":9,"id":"hole","data":1}`)
		ref, topics = s.subscribe()
		require.Equal(t, map[string]string{"t": "1|1.A:7|1.A:7|a"}, topics)
		s.send(`{"type":"message","topic":"t","epoch":"1.A","offset":8,"id":"while asking","data":1}`)
		s.send(`{"type":"subscribed","topic":"t","ref":%d,"kind":"gap","reason":"epoch_changed","after":"a","epoch":"2.B","offset":5,"filled":true}`, ref)
		s.send(`{"type":"fill","topic":"t","id":"f","data":1}`)
		s.send(`{"type":"message","topic":"t","epoch":"1.A","offset":6,"id":"a","data":1}`)
		s.send(`{"type":"gap","topic":"t","epoch":"2.B","offset":7,"n":1,"reason":"fork","id":"fork:1.A"}`)
		s.send(`{"type":"message","topic":"t","epoch":"2.B","offset":8,"id":"b","data":1}`)
		s.send(`{"type":"message","topic":"t","epoch":"2.B","offset":9,"id":"a","data":1}`)  // published again behind the gap
		s.send(`{"type":"message","topic":"t","epoch":"2.B","offset":10,"id":"f","data":1}`) // so is what filled it
		stay(s)
	})
	c := dial(t, r.config(h.URL))
	r.is(t, "a", "", "f", "b")
	require.Equal(t, []client.Gap{
		{Topic: "t", Reason: "epoch_changed", After: "a", Epoch: "2.B", Offset: 5, Filled: true}, {Topic: "t", Reason: "fork", Epoch: "2.B", Offset: 7},
	}, r.gaps)
	require.Eventually(t, func() bool { return c.Stats().Duplicates == 3 }, patience, time.Millisecond)
	require.Equal(t, map[string]string{"t": "1|2.B:10|2.B:10,1.A:7|f"}, c.Cursors())
	s := c.Stats()
	require.Equal(t, client.Stats{Connects: 1, Frames: s.Frames, Messages: 2, Filled: 1, Ephemeral: 1, Duplicates: 3, Ignored: 2, Holes: 1, Gaps: 2, Fresh: 1}, s)
	require.EqualValues(t, 19, s.Frames)
	require.Equal(t, 19, r.frames, "OnFrame has seen what was not shown, too")
}

// It comes back with a higher count and its cursors, honours the hint, and stays away when told so.
func TestReconnect(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("client", func(t *testing.T) {
		var r record
		var left time.Time
		h := serve(t, func(s *side) {
			ref, _ := s.subscribe()
			s.send(`{"type":"subscribed","topic":"t","ref":%d,"kind":"fresh","epoch":"1.A"}`, ref)
			s.send(`{"type":"message","topic":"t","epoch":"1.A","offset":1,"id":"a","data":1}`)
			s.send(`{"type":"bye","retry":300}`)
			left = time.Now()
			s.ws.Close(1012, "restart")
		}, func(s *side) {
			require.GreaterOrEqual(t, time.Since(left), 290*time.Millisecond)
			_, topics := s.subscribe()
			require.Equal(t, map[string]string{"t": "1|1.A:1|1.A:1|a"}, topics)
		}, func(s *side) {
			s.subscribe()
			s.ws.Close(4003, "revoked")
		})
		c := dial(t, r.config(h.URL))
		require.Eventually(t, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.states[len(r.states)-1] == client.Closed
		}, patience, time.Millisecond)
		require.ErrorIs(t, c.Err(), client.ErrRefused)
		require.Equal(t, []string{"1", "2", "3"}, h.seen)
		require.ErrorIs(t, c.Publish(t.Context(), "t", nil), client.ErrClosed)
		require.ErrorIs(t, c.Subscribe(t.Context(), "u", ""), client.ErrClosed)
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
	})
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		require.True(t, time.Now().Before(end), "goroutines are left")
	}
}

func TestDialFails(t *testing.T) {
	_, err := client.Dial(t.Context(), client.Config{URLs: []string{"ftp://x"}, Cursors: map[string]string{"t": "x"}, Silence: -1})
	require.ErrorContains(t, err, `URLs has "ftp://x"`)
	require.ErrorContains(t, err, `Cursors["t"]`)
	require.ErrorContains(t, err, "Silence")
	no := httptest.NewServer(http.NotFoundHandler())
	defer no.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = client.Dial(ctx, client.Config{URLs: []string{no.URL}, MinRetry: time.Millisecond, MaxRetry: time.Millisecond})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "404")
	forbidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }))
	defer forbidden.Close()
	_, err = client.Dial(t.Context(), client.Config{URLs: []string{forbidden.URL}})
	require.ErrorIs(t, err, client.ErrRefused)
}
