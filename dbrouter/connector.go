package dbrouter

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// connector opens connections of one data source and prepares each one's session.
type connector struct {
	base    driver.Connector
	setup   [][]string
	blocks  bool // the driver does not give up a call when its context ends
	maxLeft int64
	blocked sync.WaitGroup // nobody waits for it: a frozen server would be waited for
	left    atomic.Int64   // connections that were left behind in a call
}

// newConnector finds the connector of a data source: that of the configuration, else that of the registered driver.
// It refuses to dial while maxLeft connections are left behind in calls that a frozen server does not answer.
func newConnector(cfg *Config, dsn string, setup [][]string, maxLeft int) (*connector, error) {
	c := &connector{setup: setup, maxLeft: int64(maxLeft)}
	var err error
	if cfg.Connector != nil {
		if c.base, err = cfg.Connector(dsn); err != nil {
			return nil, err
		}
		// A driver that is wrapped cannot be told from others: who says postgres means lib/pq.
		c.blocks = cfg.DriverName == "postgres" || blocks(c.base.Driver())
		return c, nil
	}
	db, err := sql.Open(cfg.DriverName, dsn)
	if err != nil {
		return nil, err
	}
	d := db.Driver()
	if err := db.Close(); err != nil {
		return nil, err
	}
	c.base, c.blocks = plainConnector{d, dsn}, blocks(d)
	if dc, ok := d.(driver.DriverContext); ok {
		if c.base, err = dc.OpenConnector(dsn); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// blocks reports whether a driver goes on reading from a server that does not answer after the context has ended: lib/pq asks the server to
// cancel and waits for the answer, which a frozen server never gives.
func blocks(d driver.Driver) bool {
	t := reflect.TypeOf(d)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath() == "github.com/lib/pq"
}

// dialTimeout bounds a dial. database/sql gives no deadline to those that it makes for waiting calls, and makes one at a time: a frozen server
// would stop them all.
const dialTimeout = 10 * time.Second

// Connect opens a connection and sets its session up.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, &dialError{err}
	}
	for _, group := range c.setup {
		for i, stmt := range group {
			if err = execute(ctx, conn, stmt); err == nil {
				break
			}
			if lost(err) || ctx.Err() != nil || i == len(group)-1 {
				_ = conn.Close()
				return nil, &dialError{err}
			}
		}
	}
	return conn, nil
}

func (c *connector) dial(ctx context.Context) (driver.Conn, error) {
	if !c.blocks {
		return c.base.Connect(ctx)
	}
	if c.left.Load() >= c.maxLeft {
		return nil, errHung
	}
	// The one who loses patience leaves the connection to the goroutine, which closes it.
	type result struct {
		conn driver.Conn
		err  error
	}
	done, left := make(chan result), make(chan struct{})
	c.blocked.Go(func() {
		conn, err := c.base.Connect(ctx)
		defer func() {
			select {
			case <-left:
				c.left.Add(-1)
			default:
			}
		}()
		select {
		case done <- result{conn, err}:
		case <-left:
			if err == nil {
				conn.Close()
			}
		}
	})
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		return &patientConn{base: r.conn, c: c}, nil
	case <-ctx.Done():
		c.left.Add(1)
		close(left)
		return nil, ctx.Err()
	}
}

// Driver returns the driver of the data source.
func (c *connector) Driver() driver.Driver { return c.base.Driver() }

// Close is called when the pool closes.
func (c *connector) Close() error {
	if cl, ok := c.base.(io.Closer); ok {
		return cl.Close()
	}
	return nil
}

func execute(ctx context.Context, conn driver.Conn, stmt string) error {
	if e, ok := conn.(driver.ExecerContext); ok {
		_, err := e.ExecContext(ctx, stmt, nil)
		if !errors.Is(err, driver.ErrSkip) {
			return err
		}
	}
	st, err := conn.Prepare(stmt)
	if err != nil {
		return err
	}
	defer st.Close()
	if s, ok := st.(driver.StmtExecContext); ok {
		_, err = s.ExecContext(ctx, nil)
	} else {
		//lint:ignore SA1019 a driver of the old kind has nothing else
		_, err = st.Exec(nil)
	}
	return err
}

// plainConnector is that of a driver without one.
type plainConnector struct {
	driver driver.Driver
	dsn    string
}

func (p plainConnector) Connect(context.Context) (driver.Conn, error) { return p.driver.Open(p.dsn) }
func (p plainConnector) Driver() driver.Driver                        { return p.driver }
