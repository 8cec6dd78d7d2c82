package lab

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Bouncer is a PgBouncer in transaction mode in front of the servers of a PostgresCluster: a statement outside a transaction, and each
// transaction, may run on another server session than the one before.
type Bouncer struct {
	server
}

// PgBouncer starts one for c. It has a pool of 20 server connections for each server, and takes 1,000 clients.
func PgBouncer(t testing.TB, c *PostgresCluster) *Bouncer {
	t.Helper()
	Need(t, "PgBouncer", bouncerMissing())
	dir, err := folder("bouncer")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	b := &Bouncer{}
	b.server = server{
		what: "pgbouncer", dir: filepath.Join(dir, "0"), as: postgresUser(),
		busy: func(log string) bool { return strings.Contains(log, "in use") },
		answer: func(ctx context.Context) error {
			db, err := sql.Open("postgres", b.DSN(0))
			if err != nil {
				return err
			}
			defer db.Close()
			var port int
			if err := db.QueryRowContext(ctx, "SELECT current_setting('port')").Scan(&port); err != nil || port != c.nodes[0].port {
				return fmt.Errorf("answers for port %d: %w", port, err)
			}
			return nil
		},
	}
	b.argv = func(port int) []string {
		var conf strings.Builder
		fmt.Fprintln(&conf, "[databases]")
		for i, n := range c.nodes {
			fmt.Fprintf(&conf, "app%d = host=127.0.0.1 port=%d dbname=app user=app\n", i, n.port)
		}
		fmt.Fprintf(&conf, "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"+
			"default_pool_size = 20\nmax_client_conn = 1000\nserver_login_retry = 1\nignore_startup_parameters = extra_float_digits\n", port)
		file := filepath.Join(b.dir, "pgbouncer.ini")
		if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
			t.Fatalf("lab: %v", err)
		}
		if err := own(file); err != nil {
			t.Fatalf("lab: %v", err)
		}
		return []string{"pgbouncer", file}
	}
	t.Cleanup(func() {
		b.kill()
		_ = os.RemoveAll(dir)
	})
	if err := os.Mkdir(b.dir, 0o711); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := own(b.dir); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := b.firstStart(); err != nil {
		t.Fatalf("lab: start PgBouncer: %v", err)
	}
	return b
}

// DSN is the data source that reaches server i through the pooler, for lib/pq and pgx.
func (b *Bouncer) DSN(i int) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=app password=hunter2 dbname=app%d sslmode=disable", b.port, i)
}

var bouncerMissing = sync.OnceValue(func() error {
	if _, err := exec.LookPath("pgbouncer"); err != nil {
		return fmt.Errorf("install the package pgbouncer: %w", err)
	}
	return nil
})
