package web_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/web"
	"github.com/nines-go/nines/internal/lab"
)

// TestPage runs the page's parts in Node.js.
func TestPage(t *testing.T) {
	node, err := exec.LookPath("node")
	lab.Need(t, "Node.js", err)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("static")))
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type":"module"}`), 0o600))
	cmd := exec.CommandContext(t.Context(), node, "page.test.mjs")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestStrictPolicyIsKept looks for what a content security policy without unsafe-inline refuses.
func TestStrictPolicyIsKept(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:|innerHTML|insertAdjacentHTML|\beval\(`)
	require.NoError(t, fs.WalkDir(os.DirFS("static"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join("static", path))
		require.NoError(t, err)
		if filepath.Ext(path) != ".css" {
			require.Empty(t, inline.FindAllString(string(text), -1), path)
		}
		return nil
	}))
}

func TestHandler(t *testing.T) {
	for _, c := range []struct {
		method, path string
		code         int
	}{{"GET", "/", 200}, {"HEAD", "/app.js", 200}, {"GET", "/none", 404}, {"POST", "/", 405}, {"GET", "/../web.go", 404}} {
		w := httptest.NewRecorder()
		web.Handler().ServeHTTP(w, httptest.NewRequest(c.method, "http://x"+c.path, http.NoBody))
		require.Equal(t, c.code, w.Code, c.path)
	}
}
