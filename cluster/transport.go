package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// The first byte of an authenticated stream, and of an opened datagram.
const (
	toGossip  = 'g'
	toLink    = 'l'
	toAsk     = 'a'
	toRelay   = 'r' // then the ID of the member that is to be reached
	toRelayed = 'v' // a link that came through another member: then that one's ID
	toPing    = 'p' // datagrams only: answered by toPong
	toPong    = 'o'
)

const maxDatagram = 64 << 10

// wire is the one port of a Node: datagrams and streams, sealed and authenticated, told apart by their first byte. It is memberlist's
// transport too.
type wire struct {
	log     *slog.Logger
	net     Network
	guard   *guard
	ln      net.Listener
	pc      net.PacketConn
	gate    gate
	spawn   func(func())
	adv     advertised
	packets chan *memberlist.Packet
	gossip  chan net.Conn

	onLink  func(c net.Conn, via string)
	onAsk   func(c net.Conn)
	onRelay func(c net.Conn)
	onPong  func(from string)

	lifeMu sync.Mutex
	life   map[string]uint64 // datagrams by sender

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // handed to memberlist, to be closed with the wire
	closed bool
	done   chan struct{}
	ctx    context.Context // ends with the wire
	cancel context.CancelFunc

	opened  atomic.Uint64 // datagrams that were ours
	refused atomic.Uint64 // streams and datagrams that were not ours
	forged  atomic.Uint64 // of them, datagrams
	dropped atomic.Uint64 // datagrams that memberlist was too busy for
}

// listen opens the port for TCP and UDP. Port 0 takes one that is free for both.
func listen(ctx context.Context, c *Config) (net.Listener, net.PacketConn, error) {
	host, port, _ := splitAddr(c.BindAddr)
	field, value := "BindAddr", c.BindAddr
	if port < 0 {
		if port = c.GossipPort; port == 0 {
			port = DefaultPort
		}
		field, value = "GossipPort", strconv.Itoa(port)
	}
	const remedy = "name an address of this host and a port that no other process or Node uses, or port 0 for a free one"
	var lastErr error
	for range 16 {
		ln, err := c.Network.Listen(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return nil, nil, &listenError{field, value, remedy, err}
		}
		tcp, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			ln.Close()
			return nil, nil, &listenError{field, value, remedy, fmt.Errorf("Network.Listen gave a %T, want *net.TCPAddr", ln.Addr())}
		}
		pc, err := c.Network.ListenPacket(ctx, net.JoinHostPort(host, strconv.Itoa(tcp.Port)))
		if err == nil {
			return ln, pc, nil
		}
		ln.Close()
		lastErr = err
		if port != 0 {
			break
		}
	}
	return nil, nil, &listenError{field, value, remedy, lastErr}
}

func newWire(log *slog.Logger, network Network, g *guard, ln net.Listener, pc net.PacketConn, adv advertised, spawn func(func())) *wire {
	ctx, cancel := context.WithCancel(context.Background())
	return &wire{
		ctx: ctx, cancel: cancel,
		log: log, net: network, guard: g, ln: ln, pc: pc, adv: adv, spawn: spawn,
		packets: make(chan *memberlist.Packet, 1024), gossip: make(chan net.Conn, 16),
		conns: map[net.Conn]struct{}{}, life: map[string]uint64{}, done: make(chan struct{}),
	}
}

func (w *wire) accept() {
	for n := 0; ; {
		c, err := w.ln.Accept()
		if err != nil {
			select {
			case <-w.done:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			n++
			w.log.Warn("connection not accepted", "err", err)
			select { // out of file descriptors, most likely
			case <-w.done:
				return
			case <-time.After(min(time.Duration(n)*10*time.Millisecond, time.Second)):
			}
			continue
		}
		n = 0
		leave := w.gate.enter(c)
		w.spawn(func() { w.admit(c, leave) })
	}
}

// admit lets a stranger show the key and say what the stream is for.
func (w *wire) admit(raw net.Conn, leave func()) {
	defer leave()
	c, err := w.guard.server(w.ctx, raw)
	if err != nil {
		w.refused.Add(1)
		w.log.Debug("connection refused", "from", raw.RemoteAddr().String(), "err", err)
		raw.Close()
		return
	}
	var kind [1]byte
	if _, err := c.Read(kind[:]); err != nil {
		c.Close()
		return
	}
	via := ""
	if kind[0] == toRelayed {
		if via, err = readShortString(c); err != nil || via == "" {
			c.Close()
			return
		}
	}
	_ = c.SetDeadline(time.Time{})
	leave()
	switch kind[0] {
	case toGossip:
		c = w.track(c)
		if c == nil {
			return
		}
		select {
		case w.gossip <- c:
		case <-w.done:
			c.Close()
		}
	case toLink:
		w.onLink(c, "")
	case toRelayed:
		w.onLink(c, via)
	case toRelay:
		if c = w.track(c); c != nil {
			w.onRelay(c)
		}
	case toAsk:
		w.onAsk(c)
	default:
		w.refused.Add(1)
		c.Close()
	}
}

func (w *wire) read() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := w.pc.ReadFrom(buf)
		if err != nil {
			select {
			case <-w.done:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // a port that answered "unreachable" to what we sent
		}
		at := time.Now()
		id, plain, err := w.guard.open(buf[:n])
		if err != nil || len(plain) == 0 {
			w.refused.Add(1)
			w.forged.Add(1)
			continue
		}
		w.opened.Add(1)
		w.heard(id)
		switch plain[0] {
		case toGossip:
			select {
			case w.packets <- &memberlist.Packet{Buf: append([]byte(nil), plain[1:]...), From: from, Timestamp: at}:
			default:
				w.dropped.Add(1)
			}
		case toPing:
			_, _ = w.pc.WriteTo(w.guard.seal([]byte{toPong}), from)
		case toPong:
			w.onPong(id)
		}
	}
}

// dial opens an authenticated stream.
func (w *wire) dial(ctx context.Context, addr string, kind byte) (net.Conn, error) {
	raw, err := w.net.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c, err := w.guard.client(ctx, raw)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{kind}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// heard counts a sign of life.
func (w *wire) heard(id string) {
	w.lifeMu.Lock()
	w.life[id]++
	w.lifeMu.Unlock()
}

// lives returns how many datagrams a process has sent here.
func (w *wire) lives(id string) uint64 {
	w.lifeMu.Lock()
	defer w.lifeMu.Unlock()
	return w.life[id]
}

// forget drops the count of a process that is gone.
func (w *wire) forget(id string) {
	w.lifeMu.Lock()
	defer w.lifeMu.Unlock()
	delete(w.life, id)
}

// ping sends a datagram that a Node answers.
func (w *wire) ping(addr string) { _, _ = w.send(toPing, nil, addr) }

func (w *wire) send(kind byte, b []byte, addr string) (time.Time, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	plain := make([]byte, 0, len(b)+1)
	plain = append(append(plain, kind), b...)
	_, err = w.pc.WriteTo(w.guard.seal(plain), net.UDPAddrFromAddrPort(ap))
	return time.Now(), err
}

// close ends the port and what memberlist holds of it.
func (w *wire) close() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.closed = true
	conns := w.conns
	w.conns = nil
	w.mu.Unlock()
	close(w.done)
	w.cancel()
	w.ln.Close()
	w.pc.Close()
	for c := range conns {
		c.Close()
	}
}

type tracked struct {
	net.Conn
	w *wire
}

func (t *tracked) Close() error {
	t.w.mu.Lock()
	delete(t.w.conns, t)
	t.w.mu.Unlock()
	return t.Conn.Close()
}

// track remembers a stream of memberlist's; nil when the wire is closed.
func (w *wire) track(c net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		c.Close()
		return nil
	}
	t := &tracked{c, w}
	w.conns[t] = struct{}{}
	return t
}

// The methods of memberlist.NodeAwareTransport.

func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) { return w.adv.IP, w.adv.Port, nil }

func (w *wire) WriteTo(b []byte, addr string) (time.Time, error) { return w.send(toGossip, b, addr) }

func (w *wire) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return w.send(toGossip, b, addr.Addr)
}

func (w *wire) PacketCh() <-chan *memberlist.Packet { return w.packets }

func (w *wire) StreamCh() <-chan net.Conn { return w.gossip }

func (w *wire) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(w.ctx, timeout)
	defer cancel()
	c, err := w.dial(ctx, addr, toGossip)
	if err != nil {
		return nil, err
	}
	if c = w.track(c); c == nil {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (w *wire) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return w.DialTimeout(addr.Addr, timeout)
}

// Shutdown is called by memberlist; the port stays open until the Node closes it.
func (w *wire) Shutdown() error { return nil }

var _ memberlist.NodeAwareTransport = (*wire)(nil)
