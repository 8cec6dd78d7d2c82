package demo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/demo"
	"github.com/nines-go/nines/internal/lab"
)

// TestMain lets the test binary be a node of the demo, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "demo" && os.Args[2] == "-node" {
		os.Exit(demo.RunNode(os.Args[3]))
	}
	os.Exit(m.Run())
}

func launch(t *testing.T) *demo.Cluster {
	c, err := demo.Launch(t.Context(), 3)
	require.NoError(t, err)
	t.Cleanup(func() {
		dir := c.Dir()
		require.NoError(t, c.Close())
		require.NoDirExists(t, dir)
	})
	return c
}

func settled(t *testing.T, c *demo.Cluster) {
	why := "not asked"
	for end := time.Now().Add(60 * time.Second); why != "" && time.Now().Before(end); {
		why = c.Settled(t.Context())
	}
	require.Empty(t, why)
	for i, url := range c.NodeURLs() { // each one that runs takes work, so that the next may break
		if state := c.States()[i]; state != "running" {
			continue
		}
		require.Eventually(t, func() bool {
			res, err := http.Get(url + "/api/v4/system/ping")
			if err != nil {
				return false
			}
			res.Body.Close()
			return res.StatusCode == http.StatusOK
		}, 60*time.Second, 10*time.Millisecond, "%s is not ready", url)
	}
}

// Every key of the demo, on real processes: what is broken heals, and the proxy answers all the time.
func TestKeys(t *testing.T) {
	c := launch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ping := func() {
		res, err := http.Get(c.URL() + "/api/v4/system/ping")
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
	for _, step := range []struct{ break_, state, mend string }{
		{"k 1", "killed", "r 1"},
		{"z 2", "paused", "z 2"},
		{"p 3", "cut", "p 3"},
		{"t 1", "ended", "r 1"},
	} {
		require.NoError(t, c.Key(ctx, step.break_))
		require.Contains(t, c.States(), step.state)
		ping()
		settled(t, c)
		ping()
		require.NoError(t, c.Key(ctx, step.mend))
		settled(t, c)
	}
	// A node that is cut off stays so while it is paused and afterwards.
	for _, step := range []struct{ line, state string }{{"p 2", "cut"}, {"z 2", "paused"}, {"z 2", "cut"}, {"p 2", "running"}} {
		require.NoError(t, c.Key(ctx, step.line))
		require.Equal(t, step.state, c.States()[1], step.line)
	}
	settled(t, c)
	for _, url := range c.NodeURLs() { // each node's own opinion: who was killed and came back is no fault any more
		text := "not asked"
		for end := time.Now().Add(60 * time.Second); text != "" && time.Now().Before(end); {
			text = red(t, url+"/admin/ha/status.json")
		}
		require.Empty(t, text)
	}
	for _, line := range []string{"x", "k", "k 9", "k two", "r 1"} {
		require.Error(t, c.Key(ctx, line), line)
	}
}

// red returns what a console says when it is red, or does not know the name of a node.
func red(t *testing.T, url string) string {
	res, err := http.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	var d struct {
		Verdict struct{ Level, Text string }
		Nodes   []struct{ ID, Name string }
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&d))
	for _, n := range d.Nodes {
		if n.Name == "" {
			return "a node without a name: " + n.ID
		}
	}
	if d.Verdict.Level == "red" || len(d.Nodes) != 3 {
		return fmt.Sprint(len(d.Nodes), " nodes: ", d.Verdict.Text)
	}
	return ""
}

// Three pages on three nodes in a real browser; the node of the first is killed, and nobody misses or sees twice.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	lab.Need(t, "Chromium", err)
	_, err = exec.LookPath("node")
	lab.Need(t, "Node.js", err)
	playwright, err := filepath.Abs("../../../../.cache/browser/node_modules/playwright-core")
	require.NoError(t, err)
	_, err = os.Stat(playwright)
	lab.Need(t, "playwright-core (scripts/setup)", err)
	c := launch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "testdata/browser.mjs")
	cmd.Env = append(os.Environ(), "CHROMIUM="+chromium, "URL="+c.URL(), "NODES=3", "PLAYWRIGHT="+playwright)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	done := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var says struct {
			Kill string
			Done bool
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &says), lines.Text())
		if says.Kill != "" {
			require.NoError(t, c.Kill(says.Kill))
			_, err := fmt.Fprintln(in, "killed")
			require.NoError(t, err)
		}
		done = done || says.Done
	}
	_, _ = io.Copy(io.Discard, out)
	require.NoError(t, cmd.Wait())
	require.True(t, done)
}
