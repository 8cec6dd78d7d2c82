package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver "postgres"
)

// patience bounds every wait for a server. The machines that run the tests are slow and shared.
const patience = 60 * time.Second

// settings are fast rather than durable: the files survive the death of the processes, not that of the machine.
const settings = `
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
dynamic_shared_memory_type = mmap
fsync = off
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
hot_standby = on
hot_standby_feedback = on
wal_keep_size = 256MB
max_connections = 200
shared_buffers = 64MB
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 100ms
recovery_target_timeline = 'latest'
log_min_messages = warning
`

// PostgresCluster is a primary (0) and its streaming standbys (1…). Its methods fail the test when the server does not do as told.
// They may be called from several goroutines, but not for one server at once.
type PostgresCluster struct {
	t     testing.TB
	dir   string
	nodes []*postgres
}

// Postgres starts a primary and n standbys that stream from it, and returns when all of them do. They hold one empty database, "app".
func Postgres(t testing.TB, standbys int) *PostgresCluster {
	t.Helper()
	bin, err := postgresBin()
	Need(t, "PostgreSQL", err)
	c := &PostgresCluster{t: t}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
		if c.dir != "" {
			_ = os.RemoveAll(c.dir)
		}
	})
	if err := c.start(bin, standbys); err != nil {
		t.Fatalf("lab: start PostgreSQL: %v", err)
	}
	return c
}

func (c *PostgresCluster) start(bin string, standbys int) error {
	dir, err := folder("pg")
	if err != nil {
		return err
	}
	c.dir = dir
	if err := own(dir); err != nil {
		return err
	}
	first := &postgres{bin: bin, dir: filepath.Join(dir, "0")}
	if err := command(bin, "initdb", "-D", first.dir, "-U", "app", "-A", "trust", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"); err != nil {
		return err
	}
	c.nodes = append(c.nodes, first)
	// A standby may begin as a copy of a primary that is shut down, which initdb's result is.
	for i := range standbys {
		n := &postgres{bin: bin, dir: filepath.Join(dir, strconv.Itoa(i+1))}
		if err := command("", "cp", "-r", first.dir, n.dir); err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
	}
	for i, n := range c.nodes {
		conf := settings
		if i > 0 {
			conf += fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=app application_name=standby%d'\n", first.port, i)
			if err := n.write("standby.signal", ""); err != nil {
				return err
			}
		}
		if err := n.firstStart(conf); err != nil {
			return fmt.Errorf("server %d: %w", i, err)
		}
	}
	if err := c.exec(0, "postgres", "CREATE DATABASE app"); err != nil {
		return err
	}
	return c.replayed()
}

// Len is the number of servers.
func (c *PostgresCluster) Len() int { return len(c.nodes) }

// DSN is the data source of server i for lib/pq and pgx. Any password is right.
func (c *PostgresCluster) DSN(i int) string { return c.nodes[i].dsn("app") }

// URL is DSN in the form of a URL.
func (c *PostgresCluster) URL(i int) string {
	return fmt.Sprintf("postgres://app:hunter2@127.0.0.1:%d/app?sslmode=disable", c.nodes[i].port)
}

// Addr is the host:port on which server i listens.
func (c *PostgresCluster) Addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", c.nodes[i].port) }

// Pause stops every process of server i as if the machine had frozen: connections stay open and nothing answers.
func (c *PostgresCluster) Pause(i int) {
	n := c.nodes[i]
	_ = syscall.Kill(n.pid(), syscall.SIGSTOP) // first, so that it forks no more
	signalAll(n.dir, syscall.SIGSTOP)
}

// Resume lets a paused server go on.
func (c *PostgresCluster) Resume(i int) { signalAll(c.nodes[i].dir, syscall.SIGCONT) }

// Kill ends every process of server i with SIGKILL.
func (c *PostgresCluster) Kill(i int) { c.nodes[i].kill() }

// Start starts server i again after Kill, on the same port, and waits until it answers.
func (c *PostgresCluster) Start(i int) {
	c.t.Helper()
	n := c.nodes[i]
	if err := errors.Join(n.launch(), n.ready()); err != nil {
		c.t.Fatalf("lab: start PostgreSQL server %d: %v", i, err)
	}
}

// Promote makes a standby a primary of its own; the others go on following whom they followed.
func (c *PostgresCluster) Promote(i int) {
	c.t.Helper()
	c.must(i, "SELECT pg_promote(true, 30)")
	c.until(i, "SELECT NOT pg_is_in_recovery()")
}

// Follow makes standby i stream from server primary.
func (c *PostgresCluster) Follow(i, primary int) {
	c.t.Helper()
	c.must(i, fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=%d user=app application_name=standby%d'", c.nodes[primary].port, i))
	c.must(i, "SELECT pg_reload_conf()")
	c.until(primary, fmt.Sprintf("SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'standby%d' AND state = 'streaming'", i))
}

// PauseReplay makes standby i receive and not apply: it lags.
func (c *PostgresCluster) PauseReplay(i int) {
	c.t.Helper()
	c.must(i, "SELECT pg_wal_replay_pause()")
	c.until(i, "SELECT pg_get_wal_replay_pause_state() = 'paused'")
}

// ResumeReplay ends PauseReplay.
func (c *PostgresCluster) ResumeReplay(i int) {
	c.t.Helper()
	c.must(i, "SELECT pg_wal_replay_resume()")
}

// SetReadOnly makes server i refuse writes in all its sessions with SQLSTATE 25006, or ends that.
func (c *PostgresCluster) SetReadOnly(i int, on bool) {
	c.t.Helper()
	value := map[bool]string{true: "on", false: "off"}[on]
	c.must(i, "ALTER SYSTEM SET default_transaction_read_only = "+value)
	c.must(i, "SELECT pg_reload_conf()")
	c.until(i, "SELECT current_setting('default_transaction_read_only') = '"+value+"'")
}

// Replayed waits until every standby has applied what the primary has written so far.
func (c *PostgresCluster) Replayed() {
	c.t.Helper()
	if err := c.replayed(); err != nil {
		c.t.Fatalf("lab: %v", err)
	}
}

// Exec runs a statement on server i.
func (c *PostgresCluster) Exec(i int, query string) {
	c.t.Helper()
	c.must(i, query)
}

func (c *PostgresCluster) replayed() error {
	for i := range c.nodes[1:] {
		if err := wait(func(ctx context.Context) error {
			var position string
			if err := c.ask(ctx, 0, "SELECT pg_current_wal_lsn()::text", &position); err != nil {
				return err
			}
			return c.holds(ctx, i+1, fmt.Sprintf("SELECT pg_last_wal_replay_lsn() >= '%s'::pg_lsn", position))
		}); err != nil {
			return fmt.Errorf("standby %d does not catch up: %w", i+1, err)
		}
	}
	return nil
}

func (c *PostgresCluster) must(i int, query string) {
	c.t.Helper()
	if err := c.exec(i, "app", query); err != nil {
		c.t.Fatalf("lab: server %d: %s: %v", i, query, err)
	}
}

func (c *PostgresCluster) until(i int, query string) {
	c.t.Helper()
	if err := wait(func(ctx context.Context) error { return c.holds(ctx, i, query) }); err != nil {
		c.t.Fatalf("lab: server %d: %s: %v", i, query, err)
	}
}

func (c *PostgresCluster) holds(ctx context.Context, i int, query string) error {
	var ok sql.NullBool
	if err := c.ask(ctx, i, query, &ok); err != nil {
		return err
	}
	if !ok.Bool {
		return errors.New("still false")
	}
	return nil
}

func (c *PostgresCluster) exec(i int, database, query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.nodes[i].exec(ctx, database, query)
}

func (c *PostgresCluster) ask(ctx context.Context, i int, query string, dest any) error {
	db, err := sql.Open("postgres", c.nodes[i].dsn("app"))
	if err != nil {
		return err
	}
	defer db.Close()
	return db.QueryRowContext(ctx, query).Scan(dest)
}

// wait calls fn until it succeeds, with a pause in between.
func wait(fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// shared is the one server of Database.
var shared = sync.OnceValues(func() (*postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	c := &PostgresCluster{}
	if err := c.start(bin, 0); err != nil {
		return nil, err
	}
	return c.nodes[0], nil
})

var databases struct {
	sync.Mutex
	n int
}

// Database returns a fresh empty database on a PostgreSQL that all tests of the process share; it is dropped at the end of the test.
func Database(t testing.TB) (driver, dsn string) {
	t.Helper()
	_, err := postgresBin()
	Need(t, "PostgreSQL", err)
	server, err := shared()
	if err != nil {
		t.Fatalf("lab: start PostgreSQL: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// One at a time: concurrent copies of the template wait for each other inside the server, and may be refused.
	databases.Lock()
	defer databases.Unlock()
	databases.n++
	name := fmt.Sprintf("test%d", databases.n)
	if err := server.exec(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
		t.Fatalf("lab: create a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.exec(ctx, "postgres", "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("lab: drop a database: %v", err)
		}
	})
	return "postgres", server.dsn(name)
}

// postgresBin finds the folder of initdb and postgres: the newest packaged version, else the one on the PATH.
var postgresBin = sync.OnceValues(func() (string, error) {
	if os.Getuid() == 0 {
		if _, err := user.Lookup("postgres"); err != nil {
			return "", fmt.Errorf("it does not run as root, and there is no user postgres: %w", err)
		}
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			dirs = append(dirs, filepath.Dir(p))
		}
	}
	for _, dir := range dirs {
		if usable(filepath.Join(dir, "initdb")) && usable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("neither /usr/lib/postgresql/*/bin nor the PATH has initdb and postgres: install the package postgresql")
})

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

func usable(file string) bool {
	s, err := os.Stat(file)
	return err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0
}

// postgresUser is the user to run servers as: nil for our own, which must not be root.
var postgresUser = sync.OnceValue(func() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
})

// own gives a file to the user that the servers run as.
func own(path string) error {
	if u := postgresUser(); u != nil {
		return os.Chown(path, int(u.Uid), int(u.Gid))
	}
	return nil
}

// command runs a program as the user that the servers run as.
func command(bin, name string, args ...string) error {
	return run(postgresUser(), filepath.Join(bin, name), args...)
}

// run runs a program to its end, as another user when as is not nil.
func run(as *syscall.Credential, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(string(out)))
	}
	return nil
}
