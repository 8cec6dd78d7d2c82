package clustertest

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	maxDatagram = 65507
	maxQueued   = 512 // datagrams of one socket that nobody has read; more are lost
)

// packetConn is a socket for datagrams.
type packetConn struct {
	host *Host
	port uint16

	// Guarded by host.net.mu.
	queue    []datagram // by time of arrival
	closed   bool
	deadline time.Time
	changed  signal
}

type datagram struct {
	at   time.Time
	from netip.AddrPort
	data []byte
}

func (c *packetConn) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: c.host.at.ip.AsSlice(), Port: int(c.port)}
}

func (c *packetConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Err: err}
}

// WriteTo never blocks: what cannot be carried is lost.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n := c.host.net
	if len(b) > maxDatagram {
		return 0, c.fail("write", os.NewSyscallError("sendto", syscall.EMSGSIZE))
	}
	ap, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, c.fail("write", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return 0, c.fail("write", net.ErrClosed)
	}
	from := c.host.at
	from.sent.Datagrams++
	from.sent.DatagramBytes += int64(len(b))
	at := n.byIP[ap.Addr().Unmap()]
	if ap.Addr().IsLoopback() {
		at = from
	}
	lost := n.loss > 0 && at != from && n.rng.Float64() < n.loss
	if lost || from.paused || at == nil || at.proc == nil || !n.openLocked(from, at) {
		return len(b), nil
	}
	peer := at.proc.packets[ap.Port()]
	if peer == nil || len(peer.queue) >= maxQueued {
		return len(b), nil
	}
	d := datagram{at: time.Now().Add(n.delayLocked(from, at)), from: netip.AddrPortFrom(from.ip, c.port), data: slices.Clone(b)}
	i := len(peer.queue)
	for i > 0 && peer.queue[i-1].at.After(d.at) {
		i--
	}
	peer.queue = slices.Insert(peer.queue, i, d)
	peer.changed.wake()
	return len(b), nil
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n := c.host.net
	for {
		n.mu.Lock()
		now := time.Now()
		switch {
		case c.closed:
			n.mu.Unlock()
			return 0, nil, c.fail("read", net.ErrClosed)
		case !c.deadline.IsZero() && !now.Before(c.deadline):
			n.mu.Unlock()
			return 0, nil, c.fail("read", os.ErrDeadlineExceeded)
		}
		next := c.deadline
		if len(c.queue) > 0 && !c.host.at.paused {
			d := c.queue[0]
			if !d.at.After(now) {
				c.queue = slices.Delete(c.queue, 0, 1)
				n.mu.Unlock()
				return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
			}
			if next.IsZero() || d.at.Before(next) {
				next = d.at
			}
		}
		changed := c.changed.wait()
		n.mu.Unlock()
		await1(changed, next)
	}
}

// await1 waits for changed, or until at where it is not zero.
func await1(changed <-chan struct{}, at time.Time) {
	if at.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

func (c *packetConn) Close() error {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.closeLocked()
	return nil
}

func (c *packetConn) closeLocked() {
	c.closed, c.queue = true, nil
	delete(c.host.packets, c.port)
	c.changed.wake()
}

func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	c.deadline = t
	c.changed.wake()
	return nil
}

func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }
