package main_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/lab"
)

const long = 60 * time.Second

// TestProgram runs the program twice on one database: both become ready and end on SIGTERM with status 0.
func TestProgram(t *testing.T) {
	db := lab.Postgres(t, 0).URL(0)
	dir := t.TempDir()
	program := filepath.Join(dir, "embed")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	key := cluster.FormatKey(cluster.NewKey())

	var running []*exec.Cmd
	var logs [2]bytes.Buffer
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := l.Addr().String()
		require.NoError(t, l.Close())
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), "DB="+db, "FILES="+dir, "CLUSTER_KEY="+key, "LISTEN="+addr, "GOSSIP=127.0.0.1:0")
		cmd.Stderr = &logs[i]
		require.NoError(t, cmd.Start())
		running = append(running, cmd)
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		require.Eventually(t, func() bool {
			res, err := http.Get("http://" + addr + "/readyz")
			if err != nil {
				return false
			}
			res.Body.Close()
			return res.StatusCode == http.StatusOK
		}, long, 50*time.Millisecond)
		res, err := http.Get("http://" + addr + "/ha/")
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
	for i, cmd := range running {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			require.NoError(t, err, "%s", logs[i].String())
		case <-time.After(long):
			require.FailNow(t, "it did not end")
		}
	}
}
