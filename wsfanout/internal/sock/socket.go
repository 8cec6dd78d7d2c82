package sock

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// chunk is how much a slow socket takes from its list at once: what is taken can no longer be dropped.
const chunk = 64 << 10

type state uint8

const (
	idle    state = iota // nothing pending
	queued               // on the shard's list, or in the worker's hands
	lagging              // a goroutine of its own writes
)

// Socket is one WebSocket. Its methods may be called at the same time, but for Read, which one goroutine calls.
type Socket struct {
	pool  *Pool
	shard *shard
	ws    *websocket.Conn
	nc    net.Conn
	raw   syscall.RawConn // nil: only blocking writes
	pre   []byte          // what the client sent before it had our answer
	heard atomic.Int64    // when the last byte came, Unix nanoseconds

	pinged time.Time // guarded by pool.mu

	mu      sync.Mutex
	state   state
	pending []*Frame
	spare   []*Frame
	bytes   int    // not yet written, those in a writer's hands included
	inHand  bool   // the worker holds frames that are no longer in the list
	dropped bool   // the list was dropped meanwhile: what the worker could not write is not wanted back
	torn    bool   // the first frame of the list is the rest of one that has begun: it cannot be dropped
	partial []byte // control frame that coder has begun
	closing bool   // a close frame is in the list or written: nothing may follow
	ended   bool   // the read side is done: the connection closes when all is written
	linger  *time.Timer
	low     int
	drained func() // called once when the list has become short, from a writer and without the lock
}

// Accept answers the handshake. A refusal has been written to w. The caller then calls Read until it fails, and Finish.
func (p *Pool) Accept(w http.ResponseWriter, r *http.Request, origins []string) (*Socket, error) {
	h := &hijack{ResponseWriter: w, s: &Socket{pool: p, shard: p.shards[p.next.Add(1)%uint64(len(p.shards))], pinged: time.Now()}}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{OriginPatterns: origins, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	s := h.s
	s.ws = ws
	ws.SetReadLimit(p.cfg.ReadLimit)
	if !p.add(s) {
		ws.CloseNow()
		return nil, net.ErrClosed
	}
	return s, nil
}

// Read returns the next message. After an error the socket is of no more use.
func (s *Socket) Read() ([]byte, error) {
	_, b, err := s.ws.Read(context.Background())
	return b, err
}

// SetReadDeadline bounds Read, for the time until a client has said who it is.
func (s *Socket) SetReadDeadline(t time.Time) { s.nc.SetReadDeadline(t) }

// Finish releases the socket; it waits for nothing. What is pending is still written within the linger time.
func (s *Socket) Finish() {
	s.ws.CloseNow()
	s.pool.remove(s)
}

// Send queues a frame and never blocks. It reports false when the socket is closing, or so far behind that it now is.
func (s *Socket) Send(f *Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if s.bytes+len(f.b) > s.pool.cfg.MaxPending && len(s.pending) > 0 {
		s.dropLocked()
		s.appendCloseLocked(closeFrame(CodeBehind, "behind: resume from your position"))
		return false
	}
	s.queueLocked(f)
	return true
}

// Pending is how many bytes wait to be written.
func (s *Socket) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// WhenDrained has fn called once when at most low bytes wait to be written: at once, by the caller, when that is so already. fn must not
// block. It replaces an fn that still waits, and is never called for a socket that is closing.
func (s *Socket) WhenDrained(low int, fn func()) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	if s.bytes > low {
		s.low, s.drained = low, fn
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	fn()
}

// unlock releases the lock after a write, and tells whom it concerns that the list is short.
func (s *Socket) unlock() {
	var fn func()
	if s.drained != nil && s.bytes <= s.low {
		if fn, s.drained = s.drained, nil; s.closing {
			fn = nil
		}
	}
	s.mu.Unlock()
	if fn != nil {
		fn()
	}
}

// Close sends a close frame after what is pending, waits for nothing, and cuts the connection when the client does not answer in time.
func (s *Socket) Close(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		if code == CodeBehind || s.state == lagging {
			s.dropLocked()
		}
		s.appendCloseLocked(closeFrame(code, reason))
	}
}

func (s *Socket) dropLocked() {
	keep := 0
	if s.torn {
		keep = 1
	}
	for _, f := range s.pending[keep:] {
		s.bytes -= len(f.b)
	}
	clear(s.pending[keep:])
	s.pending = s.pending[:keep]
	s.dropped = s.inHand
}

func (s *Socket) appendCloseLocked(f *Frame) {
	s.closing = true
	s.queueLocked(f)
	s.lingerLocked()
}

func (s *Socket) lingerLocked() {
	if s.linger == nil {
		s.linger = time.AfterFunc(s.pool.cfg.Linger, s.cut)
	}
}

func (s *Socket) queueLocked(f *Frame) {
	s.pending = append(s.pending, f)
	s.bytes += len(f.b)
	if s.state == idle {
		s.startLocked()
	}
}

func (s *Socket) startLocked() {
	if s.raw != nil {
		s.state = queued
		s.shard.push(s)
	} else {
		s.lagLocked()
	}
}

func (s *Socket) lagLocked() {
	s.state = lagging
	if !s.pool.spawn(s.catchUp) {
		s.nc.Close()
	}
}

// cut ends the connection at once; Read and the writers fail.
func (s *Socket) cut() { s.nc.Close() }

// write is one pass of the shard worker.
func (s *Socket) write(h *shard) {
	s.mu.Lock()
	frames := s.pending
	s.pending, s.spare = s.spare[:0], nil
	s.inHand, s.dropped = true, false
	s.mu.Unlock()
	b := h.join(frames)
	n, err := h.raw.write(s.raw, b)
	s.mu.Lock()
	defer s.unlock()
	s.inHand = false
	s.bytes -= n
	switch {
	case err != nil:
		s.failLocked()
	case n == len(b):
		clear(frames)
		s.spare = frames[:0]
		s.nextLocked()
	default:
		s.putBackLocked(frames, n)
		if len(s.pending) == 0 {
			s.nextLocked()
			return
		}
		s.lagLocked()
	}
}

// putBackLocked returns to the list what was not written of frames. When the list was dropped meanwhile, only the rest of the frame that the
// client has seen the beginning of goes back.
func (s *Socket) putBackLocked(frames []*Frame, n int) {
	i := 0
	for n >= len(frames[i].b) {
		n -= len(frames[i].b)
		i++
	}
	rest := slices.Clone(frames[i:])
	if s.torn = n > 0; s.torn {
		rest[0] = &Frame{rest[0].b[n:]}
	}
	if s.dropped {
		keep := 0
		if s.torn {
			keep = 1
		}
		for _, f := range rest[keep:] {
			s.bytes -= len(f.b)
		}
		rest = rest[:keep]
	}
	s.pending = append(rest, s.pending...)
}

func (s *Socket) nextLocked() {
	switch {
	case len(s.pending) > 0:
		s.startLocked()
	case s.ended:
		s.state = idle
		s.hangUpLocked()
	default:
		s.state = idle
	}
}

func (s *Socket) failLocked() {
	s.closing, s.torn = true, false
	s.dropLocked()
	s.state = idle
	s.hangUpLocked()
}

func (s *Socket) hangUpLocked() error {
	if s.linger != nil {
		s.linger.Stop()
	}
	return s.nc.Close()
}

// catchUp writes with blocking until nothing is left.
func (s *Socket) catchUp() {
	var buf []byte
	for {
		s.mu.Lock()
		if len(s.pending) == 0 {
			s.nextLocked()
			s.mu.Unlock()
			return
		}
		buf = buf[:0]
		i := 0
		for ; i < len(s.pending) && (i == 0 || len(buf)+len(s.pending[i].b) <= chunk); i++ {
			buf = append(buf, s.pending[i].b...)
		}
		s.pending, s.torn = slices.Delete(s.pending, 0, i), false
		s.mu.Unlock()

		s.nc.SetWriteDeadline(time.Now().Add(s.pool.cfg.WriteTimeout))
		_, err := s.nc.Write(buf)
		if err == nil {
			err = s.nc.SetWriteDeadline(time.Time{})
		}
		s.mu.Lock()
		s.bytes -= len(buf)
		if err != nil {
			s.failLocked()
			s.mu.Unlock()
			return
		}
		s.unlock()
	}
}

// conn is what coder reads from, and writes its control frames to.
type conn struct {
	net.Conn
	s *Socket
}

func (c *conn) Read(b []byte) (int, error) {
	if s := c.s; len(s.pre) > 0 {
		n := copy(b, s.pre)
		s.pre = s.pre[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.s.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write takes control frames. They are queued whole: a write of coder need not end where a frame does.
func (c *conn) Write(b []byte) (int, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = append(s.partial, b...)
	for {
		n, ok := frameLen(s.partial)
		if !ok || len(s.partial) < n {
			return len(b), nil
		}
		f := &Frame{slices.Clone(s.partial[:n])}
		s.partial = slices.Delete(s.partial, 0, n)
		switch {
		case s.closing: // our own close frame went first
		case f.b[0]&0xf == opClose:
			s.appendCloseLocked(f)
		case s.bytes > s.pool.cfg.MaxPending: // pings that are never read need no answer
		default:
			s.queueLocked(f)
		}
	}
}

// Close is coder's last call. What is pending, mostly the close frame, goes out first.
func (c *conn) Close() error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.closing = true; s.state == idle {
		return s.hangUpLocked()
	}
	s.lingerLocked()
	return s.nc.SetReadDeadline(time.Unix(1, 0))
}

// SetWriteDeadline is ours alone.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// hijack gives coder our conn and small buffers in place of those of net/http. The answer to the handshake has left by then: net/http
// flushes it before it gives the connection away.
type hijack struct {
	http.ResponseWriter
	s *Socket
}

// Unwrap hides the ResponseWriter's own Hijack from nobody but coder, which looks at Hijack first.
func (h *hijack) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *hijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s := h.s
	s.nc = nc
	if b, _ := rw.Reader.Peek(rw.Reader.Buffered()); len(b) > 0 {
		s.pre = slices.Clone(b)
	}
	if sc, ok := nc.(syscall.Conn); ok && canTry {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.heard.Store(time.Now().UnixNano())
	c := &conn{Conn: nc, s: s}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, 256), bufio.NewWriterSize(c, 256)), nil
}
