// Package faultnet is a network that can be cut: a process whose traffic goes through it can be separated from its peers and joined to them
// again, without privileges and without touching its other connections.
package faultnet

import (
	"context"
	"net"
	"sync"
)

// Base is a network to listen and dial on. It has the methods of cluster.Network.
type Base interface {
	Listen(ctx context.Context, addr string) (net.Listener, error)
	ListenPacket(ctx context.Context, addr string) (net.PacketConn, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Network passes traffic to its base until Cut, and holds it until Heal. A cut is silent, like a pulled cable: streams stand still and lose
// nothing, new connections are not answered, datagrams vanish. It is safe for concurrent use.
type Network struct {
	base Base

	mu     sync.Mutex
	healed chan struct{} // closed while the network is whole
	cut    bool
}

// New returns a whole network over base; nil is the host's.
func New(base Base) *Network {
	if base == nil {
		base = host{}
	}
	n := &Network{base: base, healed: make(chan struct{})}
	close(n.healed)
	return n
}

// Cut separates the process from its peers.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.cut {
		n.cut, n.healed = true, make(chan struct{})
	}
}

// Heal joins it to them again.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		n.cut = false
		close(n.healed)
	}
}

// IsCut reports whether the network is cut.
func (n *Network) IsCut() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut
}

// whole returns a channel that is closed once the network is whole.
func (n *Network) whole() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.healed
}

// Listen listens for streams; while the network is cut nobody is accepted.
func (n *Network) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := n.base.Listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &listener{Listener: l, net: n, closed: make(chan struct{})}, nil
}

// ListenPacket opens a socket for datagrams; while the network is cut they vanish both ways.
func (n *Network) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	p, err := n.base.ListenPacket(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &packetConn{PacketConn: p, net: n}, nil
}

// Dial connects; while the network is cut it waits for ctx or for the healing.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	select {
	case <-n.whole():
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	c, err := n.base.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return newConn(c, n), nil
}

type listener struct {
	net.Listener
	net    *Network
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case <-l.net.whole():
		return newConn(c, l.net), nil
	case <-l.closed:
		c.Close()
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type packetConn struct {
	net.PacketConn
	net *Network
}

func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, addr, err := p.PacketConn.ReadFrom(b)
		if err != nil || !p.net.IsCut() {
			return n, addr, err
		}
	}
}

func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	if p.net.IsCut() {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, addr)
}

// host is the network of the machine.
type host struct{}

func (host) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

func (host) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, "udp", addr)
}

func (host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}
