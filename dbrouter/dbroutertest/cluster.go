package dbroutertest

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync"
	"time"

	"github.com/nines-go/nines/dbrouter"
)

// Cluster is a master, server 0, and replicas, which have the master's writes at once unless told otherwise.
type Cluster struct {
	// Answer, when set before the first use, gives the rows of statements that do not write; ok false leaves it to the cluster.
	Answer func(server int, query string, args []driver.NamedValue) (columns []string, rows [][]driver.Value, ok bool)

	servers []*Server
	mu      sync.Mutex
	log     []time.Time // of the writes, on whichever master
}

// New returns a cluster with a number of replicas.
func New(replicas int) *Cluster {
	c := &Cluster{}
	for i := range replicas + 1 {
		s := &Server{c: c, number: i, standby: i > 0, timeline: 1, whole: make(chan struct{})}
		close(s.whole)
		c.servers = append(c.servers, s)
	}
	return c
}

// Config is that of a router for all servers, which it takes for PostgreSQL.
func (c *Cluster) Config() dbrouter.Config {
	cfg := dbrouter.Config{DriverName: "postgres", Connector: c.Connector, DataSource: c.DSN(0)}
	for i := range c.servers[1:] {
		cfg.DataSourceReplicas = append(cfg.DataSourceReplicas, c.DSN(i+1))
	}
	return cfg
}

// DSN is the data source of server i.
func (c *Cluster) DSN(i int) string {
	return fmt.Sprintf("host=server%d password=secret dbname=test", i)
}

// Connector is for Config.Connector.
func (c *Cluster) Connector(dataSource string) (driver.Connector, error) {
	for i, s := range c.servers {
		if c.DSN(i) == dataSource {
			return connector{s}, nil
		}
	}
	return nil, fmt.Errorf("dbroutertest: no server has the data source %q", dataSource)
}

// Server returns server i.
func (c *Cluster) Server(i int) *Server { return c.servers[i] }

// Len is the number of servers.
func (c *Cluster) Len() int { return len(c.servers) }

// Server is one server of a Cluster.
type Server struct {
	c      *Cluster
	number int

	// What follows is guarded by c.mu.
	standby, readOnly, down bool
	timeline                int64
	fail                    error
	slow                    time.Duration
	lag, dial               time.Duration
	paused                  int           // writes that it stays at, 0: not paused; else one more than these
	whole                   chan struct{} // closed while it answers
	silent                  bool
	conns                   map[*conn]bool
	dials, calls            int
	wrote                   int
}

func (s *Server) set(fn func()) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	fn()
}

// Hang makes the server silent, as if its machine had frozen: calls and dials wait until Resume or their context's end.
func (s *Server) Hang() {
	s.set(func() {
		if !s.silent {
			s.silent, s.whole = true, make(chan struct{})
		}
	})
}

// Resume ends Hang.
func (s *Server) Resume() {
	s.set(func() {
		if s.silent {
			s.silent = false
			close(s.whole)
		}
	})
}

// Kill ends the connections and refuses new ones, as if the process had died.
func (s *Server) Kill() {
	s.set(func() {
		s.down = true
		for c := range s.conns {
			c.dead = true
		}
	})
}

// Start ends Kill.
func (s *Server) Start() { s.set(func() { s.down = false }) }

// Fail makes every statement but the router's own fail with err; nil ends that. An Error carries a SQLSTATE.
func (s *Server) Fail(err error) { s.set(func() { s.fail = err }) }

// Slow makes every statement but the router's own take d.
func (s *Server) Slow(d time.Duration) { s.set(func() { s.slow = d }) }

// SlowDials makes every new connection take d.
func (s *Server) SlowDials(d time.Duration) { s.set(func() { s.dial = d }) }

// Lag has a replica apply each write d after it was made.
func (s *Server) Lag(d time.Duration) { s.set(func() { s.lag = d }) }

// PauseReplay has a replica apply no more writes.
func (s *Server) PauseReplay() { s.set(func() { s.paused = s.applied() + 1 }) }

// ResumeReplay ends PauseReplay.
func (s *Server) ResumeReplay() { s.set(func() { s.paused = 0 }) }

// SetReadOnly has a master refuse writes, or ends that.
func (s *Server) SetReadOnly(on bool) { s.set(func() { s.readOnly = on }) }

// Promote makes a replica a master. The one before stays what it is, unless the test says otherwise.
func (s *Server) Promote() {
	s.set(func() {
		s.standby, s.paused, s.lag = false, 0, 0
		for _, o := range s.c.servers {
			s.timeline = max(s.timeline, o.timeline)
		}
		s.timeline++
	})
}

// Follow makes the server a replica of the newest master.
func (s *Server) Follow() {
	s.set(func() {
		s.standby, s.readOnly = true, false
		for _, o := range s.c.servers {
			s.timeline = max(s.timeline, o.timeline)
		}
	})
}

// Conns is the number of its open connections, those of the router's probes included.
func (s *Server) Conns() (n int) { s.set(func() { n = len(s.conns) }); return n }

// Dials is the number of connections that were ever opened.
func (s *Server) Dials() (n int) { s.set(func() { n = s.dials }); return n }

// Calls is the number of statements that it was given, those of the router's probes and sessions excluded.
func (s *Server) Calls() (n int) { s.set(func() { n = s.calls }); return n }

// Writes is the number of writes that were made on this server.
func (s *Server) Writes() (n int) { s.set(func() { n = s.wrote }); return n }

// applied is the number of writes that the server shows. c.mu is held.
func (s *Server) applied() int {
	if s.paused > 0 {
		return s.paused - 1
	}
	n := len(s.c.log)
	if s.standby && s.lag > 0 {
		for n > 0 && time.Since(s.c.log[n-1]) < s.lag {
			n--
		}
	}
	return n
}

// ready waits until the server answers.
func (s *Server) ready(ctx context.Context) error {
	s.c.mu.Lock()
	whole := s.whole
	s.c.mu.Unlock()
	select {
	case <-whole:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Error is an error of a server with a SQLSTATE, such as 25006 for a write on a replica.
type Error struct{ State, Message string }

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.State + ")" }

// SQLState is how drivers tell it.
func (e *Error) SQLState() string { return e.State }
