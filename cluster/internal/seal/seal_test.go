package seal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/seal"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func datagrams(t testing.TB, sender, cluster string, keys ...[]byte) *seal.Datagrams {
	t.Helper()
	d, err := seal.NewDatagrams(sender, cluster, keys)
	require.NoError(t, err)
	return d
}

func TestDatagrams(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to *seal.Datagrams
		want     error
	}{
		{"same key", datagrams(t, "a", "x", key(1)), datagrams(t, "b", "x", key(1)), nil},
		{"second key opens", datagrams(t, "a", "x", key(2)), datagrams(t, "b", "x", key(1), key(2)), nil},
		{"plain", datagrams(t, "a", "x"), datagrams(t, "b", "x"), nil},
		{"wrong key", datagrams(t, "a", "x", key(2)), datagrams(t, "b", "x", key(1)), seal.ErrKey},
		{"wrong cluster", datagrams(t, "a", "y", key(1)), datagrams(t, "b", "x", key(1)), seal.ErrKey},
		{"plain, wrong cluster", datagrams(t, "a", "y"), datagrams(t, "b", "x"), seal.ErrCluster},
		{"plain to sealed", datagrams(t, "a", "x"), datagrams(t, "b", "x", key(1)), seal.ErrKey},
		{"sealed to plain", datagrams(t, "a", "x", key(1)), datagrams(t, "b", "x"), seal.ErrKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := []byte("hello, world")
			packet := c.from.Seal([]byte("before"), text)
			require.Len(t, packet, len("before")+len(text)+c.from.Overhead())
			out, sender, err := c.to.Open([]byte("pre"), packet[len("before"):])
			require.ErrorIs(t, err, c.want)
			if c.want == nil {
				require.Equal(t, "a", sender)
				require.Equal(t, "prehello, world", string(out))
			}
		})
	}
}

func TestEveryChangedByteIsRefused(t *testing.T) {
	from := datagrams(t, "a", "x", key(1))
	packet := from.Seal(nil, []byte("text"))
	for i := range packet {
		to := datagrams(t, "b", "x", key(1))
		changed := bytes.Clone(packet)
		changed[i] ^= 1
		_, _, err := to.Open(nil, changed)
		require.Error(t, err, "byte %d", i)
		_, _, err = to.Open(nil, packet[:i])
		require.Error(t, err, "cut at %d", i)
	}
}

func TestReplayIsDropped(t *testing.T) {
	for _, keys := range [][][]byte{{key(1)}, nil} {
		from, to := datagrams(t, "a", "x", keys...), datagrams(t, "b", "x", keys...)
		var packets [][]byte
		for range 3 * seal.Window {
			packets = append(packets, from.Seal(nil, []byte("text")))
		}
		open := func(i int) error {
			_, _, err := to.Open(nil, packets[i])
			return err
		}
		require.NoError(t, open(10))
		require.ErrorIs(t, open(9), seal.ErrReplay, "nothing below the first")
		require.NoError(t, open(12))
		require.NoError(t, open(11), "out of order, once")
		require.ErrorIs(t, open(11), seal.ErrReplay)
		require.NoError(t, open(10+seal.Window))
		require.ErrorIs(t, open(10), seal.ErrReplay)
		require.NoError(t, open(13))
		require.NoError(t, open(len(packets)-1))
		for i := range len(packets) - seal.Window {
			require.ErrorIs(t, open(i), seal.ErrReplay)
		}
		for i := len(packets) - seal.Window; i < len(packets)-1; i++ {
			require.NoError(t, open(i))
			require.ErrorIs(t, open(i), seal.ErrReplay)
		}
	}
}

func TestAnEarlierProcessOfTheSameNameIsDropped(t *testing.T) {
	old := datagrams(t, "a", "x", key(1))
	young := datagrams(t, "a", "x", key(1))
	to := datagrams(t, "b", "x", key(1))
	open := func(d *seal.Datagrams) error {
		_, _, err := to.Open(nil, d.Seal(nil, []byte("text")))
		return err
	}
	require.NoError(t, open(old))
	require.NoError(t, open(young))
	require.ErrorIs(t, open(old), seal.ErrReplay)
	require.NoError(t, open(young))
}

func TestKeysAreReplacedWhileDatagramsFlow(t *testing.T) {
	a, b := datagrams(t, "a", "x", key(1)), datagrams(t, "b", "x", key(1))
	ok := func() {
		t.Helper()
		for _, d := range [][2]*seal.Datagrams{{a, b}, {b, a}} {
			_, _, err := d[1].Open(nil, d[0].Seal(nil, []byte("text")))
			require.NoError(t, err)
		}
	}
	for _, step := range [][][]byte{{key(1), key(2)}, {key(2), key(1)}, {key(2)}} {
		for _, d := range []*seal.Datagrams{a, b} {
			ok()
			require.NoError(t, d.SetKeys(step))
			ok()
		}
	}
	require.Error(t, a.SetKeys([][]byte{make([]byte, 31)}))
}

func streams(t testing.TB, cluster string, keys ...[]byte) *seal.Streams {
	t.Helper()
	s, err := seal.NewStreams(cluster, keys)
	require.NoError(t, err)
	return s
}

// meet lets both sides of a connection greet each other.
func meet(ctx context.Context, client, server *seal.Streams) (c, s net.Conn, cerr, serr error) {
	x, y := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { c, cerr = client.Client(ctx, x) })
	wg.Go(func() { s, serr = server.Server(ctx, y) })
	wg.Wait()
	return c, s, cerr, serr
}

func TestStreams(t *testing.T) {
	for _, c := range []struct {
		name           string
		client, server *seal.Streams
		want           error
		says           string
	}{
		{"same key", streams(t, "x", key(1)), streams(t, "x", key(1)), nil, ""},
		{"a key in common", streams(t, "x", key(1), key(2)), streams(t, "x", key(3), key(2)), nil, ""},
		{"plain", streams(t, "x"), streams(t, "x"), nil, ""},
		{"wrong key", streams(t, "x", key(1)), streams(t, "x", key(2)), seal.ErrKey, "none of the 1 keys"},
		{"wrong cluster", streams(t, "x", key(1)), streams(t, "y", key(1)), seal.ErrCluster, `belongs to "x", this process to "y"`},
		{"plain, wrong cluster", streams(t, "x"), streams(t, "y"), seal.ErrCluster, `belongs to "x", this process to "y"`},
		{"plain to keys", streams(t, "x"), streams(t, "x", key(1)), seal.ErrKey, "without keys"},
		{"keys to plain", streams(t, "x", key(1)), streams(t, "x"), seal.ErrKey, "without keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server, cerr, serr := meet(t.Context(), c.client, c.server)
			require.ErrorIs(t, serr, c.want)
			if c.want != nil {
				require.ErrorContains(t, serr, c.says)
				require.Error(t, cerr)
				require.ErrorIs(t, cerr, c.want)
				return
			}
			require.NoError(t, cerr)
			text := bytes.Repeat([]byte("0123456789"), 10000)
			var wg sync.WaitGroup
			wg.Go(func() {
				client.Write(text)
				client.Close()
			})
			got, err := io.ReadAll(server)
			if err != nil {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF) // no closing alert
			}
			wg.Wait()
			require.Equal(t, text, got)
		})
	}
}

// TestSomebodyInTheMiddleIsRefused relays between two TLS connections of its own.
func TestSomebodyInTheMiddleIsRefused(t *testing.T) {
	secret, stranger := streams(t, "x", key(1)), streams(t, "x", key(9))
	cc, cm := net.Pipe()
	sm, ss := net.Pipe()
	var cerr, serr error
	var wg sync.WaitGroup
	wg.Go(func() { _, cerr = secret.Client(t.Context(), cc) })
	wg.Go(func() { _, serr = secret.Server(t.Context(), ss) })
	left, right := seal.RawTLS(stranger, cm, false), seal.RawTLS(stranger, sm, true)
	wg.Go(func() { io.Copy(right, left); right.Close() })
	wg.Go(func() { io.Copy(left, right); left.Close() })
	wg.Wait()
	require.Error(t, cerr)
	require.ErrorIs(t, serr, seal.ErrKey)
}

func TestASilentPeerTakesFiveSeconds(t *testing.T) {
	for _, keys := range [][][]byte{{key(1)}, nil} {
		synctest.Test(t, func(t *testing.T) {
			s := streams(t, "x", keys...)
			for _, side := range []func(context.Context, net.Conn) (net.Conn, error){s.Client, s.Server} {
				x, y := net.Pipe()
				began := time.Now()
				_, err := side(t.Context(), x)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, seal.HandshakeTimeout, time.Since(began))
				y.Close()
			}
			ctx, cancel := context.WithCancel(t.Context())
			x, _ := net.Pipe()
			time.AfterFunc(time.Second, cancel)
			_, err := s.Client(ctx, x)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

func TestGarbageIsNamed(t *testing.T) {
	for _, keys := range [][][]byte{{key(1)}, nil} {
		s := streams(t, "x", keys...)
		x, y := net.Pipe()
		go io.Copy(io.Discard, y)
		go io.Copy(y, strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		_, err := s.Server(t.Context(), x)
		require.True(t, errors.Is(err, seal.ErrFormat) || errors.Is(err, seal.ErrKey), "%v", err)
		y.Close()
	}
}

func FuzzOpen(f *testing.F) {
	a := datagrams(f, "a", "x", key(1))
	f.Add(a.Seal(nil, []byte("text")))
	f.Add(datagrams(f, "a", "x").Seal(nil, []byte("text")))
	f.Add([]byte{0xE1, 255})
	f.Add([]byte{0xE0, 1, 'a'})
	sealed, plain := datagrams(f, "b", "x", key(2)), datagrams(f, "b", "x")
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, _, err := sealed.Open(nil, packet); err == nil {
			t.Fatal("forged")
		}
		plain.Open(nil, packet)
	})
}

func BenchmarkDatagram(b *testing.B) {
	from, to := datagrams(b, "a", "x", key(1)), datagrams(b, "b", "x", key(1))
	text := make([]byte, 1000)
	var packet, out []byte
	b.ReportAllocs()
	for b.Loop() {
		packet = from.Seal(packet[:0], text)
		var err error
		if out, _, err = to.Open(out[:0], packet); err != nil {
			b.Fatal(err)
		}
	}
}
