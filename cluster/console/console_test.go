package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/console"
)

type stats struct {
	OpenConns int
	Latency   time.Duration
	LeaderID  string
	Sources   []source
	hidden    int
}

type source struct {
	Name string
	Lag  time.Duration
}

// warning is what a Check may return: an error with a remedy that does not turn readiness off.
type warning struct{ soft bool }

func (warning) Error() string   { return "one of two sources lags" }
func (warning) Remedy() string  { return "look at its disk" }
func (w warning) Warning() bool { return w.soft }

func start(t *testing.T, seeds ...string) *cluster.Node {
	n, err := cluster.New(cluster.Config{
		ClusterName: "test", InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Profile: cluster.Local,
		Discovery: cluster.StaticDiscovery(seeds...), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, n.Run(context.Background())) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, n.Shutdown(ctx))
		wg.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, n.WaitReady(ctx))
	return n
}

// serve mounts a console at a prefix, unstripped.
func serve(t *testing.T, cfg console.Config) *httptest.Server {
	h, err := console.New(cfg)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/ha/", h)
	mux.Handle("/ha", h)
	mux.Handle("/deep/in/box/", h)
	mux.Handle("/deep/in/box", h)
	mux.Handle("/deep/in/crate/", http.StripPrefix("/deep/in/crate", h))
	mux.Handle("/deep/in/crate", http.StripPrefix("/deep/in/crate", h))
	mux.Handle("/stripped/", http.StripPrefix("/stripped", h))
	mux.Handle("/stripped", http.StripPrefix("/stripped", h))
	mux.Handle("/health/", h.Health())
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string, header ...string) (int, string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

type document struct {
	Schema  int
	Verdict struct{ Level, Text string }
	Nodes   []struct {
		ID, State, Level, Error string
		Self                    bool
		Cards                   []struct {
			Name, Level, Error, Remedy string
			Stats                      map[string]any
		}
	}
}

func status(t *testing.T, s *httptest.Server) (d document) {
	code, body := get(t, s.URL+"/ha/status.json")
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, json.Unmarshal([]byte(body), &d), body)
	return d
}

func figures() stats {
	return stats{OpenConns: 3, Latency: 1500 * time.Millisecond, LeaderID: "x", Sources: []source{{"replica1", time.Second}}, hidden: 1}
}

func TestAnyNodeAnswersForAll(t *testing.T) {
	a := start(t)
	b := start(t, a.Addr())
	var fault atomic.Pointer[warning]
	check := func(context.Context) error {
		if w := fault.Load(); w != nil {
			return *w
		}
		return nil
	}
	pages := []*httptest.Server{
		serve(t, console.Config{Node: a, Cards: []console.Card{console.Of("database", figures, check)}}),
		serve(t, console.Config{Node: b, Cards: []console.Card{console.Of("database", figures, nil)}}),
	}
	for _, page := range pages {
		var d document
		require.Eventually(t, func() bool {
			d = status(t, page)
			return len(d.Nodes) == 2 && len(d.Nodes[0].Cards) == 1 && len(d.Nodes[1].Cards) == 1
		}, 20*time.Second, 20*time.Millisecond)
		require.Equal(t, 1, d.Schema)
		for _, n := range d.Nodes {
			require.Equal(t, map[string]any{
				"open_conns": 3.0, "latency_seconds": 1.5, "leader_id": "x", "sources": []any{map[string]any{"name": "replica1", "lag_seconds": 1.0}},
			}, n.Cards[0].Stats)
		}
	}
	fault.Store(&warning{soft: true})
	d := status(t, pages[1])
	require.Equal(t, "amber", d.Verdict.Level)
	require.Contains(t, d.Verdict.Text, "one of two sources lags: look at its disk")
	code, _ := get(t, pages[0].URL+"/health/readyz")
	require.Equal(t, http.StatusOK, code, "a warning does not turn readiness off")
	fault.Store(&warning{})
	require.Equal(t, "red", status(t, pages[1]).Verdict.Level)
	code, body := get(t, pages[0].URL+"/health/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "database: one of two sources lags")
	code, body = get(t, pages[1].URL+"/health/healthz?verbose")
	require.Equal(t, http.StatusOK, code, "the other node is fit")
	require.Contains(t, body, "database: ok")
	code, _ = get(t, pages[0].URL+"/health/livez")
	require.Equal(t, http.StatusOK, code)
}

func single(t *testing.T) *cluster.Node {
	n, err := cluster.New(cluster.Config{ClusterName: "test", Single: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, n.Run(context.Background())) })
	t.Cleanup(func() {
		require.NoError(t, n.Shutdown(context.Background()))
		wg.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, n.WaitReady(ctx))
	return n
}

func TestAnyPrefix(t *testing.T) {
	s := serve(t, console.Config{Node: single(t)})
	for _, path := range []string{"/ha", "/ha/", "/stripped", "/stripped/", "/deep/in/box", "/deep/in/box/?x=1", "/deep/in/crate", "/deep/in/crate/"} {
		code, body := get(t, s.URL+path)
		require.Equal(t, http.StatusOK, code, path)
		require.Contains(t, body, "<title>", path)
		require.NotContains(t, body, "<script>", "no inline script")
	}
	for _, file := range []string{"console.js", "console.css", "icon.svg", "status.json"} {
		code, _ := get(t, s.URL+"/ha/"+file)
		require.Equal(t, http.StatusOK, code)
		code, _ = get(t, s.URL+"/stripped/"+file)
		require.Equal(t, http.StatusOK, code)
	}
	res, err := http.Get(s.URL + "/ha/")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'none'")
}

func TestOnlyThisMachineWithoutAuthorize(t *testing.T) {
	s := serve(t, console.Config{Node: single(t)})
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, http.StatusOK},
		{[]string{"X-Forwarded-For", "127.0.0.1"}, http.StatusOK},
		{[]string{"Host", "localhost:8080"}, http.StatusOK},
		{[]string{"X-Forwarded-For", "203.0.113.9"}, http.StatusForbidden},
		{[]string{"X-Forwarded-For", "127.0.0.1, 203.0.113.9"}, http.StatusForbidden},
		{[]string{"X-Real-Ip", "203.0.113.9"}, http.StatusForbidden},
		{[]string{"Forwarded", "for=127.0.0.1"}, http.StatusForbidden},
		{[]string{"Host", "evil.example"}, http.StatusForbidden},
	} {
		code, _ := get(t, s.URL+"/ha/status.json", c.header...)
		require.Equal(t, c.want, code, "%v", c.header)
	}
	denied := serve(t, console.Config{Node: single(t), Authorize: func(*http.Request) error { return errors.New("not you") }})
	code, body := get(t, denied.URL+"/ha/status.json")
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "not you")
}

func TestEventsStream(t *testing.T) {
	s := serve(t, console.Config{Node: single(t)})
	res, err := http.Get(s.URL + "/ha/events")
	require.NoError(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for seen := 0; seen < 2; {
		require.True(t, lines.Scan())
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			require.True(t, json.Valid([]byte(data)))
			seen++
		}
	}
}

func TestActions(t *testing.T) {
	a := start(t)
	b := start(t, a.Addr())
	var ran atomic.Int32
	cards := []console.Card{console.Of("database", figures, nil,
		console.Action{Name: "recycle", Every: true, Run: func(context.Context, string) error { ran.Add(1); return nil }},
		console.Action{Name: "fail", Run: func(_ context.Context, arg string) error { return errors.New("no " + arg) }},
	)}
	page := serve(t, console.Config{Node: a, Cards: cards, AllowActions: true})
	serve(t, console.Config{Node: b, Cards: cards, AllowActions: true})
	post := func(s *httptest.Server, body string, header ...string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/ha/action", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(out)
	}
	const recycle = `{"card":"database","action":"recycle"}`
	require.Eventually(t, func() bool { return len(a.Alive()) == 2 }, 20*time.Second, 10*time.Millisecond)
	code, body := post(page, recycle, "Origin", page.URL)
	require.Equal(t, http.StatusOK, code, body)
	require.EqualValues(t, 2, ran.Load(), "on each node once: %s", body)
	for _, id := range []string{a.ID(), b.ID()} {
		code, body = post(page, `{"card":"database","action":"fail","arg":"way","node":"`+id+`"}`)
		require.Equal(t, http.StatusOK, code)
		require.Contains(t, body, "no way")
	}
	for name, c := range map[string]struct {
		header []string
		body   string
		want   int
	}{
		"another site":   {[]string{"Origin", "https://evil.example"}, recycle, http.StatusForbidden},
		"fetch metadata": {[]string{"Sec-Fetch-Site", "cross-site"}, recycle, http.StatusForbidden},
		"form":           {[]string{"Content-Type", "text/plain"}, recycle, http.StatusForbidden},
		"no such action": {nil, `{"card":"database","action":"drop"}`, http.StatusNotFound},
		"no JSON":        {nil, `x`, http.StatusBadRequest},
	} {
		code, _ := post(page, c.body, c.header...)
		require.Equal(t, c.want, code, name)
	}
	code, _ = get(t, page.URL+"/ha/action")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	readOnly := serve(t, console.Config{Node: single(t), Cards: cards})
	code, body = post(readOnly, recycle)
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "AllowActions")
	require.EqualValues(t, 2, ran.Load())
}

func TestNewNamesEveryFault(t *testing.T) {
	_, err := console.New(console.Config{Cards: []console.Card{{}, {Name: "x", Actions: []console.Action{{Name: "y"}}}}})
	require.ErrorContains(t, err, "Config.Node is nil")
	require.ErrorContains(t, err, "Cards[0]")
	require.ErrorContains(t, err, "Cards[1].Actions[0]")
}

// A page that is open does not hold up the server's Shutdown: its stream ends when the node drains.
func TestEventsStreamEndsWithDrain(t *testing.T) {
	n := start(t)
	s := serve(t, console.Config{Node: n})
	res, err := http.Get(s.URL + "/ha/events")
	require.NoError(t, err)
	defer res.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, n.Drain(ctx))
	require.NoError(t, s.Config.Shutdown(ctx))
}
