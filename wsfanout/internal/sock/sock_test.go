package sock_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/sock"
)

const patience = 20 * time.Second

// host is a pool behind a listener. Sockets come out of next; what they read goes to in.
type host struct {
	pool *sock.Pool
	http *httptest.Server
	next chan *sock.Socket
	in   chan string
}

func serve(t testing.TB, cfg sock.Config, secure bool) *host {
	t.Helper()
	h := &host{pool: sock.NewPool(cfg), next: make(chan *sock.Socket, 100), in: make(chan string, 10000)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { h.pool.Run(ctx) })
	h.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := h.pool.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer s.Finish()
		h.next <- s
		for {
			b, _, err := s.Read()
			if err != nil {
				return
			}
			h.in <- string(b)
		}
	}))
	if secure {
		h.http.StartTLS()
	} else {
		h.http.Start()
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		h.http.Close()
	})
	return h
}

func (h *host) dial(t testing.TB) (*websocket.Conn, *sock.Socket) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, h.http.URL, &websocket.DialOptions{HTTPClient: h.http.Client()})
	require.NoError(t, err)
	ws.SetReadLimit(1 << 24)
	t.Cleanup(func() { ws.CloseNow() })
	return ws, <-h.next
}

func read(t testing.TB, ws *websocket.Conn) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := ws.Read(ctx)
	return string(b), err
}

// Frames of all sizes arrive whole and in order beside pings, pongs and what the client sends: on a plain socket and behind TLS.
func TestFrames(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			h := serve(t, sock.Config{}, secure)
			ws, s := h.dial(t)
			const n = 900
			var want []*sock.Frame
			text := func(i int) string {
				return fmt.Sprint(i, " ", strings.Repeat("x", []int{0, 100, 125, 126, 127, 4000, 65535, 65536, 70000}[i%9]))
			}
			for i := range n {
				want = append(want, sock.Text([]byte(text(i))))
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				for _, f := range want {
					for s.Pending() > 500_000 {
						runtime.Gosched()
					}
					s.Send(f)
				}
			})
			wg.Go(func() {
				for i := range 200 {
					if ws.Write(context.Background(), websocket.MessageText, fmt.Append(nil, "up ", i)) != nil {
						return
					}
					if i%4 == 0 {
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						_ = ws.Ping(ctx)
						cancel()
					}
				}
			})
			for i := range n {
				got, err := read(t, ws)
				require.NoError(t, err)
				if got != text(i) {
					t.Fatalf("frame %d: %.20q of %d bytes", i, got, len(got))
				}
			}
			// Pings are answered by the client's Read.
			go func() { _, _ = read(t, ws) }()
			wg.Wait()
			for i := range 200 {
				require.Equal(t, fmt.Sprint("up ", i), <-h.in)
			}
		})
	}
}

// A client that does not read is closed when it is too far behind. What it then reads is a beginning of the stream and the close frame.
func TestBehind(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			h := serve(t, sock.Config{MaxPending: 1 << 20}, secure)
			ws, s := h.dial(t)
			body := strings.Repeat("x", 20_000)
			sent := 0
			for ; s.Send(sock.Text(fmt.Append(nil, sent, " ", body))); sent++ {
				require.Less(t, sent, 5000, "the list is bounded")
			}
			require.GreaterOrEqual(t, sent, 52)
			require.False(t, s.Send(sock.Text(nil)))
			for i := 0; ; i++ {
				got, err := read(t, ws)
				if err != nil {
					require.Equal(t, websocket.StatusCode(sock.CodeBehind), websocket.CloseStatus(err), "%v after %d of %d", err, i, sent)
					break
				}
				require.True(t, strings.HasPrefix(got, fmt.Sprint(i, " ")), "frame %d: %.20s", i, got)
			}
		})
	}
}

// A client that reads again gets everything; the hub is told when there is room.
func TestCatchUp(t *testing.T) {
	h := serve(t, sock.Config{MaxPending: 8 << 20}, false)
	ws, s := h.dial(t)
	body := strings.Repeat("x", 50_000)
	n := 0
	for ; s.Pending() < 4<<20; n++ { // the kernel takes its share first
		require.True(t, s.Send(sock.Text(fmt.Append(nil, n, " ", body))))
	}
	room := make(chan struct{})
	s.WhenDrained(func() { close(room) })
	select {
	case <-room:
		t.Fatal("there is no room yet")
	default:
	}
	for i := range n {
		got, err := read(t, ws)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(got, fmt.Sprint(i, " ")))
	}
	<-room
	require.Eventually(t, func() bool { return s.Pending() == 0 }, patience, time.Millisecond)
	at := make(chan struct{})
	s.WhenDrained(func() { close(at) })
	<-at // at once
	s.Send(sock.Text([]byte("after")))
	got, err := read(t, ws)
	require.NoError(t, err)
	require.Equal(t, "after", got)
}

// A client that stands still has a short list, and no goroutine. When it reads again it gets all that was taken, and the hub is told that there is room.
func TestStandsStill(t *testing.T) {
	h := serve(t, sock.Config{}, false)
	ws, s := h.dial(t)
	before := runtime.NumGoroutine()
	n := 0
	require.Eventually(t, func() bool {
		for s.Offer(sock.Text(fmt.Append(nil, n, " ", strings.Repeat("x", 4000))), sock.Bulk) {
			n++
		}
		list, lagging := s.Waiting()
		return lagging && list <= sock.MaxFrames
	}, patience, time.Millisecond)
	require.LessOrEqual(t, runtime.NumGoroutine(), before, "nobody waits for the socket")
	require.True(t, s.Full())
	room := make(chan struct{})
	s.WhenDrained(func() { close(room) })
	for i := range n {
		got, err := read(t, ws)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(got, fmt.Sprint(i, " ")), "frame %d: %.20s", i, got)
	}
	<-room
	require.True(t, s.Offer(sock.Text([]byte("after")), sock.Bulk))
	got, err := read(t, ws)
	require.NoError(t, err)
	require.Equal(t, "after", got)
	require.Eventually(t, func() bool { list, _ := s.Waiting(); return list == 0 }, patience, time.Millisecond, "an idle socket holds no list")
}

// A socket that takes nothing for the write timeout is cut, not closed as behind: it was not.
func TestStandsStillForTooLong(t *testing.T) {
	h := serve(t, sock.Config{WriteTimeout: 300 * time.Millisecond}, false)
	ws, s := h.dial(t)
	f := sock.Text(make([]byte, 8000))
	require.Eventually(t, func() bool {
		for s.Pending() < 1<<19 { // the kernel takes more and more at first
			if !s.Send(f) {
				return true
			}
		}
		return false
	}, patience, time.Millisecond, "it is closing")
	require.Zero(t, s.Pending(), "what waited is dropped")
	for {
		if _, err := read(t, ws); err != nil {
			break
		}
	}
}

// slot is a connection that notes when it is written to.
type slot struct {
	net.Conn
	write func() error
}

func (s slot) TryWrite(b []byte) (int, error) { return len(b), s.write() }
func (s slot) Close() error                   { return nil }

// A message for one is written before the rest of one for thousands.
func TestDirectLane(t *testing.T) {
	p := sock.NewPool(sock.Config{Shards: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	f := sock.Text([]byte("x"))
	const members = 5000
	begun, hold, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	written, at := 0, map[string]int{} // the worker's
	member := func(i int) error {
		if written++; written == 1 {
			close(begun)
			<-hold
		}
		if written == members+2 {
			close(done)
		}
		return nil
	}
	direct := func(name string) *sock.Socket {
		return p.Adopt(slot{write: func() error { at[name] = written; return member(-1) }})
	}
	first := p.Adopt(slot{write: func() error { return member(0) }})
	first.Offer(f, sock.Bulk)
	<-begun
	var last *sock.Socket
	for i := 1; i < members; i++ {
		last = p.Adopt(slot{write: func() error {
			if i == members-1 && at["member"] == 0 {
				at["member"] = written
			}
			return member(i)
		}})
		last.Offer(f, sock.Bulk)
	}
	direct("other").Offer(f, sock.Direct)
	last.Offer(f, sock.Direct) // it waits for the other as well: both go at once
	p.Adopt(slot{write: func() error { return member(0) }}).Offer(f, sock.Bulk)
	close(hold)
	<-done
	require.LessOrEqual(t, at["other"], 64)
	require.LessOrEqual(t, at["member"], 64)
}

func TestClose(t *testing.T) {
	h := serve(t, sock.Config{Linger: 200 * time.Millisecond}, false)
	ws, s := h.dial(t)
	s.Send(sock.Text([]byte("last")))
	s.Close(4321, "why "+strings.Repeat("ü", 100))
	s.Close(1000, "only the first counts")
	require.False(t, s.Send(sock.Text([]byte("too late"))))
	got, err := read(t, ws)
	require.NoError(t, err)
	require.Equal(t, "last", got)
	_, err = read(t, ws)
	require.Equal(t, websocket.StatusCode(4321), websocket.CloseStatus(err))

	// The client closes.
	ws, _ = h.dial(t)
	require.NoError(t, ws.Close(websocket.StatusNormalClosure, "bye"))

	// A client that never answers is cut.
	conn, _ := handshake(t, h, "")
	s = <-h.next
	s.Close(1012, "")
	conn.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, []byte{0x88, 2, 1012 >> 8, 1012 & 0xff}, b)
}

// handshake is a client by hand. It sends more together with the request.
func handshake(t testing.TB, h *host, more string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", h.http.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"+more)
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	return conn, r
}

// What a client sends before it has our answer is not lost, and the answer leaves before any frame.
func TestEarlyBytes(t *testing.T) {
	h := serve(t, sock.Config{}, false)
	frame := func(s string) string {
		return string(append([]byte{0x81, 0x80 | byte(len(s)), 0, 0, 0, 0}, s...))
	}
	_, r := handshake(t, h, frame("one")+frame("two")+"\x89\x80\x00\x00\x00\x00")
	require.Equal(t, "one", <-h.in)
	require.Equal(t, "two", <-h.in)
	var head [2]byte
	_, err := io.ReadFull(r, head[:])
	require.NoError(t, err)
	require.Equal(t, [2]byte{0x8a, 0}, head, "the pong")
}

// The silent are pinged, the dead dropped.
func TestSilence(t *testing.T) {
	h := serve(t, sock.Config{PingInterval: 150 * time.Millisecond, Ping: sock.Text([]byte("ping"))}, false)
	ws, _ := h.dial(t)
	for range 5 { // reading answers pings: it stays for longer than three intervals
		got, err := read(t, ws)
		require.NoError(t, err)
		require.Equal(t, "ping", got)
	}
	conn, r := handshake(t, h, "")
	conn.SetReadDeadline(time.Now().Add(patience))
	b, _ := io.ReadAll(r)
	require.Contains(t, string(b), "\x89\x00", "it was pinged before it was dropped")
}

// Many send at the same time, sockets come and go, the pool stops in the middle: nothing hangs, nothing is left.
func TestRaceThem(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("pool", func(t *testing.T) {
		h := serve(t, sock.Config{MaxPending: 1 << 18, Linger: 50 * time.Millisecond}, false)
		f := sock.Text([]byte(strings.Repeat("x", 1000)))
		var wg sync.WaitGroup
		for i := range 20 {
			ws, s := h.dial(t)
			wg.Go(func() {
				for s.Send(f) {
					if i%3 == 0 {
						runtime.Gosched()
					}
				}
			})
			wg.Go(func() {
				for range 50 * i {
					if _, err := read(t, ws); err != nil {
						return
					}
				}
				switch i % 4 {
				case 0:
					s.Close(1000, "")
				case 1:
					ws.CloseNow()
				case 2:
					ws.Close(1000, "")
				}
			})
		}
		wg.Wait()
	})
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			t.Fatalf("goroutines are left:\n%s", b[:runtime.Stack(b, true)])
		}
	}
}

// A pass over a socket costs no allocation.
func BenchmarkFanOut(b *testing.B) {
	h := serve(b, sock.Config{MaxPending: 64 << 20}, false)
	var all []*sock.Socket
	var wg sync.WaitGroup
	for range 200 {
		conn, r := handshake(b, h, "")
		_ = conn
		all = append(all, <-h.next)
		wg.Go(func() { _, _ = io.Copy(io.Discard, r) })
	}
	f := sock.Text([]byte(strings.Repeat("x", 128)))
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range all {
			s.Send(f)
		}
		for _, s := range all {
			for s.Pending() > 1<<20 {
				runtime.Gosched()
			}
		}
	}
	b.ReportMetric(float64(b.N*len(all))/b.Elapsed().Seconds(), "deliveries/s")
	for _, s := range all {
		s.Close(1000, "")
	}
}

// A control frame that comes in pieces is queued whole.
func FuzzFrameLength(f *testing.F) {
	f.Add([]byte("x"), 3)
	f.Add(make([]byte, 70000), 1)
	f.Add(make([]byte, 126), 4)
	f.Fuzz(func(t *testing.T, payload []byte, cut int) {
		b := sock.Bytes(sock.Text(payload))
		n, ok := sock.FrameLen(b)
		require.True(t, ok)
		require.Equal(t, len(b), n)
		if cut = max(0, cut) % len(b); cut < 2 {
			_, ok = sock.FrameLen(b[:cut])
			require.False(t, ok)
		}
		switch size := len(payload); {
		case size > 65535:
			require.EqualValues(t, size, binary.BigEndian.Uint64(b[2:]))
		case size > 125:
			require.EqualValues(t, size, binary.BigEndian.Uint16(b[2:]))
		}
	})
}

// Of a dropped list only the rest of the frame stays that the client has seen the beginning of.
func TestDropKeepsWhatHasBegun(t *testing.T) {
	a, b, c := sock.Text([]byte("aaaa")), sock.Text([]byte("bbbb")), sock.Text([]byte("cccc")) // of 6 bytes
	for _, during := range []bool{true, false} {
		for n, want := range map[int]string{0: "", 2: "aaaa", 6: "", 7: "\x04bbbb", 11: "b"} {
			left, bytes := sock.Left(during, n, []*sock.Frame{a, b}, []*sock.Frame{c})
			require.Equal(t, want, string(left), "%v after %d", during, n)
			require.Equal(t, len(want), bytes)
		}
	}
}
