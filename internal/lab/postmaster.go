package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postgres is one server: a data folder and the port that it listens on.
type postgres struct {
	bin, dir string
	port     int
}

func (p *postgres) dsn(database string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=app password=hunter2 dbname=%s sslmode=disable", p.port, database)
}

func (p *postgres) exec(ctx context.Context, database, query string) error {
	db, err := sql.Open("postgres", p.dsn(database))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, query)
	return err
}

func (p *postgres) write(name, text string) error {
	file := filepath.Join(p.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	return own(file)
}

// firstStart finds a port for the server. Another process may take it between the finding and the server's own bind: then another one is tried.
func (p *postgres) firstStart(conf string) error {
	for try := 0; ; try++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		p.port = port
		if err := p.write("postgresql.conf", conf+fmt.Sprintf("port = %d\n", port)); err != nil {
			return err
		}
		if err = errors.Join(p.launch(), p.ready()); err == nil || try == 4 || !strings.Contains(p.log(), "could not bind") {
			return err
		}
		p.kill()
	}
}

// launch starts the server without waiting for it. It is not our child: a shell between us and it leaves at once, so that the server's
// end need not be waited for and its output is a file. The shell changes into the folder before it forks: whoever looks for the server there
// finds it from the first moment.
func (p *postgres) launch() error {
	return command("", "/bin/sh", "-c", `cd "$2" || exit; "$1" -D "$2" >>server.log 2>&1 </dev/null &`, "launch", filepath.Join(p.bin, "postgres"), p.dir)
}

// ready waits until the server answers, or has ended.
func (p *postgres) ready() error {
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		last = p.exec(ctx, "postgres", "SELECT 1")
		cancel()
		if last == nil {
			// Somebody else may have the port.
			if last = p.mine(); last == nil {
				return nil
			}
		}
		if gone(p.dir) {
			return fmt.Errorf("the server ended: %s", p.log())
		}
	}
	return fmt.Errorf("the server does not answer: %w: %s", last, p.log())
}

// mine checks that the server which answers on the port is this one.
func (p *postgres) mine() error {
	db, err := sql.Open("postgres", p.dsn("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var dir string
	if err := db.QueryRowContext(ctx, "SELECT current_setting('data_directory')").Scan(&dir); err != nil {
		return err
	}
	if dir != p.dir {
		return fmt.Errorf("port %d belongs to the server of %s", p.port, dir)
	}
	return nil
}

// log is the end of what the server wrote.
func (p *postgres) log() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "server.log"))
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

func (p *postgres) pidFile() []string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "postmaster.pid"))
	return strings.Split(string(b), "\n")
}

// pid is that of the postmaster; an impossible one when none runs.
func (p *postgres) pid() int {
	pid, err := strconv.Atoi(strings.TrimSpace(p.pidFile()[0]))
	if err != nil {
		return 1 << 30
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil || cwd != p.dir {
		return 1 << 30
	}
	return pid
}

// stop ends the server at once and in good order: it gives back its shared memory.
func (p *postgres) stop() {
	_ = syscall.Kill(p.pid(), syscall.SIGQUIT)
	signalAll(p.dir, syscall.SIGCONT)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && !gone(p.dir); {
		<-time.After(5 * time.Millisecond)
	}
	p.kill()
}

// kill ends every process of the server, and what a killed server leaves behind that would hinder or outlive the next one.
func (p *postgres) kill() {
	lines := p.pidFile()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && !gone(p.dir); {
		signalAll(p.dir, syscall.SIGKILL)
		<-time.After(time.Millisecond)
	}
	if len(lines) > 6 {
		if f := strings.Fields(lines[6]); len(f) == 2 { // key and number of the shared memory segment
			if id, err := strconv.Atoi(f[1]); err == nil {
				removeSharedMemory(id)
			}
		}
	}
	_ = os.Remove(filepath.Join(p.dir, "postmaster.pid"))
}
