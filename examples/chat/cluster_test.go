package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/client"
)

// long is how long a test waits for what takes moments: the machine may be busy.
const long = 60 * time.Second

// process is one `chat serve`.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	name string
	done chan struct{} // closed when it has ended
	err  error
	log  bytes.Buffer
	mu   sync.Mutex
}

// serve starts a server and waits until it is ready.
func serve(t *testing.T, dir, name string, cfg map[string]section) *process {
	t.Helper()
	addr := freeAddr(t)
	cfg["ServiceSettings"]["ListenAddress"] = addr
	cfg["ClusterSettings"]["NodeName"] = name
	p := &process{t: t, name: name, url: "http://" + addr, done: make(chan struct{})}
	p.cmd = exec.Command(chat, "serve", "-config", writeConfig(t, cfg))
	p.cmd.Dir = dir
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	var read sync.WaitGroup
	read.Go(func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.mu.Lock()
			fmt.Fprintln(&p.log, lines.Text())
			p.mu.Unlock()
		}
	})
	go func() {
		read.Wait()
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.text())
		}
	})
	require.Eventually(t, p.ready, long, 20*time.Millisecond, "%s did not become ready:\n%s", name, p.text())
	return p
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) ready() bool {
	res, err := http.Get(p.url + "/api/v4/system/ping")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode == http.StatusOK
}

// kill ends the process and waits for its end.
func (p *process) kill(sig os.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(long):
		p.t.Errorf("%s did not end on %v", p.name, sig)
		_ = p.cmd.Process.Kill()
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// user is somebody with a session and a socket to any of the servers.
type user struct {
	t      *testing.T
	http   *http.Client
	cookie *http.Cookie
	socket *client.Client

	mu    sync.Mutex
	shown []string // texts, in order
	gaps  int
}

func signUp(t *testing.T, base, name string) *user {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	u := &user{t: t, http: &http.Client{Jar: jar, Timeout: 20 * time.Second}}
	code, body, err := u.post(base, "/api/v4/users", map[string]string{"username": name, "password": "correct horse"})
	require.NoError(t, err)
	require.Equal(t, http.StatusCreated, code, "%s", body)
	at, err := url.Parse(base)
	require.NoError(t, err)
	require.Len(t, jar.Cookies(at), 1)
	u.cookie = jar.Cookies(at)[0]
	return u
}

func (u *user) post(base, path string, in any) (int, []byte, error) {
	text, err := json.Marshal(in)
	require.NoError(u.t, err)
	req, err := http.NewRequest("POST", base+path, bytes.NewReader(text))
	require.NoError(u.t, err)
	req.Header.Set("Content-Type", "application/json")
	if u.cookie != nil {
		req.AddCookie(u.cookie)
	}
	res, err := u.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// say posts until one of the servers has taken it, always with the same ID.
func (u *user) say(id, text string, servers ...*process) {
	u.t.Helper()
	next := 0
	require.Eventually(u.t, func() bool {
		code, body, err := u.post(servers[next%len(servers)].url, "/api/v4/posts", map[string]any{"room": "lobby", "id": id, "text": text})
		next++
		if err != nil || code == http.StatusServiceUnavailable {
			return false
		}
		require.Contains(u.t, []int{200, 201}, code, "%s", body)
		return true
	}, long, time.Millisecond)
}

func (u *user) listen(servers ...*process) {
	u.t.Helper()
	subscribed := make(chan struct{}, 100)
	var urls []string
	for _, s := range servers {
		urls = append(urls, "ws"+strings.TrimPrefix(s.url, "http")+"/ws")
	}
	var err error
	u.socket, err = client.Dial(u.t.Context(), client.Config{
		URLs: urls, Header: http.Header{"Cookie": {u.cookie.String()}}, Topics: []string{"room:lobby"}, MinRetry: 20 * time.Millisecond, MaxRetry: 200 * time.Millisecond,
		OnMessage: func(m client.Message) {
			var body struct{ Text string }
			if json.Unmarshal(m.Data, &body) == nil && body.Text != "" {
				u.mu.Lock()
				defer u.mu.Unlock()
				u.shown = append(u.shown, body.Text)
			}
		},
		OnGap: func(client.Gap) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.gaps++
		},
		OnFrame: func(f []byte) {
			if bytes.HasPrefix(f, []byte(`{"type":"subscribed"`)) {
				subscribed <- struct{}{}
			}
		},
	})
	require.NoError(u.t, err)
	u.t.Cleanup(func() { u.socket.Close() })
	select {
	case <-subscribed:
	case <-time.After(long):
		require.FailNow(u.t, "not subscribed")
	}
}

func (u *user) has(n int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.shown) >= n
}

// TestThreeServers posts on one server and listens on the others, kills the server that a listener is on in the middle of the stream, and stops
// another one gently: everybody is shown every message once and in the same order, without a gap.
func TestThreeServers(t *testing.T) {
	dir := t.TempDir()
	var servers []*process
	for i := range 3 {
		servers = append(servers, serve(t, dir, fmt.Sprint("node", i+1), settings(dir)))
	}
	alive := func(n int) func() bool {
		return func() bool {
			code, out, _ := run(t, nil, "status", "-json", "-url", servers[1].url, "-expect", fmt.Sprint(n))
			var doc struct {
				Nodes []struct {
					State string
					Cards []struct {
						Name  string
						Stats struct{ Settled bool }
					}
				}
			}
			if code > 2 || json.Unmarshal([]byte(out), &doc) != nil {
				return false
			}
			settled := 0
			for _, node := range doc.Nodes {
				for _, c := range node.Cards {
					if node.State == "alive" && c.Name == "sockets" && c.Stats.Settled {
						settled++
					}
				}
			}
			return settled == n
		}
	}
	require.Eventually(t, alive(3), long, 50*time.Millisecond)
	code, out, stderr := run(t, nil, "status", "-url", servers[0].url, "-expect", "3")
	require.Equal(t, 0, code, "%s%s", out, stderr)
	require.Contains(t, out, "leader")
	require.Contains(t, out, "node3")
	code, _, _ = run(t, nil, "status", "-url", strings.TrimPrefix(servers[0].url, "http://"), "-expect", "4")
	require.Equal(t, 2, code)

	ann, ben, cleo := signUp(t, servers[0].url, "ann"), signUp(t, servers[1].url, "ben"), signUp(t, servers[2].url, "cleo")
	ann.listen(servers[0], servers[1])
	ben.listen(servers[1])
	cleo.listen(servers[2], servers[1])
	users := []*user{ann, ben, cleo}

	const n = 100
	for i := range n {
		from := []*process{servers[i%3], servers[1]}
		if i == n/3 {
			servers[2].kill(syscall.SIGKILL)
		}
		users[i%3].say(fmt.Sprint("m-", i), fmt.Sprint("message ", i), from...)
		if i == n/2 { // a second fault is another matter: wait for the first to be over
			require.Eventually(t, alive(2), long, 50*time.Millisecond)
		}
		if i == 2*n/3 {
			servers[0].kill(syscall.SIGTERM)
			require.NoError(t, servers[0].err, "a gentle end has exit status 0:\n%s", servers[0].text())
		}
	}
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprint("message ", i)
	}
	for _, u := range users {
		require.Eventually(t, func() bool { return u.has(n) }, long, 20*time.Millisecond)
		u.mu.Lock()
		require.Equal(t, want, u.shown) // each is posted once the one before was acknowledged
		require.Zero(t, u.gaps)
		u.mu.Unlock()
	}
	require.True(t, servers[1].ready())
}
