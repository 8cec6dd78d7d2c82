package dbrouter_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/faultnet"
	"github.com/nines-go/nines/internal/lab"
)

// servers are a primary (0) and replicas.
type servers interface {
	Len() int
	DSN(i int) string
	Addr(i int) string
	Pause(i int)
	Resume(i int)
	Kill(i int)
	Start(i int)
	Promote(i int)
	Follow(i, primary int)
	PauseReplay(i int)
	ResumeReplay(i int)
	SetReadOnly(i int, on bool)
	Replayed()
	Exec(i int, query string)
}

// setup is one combination of servers, driver and what stands between.
type setup struct {
	name, driver string
	pooler       bool
	port         string // SQL for the port of the server that answers
	servers
	dsn func(i int) string
}

// kinds make a fresh cluster each.
var kinds = map[string]func(t testing.TB, replicas int) *setup{
	"postgres": func(t testing.TB, replicas int) *setup {
		c := lab.Postgres(t, replicas)
		return &setup{driver: "postgres", port: postgresPort, servers: c, dsn: c.DSN}
	},
	"pgx": func(t testing.TB, replicas int) *setup {
		c := lab.Postgres(t, replicas)
		return &setup{driver: "pgx", port: postgresPort, servers: c, dsn: c.URL}
	},
	"mariadb": func(t testing.TB, replicas int) *setup {
		c := lab.MariaDB(t, replicas)
		return &setup{driver: "mysql", port: "@@port", servers: c, dsn: c.DSN}
	},
	"pgbouncer": func(t testing.TB, replicas int) *setup {
		c := lab.Postgres(t, replicas)
		b := lab.PgBouncer(t, c)
		return &setup{driver: "pgx", port: postgresPort, servers: c, pooler: true,
			dsn: func(i int) string { return b.DSN(i) + " default_query_exec_mode=exec" }}
	},
}

const postgresPort = "current_setting('port')::int"

// fresh makes another cluster of the same kind.
func (s *setup) fresh(t testing.TB, replicas int) *setup {
	n := kinds[s.name](t, replicas)
	n.name = s.name
	return n
}

// setups runs fn on a fresh cluster of each kind, or of the kinds named, in parallel.
func setups(t *testing.T, replicas int, fn func(t *testing.T, s *setup), names ...string) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(kinds))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, (&setup{name: name}).fresh(t, replicas))
		})
	}
}

// config is that of a router for all servers.
func (s *setup) config() dbrouter.Config {
	cfg := dbrouter.Config{DriverName: s.driver, DataSource: s.dsn(0), Pooler: s.pooler, MonitorInterval: 200 * time.Millisecond, Logger: quiet(),
		TokenKey: []byte("a key of tests, not of servers..")}
	for i := 1; i < s.Len(); i++ {
		cfg.DataSourceReplicas = append(cfg.DataSourceReplicas, s.dsn(i))
	}
	return cfg
}

// at returns the number of the server that listens on port.
func (s *setup) at(port int) int {
	for i := range s.Len() {
		if strings.HasSuffix(s.Addr(i), ":"+strconv.Itoa(port)) {
			return i
		}
	}
	return -1
}

// serves is the number of the server that answers a read.
func (s *setup) serves(ctx context.Context, rd *dbrouter.Reader) (int, error) {
	var port int
	err := rd.GetContext(ctx, &port, "SELECT "+s.port)
	return s.at(port), err
}

// direct is a pool for one server.
func (s *setup) direct(t testing.TB, i int) *sql.DB {
	driver := s.driver
	db, err := sql.Open(driver, s.DSN(i))
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// rounds is n, or all of them when there is time.
func rounds(n, all int) int {
	if os.Getenv("NINES_CHAOS") != "" {
		return all
	}
	return n
}

// proxy passes connections on to a server until its network is cut. Its target may be changed.
type proxy struct {
	*faultnet.Network
	addr   string
	target atomic.Pointer[string]
}

func newProxy(t testing.TB, listen, target string) *proxy {
	p := &proxy{Network: faultnet.New(nil)}
	p.target.Store(&target)
	l, err := p.Listen(context.Background(), listen)
	require.NoError(t, err)
	p.addr = l.Addr().String()
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	t.Cleanup(func() {
		l.Close()
		p.Heal()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", *p.target.Load())
			if err != nil {
				c.Close()
				continue
			}
			mu.Lock()
			conns[c], conns[d] = true, true
			mu.Unlock()
			for _, pair := range [][2]net.Conn{{c, d}, {d, c}} {
				wg.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
					pair[1].Close()
					mu.Lock()
					delete(conns, pair[0])
					delete(conns, pair[1])
					mu.Unlock()
				})
			}
		}
	})
	return p
}

// through returns the data source with another address for its server.
func (s *setup) through(i int, addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	_, old, _ := net.SplitHostPort(s.Addr(i))
	dsn := s.DSN(i)
	dsn = strings.Replace(dsn, "127.0.0.1:"+old, addr, 1)
	dsn = strings.Replace(dsn, "host=127.0.0.1", "host="+host, 1)
	return strings.Replace(dsn, "port="+old, "port="+port, 1)
}

// best runs fn up to three times until it says that all went within bounds, and prints each time. Machines are busy.
func best(t *testing.T, what string, fn func() (took fmt.Stringer, ok bool)) {
	t.Helper()
	for range 3 {
		took, ok := fn()
		t.Logf("%s: %v", what, took)
		if ok {
			return
		}
	}
	t.Errorf("%s: out of bounds three times", what)
}
