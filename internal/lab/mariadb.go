package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
)

// MariaDBCluster is a primary (0) and the replicas that follow it by GTID (1…). Its methods fail the test when the server does not do as told.
// They may be called from several goroutines, but not for one server at once.
type MariaDBCluster struct {
	t     testing.TB
	dir   string
	nodes []*mariadb
}

// MariaDB starts a primary and n replicas that follow it, and returns when all of them have applied what it wrote. They hold one empty
// database, "app", and the user "app" who may do everything in it, and may not write where the server is read only.
func MariaDB(t testing.TB, replicas int) *MariaDBCluster {
	t.Helper()
	Need(t, "MariaDB", mariadbMissing())
	c := &MariaDBCluster{t: t}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.kill()
		}
		if c.dir != "" {
			_ = os.RemoveAll(c.dir)
		}
	})
	if err := c.start(replicas); err != nil {
		t.Fatalf("lab: start MariaDB: %v", err)
	}
	return c
}

func (c *MariaDBCluster) start(replicas int) error {
	template, err := mariadbTemplate()
	if err != nil {
		return err
	}
	dir, err := folder("maria")
	if err != nil {
		return err
	}
	c.dir = dir
	for i := range replicas + 1 {
		n := newMariaDB(filepath.Join(dir, strconv.Itoa(i)), i+1)
		n.readOnly = i > 0
		if err := run(nil, "cp", "-r", template, n.dir); err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
		if err := n.firstStart(); err != nil {
			return fmt.Errorf("server %d: %w", i, err)
		}
	}
	for _, q := range []string{
		"CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'repl'",
		"GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'",
		"CREATE DATABASE app",
		"CREATE USER app@'127.0.0.1' IDENTIFIED BY 'hunter2'",
		"CREATE USER admin@'127.0.0.1' IDENTIFIED BY 'hunter2'",
		"GRANT ALL ON app.* TO app@'127.0.0.1'",
		"GRANT ALL ON `test%`.* TO app@'127.0.0.1'",
		"GRANT REPLICATION CLIENT, REPLICA MONITOR ON *.* TO app@'127.0.0.1'",
		"GRANT ALL ON *.* TO admin@'127.0.0.1' WITH GRANT OPTION",
	} {
		if err := c.exec(0, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	for i := range replicas {
		if err := c.follow(i+1, 0); err != nil {
			return fmt.Errorf("server %d: %w", i+1, err)
		}
	}
	return c.replayed()
}

// Len is the number of servers.
func (c *MariaDBCluster) Len() int { return len(c.nodes) }

// DSN is the data source of server i for go-sql-driver/mysql, without options: append "?parseTime=true" where needed.
func (c *MariaDBCluster) DSN(i int) string { return c.nodes[i].dsn("app", "app") }

// RootDSN is the data source of server i for a user who may do everything, and write where the server is read only.
func (c *MariaDBCluster) RootDSN(i int) string { return c.nodes[i].dsn("admin", "app") }

// Addr is the host:port on which server i listens.
func (c *MariaDBCluster) Addr(i int) string { return c.nodes[i].addr() }

// Pause stops server i as if the machine had frozen: connections stay open and nothing answers.
func (c *MariaDBCluster) Pause(i int) { c.nodes[i].pause() }

// Resume lets a paused server go on.
func (c *MariaDBCluster) Resume(i int) { c.nodes[i].resume() }

// Kill ends server i with SIGKILL. What it has committed is kept.
func (c *MariaDBCluster) Kill(i int) { c.nodes[i].kill() }

// Start starts server i again after Kill, on the same port, and waits until it answers. A replica follows again by itself.
func (c *MariaDBCluster) Start(i int) {
	c.t.Helper()
	if err := errors.Join(c.nodes[i].launch(), c.nodes[i].ready()); err != nil {
		c.t.Fatalf("lab: start MariaDB server %d: %v", i, err)
	}
}

// Promote makes a replica a primary of its own that takes writes, after it has applied all that it has received; the others go on following
// whom they followed.
func (c *MariaDBCluster) Promote(i int) {
	c.t.Helper()
	c.must(i, "STOP SLAVE IO_THREAD")
	if err := wait(func(ctx context.Context) error { return c.applied(ctx, i) }); err != nil {
		c.t.Fatalf("lab: server %d: %v", i, err)
	}
	for _, q := range []string{"STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0"} {
		c.must(i, q)
	}
	c.nodes[i].readOnly = false
}

// Follow makes server i, a replica or a former primary that has nothing of its own, read only and a follower of server primary.
func (c *MariaDBCluster) Follow(i, primary int) {
	c.t.Helper()
	if err := c.follow(i, primary); err != nil {
		c.t.Fatalf("lab: server %d: %v", i, err)
	}
}

// PauseReplay makes replica i receive and not apply: it lags.
func (c *MariaDBCluster) PauseReplay(i int) { c.t.Helper(); c.must(i, "STOP SLAVE SQL_THREAD") }

// ResumeReplay ends PauseReplay.
func (c *MariaDBCluster) ResumeReplay(i int) { c.t.Helper(); c.must(i, "START SLAVE SQL_THREAD") }

// SetReadOnly makes server i refuse writes of the user app with error 1290, or ends that. It waits for transactions that have written.
func (c *MariaDBCluster) SetReadOnly(i int, on bool) {
	c.t.Helper()
	c.must(i, fmt.Sprintf("SET GLOBAL read_only = %t", on))
	c.nodes[i].readOnly = on
}

// Replayed waits until every replica has applied what server 0 has written so far.
func (c *MariaDBCluster) Replayed() {
	c.t.Helper()
	if err := c.replayed(); err != nil {
		c.t.Fatalf("lab: %v", err)
	}
}

// Exec runs a statement on server i, in the database app, as a user who may do everything.
func (c *MariaDBCluster) Exec(i int, query string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.nodes[i].exec(ctx, c.RootDSN(i), query); err != nil {
		c.t.Fatalf("lab: server %d: %s: %v", i, query, err)
	}
}

func (c *MariaDBCluster) follow(i, primary int) error {
	n := c.nodes[i]
	n.readOnly = true
	for _, q := range []string{
		"SET GLOBAL read_only = 1",
		"STOP SLAVE",
		"SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_binlog_pos",
		fmt.Sprintf("CHANGE MASTER TO master_host = '127.0.0.1', master_port = %d, master_user = 'repl', master_password = 'repl', "+
			"master_use_gtid = slave_pos, master_connect_retry = 1", c.nodes[primary].port),
		"START SLAVE",
	} {
		if err := c.exec(i, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return wait(func(ctx context.Context) error {
		status, err := n.slaveStatus(ctx)
		if err == nil && status["Slave_IO_Running"] != "Yes" {
			err = fmt.Errorf("does not follow: %s %s", status["Slave_IO_Running"], status["Last_IO_Error"])
		}
		return err
	})
}

// applied is nil when replica i has applied what it has received.
func (c *MariaDBCluster) applied(ctx context.Context, i int) error {
	status, err := c.nodes[i].slaveStatus(ctx)
	if err != nil {
		return err
	}
	if have := c.nodes[i].ask(ctx, "SELECT @@GLOBAL.gtid_slave_pos"); have != status["Gtid_IO_Pos"] {
		return fmt.Errorf("has applied %s of %s: %s", have, status["Gtid_IO_Pos"], status["Last_SQL_Error"])
	}
	return nil
}

func (c *MariaDBCluster) replayed() error {
	for i := range c.nodes[1:] {
		if err := wait(func(ctx context.Context) error {
			position := c.nodes[0].ask(ctx, "SELECT @@GLOBAL.gtid_binlog_pos")
			if got := c.nodes[i+1].ask(ctx, fmt.Sprintf("SELECT MASTER_GTID_WAIT('%s', 1)", position)); got != "0" {
				status, err := c.nodes[i+1].slaveStatus(ctx)
				return errors.Join(fmt.Errorf("not at %s: %s %s", position, status["Last_IO_Error"], status["Last_SQL_Error"]), err)
			}
			return nil
		}); err != nil {
			return fmt.Errorf("replica %d does not catch up: %w", i+1, err)
		}
	}
	return nil
}

func (c *MariaDBCluster) must(i int, query string) {
	c.t.Helper()
	if err := c.exec(i, query); err != nil {
		c.t.Fatalf("lab: server %d: %s: %v", i, query, err)
	}
}

func (c *MariaDBCluster) exec(i int, query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.nodes[i].exec(ctx, c.nodes[i].socket(), query)
}

// mariadb is one server.
type mariadb struct {
	server
	readOnly bool // whether it is started read only
}

func newMariaDB(dir string, id int) *mariadb {
	m := &mariadb{}
	m.server = server{
		what: "mariadbd", dir: dir, answer: m.mine,
		busy: func(log string) bool { return strings.Contains(log, "Address already in use") },
		// Fast rather than durable: the files survive the death of the process, not that of the machine.
		argv: func(port int) []string {
			argv := []string{mariadbd, "--no-defaults", "--datadir=" + dir, "--port=" + strconv.Itoa(port), "--bind-address=127.0.0.1",
				"--socket=" + filepath.Join(dir, "s.sock"), "--pid-file=" + filepath.Join(dir, "s.pid"), "--server-id=" + strconv.Itoa(id),
				"--log-bin=bin", "--binlog-format=ROW", "--log-slave-updates", "--gtid-strict-mode=1", "--sync-binlog=0", "--skip-name-resolve",
				"--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=0", "--innodb-log-file-size=32M",
				"--slave-net-timeout=5", "--max-connections=500", "--performance-schema=off"}
			if os.Getuid() == 0 {
				argv = append(argv, "--user=root")
			}
			if m.readOnly {
				argv = append(argv, "--read-only=1")
			}
			return argv
		},
	}
	return m
}

func (m *mariadb) dsn(user, database string) string {
	return fmt.Sprintf("%s:hunter2@tcp(%s)/%s", user, m.addr(), database)
}

// socket is the data source of the super user, which works before there are others.
func (m *mariadb) socket() string { return "root@unix(" + filepath.Join(m.dir, "s.sock") + ")/" }

func (m *mariadb) exec(ctx context.Context, dsn, query string) error {
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, query)
	return err
}

// mine checks that the server which answers is this one, on its socket and on its port.
func (m *mariadb) mine(ctx context.Context) error {
	if port := m.ask(ctx, "SELECT @@port"); port != strconv.Itoa(m.port) {
		return fmt.Errorf("does not answer on its socket: %s", port)
	}
	db, err := sql.Open("mysql", fmt.Sprintf("nobody@tcp(%s)/", m.addr()))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.PingContext(ctx); err == nil || !strings.Contains(err.Error(), "denied") {
		return fmt.Errorf("does not answer on its port: %w", err)
	}
	return nil
}

// ask returns the one value of a query, or the error in words: it is only compared with what is expected.
func (m *mariadb) ask(ctx context.Context, query string) string {
	db, err := sql.Open("mysql", m.socket())
	if err != nil {
		return err.Error()
	}
	defer db.Close()
	var answer sql.NullString
	if err := db.QueryRowContext(ctx, query).Scan(&answer); err != nil {
		return err.Error()
	}
	return answer.String
}

func (m *mariadb) slaveStatus(ctx context.Context) (map[string]string, error) {
	db, err := sql.Open("mysql", m.socket())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SHOW SLAVE STATUS")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for rows.Next() {
		values, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		for i, name := range names {
			status[name] = values[i].String
		}
	}
	return status, rows.Err()
}

// sharedMariaDB is the one server of MySQL.
var sharedMariaDB = sync.OnceValues(func() (*mariadb, error) {
	c := &MariaDBCluster{}
	if err := c.start(0); err != nil {
		return nil, err
	}
	return c.nodes[0], nil
})

// MySQL returns a fresh empty database on a MariaDB that all tests of the process share; it is dropped at the end of the test.
// The data source has no options: append "?parseTime=true" where needed.
func MySQL(t testing.TB) (driver, dsn string) {
	t.Helper()
	Need(t, "MariaDB", mariadbMissing())
	server, err := sharedMariaDB()
	if err != nil {
		t.Fatalf("lab: start MariaDB: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	databases.Lock()
	databases.n++
	name := fmt.Sprintf("test%d", databases.n)
	databases.Unlock()
	if err := server.exec(ctx, server.socket(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("lab: create a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.drop(ctx, name); err != nil {
			t.Errorf("lab: drop a database: %v", err)
		}
	})
	return "mysql", server.dsn("app", name)
}

// drop ends the connections that still use the database, whose locks would be waited for, and drops it.
func (m *mariadb) drop(ctx context.Context, name string) error {
	db, err := sql.Open("mysql", m.socket())
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id FROM information_schema.processlist WHERE db = ?", name)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, id := range ids {
		_, _ = db.ExecContext(ctx, fmt.Sprintf("KILL %d", id)) // it may have gone
	}
	_, err = db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+name)
	return err
}

// mariadbTemplate is the data folder of a server that has never run: made once a process, copied for each server.
var mariadbTemplate = sync.OnceValues(func() (string, error) {
	dir, err := folder("template")
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	argv := []string{"--no-defaults", "--datadir=" + data, "--auth-root-authentication-method=normal", "--skip-test-db",
		"--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--innodb-log-file-size=32M"}
	if os.Getuid() == 0 {
		argv = append(argv, "--user=root")
	}
	return data, run(nil, "mariadb-install-db", argv...)
})

const mariadbd = "mariadbd"

// mariadbMissing says why there is no MariaDB.
var mariadbMissing = sync.OnceValue(func() error {
	for _, program := range []string{mariadbd, "mariadb-install-db"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("install the package mariadb-server: %w", err)
		}
	}
	return nil
})
