package dbroutertest

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/nines-go/nines/dbrouter/internal/question"
)

type connector struct{ s *Server }

func (c connector) Driver() driver.Driver { return theDriver{} }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.s.ready(ctx); err != nil {
		return nil, err
	}
	var slow time.Duration
	c.s.set(func() { slow = c.s.dial })
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n := &conn{s: c.s}
	var err error
	c.s.set(func() {
		if c.s.down {
			err = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			return
		}
		if c.s.conns == nil {
			c.s.conns = map[*conn]bool{}
		}
		c.s.conns[n] = true
		c.s.dials++
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

type theDriver struct{}

func (theDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("dbroutertest: use Cluster.Connector")
}

// conn is one connection: it is read only once its session has been made so.
type conn struct {
	s                *Server
	readOnly, readTx bool
	dead             bool // guarded by s.c.mu
}

func (c *conn) Prepare(query string) (driver.Stmt, error) { return stmt{c, query}, nil }
func (c *conn) Begin() (driver.Tx, error)                 { return c.BeginTx(context.Background(), driver.TxOptions{}) }
func (c *conn) ResetSession(context.Context) error        { return c.alive() }

func (c *conn) Close() error {
	c.s.set(func() { delete(c.s.conns, c) })
	return nil
}

func (c *conn) alive() (err error) {
	c.s.set(func() {
		if c.dead {
			err = driver.ErrBadConn
		}
	})
	return err
}

func (c *conn) Ping(ctx context.Context) error {
	if err := c.s.ready(ctx); err != nil {
		return err
	}
	return c.alive()
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.Ping(ctx); err != nil {
		return nil, err
	}
	c.readTx = opts.ReadOnly
	return tx{c}, nil
}

type tx struct{ c *conn }

func (t tx) Commit() error   { t.c.readTx = false; return t.c.lost() }
func (t tx) Rollback() error { t.c.readTx = false; return t.c.lost() }

func (c *conn) lost() error {
	if c.alive() != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if strings.HasPrefix(query, "SET ") {
		if err := c.Ping(ctx); err != nil {
			return nil, err
		}
		c.readOnly = c.readOnly || strings.HasSuffix(query, "READ ONLY")
		return driver.RowsAffected(0), nil
	}
	if _, err := c.QueryContext(ctx, query, args); err != nil {
		return nil, err
	}
	return driver.RowsAffected(1), nil
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s := c.s
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if err := c.lost(); err != nil {
		return nil, err
	}
	switch query {
	case question.Postgres:
		return c.position(), nil
	case question.Identity:
		return &rows{columns: []string{"system_identifier"}, values: [][]driver.Value{{int64(42)}}}, nil
	}
	var slow time.Duration
	var fail error
	s.set(func() { slow, fail = s.slow, s.fail; s.calls++ })
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := s.ready(ctx); err != nil {
			return nil, err
		}
	}
	if fail != nil {
		return nil, fail
	}
	if writes(query) {
		return c.write()
	}
	if s.c.Answer != nil {
		if columns, values, ok := s.c.Answer(s.number, query, args); ok {
			return &rows{columns: columns, values: values}, nil
		}
	}
	r := &rows{columns: []string{"server", "writes"}}
	s.set(func() { r.values = [][]driver.Value{{int64(s.number), int64(s.applied())}} })
	return r, nil
}

// writes reports whether a statement begins like one that writes.
func writes(query string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	switch strings.ToUpper(word) {
	case "INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "ALTER", "DROP", "TRUNCATE":
		return true
	}
	return false
}

func (c *conn) write() (driver.Rows, error) {
	s := c.s
	var err error
	r := &rows{columns: []string{"server", "writes"}}
	s.set(func() {
		if s.standby || s.readOnly || c.readOnly || c.readTx {
			err = &Error{"25006", "cannot write: read-only"}
			return
		}
		s.c.log = append(s.c.log, time.Now())
		s.wrote++
		r.values = [][]driver.Value{{int64(s.number), int64(len(s.c.log))}}
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// position answers the router's question.
func (c *conn) position() *rows {
	const base, record = 1 << 24, 64 // bytes of log
	s := c.s
	var v []driver.Value
	s.set(func() {
		at := int64(base + record*s.applied())
		received := driver.Value(nil)
		if s.standby {
			received = int64(base + record*len(s.c.log))
		}
		v = []driver.Value{s.standby || s.readOnly, s.timeline, at, received, int64(8192), int64(1 << 24)}
	})
	return &rows{columns: []string{"standby", "timeline", "at", "received", "block", "segment"}, values: [][]driver.Value{v}}
}

type stmt struct {
	c     *conn
	query string
}

func (s stmt) Close() error  { return nil }
func (s stmt) NumInput() int { return -1 }
func (s stmt) Exec([]driver.Value) (driver.Result, error) {
	return s.c.ExecContext(context.Background(), s.query, nil)
}
func (s stmt) Query([]driver.Value) (driver.Rows, error) {
	return s.c.QueryContext(context.Background(), s.query, nil)
}
func (s stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.query, args)
}
func (s stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.QueryContext(ctx, s.query, args)
}

type rows struct {
	columns []string
	values  [][]driver.Value
}

func (r *rows) Columns() []string { return r.columns }
func (r *rows) Close() error      { return nil }
func (r *rows) Next(dest []driver.Value) error {
	if len(r.values) == 0 {
		return io.EOF
	}
	copy(dest, r.values[0])
	r.values = r.values[1:]
	return nil
}
