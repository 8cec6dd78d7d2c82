package clustertest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// pair is a stream from host a to host b.
func pair(t require.TestingT, n *clustertest.Network) (near, far net.Conn) {
	l, err := n.Host("b").Listen(context.Background(), ":0")
	require.NoError(t, err)
	defer l.Close()
	near, err = n.Host("a").Dial(context.Background(), l.Addr().String())
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	return near, far
}

func TestStreamsAreNetConns(t *testing.T) {
	for name, delay := range map[string]time.Duration{"at once": 0, "delayed": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				n := clustertest.New(1)
				n.Delay(delay/2, delay)
				c1, c2 = pair(t, n)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

func TestStreamHasBackPressureAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		n.Delay(time.Millisecond, 20*time.Millisecond)
		near, far := pair(t, n)
		sent := make([]byte, 1<<20)
		rand.Read(sent)
		written := make(chan error, 1)
		go func() {
			_, err := near.Write(sent)
			near.(interface{ CloseWrite() error }).CloseWrite()
			written <- err
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Fatal("1 MiB was written to a peer that does not read")
		case <-time.After(time.Hour):
		}
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		require.True(t, bytes.Equal(sent, got))
		require.NoError(t, <-written)
		_, err = far.Write([]byte("the other half goes on"))
		require.NoError(t, err)
		require.NoError(t, far.Close())
		got, err = io.ReadAll(near)
		require.NoError(t, err)
		require.Equal(t, "the other half goes on", string(got))
		require.NoError(t, near.Close())
		require.Zero(t, n.Streams())
		_, err = near.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestWriteToAClosedPeerIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		near, far := pair(t, n)
		require.NoError(t, far.Close())
		_, err := near.Write([]byte("x"))
		require.NoError(t, err, "the reset comes after it")
		_, err = near.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		near.Close()
		require.Zero(t, n.Streams())
	})
}

func TestCutHoldsStreamsUntilTheNextRetransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		near, far := pair(t, n)
		n.CutPair("a", "b")
		_, err := near.Write([]byte("held"))
		require.NoError(t, err)
		b := make([]byte, 16)
		far.SetReadDeadline(time.Now().Add(time.Second))
		_, err = far.Read(b)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		far.SetReadDeadline(time.Time{})
		time.Sleep(time.Second) // sent again at 0.2, 0.6, 1.4, 3.0 s
		n.Heal()
		at := time.Now()
		k, err := far.Read(b)
		require.NoError(t, err)
		require.Equal(t, "held", string(b[:k]))
		require.Equal(t, time.Second, time.Since(at))
		near.Close()
		far.Close()
	})
}

func TestRetransmissions(t *testing.T) {
	at := time.Unix(0, 0)
	for after, want := range map[time.Duration]time.Duration{
		0: 0, 1: 200 * time.Millisecond, 201 * time.Millisecond: 600 * time.Millisecond, 601 * time.Millisecond: 1400 * time.Millisecond,
		204 * time.Second: 204600 * time.Millisecond, 205 * time.Second: 324600 * time.Millisecond, 325 * time.Second: 444600 * time.Millisecond,
	} {
		require.Equal(t, want, clustertest.Retransmission(at, at.Add(after)).Sub(at), after)
	}
}

func TestOneWayCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		near, far := pair(t, n)
		n.CutOneWay("b", "a")
		_, err := near.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
		_, err = far.Write([]byte("y"))
		require.NoError(t, err)
		near.SetReadDeadline(time.Now().Add(time.Minute))
		_, err = near.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)

		read := make(chan int64, 1)
		go func() { k, _ := io.Copy(io.Discard, far); read <- k }()
		near.SetWriteDeadline(time.Now().Add(time.Minute))
		k, err := near.Write(make([]byte, 1<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "without acknowledgements the window fills")
		near.Close()
		require.EqualValues(t, k, <-read)
		far.Close()
		n.Heal()
		require.Zero(t, n.Streams())
	})
}

func TestKillResetsAndRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		n := clustertest.New(1)
		b := n.Host("b")
		l, err := b.Listen(ctx, ":70")
		require.NoError(t, err)
		near, err := n.Host("a").Dial(ctx, "b:70")
		require.NoError(t, err)
		far, err := l.Accept()
		require.NoError(t, err)
		waiting, err := n.Host("a").Dial(ctx, b.Addr()+":70")
		require.NoError(t, err)
		_, err = far.Write([]byte("last words"))
		require.NoError(t, err)
		accepted := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			accepted <- err
		}()
		synctest.Wait()
		n.Kill("b")
		require.ErrorIs(t, <-accepted, net.ErrClosed)
		got, err := io.ReadAll(near)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, "last words", string(got))
		_, err = waiting.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = far.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = n.Host("a").Dial(ctx, "b:70")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		_, err = b.Listen(ctx, ":70")
		require.ErrorIs(t, err, net.ErrClosed, "the killed process stays dead")
		_, err = b.Dial(ctx, "b:70")
		require.ErrorIs(t, err, net.ErrClosed)

		again, err := n.Host("b").Listen(ctx, ":70")
		require.NoError(t, err, "the next process has the port")
		c, err := n.Host("a").Dial(ctx, "b:70")
		require.NoError(t, err)
		for _, c := range []io.Closer{c, again, near, waiting} {
			require.NoError(t, c.Close())
		}
		require.Zero(t, n.Streams())
	})
}

func TestKillBehindACutIsLearntAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		near, far := pair(t, n)
		_ = far
		n.Partition([]string{"b"})
		n.Kill("b")
		near.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := near.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		_, err = near.Write([]byte("x"))
		require.NoError(t, err)
		n.Heal()
		near.SetReadDeadline(time.Time{})
		_, err = near.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		near.Close()
		require.Zero(t, n.Streams())
	})
}

func TestDialsAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		l, err := n.Host("b").Listen(t.Context(), "0.0.0.0:70")
		require.NoError(t, err)
		n.CutOneWay("b", "a")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err = n.Host("a").Dial(ctx, "b:70")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		at := time.Now()
		time.AfterFunc(1500*time.Millisecond, n.Heal)
		c, err := n.Host("a").Dial(t.Context(), "b:70")
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, time.Since(at))
		c.Close()

		_, err = n.Host("a").Dial(t.Context(), "10.9.9.9:70")
		require.ErrorIs(t, err, syscall.ETIMEDOUT, "nobody has that address")
		_, err = n.Host("a").Dial(t.Context(), "nowhere:70")
		var dns *net.DNSError
		require.ErrorAs(t, err, &dns)
		l.Close()
	})
}

func TestPauseStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		near, far := pair(t, n)
		l, err := n.Host("b").Listen(t.Context(), ":70")
		require.NoError(t, err)
		n.Pause("b")
		_, err = near.Write([]byte("x"))
		require.NoError(t, err)
		c, err := n.Host("a").Dial(t.Context(), "b:70")
		require.NoError(t, err, "its kernel answers")
		for _, op := range []func(b []byte) (int, error){far.Read, far.Write} {
			far.SetDeadline(time.Now().Add(time.Minute))
			_, err = op(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		far.SetDeadline(time.Time{})
		dialled := make(chan error, 1)
		go func() {
			c, err := n.Host("b").Dial(t.Context(), "b:70")
			if err == nil {
				c.Close()
			}
			dialled <- err
		}()
		accepted := make(chan net.Conn, 1)
		go func() { c, _ := l.Accept(); accepted <- c }()
		time.Sleep(time.Minute)
		require.Empty(t, dialled)
		require.Empty(t, accepted)
		n.Resume("b")
		require.NoError(t, <-dialled)
		(<-accepted).Close()
		_, err = io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
		for _, c := range []io.Closer{c, l, near, far} {
			c.Close()
		}
	})
}

func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(7)
		a, err := n.Host("a").ListenPacket(t.Context(), ":70")
		require.NoError(t, err)
		b, err := n.Host("b").ListenPacket(t.Context(), ":70")
		require.NoError(t, err)
		buf := make([]byte, 16)
		count := func() (got int) {
			for {
				b.SetReadDeadline(time.Now().Add(time.Second))
				k, from, err := b.ReadFrom(buf)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return got
				}
				require.NoError(t, err)
				require.Equal(t, "hello", string(buf[:k]))
				require.Equal(t, a.LocalAddr().String(), from.String())
				got++
			}
		}
		send := func(times int) {
			for range times {
				_, err := a.WriteTo([]byte("hello"), b.LocalAddr())
				require.NoError(t, err)
			}
		}
		send(10)
		require.Equal(t, 10, count())
		n.Loss(0.3)
		send(500)
		require.InDelta(t, 350, count(), 40)
		n.Loss(1)
		send(10)
		require.Zero(t, count())
		n.Loss(0)
		n.CutOneWay("a", "b")
		send(10)
		require.Zero(t, count())
		n.Heal()
		n.Delay(10*time.Millisecond, 500*time.Millisecond)
		send(10)
		require.Equal(t, 10, count())
		send(100000)
		require.Less(t, count(), 1000, "queues are bounded")
		read := make(chan error, 1)
		b.SetReadDeadline(time.Time{})
		go func() { _, _, err := b.ReadFrom(buf); read <- err }()
		synctest.Wait()
		b.Close()
		require.ErrorIs(t, <-read, net.ErrClosed)
		_, err = a.WriteTo(make([]byte, 1<<16), b.LocalAddr())
		require.ErrorIs(t, err, syscall.EMSGSIZE)
		a.Close()
	})
}

func TestPortsAreTakenOnce(t *testing.T) {
	n := clustertest.New(1)
	h := n.Host("a")
	_, err := h.Listen(t.Context(), "127.0.0.1:70")
	require.NoError(t, err)
	_, err = h.Listen(t.Context(), "a:70")
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	_, err = h.ListenPacket(t.Context(), h.Addr()+":70")
	require.NoError(t, err)
	_, err = h.Listen(t.Context(), "10.7.7.7:70")
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	_, err = h.Listen(t.Context(), "70")
	require.Error(t, err)
}

func TestSameSeedSameLosses(t *testing.T) {
	draw := func(seed uint64) (got []bool) {
		synctest.Test(t, func(t *testing.T) {
			n := clustertest.New(seed)
			n.Loss(0.5)
			a, _ := n.Host("a").ListenPacket(t.Context(), ":70")
			b, _ := n.Host("b").ListenPacket(t.Context(), ":70")
			for range 100 {
				a.WriteTo([]byte("x"), b.LocalAddr())
				b.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, _, err := b.ReadFrom(make([]byte, 1))
				got = append(got, err == nil)
			}
		})
		return got
	}
	require.Equal(t, draw(1), draw(1))
	require.NotEqual(t, draw(1), draw(2))
}

func TestTLSOverIt(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	require.NoError(t, err)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(1)
		n.Delay(time.Millisecond, 50*time.Millisecond)
		near, far := pair(t, n)
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{cert}})
		go func() {
			io.Copy(server, server)
			server.Close()
		}()
		require.NoError(t, client.Handshake())
		sent := make([]byte, 1<<20)
		rand.Read(sent)
		go func() {
			client.Write(sent)
			client.CloseWrite()
		}()
		got, err := io.ReadAll(client)
		require.NoError(t, err)
		require.True(t, bytes.Equal(sent, got))
		client.Close()
	})
}

func TestDiscoveryInMemory(t *testing.T) {
	net := clustertest.New(1)
	clustertest.TestDiscovery(t, func(*testing.T) cluster.Discovery { return net.Discovery() })
}
