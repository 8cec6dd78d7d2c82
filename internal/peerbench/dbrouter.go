package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/jmoiron/sqlx"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

func init() { products["db"] = dbRows }

const dbQuery = "SELECT id, name, created_at FROM posts WHERE channel_id = $1 ORDER BY created_at DESC LIMIT 60"

// dbRead is longer than ten bytes: dbresolver reads what is shorter on the master.
const dbRead = "SELECT count(*) FROM pg_namespace"

// dbRows compares what a read costs over a driver that does nothing, and how many reads fail when one of two replicas is dead.
func dbRows(b *bench) ([]row, error) {
	rows, err := dbCost(b)
	if err != nil {
		return nil, err
	}
	failed, err := dbFailed()
	return append(rows, failed), err
}

// dbCost measures time of the processor, which other work on the machine does not change.
func dbCost(b *bench) ([]row, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := dbrouter.Open(ctx, dbrouter.Config{DriverName: "pgx", DataSource: "host=a", DataSourceReplicas: []string{"host=b", "host=c"},
		Logger: slog.New(slog.DiscardHandler), Connector: func(string) (driver.Connector, error) { return nothing{}, nil }})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	direct := sqlx.NewDb(sql.OpenDB(nothing{}), "pgx")
	defer direct.Close()
	g, err := dbGorm(sql.OpenDB(nothing{}), sql.OpenDB(nothing{}), sql.OpenDB(nothing{}))
	if err != nil {
		return nil, err
	}
	session, _ := dbrouter.WithSession(ctx)
	if _, err := r.Master().ExecContext(session, "UPDATE a SET v = 1"); err != nil {
		return nil, err
	}
	var v int
	calls := map[string]func() error{
		"router":         func() error { return r.Replica().GetContext(ctx, &v, dbQuery, 1) },
		"router session": func() error { return r.Replica().GetContext(session, &v, dbQuery, 1) },
		"sqlx":           func() error { return direct.GetContext(ctx, &v, dbQuery, 1) },
		"gorm":           func() error { return g.WithContext(ctx).Raw(dbQuery, 1).Scan(&v).Error },
	}
	ns, allocs := map[string][]float64{}, map[string]float64{}
	for range b.rounds {
		for name, call := range calls {
			n, a, err := dbMeasure(b.length, call)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			ns[name], allocs[name] = append(ns[name], n), a
		}
	}
	median := func(name string) float64 { slices.Sort(ns[name]); return ns[name][len(ns[name])/2] }
	return []row{
		{Name: "db.get.cpu", Unit: "ns", Ours: median("router"), Limit: median("sqlx"), Ratio: median("router") / median("sqlx"),
			Peers: map[string]float64{"gorm dbresolver": median("gorm"), "ours in a session": median("router session")}},
		{Name: "db.get.allocs", Unit: "allocs", Ours: allocs["router"], Limit: allocs["sqlx"], Ratio: allocs["router"] / allocs["sqlx"],
			Peers: map[string]float64{"gorm dbresolver": allocs["gorm"], "ours in a session": allocs["router session"]}},
	}, nil
}

func dbMeasure(length time.Duration, call func() error) (ns, allocs float64, err error) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cpu, n := dbProcessor(), 0
	for end := time.Now().Add(length); time.Now().Before(end); n += 64 {
		for range 64 {
			if err := call(); err != nil {
				return 0, 0, err
			}
		}
	}
	used := dbProcessor() - cpu
	runtime.ReadMemStats(&after)
	return float64(used) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n), nil
}

func dbProcessor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func dbGorm(master *sql.DB, replicas ...*sql.DB) (*gorm.DB, error) {
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: master}), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	if err != nil {
		return nil, err
	}
	var dialectors []gorm.Dialector
	for _, db := range replicas {
		dialectors = append(dialectors, postgres.New(postgres.Config{Conn: db}))
	}
	return g, g.Use(dbresolver.Register(dbresolver.Config{Replicas: dialectors}))
}

// dbFailed counts the reads of 1,000 that fail, by 16 workers, after one of two replicas has died.
func dbFailed() (row, error) {
	t := &jobsTB{}
	defer t.end()
	_, master := lab.Database(t)
	_, alive := lab.Database(t)
	_, dying := lab.Database(t)
	fail := func(open func(dead string) (call func() error, err error)) (float64, error) {
		p, err := newDBProxy(dying)
		if err != nil {
			return 0, err
		}
		defer p.kill()
		call, err := open(p.dsn)
		if err != nil {
			return 0, err
		}
		for range 100 {
			if err := call(); err != nil {
				return 0, err
			}
		}
		p.kill()
		var mu sync.Mutex
		failed := 0
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 1000 / 16 {
					if call() != nil {
						mu.Lock()
						failed++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return float64(failed), nil
	}
	ctx := context.Background()
	ours, err := fail(func(dead string) (func() error, error) {
		r, err := dbrouter.Open(ctx, dbrouter.Config{DriverName: "pgx", DataSource: master, DataSourceReplicas: []string{alive, dead}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { r.Close() })
		return func() error { return r.Replica().GetContext(ctx, new(int), dbRead) }, nil
	})
	if err != nil {
		return row{}, err
	}
	theirs, err := fail(func(dead string) (func() error, error) {
		var dbs []*sql.DB
		for _, dsn := range []string{master, alive, dead} {
			db, err := sql.Open("pgx", dsn)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { db.Close() })
			dbs = append(dbs, db)
		}
		g, err := dbGorm(dbs[0], dbs[1:]...)
		if err != nil {
			return nil, err
		}
		return func() error { var v int; return g.Raw(dbRead).Scan(&v).Error }, nil
	})
	met := ours == 0
	return row{Name: "db.failed reads, 1 of 2 replicas dead", Unit: "of 992", Ours: ours, Peers: map[string]float64{"gorm dbresolver": theirs}, Goal: "0", Met: &met}, err
}

// dbProxy stands before a server and can die.
type dbProxy struct {
	l     net.Listener
	dsn   string
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func newDBProxy(dsn string) (*dbProxy, error) {
	var port string
	for f := range strings.FieldsSeq(dsn) {
		if v, ok := strings.CutPrefix(f, "port="); ok {
			port = v
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, own, _ := net.SplitHostPort(l.Addr().String())
	p := &dbProxy{l: l, dsn: strings.Replace(dsn, "port="+port, "port="+own, 1)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, d)
			if p.dead {
				c.Close()
				d.Close()
			}
			p.mu.Unlock()
			go func() { _, _ = io.Copy(c, d); c.Close() }()
			go func() { _, _ = io.Copy(d, c); d.Close() }()
		}
	}()
	return p, nil
}

func (p *dbProxy) kill() {
	p.l.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	for _, c := range p.conns {
		c.Close()
	}
}

// nothing is a driver that does nothing, as fast as it can.
type nothing struct{}

func (nothing) Connect(context.Context) (driver.Conn, error) { return nothing{}, nil }
func (nothing) Driver() driver.Driver                        { return nothing{} }
func (nothing) Open(string) (driver.Conn, error)             { return nothing{}, nil }
func (nothing) Prepare(string) (driver.Stmt, error)          { return nil, driver.ErrSkip }
func (nothing) Close() error                                 { return nil }
func (nothing) Begin() (driver.Tx, error)                    { return nil, driver.ErrSkip }
func (nothing) CheckNamedValue(*driver.NamedValue) error     { return nil }
func (nothing) Ping(context.Context) error                   { return nil }
func (nothing) ResetSession(context.Context) error           { return nil }
func (nothing) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(0), nil
}

func (nothing) QueryContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if strings.Contains(query, "wal_segment_size") { // the router's question: a master that stands still
		return &nothingRows{columns: []string{"a", "b", "c", "d", "e", "f"}, values: []driver.Value{false, int64(1), int64(1 << 24), nil, int64(8192), int64(1 << 24)}}, nil
	}
	return &nothingRows{columns: []string{"v"}, values: []driver.Value{int64(1)}}, nil
}

type nothingRows struct {
	columns []string
	values  []driver.Value
	done    bool
}

func (r *nothingRows) Columns() []string { return r.columns }
func (r *nothingRows) Close() error      { return nil }
func (r *nothingRows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	copy(dest, r.values)
	return nil
}
