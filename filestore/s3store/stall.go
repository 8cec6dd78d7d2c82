package s3store

import (
	"context"
	"net"
	"time"
)

// stallDialer returns connections on which nothing may stand still for longer than limit, however long the whole takes.
func stallDialer(d *net.Dialer, limit time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &stallConn{c, limit}, nil
	}
}

type stallConn struct {
	net.Conn
	limit time.Duration
}

func (c *stallConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// Write puts off the deadline of the Read that waits for the answer too: it may have begun while the connection was idle.
func (c *stallConn) Write(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
