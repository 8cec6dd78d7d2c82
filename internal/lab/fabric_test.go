package lab_test

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
)

func TestFabric(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		l, err := net.Listen("tcp", "10.10.10.9:8080")
		require.NoError(t, err)
		for {
			c, err := l.Accept()
			require.NoError(t, err)
			_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}
	f := lab.NewFabric(t, "10.10.10.7", "10.10.10.9")
	server := f.Command(1, os.Args[0], "-test.run=^"+t.Name()+"$")
	server.Env = append(os.Environ(), childEnv+"=1")
	require.NoError(t, server.Start())
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	dial := func(d time.Duration) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		c, err := f.Dial(ctx, 0, "10.10.10.9:8080")
		if err != nil {
			return "", err
		}
		defer c.Close()
		text, err := io.ReadAll(c)
		return string(text), err
	}
	require.Eventually(t, func() bool { text, err := dial(time.Second); return err == nil && text == "10.10.10.7" }, time.Minute, 10*time.Millisecond)
	f.Cut(1)
	_, err := dial(300 * time.Millisecond)
	require.Error(t, err)
	f.Plug(1)
	require.Eventually(t, func() bool { _, err := dial(5 * time.Second); return err == nil }, time.Minute, 10*time.Millisecond)
}
