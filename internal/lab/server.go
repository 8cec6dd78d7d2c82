package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a program that works in a folder of its own and listens on a port: what MariaDB, PgBouncer and the object store have in common.
type server struct {
	what   string
	dir    string
	port   int
	argv   func(port int) []string
	env    []string
	as     *syscall.Credential             // nil: our own user
	answer func(ctx context.Context) error // nil: this server, and no other, answers on the port
	busy   func(log string) bool           // the log says that the port was taken
}

// firstStart finds a port for the server. Another process may take it between the finding and the server's own bind: then another one is tried.
func (s *server) firstStart() error {
	for try := 0; ; try++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.port = port
		if err = errors.Join(s.launch(), s.ready()); err == nil || try == 4 || !s.busy(s.log()) {
			return err
		}
		s.kill()
	}
}

// launch starts the server without waiting for it: a shell between us and it leaves at once, so that its end need not be waited for.
func (s *server) launch() error {
	script := `cd "$1" || exit; shift; "$@" >>server.log 2>&1 </dev/null &`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "launch", s.dir}, s.argv(s.port)...)...)
	cmd.Dir = "/"
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), s.env...)
	if s.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	}
	return cmd.Run()
}

// ready waits until the server answers, or has ended.
func (s *server) ready() error {
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		last = s.answer(ctx)
		cancel()
		if last == nil {
			return nil
		}
		if gone(s.dir) {
			return fmt.Errorf("%s ended: %s", s.what, s.log())
		}
	}
	return fmt.Errorf("%s does not answer: %w: %s", s.what, last, s.log())
}

// log is the end of what the server wrote.
func (s *server) log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *server) pause()  { signalAll(s.dir, syscall.SIGSTOP) }
func (s *server) resume() { signalAll(s.dir, syscall.SIGCONT) }

func (s *server) kill() {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && !gone(s.dir); {
		signalAll(s.dir, syscall.SIGKILL)
		<-time.After(time.Millisecond)
	}
}
