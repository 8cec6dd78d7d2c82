package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// guardScript waits for the end of its input, which is the end of the test process, and then kills every process that works inside the
// folder $1. It asks a postmaster to leave first (SIGQUIT), because only then its shared memory is given back.
const guardScript = `trap '' INT TERM HUP QUIT
cat >/dev/null
inside() {
	for p in /proc/[0-9]*; do
		case "$(readlink "$p/cwd" 2>/dev/null)" in "$1"/*) echo "${p#/proc/}" ;; esac
	done
}
for f in "$1"/*/*/postmaster.pid; do
	[ -f "$f" ] || continue
	read -r pid <"$f"
	case "$(readlink "/proc/$pid/cwd" 2>/dev/null)" in "$1"/*) kill -QUIT "$pid" ;; esac
done
for p in $(inside "$1"); do kill -CONT "$p"; done
n=0
while [ -n "$(inside "$1")" ] && [ $n -lt 20 ]; do sleep 0.1; n=$((n+1)); done
n=0
while [ -n "$(inside "$1")" ] && [ $n -lt 100 ]; do
	for p in $(inside "$1"); do kill -KILL "$p"; done
	sleep 0.1; n=$((n+1))
done
rm -rf "$1"
`

// guarded is the folder of this process and the pipe whose end wakes the guard.
type guarded struct {
	root string
	pipe *os.File // held open, and from the garbage collector, until the process ends
}

var guard = sync.OnceValues(func() (*guarded, error) {
	if _, err := os.Stat("/proc/self/cwd"); err != nil {
		return nil, fmt.Errorf("processes cannot be watched over without /proc: %w", err)
	}
	base := os.TempDir()
	if s, err := os.Stat("/dev/shm"); err == nil && s.IsDir() {
		base = "/dev/shm"
	}
	root, err := os.MkdirTemp(base, "nines-lab-")
	if err != nil {
		return nil, err
	}
	// Servers may run as another user: they must be able to pass through.
	if err := os.Chmod(root, 0o711); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", guardScript, "lab-guard", root)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C at the terminal must not reach it
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &guarded{root: root, pipe: w}, nil
})

var folders atomic.Int64

// folder makes a new folder that the guard watches over.
func folder(kind string) (string, error) {
	g, err := guard()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(g.root, fmt.Sprintf("%s%d", kind, folders.Add(1)))
	return dir, os.Mkdir(dir, 0o711)
}

// inside returns the processes that work in dir or below: a server's main process and its children, also those that lost their parent.
func inside(dir string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err == nil && (cwd == dir || strings.HasPrefix(cwd, dir+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone reports whether no process works in dir any more. One look is not enough: on a busy machine it was seen to miss a server that had
// just been started.
func gone(dir string) bool {
	for range 5 {
		if len(inside(dir)) > 0 {
			return false
		}
		<-time.After(5 * time.Millisecond)
	}
	return true
}

// signalAll sends sig to every process in dir until a listing shows no new one.
func signalAll(dir string, sig syscall.Signal) {
	seen := map[int]bool{}
	for again := true; again; {
		again = false
		for _, pid := range inside(dir) {
			if !seen[pid] {
				seen[pid], again = true, true
				_ = syscall.Kill(pid, sig)
			}
		}
	}
}
