package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
)

// The election: how long nobody works after the leader was killed, and what the fence costs. Three processes; a round is the SIGKILL of the
// leader. The peer is River's leader, which schedules its jobs: from the kill until its row names another.

// electionJob is the argument of the roles of this file.
type electionJob struct {
	Driver, DSN, Name, Bind string
	Seeds                   []string
}

func init() {
	products["election"] = electionRows
	roles["election.ours"] = electionChild
	roles["election.river"] = electionRiverChild
}

func electionRows(b *bench) ([]row, error) {
	var rows []row
	for _, kind := range []string{"postgres", "mariadb", "sqlite"} {
		t := &electionTB{}
		got, err := electionOn(b, t, kind)
		t.end()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		rows = append(rows, got...)
	}
	return rows, nil
}

func electionOn(b *bench, t *electionTB, kind string) ([]row, error) {
	rounds := 20
	if b.quick {
		rounds = 5
	}
	driver, dsn := t.database(kind)
	db, err := sqlx.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	fenced, unfenced, err := electionKills(db, driver, dsn, rounds)
	if err != nil {
		return nil, err
	}
	ms := func(name string, of []float64, p float64, most float64) row {
		return row{Name: "election." + name + "." + kind, Unit: "ms", Ours: at(of, p), Peers: map[string]float64{}}.atMost(1, most, fmt.Sprintf("%g ms", most))
	}
	rows := []row{ms("failover.p50", fenced, 0.5, 50), ms("failover.p99", fenced, 0.99, 1000), ms("lead.p99", unfenced, 0.99, 4000)}
	with, without, err := electionFence(db, b.length)
	if err != nil {
		return nil, err
	}
	rows = append(rows, row{Name: "election.fence." + kind, Unit: "µs/tx", Ours: with, Limit: without, Ratio: with / without, Peers: map[string]float64{}})
	if kind == "postgres" {
		took, err := electionRiver(dsn, min(rounds, 5))
		if err != nil {
			return nil, fmt.Errorf("river: %w", err)
		}
		rows[0].Peers["river"] = median(took)
	}
	return rows, nil
}

func at(xs []float64, p float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	return xs[min(int(p*float64(len(xs))), len(xs)-1)]
}

// electionKills kills the leader again and again, and returns how many milliseconds it took until another committed, and acted unfenced.
func electionKills(db *sqlx.DB, driver, dsn string, rounds int) (fenced, unfenced []float64, err error) {
	if _, err := db.Exec(`CREATE TABLE bench_effects (term bigint, name varchar(10), at bigint, unfenced int)`); err != nil {
		return nil, nil, err
	}
	job := electionJob{Driver: driver, DSN: dsn}
	names := []string{"a", "b", "c"}
	binds := map[string]string{}
	for _, name := range names {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		binds[name] = ln.Addr().String()
		job.Seeds = append(job.Seeds, binds[name])
		ln.Close()
	}
	children := map[string]*child{}
	defer func() {
		for _, c := range children {
			c.cmd.Process.Kill()
			c.end()
		}
	}()
	launch := func(name string) (err error) {
		job.Name, job.Bind = name, binds[name]
		children[name], err = start("election.ours", job)
		return err
	}
	for _, name := range names {
		if err := launch(name); err != nil {
			return nil, nil, err
		}
	}
	type first struct {
		Term uint64
		Name string
		At   int64
	}
	next := func(above uint64, unfenced int) (f first, err error) {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			err = db.Get(&f, fmt.Sprintf(`SELECT term, name, at FROM bench_effects WHERE term>%d AND unfenced>=%d ORDER BY at LIMIT 1`, above, unfenced))
			if err == nil {
				return f, nil
			}
		}
		return f, fmt.Errorf("nobody leads: %w", err)
	}
	leader, err := next(0, 1)
	for i := 0; i < rounds && err == nil; i++ {
		time.Sleep(time.Second) // the others are ready for the next
		began := time.Now()
		children[leader.Name].cmd.Process.Kill()
		children[leader.Name].end()
		f, err := next(leader.Term, 0)
		if err != nil {
			return nil, nil, err
		}
		u, err := next(leader.Term, 1)
		if err != nil {
			return nil, nil, err
		}
		fenced = append(fenced, float64(f.At-began.UnixNano())/1e6)
		unfenced = append(unfenced, float64(u.At-began.UnixNano())/1e6)
		if err := launch(leader.Name); err != nil {
			return nil, nil, err
		}
		leader = u
	}
	return fenced, unfenced, err
}

// electionChild takes part, and notes the first of its fenced and of its unfenced moments in each term, and then some.
func electionChild(arg string, _ func(any)) error {
	var job electionJob
	if err := json.Unmarshal([]byte(arg), &job); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	db, err := sqlx.Open(job.Driver, job.DSN)
	if err != nil {
		return err
	}
	if job.Driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	node, err := cluster.New(cluster.Config{
		ClusterName: "bench", Discovery: cluster.StaticDiscovery(job.Seeds...), InsecureNoKeys: true, BindAddr: job.Bind, NodeName: job.Name, Logger: quiet,
	})
	if err != nil {
		return err
	}
	go func() { panic(node.Run(context.Background())) }()
	e, err := election.New(election.Config{Members: node, DB: db, Logger: quiet})
	if err != nil {
		return err
	}
	note := func(ctx context.Context, term uint64, unfenced int) {
		tx, err := db.BeginTxx(ctx, nil)
		if err != nil {
			return
		}
		if _, err := tx.Exec(fmt.Sprintf(`INSERT INTO bench_effects VALUES (%d, '%s', %d, %d)`, term, job.Name, time.Now().UnixNano(), unfenced)); err != nil {
			tx.Rollback()
			return
		}
		_ = e.Commit(ctx, tx, term)
	}
	work := func(unfenced int) func(ctx context.Context, term uint64) error {
		return func(ctx context.Context, term uint64) error {
			for ctx.Err() == nil {
				note(ctx, term, unfenced)
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
			return ctx.Err()
		}
	}
	go func() { _ = e.Lead(context.Background(), work(1)) }()
	go func() { _ = e.LeadFenced(context.Background(), work(0)) }()
	return e.Run(context.Background())
}

// electionFence returns the median of a transaction of one insert that ends with Commit, and of one that ends with COMMIT, in turn.
func electionFence(db *sqlx.DB, length time.Duration) (with, without float64, err error) {
	e, err := election.New(election.Config{Members: electiontest.New().Join("a"), DB: db, Name: "fence", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	defer func() { cancel(); <-done }()
	term := uint64(0)
	if err := e.LeadFenced(ctx, func(_ context.Context, n uint64) error { term = n; return nil }); err != nil {
		return 0, 0, err
	}
	var took [2][]float64
	for until := time.Now().Add(length); time.Now().Before(until); {
		for fenced := range 2 {
			began := time.Now()
			tx, err := db.BeginTxx(ctx, nil)
			if err != nil {
				return 0, 0, err
			}
			if _, err := tx.Exec(`INSERT INTO bench_effects VALUES (0, 'x', 0, 0)`); err != nil {
				return 0, 0, err
			}
			if fenced == 1 {
				err = e.Commit(ctx, tx, term)
			} else {
				err = tx.Commit()
			}
			if err != nil {
				return 0, 0, err
			}
			took[fenced] = append(took[fenced], float64(time.Since(began).Nanoseconds())/1e3)
		}
	}
	return median(took[1]), median(took[0]), nil
}

// electionRiver kills the process that River's row names as leader, and returns how many milliseconds it took until it names another.
func electionRiver(dsn string, rounds int) (took []float64, err error) {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	m, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		return nil, err
	}
	children := map[string]*child{}
	defer func() {
		for _, c := range children {
			c.cmd.Process.Kill()
			c.end()
		}
	}()
	launch := func(name string) (err error) {
		children[name], err = start("election.river", electionJob{DSN: dsn, Name: name})
		return err
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := launch(name); err != nil {
			return nil, err
		}
	}
	leader := func(not string) (name string, err error) {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if err = pool.QueryRow(ctx, `SELECT leader_id FROM river_leader WHERE leader_id<>$1 AND expires_at>now()`, not).Scan(&name); err == nil {
				return name, nil
			}
		}
		return "", fmt.Errorf("nobody leads: %w", err)
	}
	name, err := leader("")
	for n := 0; n < rounds && err == nil; n++ {
		time.Sleep(2 * time.Second)
		began := time.Now()
		base, _, _ := cutLast(name)
		children[base].cmd.Process.Kill()
		children[base].end()
		next, err := leader(name)
		if err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(began).Nanoseconds())/1e6)
		if err := launch(base); err != nil {
			return nil, err
		}
		name = next
	}
	return took, err
}

// cutLast takes the number of the process off its name.
func cutLast(id string) (name, rest string, ok bool) {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] == '-' {
			return id[:i], id[i+1:], true
		}
	}
	return id, "", false
}

func electionRiverChild(arg string, _ func(any)) error {
	var job electionJob
	if err := json.Unmarshal([]byte(arg), &job); err != nil {
		return err
	}
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, job.DSN)
	if err != nil {
		return err
	}
	w := river.NewWorkers()
	river.AddWorker(w, river.WorkFunc(func(context.Context, *river.Job[electionArgs]) error { return nil }))
	c, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		ID: fmt.Sprintf("%s-%d", job.Name, os.Getpid()), Workers: w, Logger: slog.New(slog.DiscardHandler),
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 10}},
	})
	if err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	select {}
}

type electionArgs struct{}

// Kind names the job.
func (electionArgs) Kind() string { return "election-bench" }

// electionTB is enough of a test for package lab, which starts the servers.
type electionTB struct {
	testing.TB
	ends []func()
}

// Helper does nothing.
func (t *electionTB) Helper() {}

// Cleanup is run at the end of the measurements.
func (t *electionTB) Cleanup(fn func()) { t.ends = append(t.ends, fn) }

// Skipf ends the program: what is needed is missing.
func (t *electionTB) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// Errorf tells.
func (t *electionTB) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "peerbench: "+format+"\n", args...)
}

// Fatalf ends the program.
func (t *electionTB) Fatalf(format string, args ...any) {
	t.end()
	panic(fmt.Sprintf(format, args...))
}

// TempDir is in memory where that can be had.
func (t *electionTB) TempDir() string {
	base := os.TempDir()
	if s, err := os.Stat("/dev/shm"); err == nil && s.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "peerbench-election-")
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (t *electionTB) end() {
	for _, fn := range slices.Backward(t.ends) {
		fn()
	}
	t.ends = nil
}

func (t *electionTB) database(kind string) (driver, dsn string) {
	switch kind {
	case "postgres":
		driver, dsn = lab.Database(t)
		return driver, dsn
	case "mariadb":
		return lab.MySQL(t)
	}
	return lab.SQLite(t)
}
