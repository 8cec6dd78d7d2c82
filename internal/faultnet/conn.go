package faultnet

import (
	"net"
	"os"
	"sync"
	"time"
)

// conn is a stream that stands still while its network is cut.
type conn struct {
	net.Conn
	net         *Network
	once        sync.Once
	closed      chan struct{}
	read, write deadline

	readMu sync.Mutex
	held   []byte // read from the base while the network was cut
	err    error  // that came with it
}

func newConn(c net.Conn, n *Network) *conn {
	return &conn{Conn: c, net: n, closed: make(chan struct{}), read: newDeadline(), write: newDeadline()}
}

// wait returns when the network is whole, or with the reason why not.
func (c *conn) wait(d *deadline) error {
	select {
	case <-c.net.whole():
		return nil
	default:
	}
	select {
	case <-c.net.whole():
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-d.passed():
		return os.ErrDeadlineExceeded
	}
}

func (c *conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(c.held) == 0 && c.err == nil {
		n, err := c.Conn.Read(b)
		if !c.net.IsCut() || isTimeout(err) {
			return n, err
		}
		c.held, c.err = append([]byte(nil), b[:n]...), err
	}
	if err := c.wait(&c.read); err != nil {
		return 0, err
	}
	n := copy(b, c.held)
	c.held = c.held[n:]
	if len(c.held) > 0 {
		return n, nil
	}
	err := c.err
	c.err = nil
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.wait(&c.write); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *conn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.read.set(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.write.set(t)
	return c.Conn.SetWriteDeadline(t)
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// deadline is a channel that closes at a time that may be moved.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{}
}

func newDeadline() deadline { return deadline{ch: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ch
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	select {
	case <-d.ch:
		d.ch = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	ch := d.ch
	d.timer = time.AfterFunc(time.Until(t), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.ch == ch {
			select {
			case <-ch:
			default:
				close(ch)
			}
		}
	})
}
