package clustertest

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	maxUnread = 256 << 10              // bytes of one direction that were written and not read
	firstRTO  = 200 * time.Millisecond // after which TCP sends again
	lastRTO   = 120 * time.Second
)

// half is one direction of a stream. All of it is guarded by the network's mutex.
type half struct {
	net            *Network
	number         uint64
	from, to       *machine
	writer, reader *conn

	flying   []segment
	last     time.Time // arrival of the segment before, for the order
	stall    time.Time // since when it stands still; zero: it does not
	resume   time.Time // when TCP sends again, after a cut
	timer    *time.Timer
	arrived  []byte
	fin      bool // nothing will follow arrived
	unread   int  // bytes that fill the writer's buffer
	freed    int  // of them, read but not acknowledged because of a cut
	deaf     bool // the reading end is closed: what arrives is answered with a reset
	released bool
}

type segment struct {
	at   time.Time
	data []byte // nil: the end
	rst  bool
}

// conn is one end of a stream.
type conn struct {
	net           *Network
	host          *Host
	in, out       *half
	local, remote *net.TCPAddr

	// Guarded by net.mu.
	closed    bool
	ended     bool  // CloseWrite
	err       error // reset
	rdl, wdl  time.Time
	changed   signal
	writeTurn bool // one Write at a time, so that they do not mix
}

// pairLocked makes a stream.
func (n *Network) pairLocked(near, far *Host, nearPort, farPort uint16) (a, b *conn) {
	number := uint64(n.rng.Int64N(1 << 62)) // an order that does not depend on maps
	out := &half{net: n, number: number, from: near.at, to: far.at}
	in := &half{net: n, number: number + 1, from: far.at, to: near.at}
	na := &net.TCPAddr{IP: near.at.ip.AsSlice(), Port: int(nearPort)}
	fa := &net.TCPAddr{IP: far.at.ip.AsSlice(), Port: int(farPort)}
	a = &conn{net: n, host: near, in: in, out: out, local: na, remote: fa}
	b = &conn{net: n, host: far, in: out, out: in, local: fa, remote: na}
	out.writer, out.reader, in.writer, in.reader = a, b, b, a
	near.conns[a], far.conns[b] = struct{}{}, struct{}{}
	n.halves[out], n.halves[in] = struct{}{}, struct{}{}
	return a, b
}

// sendLocked puts a segment on its way.
func (h *half) sendLocked(s segment) {
	now := time.Now()
	s.at = now.Add(h.net.delayLocked(h.from, h.to))
	if s.at.Before(h.last) {
		s.at = h.last
	}
	h.last = s.at
	h.flying = append(h.flying, s)
	h.unread += len(s.data)
	h.advanceLocked(now)
}

// advanceLocked lets arrive what is due.
func (h *half) advanceLocked(now time.Time) {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	for len(h.flying) > 0 && !h.released {
		if !h.net.openLocked(h.from, h.to) {
			if h.stall.IsZero() {
				h.stall = now
			}
			return
		}
		s := h.flying[0]
		due := s.at
		if h.resume.After(due) {
			due = h.resume
		}
		if wait := due.Sub(now); wait > 0 {
			h.timer = time.AfterFunc(wait, func() {
				h.net.mu.Lock()
				defer h.net.mu.Unlock()
				h.advanceLocked(time.Now())
			})
			return
		}
		h.flying = h.flying[1:]
		switch {
		case s.rst:
			h.reader.resetLocked()
			return
		case h.deaf && s.data != nil && h.net.openLocked(h.to, h.from):
			h.writer.resetLocked()
			return
		case h.deaf:
		case s.data == nil:
			h.fin = true
		default:
			h.arrived = append(h.arrived, s.data...)
		}
		h.reader.changed.wake()
	}
	if !h.released {
		h.stall, h.resume = time.Time{}, time.Time{}
	}
}

// topologyLocked is called after a change of what is cut.
func (h *half) topologyLocked(now time.Time) {
	if h.net.openLocked(h.from, h.to) && !h.stall.IsZero() {
		h.resume, h.stall = retransmission(h.stall, now), time.Time{}
	}
	h.ackLocked(0)
	h.advanceLocked(now)
	h.reader.changed.wake()
	h.writer.changed.wake()
}

// retransmission returns when TCP sends next what it has sent in vain since.
func retransmission(since, now time.Time) time.Time {
	next, rto := since, firstRTO
	for next.Before(now) {
		next = next.Add(rto)
		rto = min(2*rto, lastRTO)
	}
	return next
}

// ackLocked frees what was read, unless the acknowledgement is lost.
func (h *half) ackLocked(read int) {
	h.freed += read
	if h.freed > 0 && h.net.openLocked(h.to, h.from) {
		h.unread -= h.freed
		h.freed = 0
		h.writer.changed.wake()
	}
}

// resetLocked ends this end of the stream with an error, after what has arrived.
func (c *conn) resetLocked() {
	if c.err == nil {
		c.err = syscall.ECONNRESET
	}
	c.out.dropLocked()
	c.in.dropLocked()
	c.changed.wake()
}

func (h *half) dropLocked() {
	h.flying = nil
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

// releaseLocked forgets a stream that nobody has any more.
func (c *conn) releaseLocked() {
	delete(c.host.conns, c)
	peer := c.out.reader
	if !peer.closed && peer.err == nil {
		return
	}
	for _, h := range []*half{c.in, c.out} {
		h.released = true
		h.dropLocked()
		delete(c.net.halves, h)
	}
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

func (c *conn) Read(b []byte) (int, error) {
	n, h := c.net, c.in
	for {
		n.mu.Lock()
		paused := c.host.at.paused
		var err error
		switch {
		case c.closed:
			err = net.ErrClosed
		case !c.rdl.IsZero() && !time.Now().Before(c.rdl):
			err = os.ErrDeadlineExceeded
		case len(b) == 0:
			n.mu.Unlock()
			return 0, nil
		case paused:
		case len(h.arrived) > 0:
			k := copy(b, h.arrived)
			h.arrived = h.arrived[k:]
			if len(h.arrived) == 0 {
				h.arrived = nil
			}
			h.ackLocked(k)
			n.mu.Unlock()
			return k, nil
		case c.err != nil:
			err = os.NewSyscallError("read", c.err)
		case h.fin:
			n.mu.Unlock()
			return 0, io.EOF
		}
		changed, until := c.changed.wait(), c.rdl
		n.mu.Unlock()
		if err != nil {
			return 0, c.fail("read", err)
		}
		await1(changed, until)
	}
}

func (c *conn) Write(b []byte) (done int, err error) {
	n, h := c.net, c.out
	turn := false
	for {
		n.mu.Lock()
		switch {
		case c.closed:
			err = net.ErrClosed
		case c.err != nil:
			err = os.NewSyscallError("write", c.err)
		case c.ended:
			err = os.NewSyscallError("write", syscall.EPIPE)
		case !c.wdl.IsZero() && !time.Now().Before(c.wdl):
			err = os.ErrDeadlineExceeded
		case c.writeTurn && !turn || c.host.at.paused:
		default:
			c.writeTurn, turn = true, true
			if room := min(maxUnread-h.unread, len(b)-done); room > 0 {
				c.host.at.sent.Writes++
				c.host.at.sent.StreamBytes += int64(room)
				h.sendLocked(segment{data: append([]byte(nil), b[done:done+room]...)})
				done += room
			}
		}
		over := err != nil || done == len(b) && (turn || len(b) == 0)
		if over && turn {
			c.writeTurn = false
			c.changed.wake()
		}
		changed, until := c.changed.wait(), c.wdl
		n.mu.Unlock()
		if err != nil {
			return done, c.fail("write", err)
		}
		if over {
			return done, nil
		}
		await1(changed, until)
	}
}

// CloseWrite tells the peer that nothing will follow; reading goes on.
func (c *conn) CloseWrite() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.endLocked()
	return nil
}

func (c *conn) endLocked() {
	if !c.ended && c.err == nil {
		c.ended = true
		c.out.sendLocked(segment{})
	}
}

// Close gives the peer what was written, and then the end. What the peer has sent, or sends from now on, is answered with a reset.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.closed = true
	c.endLocked()
	c.in.deaf, c.in.arrived = true, nil
	c.changed.wake()
	c.releaseLocked()
	return nil
}

// killLocked ends this end without a word but for a reset, which is lost when the way is cut.
func (c *conn) killLocked() {
	if c.closed {
		return
	}
	c.closed, c.ended = true, true
	c.in.deaf, c.in.arrived = true, nil
	c.out.dropLocked()
	if c.err == nil && c.net.openLocked(c.out.from, c.out.to) {
		c.out.sendLocked(segment{rst: true})
	}
	c.changed.wake()
	c.releaseLocked()
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error      { return c.setDeadlines(&t, &t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(&t, nil) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	if read != nil {
		c.rdl = *read
	}
	if write != nil {
		c.wdl = *write
	}
	c.changed.wake()
	return nil
}
