package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/wsfanout/client"
)

const patience = 60 * time.Second

// chat is the built program.
var chat string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "nines-deploy-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		chat = filepath.Join(dir, "chat")
		if out, err := exec.Command("go", "build", "-o", chat, "..").CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v\n%s", err, out))
		}
		return m.Run()
	}())
}

// The addresses of the shipped files, the proxy, and who connects to it.
var addrs = []string{"10.10.10.2", "10.10.10.4", "10.10.10.6", "10.10.10.100", "10.10.10.200"}

const (
	proxyHost  = 3
	clientHost = 4
	proxyAddr  = "10.10.10.100:80"
)

// fleet is three servers on three hosts, and what is on a fourth in front of them.
type fleet struct {
	*lab.Fabric
	t       testing.TB
	dir     string
	servers []*exec.Cmd
	http    *http.Client
}

func startFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{Fabric: lab.NewFabric(t, addrs...), t: t, dir: t.TempDir(), servers: make([]*exec.Cmd, 3)}
	f.http = f.client()
	t.Cleanup(func() {
		for i := range f.servers {
			f.kill(i)
		}
	})
	for i := range f.servers {
		f.start(i)
	}
	for i := range f.servers {
		f.ready(i)
	}
	return f
}

// client makes connections from the clients' host, one for each call.
func (f *fleet) client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return f.Dial(ctx, clientHost, addr) },
	}}
}

func (f *fleet) start(i int) {
	f.t.Helper()
	config, err := json.Marshal(map[string]any{
		"ServiceSettings": map[string]any{"ListenAddress": addrs[i] + ":8065", "TrustedProxies": []string{addrs[proxyHost]}},
		"ClusterSettings": map[string]any{
			"Enable": true, "ClusterName": "deploy", "NodeName": fmt.Sprintf("node%d", i+1), "BindAddress": addrs[i], "AdvertiseAddress": addrs[i],
			"EncryptionKeys": []string{cluster.FormatKey(make([]byte, cluster.KeySize))},
		},
		"SqlSettings":  map[string]any{"DriverName": "sqlite", "DataSource": "file:" + filepath.Join(f.dir, "chat.db")},
		"FileSettings": map[string]any{"Directory": f.dir},
		"LogSettings":  map[string]any{"ConsoleLevel": "WARN"},
	})
	require.NoError(f.t, err)
	file := filepath.Join(f.dir, fmt.Sprintf("node%d.json", i+1))
	require.NoError(f.t, os.WriteFile(file, config, 0o600))
	cmd := f.Command(i, chat, "serve", "-config", file)
	log, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprintf("node%d.log", i+1)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(f.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(f.t, cmd.Start())
	f.servers[i] = cmd
}

func (f *fleet) kill(i int) {
	if cmd := f.servers[i]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		f.servers[i] = nil
	}
}

// ready waits until server i takes work.
func (f *fleet) ready(i int) {
	f.t.Helper()
	ok := func() bool {
		code, _ := f.get("http://" + addrs[i] + ":8065/api/v4/system/ping")
		return code == http.StatusOK
	}
	if !eventually(ok) {
		log, _ := os.ReadFile(filepath.Join(f.dir, fmt.Sprintf("node%d.log", i+1)))
		f.t.Fatalf("server %d is not ready:\n%s", i+1, log)
	}
}

func eventually(ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return true
		}
	}
	return false
}

func (f *fleet) get(url string) (int, error) {
	res, err := f.http.Get(url)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// signUp makes a user through the proxy and returns its cookie.
func (f *fleet) signUp() string {
	f.t.Helper()
	body := fmt.Sprintf(`{"username":"user%d","password":"correct horse"}`, rand.Uint32())
	var res *http.Response
	require.Eventually(f.t, func() bool {
		var err error
		if res, err = f.http.Post("http://"+proxyAddr+"/api/v4/users", "application/json", strings.NewReader(body)); err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode < 300
	}, patience, 100*time.Millisecond)
	var cookies []string
	for _, c := range res.Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	return strings.Join(cookies, "; ")
}

// socket is a connection of a page, and how long it was away last.
type socket struct {
	*client.Client
	mu   sync.Mutex
	node string
	lost time.Time
	away time.Duration
}

func (s *socket) at() (node string, away time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.away
}

// sockets opens n of them through the proxy.
func (f *fleet) sockets(n int) []*socket {
	f.t.Helper()
	var cookies []string
	for range n/50 + 1 {
		cookies = append(cookies, f.signUp())
	}
	all := make([]*socket, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s := &socket{}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := client.Dial(ctx, client.Config{
				URLs: []string{"ws://" + proxyAddr + "/api/v4/websocket"}, Header: http.Header{"Cookie": {cookies[i%len(cookies)]}}, HTTPClient: f.client(),
				MinRetry: time.Second, Topics: []string{"rooms"},
				OnState: func(state client.State) {
					s.mu.Lock()
					defer s.mu.Unlock()
					switch {
					case state == client.Connected && !s.lost.IsZero():
						s.away, s.lost = time.Since(s.lost), time.Time{}
					case state == client.Connecting && s.node != "" && s.lost.IsZero():
						s.lost = time.Now()
					}
				},
				OnHello: func(h client.Hello) { s.mu.Lock(); defer s.mu.Unlock(); s.node = h.Node },
			})
			if err != nil {
				f.t.Errorf("a socket could not be opened: %v", err)
				return
			}
			s.Client = c
			all[i] = s
		})
	}
	wg.Wait()
	for _, s := range all {
		require.NotNil(f.t, s)
		f.t.Cleanup(func() { s.Close() })
	}
	return all
}

// proxy starts a program on the proxy's host and waits until it answers.
func (f *fleet) proxy(name string, args ...string) {
	f.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	lab.Need(f.t, name, err)
	cmd := f.Command(proxyHost, path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(f.t, cmd.Start())
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if f.t.Failed() {
			f.t.Log(out.String())
		}
	})
	require.True(f.t, eventually(func() bool {
		code, _ := f.get("http://" + proxyAddr + "/api/v4/system/ping")
		return code == http.StatusOK
	}), "%s does not answer", name)
}
