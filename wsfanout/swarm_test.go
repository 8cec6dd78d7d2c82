//go:build linux

package wsfanout_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// swarm is thousands of sockets that one goroutine reads: the race detector has no room for a goroutine each.
type swarm struct {
	t    testing.TB
	poll int
	wake int // ends run
	wg   sync.WaitGroup

	mu   sync.Mutex
	byFD map[int32]*member
}

// member is one socket of a swarm.
type member struct {
	swarm *swarm
	conn  *net.TCPConn
	fd    int32
	rest  []byte
	frame func(payload []byte) // of the swarm's goroutine
	code  int                  // of the close frame
}

func newSwarm(t testing.TB) *swarm {
	t.Helper()
	s := &swarm{t: t, byFD: map[int32]*member{}}
	var err error
	s.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	require.NoError(t, err)
	s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	require.NoError(t, err)
	require.NoError(t, unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, s.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.wake)}))
	s.wg.Go(s.run)
	t.Cleanup(func() {
		_, _ = unix.Write(s.wake, binary.NativeEndian.AppendUint64(nil, 1))
		s.wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range s.byFD {
			m.conn.Close()
		}
		unix.Close(s.poll)
		unix.Close(s.wake)
	})
	return s
}

// dial makes the handshake. Nothing is read before read is called.
func (s *swarm) dial(url string, frame func(payload []byte)) *member {
	s.t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	c, err := net.DialTimeout("tcp", host, patience)
	require.NoError(s.t, err)
	m := &member{swarm: s, conn: c.(*net.TCPConn), frame: frame}
	require.NoError(s.t, m.conn.SetReadBuffer(4096))
	_, err = fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path, host)
	require.NoError(s.t, err)
	require.NoError(s.t, c.SetReadDeadline(time.Now().Add(patience)))
	r := bufio.NewReaderSize(c, 4096)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(s.t, err)
	require.Equal(s.t, 101, resp.StatusCode)
	rest, _ := r.Peek(r.Buffered())
	m.rest = append(m.rest, rest...)
	require.NoError(s.t, c.SetReadDeadline(time.Time{}))
	raw, err := m.conn.SyscallConn()
	require.NoError(s.t, err)
	require.NoError(s.t, raw.Control(func(fd uintptr) { m.fd = int32(fd) }))
	s.mu.Lock()
	s.byFD[m.fd] = m
	s.mu.Unlock()
	return m
}

// send writes one text frame.
func (m *member) send(text string) {
	b := []byte{0x81}
	if len(text) < 126 {
		b = append(b, 0x80|byte(len(text)))
	} else {
		b = append(b, 0x80|126, byte(len(text)>>8), byte(len(text)))
	}
	_, err := m.conn.Write(append(append(b, 0, 0, 0, 0), text...))
	require.NoError(m.swarm.t, err)
}

// read has the swarm read the socket from now on.
func (m *member) read() {
	require.NoError(m.swarm.t, unix.EpollCtl(m.swarm.poll, unix.EPOLL_CTL_ADD, int(m.fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: m.fd}))
}

// stall ends that.
func (m *member) stall() {
	require.NoError(m.swarm.t, unix.EpollCtl(m.swarm.poll, unix.EPOLL_CTL_DEL, int(m.fd), nil))
}

func (s *swarm) run() {
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, 256<<10)
	for {
		n, err := unix.EpollWait(s.poll, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if e.Fd == int32(s.wake) {
				return
			}
			s.mu.Lock()
			m := s.byFD[e.Fd]
			s.mu.Unlock()
			n, err := unix.Read(int(e.Fd), buf)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if n <= 0 {
				_ = unix.EpollCtl(s.poll, unix.EPOLL_CTL_DEL, int(e.Fd), nil)
				continue
			}
			m.take(buf[:n])
		}
	}
}

// take cuts what came into frames.
func (m *member) take(b []byte) {
	if len(m.rest) > 0 {
		m.rest = append(m.rest, b...)
		b = m.rest
	}
	for len(b) >= 2 {
		head, n := 2, int(b[1]&0x7f)
		switch {
		case n == 126 && len(b) >= 4:
			head, n = 4, int(binary.BigEndian.Uint16(b[2:]))
		case n == 127 && len(b) >= 10:
			head, n = 10, int(binary.BigEndian.Uint64(b[2:]))
		case n >= 126:
			n = len(b)
		}
		if len(b) < head+n {
			break
		}
		switch p := b[head : head+n]; b[0] & 0xf {
		case 1:
			m.frame(p)
		case 8:
			m.code = int(binary.BigEndian.Uint16(p))
		}
		b = b[head+n:]
	}
	m.rest = nil
	if len(b) > 0 {
		m.rest = append(make([]byte, 0, len(b)), b...)
	}
}
