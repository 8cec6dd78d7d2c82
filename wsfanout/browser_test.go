package wsfanout_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/wsfanout"
)

// page is what a browser runs: it subscribes, loses its socket and then its node, and reports what it was shown.
const page = `<!doctype html><meta charset="utf-8"><title>test</title><script type="module">
import { connect } from "/wsfanout.js";
const step = async (path) => (await fetch(path)).ok || Promise.reject(new Error(path));
const until = async (ok) => { for (let i = 0; !ok(); i++) { if (i > 3000) throw new Error("too late: " + ok); await new Promise((r) => setTimeout(r, 5)); } };
const out = { ids: [], gaps: [], states: [], presence: [] };
try {
  const urls = JSON.parse(await (await fetch("/urls")).text());
  let node;
  const c = connect(urls, { topics: ["js"], minRetry: 20, maxRetry: 200, onmessage: (m) => out.ids.push(m.id), ongap: (g) => out.gaps.push(g),
    onstate: (s) => out.states.push(s), onhello: (h) => (node = h.node) });
  await until(() => c.stats.fresh === 1);
  await step("/publish?from=0&n=10");
  await until(() => out.ids.length >= 10);
  await step("/drop");
  await step("/publish?from=10&n=10");
  await until(() => out.ids.length >= 20);
  await step("/kill?node=" + node);
  await step("/publish?from=20&n=10");
  await until(() => out.ids.length >= 30);
  out.stats = c.stats;
  c.close();
  out.state = c.state;
} catch (e) {
  out.error = String(e);
}
await fetch("/result", { method: "POST", body: JSON.stringify(out) });
</script>`

// The JavaScript client in a real browser, from another origin than its hubs, through a cut and the death of its node.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		chromium, err = exec.LookPath("chromium-browser")
	}
	lab.Need(t, "chromium", err)
	g := startGroup(t, 3, wsfanout.Config{Origins: []string{"127.0.0.1:*"}, Compress: true})
	dead := map[int]bool{}
	result := make(chan []byte, 1)
	var urls []string
	for _, s := range g.all {
		urls = append(urls, s.url("js"))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, page) })
	mux.Handle("/wsfanout.js", wsfanout.Script())
	mux.HandleFunc("/urls", func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(urls) })
	mux.HandleFunc("/result", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		result <- b
	})
	mux.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		var from, n int
		_, _ = fmt.Sscan(r.FormValue("from"), &from)
		_, _ = fmt.Sscan(r.FormValue("n"), &n)
		for i := from; i < from+n; i++ {
			at := i % 3
			for dead[at] {
				at = (at + 1) % 3
			}
			if _, err := g.all[at].hub.Publish(r.Context(), "js", []byte(`"x"`), &wsfanout.PublishOptions{ID: fmt.Sprint("m", i)}); err != nil {
				http.Error(w, err.Error(), 500)
				return
			}
		}
	})
	mux.HandleFunc("/drop", func(http.ResponseWriter, *http.Request) {
		for _, s := range g.all {
			s.drop()
		}
	})
	mux.HandleFunc("/kill", func(w http.ResponseWriter, r *http.Request) {
		for i, tr := range g.at {
			if tr.ID() == r.FormValue("node") {
				dead[i] = true
				g.kill(i)
			}
		}
	})
	web := httptest.NewServer(mux)
	defer web.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	profile, err := os.MkdirTemp("", "nines-chromium")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(profile) })
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--remote-debugging-port=0", // stays until it is ended
		"--user-data-dir="+profile, web.URL)
	cmd.WaitDelay = 5 * time.Second
	require.NoError(t, cmd.Start())
	defer func() { cancel(); _ = cmd.Wait() }()
	var out struct {
		IDs    []string
		Gaps   []any
		States []string
		State  string
		Error  string
		Stats  struct{ Resumed, Connects, Duplicates, Holes int }
	}
	select {
	case b := <-result:
		require.NoError(t, json.Unmarshal(b, &out))
	case <-ctx.Done():
		t.Fatal("the browser has not reported")
	}
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprint("m", i))
	}
	require.Empty(t, out.Error)
	require.Equal(t, want, out.IDs)
	require.Empty(t, out.Gaps)
	require.GreaterOrEqual(t, out.Stats.Resumed, 2)
	require.Contains(t, out.States, "connected")
	require.Equal(t, "closed", cmp.Or(out.State, out.States[len(out.States)-1]))
}
