package wsfanout_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/wsfanout"
)

// The JavaScript client against hubs that drop it, die and refuse it.
func TestJavaScriptClient(t *testing.T) {
	node, err := exec.LookPath("node")
	lab.Need(t, "node", err)
	var g *group
	g = startGroup(t, 3, wsfanout.Config{
		OnMessage: func(ctx context.Context, c *wsfanout.Conn, topic string, data []byte) error {
			if topic != "echo" {
				return wsfanout.ErrForbidden
			}
			for _, s := range g.all {
				if _, err := s.hub.Publish(ctx, topic, data, nil); !errors.Is(err, wsfanout.ErrClosed) {
					return err
				}
			}
			return wsfanout.ErrClosed
		},
	})
	dead := map[int]bool{}
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/publish":
			from, _ := strconv.Atoi(r.FormValue("from"))
			n, _ := strconv.Atoi(r.FormValue("n"))
			for i := from; i < from+n; i++ {
				for at := i; ; at++ {
					if dead[at%3] {
						continue
					}
					if _, err := g.all[at%3].hub.Publish(r.Context(), "js", []byte(`"x"`), &wsfanout.PublishOptions{ID: fmt.Sprint("m", i)}); err != nil {
						http.Error(w, err.Error(), 500)
						return
					}
					break
				}
			}
		case "/drop":
			for i, s := range g.all {
				if !dead[i] {
					s.drop()
				}
			}
		case "/kill":
			for i, tr := range g.at {
				if tr.ID() == r.FormValue("node") {
					dead[i] = true
					g.kill(i)
				}
			}
		case "/revoke":
			for i, s := range g.all {
				if !dead[i] {
					require.NoError(t, s.hub.Revoke(r.Context(), "js", ""))
					break
				}
			}
		}
	}))
	defer control.Close()
	var urls []string
	for _, s := range g.all {
		urls = append(urls, s.url("js"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--no-warnings", "--experimental-websocket", "--test", "js/client.test.mjs")
	cmd.Env = append(os.Environ(), "HUBS="+strings.Join(urls, ","), "CONTROL="+control.URL)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestScript(t *testing.T) {
	w := httptest.NewRecorder()
	wsfanout.Script().ServeHTTP(w, httptest.NewRequest("GET", "/wsfanout.js", nil))
	require.Equal(t, 200, w.Code)
	require.Equal(t, "text/javascript; charset=utf-8", w.Header().Get("Content-Type"))
	require.Contains(t, w.Body.String(), "export function connect")
}
