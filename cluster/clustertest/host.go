package clustertest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/nines-go/nines/cluster"
)

const (
	firstPort  = 32768 // of those that are given out
	maxBacklog = 128   // streams that wait to be accepted
)

// Host is the network as one process of a host has it: a cluster.Network that reaches the other hosts of its Network and nothing else.
type Host struct {
	net *Network
	at  *machine

	// Guarded by net.mu.
	dead    bool
	ports   map[uint16]*listener
	packets map[uint16]*packetConn
	conns   map[*conn]struct{}
}

var _ cluster.Network = (*Host)(nil)

// Addr returns the IP address of the host.
func (h *Host) Addr() string { return h.at.ip.String() }

// Boottime is the time since the network was made. A Node takes its own pauses from it in place of the machine's clock, which does not know
// of a bubble's time.
func (h *Host) Boottime() time.Duration { return time.Since(h.net.begin) }

// Listen accepts streams at a port of the host; 0 takes a free one. The address must be the host's, its name, a loopback address or none: they are
// all the same here.
func (h *Host) Listen(ctx context.Context, addr string) (net.Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	port, err := h.bindLocked("tcp", addr, func(p uint16) bool { return h.ports[p] != nil })
	if err != nil {
		return nil, err
	}
	l := &listener{host: h, port: port}
	h.ports[port] = l
	return l, nil
}

// ListenPacket opens a socket for datagrams at a port of the host, like Listen.
func (h *Host) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	port, err := h.bindLocked("udp", addr, func(p uint16) bool { return h.packets[p] != nil })
	if err != nil {
		return nil, err
	}
	c := &packetConn{host: h, port: port}
	h.packets[port] = c
	return c, nil
}

func (h *Host) bindLocked(network, addr string, taken func(uint16) bool) (uint16, error) {
	fail := func(err error) (uint16, error) {
		return 0, &net.OpError{Op: "listen", Net: network, Addr: address(addr), Err: err}
	}
	if h.dead {
		return fail(net.ErrClosed)
	}
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return fail(err)
	}
	if host != "" && host != h.at.name {
		ip, err := netip.ParseAddr(host)
		if err != nil || ip != h.at.ip && !ip.IsLoopback() && !ip.IsUnspecified() {
			return fail(os.NewSyscallError("bind", syscall.EADDRNOTAVAIL))
		}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fail(err)
	}
	if port == 0 {
		for range 1 << 16 {
			if p := h.net.portLocked(); !taken(p) {
				return p, nil
			}
		}
	}
	if port == 0 || taken(uint16(port)) {
		return fail(os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	return uint16(port), nil
}

func (n *Network) portLocked() uint16 {
	p := n.nextPort
	if n.nextPort++; n.nextPort == 0 {
		n.nextPort = firstPort
	}
	return p
}

// address is a net.Addr for errors.
type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }

// syns is when a connection is asked for, after the beginning: one request that is lost is repeated by TCP after 1 s, 2 s more and so on.
var syns = []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 63 * time.Second}

// Dial opens a stream to "host:port", where host is an address or a name of this network. A port that nobody listens at answers
// syscall.ECONNREFUSED, also after Kill. While the two are cut off it asks again as TCP does, 1 s, 3 s, 7 s and so on after the beginning, until ctx ends.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := h.dial(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: address(addr), Err: err}
	}
	return c, nil
}

func (h *Host) dial(ctx context.Context, addr string) (*conn, error) {
	name, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	n := h.net
	n.mu.Lock()
	to := n.machines[name]
	if ip, err := netip.ParseAddr(name); err == nil {
		to = n.byIP[ip]
		if ip.IsLoopback() {
			to = h.at
		}
	} else if to == nil {
		n.mu.Unlock()
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	n.mu.Unlock()

	begin := time.Now()
	for try := 0; ; {
		n.mu.Lock()
		dead, paused, travel, changed := h.dead, h.at.paused, time.Duration(0), n.changed.wait()
		if to != nil {
			travel = n.delayLocked(h.at, to) + n.delayLocked(to, h.at)
		}
		n.mu.Unlock()
		switch {
		case dead:
			return nil, net.ErrClosed
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case paused:
			if err := await(ctx, changed, 0); err != nil {
				return nil, err
			}
			begin, try = time.Now(), 0
			continue
		case try >= len(syns):
			return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
		}
		at := begin.Add(syns[try])
		if wait := time.Until(at); wait > 0 {
			if err := await(ctx, changed, wait); err != nil {
				return nil, err
			}
			continue
		}
		try++
		if to == nil {
			continue // nobody has that address
		}
		if travel > 0 {
			if err := await(ctx, nil, travel); err != nil {
				return nil, err
			}
		}
		if c, err := h.connect(to, uint16(port)); c != nil || err != nil {
			return c, err
		}
	}
}

// await waits for ctx, changed, or that long where d is not 0.
func await(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-after:
	}
	return nil
}

// connect returns neither when the request was lost.
func (h *Host) connect(to *machine, port uint16) (*conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.dead {
		return nil, net.ErrClosed
	}
	if h.at.paused || !n.openLocked(h.at, to) || !n.openLocked(to, h.at) {
		return nil, nil
	}
	var l *listener
	if to.proc != nil {
		l = to.proc.ports[port]
	}
	if l == nil {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	if len(l.backlog) >= maxBacklog {
		return nil, nil
	}
	near, far := n.pairLocked(h, to.proc, n.portLocked(), port)
	l.backlog = append(l.backlog, far)
	l.changed.wake()
	return near, nil
}

// listener is a port where streams come in.
type listener struct {
	host *Host
	port uint16

	// Guarded by host.net.mu.
	backlog []*conn
	closed  bool
	changed signal
}

func (l *listener) Addr() net.Addr {
	return &net.TCPAddr{IP: l.host.at.ip.AsSlice(), Port: int(l.port)}
}

func (l *listener) Accept() (net.Conn, error) {
	n := l.host.net
	for {
		n.mu.Lock()
		if l.closed {
			n.mu.Unlock()
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		}
		if len(l.backlog) > 0 && !l.host.at.paused {
			c := l.backlog[0]
			l.backlog = l.backlog[1:]
			n.mu.Unlock()
			return c, nil
		}
		wait := l.changed.wait()
		if len(l.backlog) > 0 {
			wait = n.changed.wait() // paused
		}
		n.mu.Unlock()
		<-wait
	}
}

func (l *listener) Close() error {
	n := l.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.closeLocked()
	n.changed.wake()
	return nil
}

// closeLocked resets what was not accepted.
func (l *listener) closeLocked() {
	l.closed = true
	delete(l.host.ports, l.port)
	for _, c := range l.backlog {
		c.killLocked()
	}
	l.backlog = nil
	l.changed.wake()
}
