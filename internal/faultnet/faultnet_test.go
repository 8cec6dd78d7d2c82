package faultnet_test

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

var _ cluster.Network = (*faultnet.Network)(nil)

func pair(t *testing.T, n *faultnet.Network) (near, far net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	near, err = n.Dial(t.Context(), l.Addr().String())
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestStreamStandsStillAndLosesNothing(t *testing.T) {
	n := faultnet.New(nil)
	near, far := pair(t, n)
	n.Cut()
	_, err := far.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, near.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	b := make([]byte, 3)
	_, err = near.Read(b)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, near.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
	_, err = near.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	n.Heal()
	require.NoError(t, near.SetDeadline(time.Time{}))
	b = make([]byte, 5)
	_, err = io.ReadFull(near, b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))
	_, err = near.Write([]byte("y"))
	require.NoError(t, err)
	_, err = io.ReadFull(far, b[:1])
	require.NoError(t, err)
	require.Equal(t, "y", string(b[:1]))
}

func TestReadInFlightIsHeld(t *testing.T) {
	n := faultnet.New(nil)
	near, far := pair(t, n)
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 16)
		k, _ := near.Read(b)
		got <- string(b[:k])
	}()
	n.Cut()
	_, err := far.Write([]byte("late"))
	require.NoError(t, err)
	select {
	case s := <-got:
		t.Fatalf("read %q through a cut network", s)
	case <-time.After(50 * time.Millisecond):
	}
	n.Heal()
	require.Equal(t, "late", <-got)
}

func TestDialAndAcceptWait(t *testing.T) {
	n := faultnet.New(nil)
	l, err := n.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	n.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = n.Dial(ctx, l.Addr().String())
	require.ErrorIs(t, err, context.DeadlineExceeded)

	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	done := make(chan error, 1)
	go func() { _, err := l.Accept(); done <- err }()
	select {
	case <-done:
		t.Fatal("accepted through a cut network")
	case <-time.After(50 * time.Millisecond):
	}
	n.Heal()
	require.NoError(t, <-done)
}

func TestDatagramsVanish(t *testing.T) {
	n := faultnet.New(nil)
	a, err := n.ListenPacket(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer a.Close()
	b, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer b.Close()
	n.Cut()
	_, err = a.WriteTo([]byte("lost"), b.LocalAddr())
	require.NoError(t, err)
	n.Heal()
	_, err = a.WriteTo([]byte("kept"), b.LocalAddr())
	require.NoError(t, err)
	buf := make([]byte, 16)
	k, _, err := b.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "kept", string(buf[:k]))
}

func TestCloseEndsAHeldRead(t *testing.T) {
	n := faultnet.New(nil)
	near, far := pair(t, n)
	n.Cut()
	_, err := far.Write([]byte("x"))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { _, err := near.Read(make([]byte, 1)); done <- err }()
	require.NoError(t, near.Close())
	require.Error(t, <-done)
}
