package sock

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// chunk is how much a socket without non-blocking writes takes from its list at once: what is taken can no longer be dropped.
const chunk = 16 << 10

type state uint8

const (
	idle    state = iota // nothing pending
	queued               // on a list of the shard, or in the worker's hands
	lagging              // the kernel takes nothing: on the shard's list of those to be tried again, or in the worker's hands
	writing              // a goroutine of its own writes
)

// Socket is one WebSocket. Its methods may be called at the same time, but for Read, which one goroutine calls.
type Socket struct {
	pool    *Pool
	shard   *shard
	ws      *websocket.Conn
	nc      net.Conn
	raw     tryWriter    // nil: only blocking writes
	deflate bool         // the client takes compressed frames
	pre     []byte       // what the client sent before it had our answer
	heard   atomic.Int64 // when the last byte came, Unix nanoseconds

	pinged time.Time // guarded by pool.mu

	mu      sync.Mutex
	state   state
	lanes   [2]bool // of the shard that it is listed in
	level   uint8   // how often it was tried in vain
	urgent  bool    // something came for the direct lane while the worker held frames
	inHand  bool    // the worker holds frames that are no longer in the list
	dropped bool    // the list was dropped meanwhile: what the worker could not write is not wanted back
	closing bool    // a close frame is in the list or written: nothing may follow
	ended   bool    // the read side is done: the connection closes when all is written
	pending []*Frame
	off     int       // bytes of the first frame of the list that are written: it cannot be dropped
	bytes   int       // not yet written, those in a writer's hands included
	stuck   time.Time // since when the kernel has taken nothing
	partial []byte    // control frame that coder has begun
	linger  *time.Timer
	drained []func() // called once when the list has become short, from a writer and without the lock
}

// Accept answers the handshake. A refusal has been written to w. The caller then calls Read until it fails, and Finish.
func (p *Pool) Accept(w http.ResponseWriter, r *http.Request, origins []string) (*Socket, error) {
	h := &hijack{ResponseWriter: w, s: &Socket{pool: p, shard: p.shards[p.next.Add(1)%uint64(len(p.shards))], pinged: time.Now()}}
	mode := websocket.CompressionDisabled
	if p.cfg.Compress {
		mode = websocket.CompressionNoContextTakeover
	}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{OriginPatterns: origins, CompressionMode: mode})
	if err != nil {
		return nil, err
	}
	s := h.s
	s.ws = ws
	s.deflate = strings.Contains(w.Header().Get("Sec-WebSocket-Extensions"), "server_no_context_takeover")
	ws.SetReadLimit(p.cfg.ReadLimit)
	if !p.add(s) {
		ws.CloseNow()
		return nil, net.ErrClosed
	}
	return s, nil
}

// Adopt serves a connection that nobody reads from and that has had its handshake. It is written to as any other.
func (p *Pool) Adopt(nc net.Conn) *Socket {
	s := &Socket{pool: p, shard: p.shards[p.next.Add(1)%uint64(len(p.shards))], nc: nc, raw: tryWriterOf(nc), pinged: time.Now()}
	s.heard.Store(time.Now().UnixNano())
	return s
}

// Read returns the next message, and whether it is text. After an error the socket is of no more use.
func (s *Socket) Read() (b []byte, text bool, err error) {
	t, b, err := s.ws.Read(context.Background())
	return b, t == websocket.MessageText, err
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
	if s.deflate {
		f = s.pool.deflated(f)
	}
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
	s.queueLocked(f, Direct)
	return true
}

// Offer queues a frame if the socket has room, and never blocks. It reports false when it has none: WhenDrained tells when that is over. A closing
// socket takes everything, and shows nothing of it.
func (s *Socket) Offer(f *Frame, l Lane) bool {
	if s.deflate {
		f = s.pool.deflated(f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return true
	}
	if s.fullLocked() {
		return false
	}
	s.queueLocked(f, l)
	return true
}

func (s *Socket) fullLocked() bool {
	return s.state == lagging || s.bytes > s.pool.cfg.HighWater || len(s.pending) >= MaxFrames
}

// Full reports whether Offer would refuse.
func (s *Socket) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closing && s.fullLocked()
}

// Pending is how many bytes wait to be written.
func (s *Socket) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// WhenDrained has fn called once when there is room again, or when the socket is closing: at once, by the caller, when that is so already. fn must
// not block.
func (s *Socket) WhenDrained(fn func()) {
	s.mu.Lock()
	if !s.closing && !s.roomyLocked() {
		s.drained = append(s.drained, fn)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	fn()
}

// roomyLocked reports whether enough has gone out for more to be worth while.
func (s *Socket) roomyLocked() bool {
	return s.state != lagging && s.bytes <= s.pool.cfg.HighWater/4 && len(s.pending) <= MaxFrames/4
}

// unlock releases the lock after a write, and tells whom it concerns that the list is short.
func (s *Socket) unlock() {
	var fns []func()
	if len(s.drained) > 0 && (s.closing || s.roomyLocked()) {
		fns, s.drained = s.drained, nil
	}
	s.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Close sends a close frame after what is pending, waits for nothing, and cuts the connection when the client does not answer in time.
func (s *Socket) Close(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		if code == CodeBehind || s.state == lagging || s.state == writing {
			s.dropLocked()
		}
		s.appendCloseLocked(closeFrame(code, reason))
	}
}

func (s *Socket) dropLocked() {
	keep := 0
	if s.off > 0 {
		keep = 1
	}
	if len(s.pending) > keep {
		for _, f := range s.pending[keep:] {
			s.bytes -= len(f.b)
		}
		clear(s.pending[keep:])
		s.pending = s.pending[:keep]
	}
	s.dropped = s.inHand
}

func (s *Socket) appendCloseLocked(f *Frame) {
	s.closing = true
	s.queueLocked(f, Direct)
	s.lingerLocked()
}

func (s *Socket) lingerLocked() {
	if s.linger == nil {
		s.linger = time.AfterFunc(s.pool.cfg.Linger, s.cut)
	}
}

func (s *Socket) queueLocked(f *Frame, l Lane) {
	switch {
	case s.state == idle:
		s.startLocked(l)
	case s.state == queued && l == Direct && s.inHand:
		s.urgent = true
	case s.state == queued && l == Direct && !s.lanes[Direct]:
		s.startLocked(l)
	}
	s.pending = append(s.pending, f)
	s.bytes += len(f.b)
}

// startLocked hands the socket to a writer. The list may still be empty: the writer needs the lock to see it.
func (s *Socket) startLocked(l Lane) {
	if s.raw == nil {
		s.state = writing
		if !s.pool.spawn(s.catchUp) {
			s.nc.Close()
		}
		return
	}
	s.state = queued
	if s.lanes[l] {
		return
	}
	s.lanes[l] = true
	if buf := s.shard.push(s, l, s.pending == nil); buf != nil {
		s.pending = buf
	}
}

// cut ends the connection at once; Read and the writers fail.
func (s *Socket) cut() { s.nc.Close() }

// write is one pass of the shard worker.
func (s *Socket) write(h *shard, l Lane) {
	s.mu.Lock()
	s.lanes[l] = false
	switch {
	case s.state != queued: // the other lane came first
		s.mu.Unlock()
	case len(s.pending) == 0:
		s.nextLocked(h)
		s.mu.Unlock()
	default:
		s.passLocked(h)
	}
}

// tryAgain is a pass over a socket that the kernel took nothing for.
func (s *Socket) tryAgain(h *shard, now time.Time) {
	s.mu.Lock()
	if s.state != lagging {
		s.mu.Unlock()
		return
	}
	if now.Sub(s.stuck) > s.pool.cfg.WriteTimeout {
		s.mu.Unlock()
		s.cut()
		s.mu.Lock()
		s.failLocked(h)
		s.unlock()
		return
	}
	s.passLocked(h)
}

// passLocked writes the list once, and releases the lock.
func (s *Socket) passLocked(h *shard) {
	frames, off := s.pending, s.off
	s.pending, s.off = h.list(), 0
	s.inHand, s.dropped, s.urgent = true, false, false
	s.mu.Unlock()
	b := h.join(frames, off)
	n, err := s.raw.TryWrite(b)
	s.mu.Lock()
	defer s.unlock()
	s.inHand = false
	s.bytes -= n
	switch {
	case err != nil:
		h.give(frames)
		s.failLocked(h)
	case n == len(b):
		h.give(frames)
		s.level, s.stuck = 0, time.Time{}
		s.nextLocked(h)
	default:
		s.lagLocked(h, frames, off+n, n > 0)
	}
}

// lagLocked puts back what the kernel did not take, and has it tried again.
func (s *Socket) lagLocked(h *shard, frames []*Frame, n int, some bool) {
	if later := s.pending; len(later) == 0 && !s.dropped && s.state == lagging && !some {
		s.pending, s.off = frames, n // as it was
		h.give(later)
	} else {
		s.putBackLocked(frames, n)
		h.give(frames)
		h.give(later)
	}
	if len(s.pending) == 0 {
		s.nextLocked(h)
		return
	}
	if some || s.state != lagging {
		s.level, s.stuck = 0, time.Now()
	} else if s.level < lagLevels-1 {
		s.level++
	}
	s.state = lagging
	h.later(s)
}

// putBackLocked returns to the list what was not written of frames, of which n bytes were. When the list was dropped meanwhile, only the rest of the
// frame that the client has seen the beginning of goes back. The list is as long as it must be: it may have to wait for long.
func (s *Socket) putBackLocked(frames []*Frame, n int) {
	i := 0
	for n >= len(frames[i].b) {
		n -= len(frames[i].b)
		i++
	}
	rest := frames[i:]
	s.off = n
	if s.dropped {
		keep := 0
		if s.off > 0 {
			keep = 1
		}
		for _, f := range rest[keep:] {
			s.bytes -= len(f.b)
		}
		rest = rest[:keep]
	}
	all := make([]*Frame, 0, len(rest)+len(s.pending))
	s.pending = append(append(all, rest...), s.pending...)
}

func (s *Socket) nextLocked(h *shard) {
	if len(s.pending) > 0 {
		l := Bulk
		if s.urgent {
			l = Direct
		}
		s.startLocked(l)
		return
	}
	if h != nil {
		h.give(s.pending)
	}
	s.pending, s.state = nil, idle
	if s.ended {
		s.hangUpLocked()
	}
}

func (s *Socket) failLocked(h *shard) {
	s.closing, s.off = true, 0
	s.dropLocked()
	s.state, s.pending, s.bytes = idle, nil, 0
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
			s.nextLocked(nil)
			s.unlock()
			return
		}
		buf = buf[:0]
		i := 0
		for ; i < len(s.pending) && (i == 0 || len(buf)+len(s.pending[i].b) <= chunk); i++ {
			buf = append(buf, s.pending[i].b...)
		}
		s.pending = slices.Delete(s.pending, 0, i)
		s.mu.Unlock()

		s.nc.SetWriteDeadline(time.Now().Add(s.pool.cfg.WriteTimeout))
		_, err := s.nc.Write(buf)
		if err == nil {
			err = s.nc.SetWriteDeadline(time.Time{})
		}
		s.mu.Lock()
		s.bytes -= len(buf)
		if err != nil {
			s.failLocked(nil)
			s.unlock()
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
		f := &Frame{b: slices.Clone(s.partial[:n])}
		s.partial = slices.Delete(s.partial, 0, n)
		switch {
		case s.closing: // our own close frame went first
		case f.b[0]&0xf == opClose:
			s.appendCloseLocked(f)
		case s.bytes > s.pool.cfg.MaxPending: // pings that are never read need no answer
		default:
			s.queueLocked(f, Direct)
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
	s.raw = tryWriterOf(nc)
	s.heard.Store(time.Now().UnixNano())
	c := &conn{Conn: nc, s: s}
	return c, bufio.NewReadWriter(bufio.NewReaderSize(c, 256), bufio.NewWriterSize(c, 256)), nil
}
