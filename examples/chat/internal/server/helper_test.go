package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/server"
	"github.com/nines-go/nines/wsfanout/client"
)

// long is how long a test waits for what takes moments: the machine may be busy.
const long = 30 * time.Second

// config is a server of its own on free ports, in dir.
func config(dir string) server.Config {
	cfg := server.Default()
	cfg.ServiceSettings.ListenAddress = "127.0.0.1:0"
	cfg.SqlSettings.DriverName, cfg.SqlSettings.DataSource = "sqlite", "file:"+filepath.Join(dir, "chat.db")
	cfg.FileSettings.Directory = dir
	return cfg
}

// running is a server in this process.
type running struct {
	t    *testing.T
	url  string
	stop func()
	done chan error
}

func start(t *testing.T, cfg server.Config, opts server.Options) *running {
	t.Helper()
	ready := make(chan string, 1)
	opts.Ready = func(addr string) { ready <- addr }
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	stop := make(chan struct{})
	r := &running{t: t, stop: sync.OnceFunc(func() { close(stop) }), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { r.done <- server.Run(ctx, stop, cfg, opts) }()
	t.Cleanup(func() {
		r.stop()
		select {
		case err := <-r.done:
			require.NoError(t, err)
		case <-time.After(long):
			t.Error("the server did not end")
		}
		cancel()
	})
	select {
	case addr := <-ready:
		r.url = "http://" + addr
	case err := <-r.done:
		r.done <- nil
		require.FailNow(t, "the server ended", "%v", err)
	case <-time.After(long):
		require.FailNow(t, "the server did not become ready")
	}
	return r
}

// testWriter logs into the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// person is somebody's browser.
type person struct {
	t    *testing.T
	url  string
	http *http.Client
}

func newPerson(t *testing.T, base string) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &person{t: t, url: base, http: &http.Client{Jar: jar, Timeout: long, Transport: transport}}
}

// signUp makes an account and a browser that is signed in.
func signUp(t *testing.T, base, name string) *person {
	t.Helper()
	p := newPerson(t, base)
	p.must(http.StatusCreated, "POST", "/api/v4/users", map[string]string{"username": name, "password": "correct horse"}, nil)
	return p
}

// at is the same browser at another server.
func (p *person) at(base string) *person {
	p.t.Helper()
	q := newPerson(p.t, base)
	from, err := url.Parse(p.url)
	require.NoError(p.t, err)
	to, err := url.Parse(base)
	require.NoError(p.t, err)
	q.http.Jar.SetCookies(to, p.http.Jar.Cookies(from))
	return q
}

func (p *person) do(method, path string, in any) (*http.Response, []byte, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		require.NoError(p.t, err)
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, p.url+path, body)
	require.NoError(p.t, err)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := p.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, text, err
}

// must calls, requires the status and decodes the answer.
func (p *person) must(code int, method, path string, in, out any) {
	p.t.Helper()
	res, text, err := p.do(method, path, in)
	require.NoError(p.t, err)
	require.Equal(p.t, code, res.StatusCode, "%s %s: %s", method, path, text)
	if out != nil {
		require.NoError(p.t, json.Unmarshal(text, out), "%s", text)
	}
}

// inbox is what a socket brought.
type inbox struct {
	*client.Client
	mu       sync.Mutex
	messages []client.Message
}

func (p *person) connect(topics ...string) *inbox {
	p.t.Helper()
	u, err := url.Parse(p.url)
	require.NoError(p.t, err)
	header := http.Header{}
	for _, c := range p.http.Jar.Cookies(u) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	b := &inbox{}
	subscribed := make(chan struct{}, 100)
	b.Client, err = client.Dial(context.Background(), client.Config{
		URLs: []string{"ws" + strings.TrimPrefix(p.url, "http") + "/api/v4/websocket"}, Header: header, Topics: topics,
		MinRetry: 10 * time.Millisecond,
		OnMessage: func(m client.Message) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.messages = append(b.messages, m)
		},
		OnFrame: func(f []byte) {
			if bytes.HasPrefix(f, []byte(`{"type":"subscribed"`)) {
				subscribed <- struct{}{}
			}
		},
	})
	require.NoError(p.t, err)
	p.t.Cleanup(func() { b.Client.Close() })
	for range topics {
		select {
		case <-subscribed:
		case <-time.After(long):
			require.FailNow(p.t, "not subscribed")
		}
	}
	return b
}

func (b *inbox) got() []client.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]client.Message(nil), b.messages...)
}

// texts are the texts of the stored messages that came.
func (b *inbox) texts() []string {
	list := []string{}
	for _, m := range b.got() {
		var body struct{ Text string }
		if !m.Ephemeral && json.Unmarshal(m.Data, &body) == nil {
			list = append(list, body.Text)
		}
	}
	return list
}

// jsonText is JSON to be decoded later, null included.
type jsonText []byte

func (j *jsonText) UnmarshalJSON(b []byte) error {
	*j = append((*j)[:0], b...)
	return nil
}

func (j jsonText) into(t *testing.T, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(j, v), "%s", []byte(j))
}
