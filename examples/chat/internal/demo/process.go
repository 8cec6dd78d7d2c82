package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one node of the demo: a child process that serves, is paused, cut, killed and started again.
type process struct {
	name   string
	config string // path of its configuration
	addr   string // host:port of its HTTP listener
	log    string // path of its log

	mu     sync.Mutex
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	ended  chan struct{} // closed when the present process has ended
	state  string        // of the present process: starting, running, paused, cut, killed, stopping, ended
	apart  bool          // it is cut off from the other nodes, also while it is paused
	reason string        // why it ended by itself
	deaths []string      // of all its processes that ended though nobody had asked
}

// start runs the node; ready is closed when it listens. A node that ends before leaves its reason.
func (p *process) start(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(exe, "demo", "-node", p.config)
	cmd.Stderr = logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the supervisor's to handle
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.cmd != nil && p.state != "ended" && p.state != "killed" {
		p.mu.Unlock()
		return fmt.Errorf("%s is running already", p.name)
	}
	if err := cmd.Start(); err != nil {
		p.mu.Unlock()
		return err
	}
	ended := make(chan struct{})
	p.cmd, p.stdin, p.ended, p.state, p.apart, p.reason = cmd, stdin, ended, "starting", false, ""
	p.mu.Unlock()

	listening := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if lines.Text() == readyLine {
				close(listening)
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		err := cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cmd == cmd {
			if p.state != "killed" {
				if p.state != "stopping" {
					p.deaths = append(p.deaths, p.name+": "+lastLine(p.log, err))
				}
				p.state, p.reason = "ended", lastLine(p.log, err)
			}
			close(ended)
		}
	}()
	select {
	case <-listening:
		p.setState("running")
		return nil
	case <-ended:
		return fmt.Errorf("%s did not start: %s", p.name, p.reasonText())
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *process) reasonText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason
}

func (p *process) setState(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != "ended" && p.state != "killed" {
		p.state = s
	}
}

func (p *process) current() (state string, pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process == nil {
		return "ended", 0
	}
	return p.state, p.cmd.Process.Pid
}

// kill ends the node at once, as a crash does.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL, "killed"); err != nil {
		return err
	}
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	<-ended
	return nil
}

// pause stops the node's time, or lets it go on.
func (p *process) pause() error {
	p.mu.Lock()
	on, before, stopping := p.state == "paused", "running", p.state == "stopping"
	if p.apart {
		before = "cut"
	}
	p.mu.Unlock()
	if stopping {
		return fmt.Errorf("%s is stopping", p.name)
	}
	if on {
		return p.signal(syscall.SIGCONT, before)
	}
	return p.signal(syscall.SIGSTOP, "paused")
}

func (p *process) signal(sig syscall.Signal, state string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.state == "ended" || p.state == "killed" {
		return fmt.Errorf("%s is not running", p.name)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.state = state
	return nil
}

// cut separates the node from the other nodes, or joins it again. Its database, its files and the proxy stay reachable.
func (p *process) cut() error {
	line, state := "cut", "cut"
	s, _ := p.current()
	switch s {
	case "cut":
		line, state = "heal", "running"
	case "running":
	default:
		return fmt.Errorf("%s is %s", p.name, s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintln(p.stdin, line); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.state, p.apart = state, state == "cut"
	return nil
}

// stop ends the node in good order.
func (p *process) stop(ctx context.Context) error {
	if s, _ := p.current(); s == "paused" {
		if err := p.pause(); err != nil {
			return err
		}
	}
	if err := p.signal(syscall.SIGTERM, "stopping"); err != nil {
		return err
	}
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s did not stop in time: killed", p.name), p.kill())
	}
}

// lastLine is the last thing that the node said before it ended.
func lastLine(path string, err error) string {
	b, readErr := os.ReadFile(path)
	text := strings.TrimSpace(string(b))
	if readErr != nil || text == "" {
		return fmt.Sprint(err)
	}
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// state is what a node tells of itself at /demo/state.
type state struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Leader  string            `json:"leader"`
	Term    uint64            `json:"term"`
	Leading bool              `json:"leading"`
	Alive   []string          `json:"alive"`
	Settled bool              `json:"settled"`
	Home    map[string]string `json:"home"` // topic → node ID
}

var stateClient = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask gets the node's own state, with the homes of topics.
func (p *process) ask(ctx context.Context, topics ...string) (state, error) {
	q := url.Values{"topic": topics}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/demo/state?"+q.Encode(), nil)
	if err != nil {
		return state{}, err
	}
	res, err := stateClient.Do(req)
	if err != nil {
		return state{}, err
	}
	defer res.Body.Close()
	var s state
	if res.StatusCode != http.StatusOK {
		return s, fmt.Errorf("%s: /demo/state answered %s", p.name, res.Status)
	}
	return s, json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&s)
}

// freePort returns want when nobody listens there (TCP, and UDP too), else any free port.
func freePort(host string, want int) (int, error) {
	for _, port := range []int{want, 0, 0, 0, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		got := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", net.JoinHostPort(host, strconv.Itoa(got)))
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return got, nil
	}
	return 0, fmt.Errorf("no free port on %s: close some programs and try again", host)
}

func nodeDir(dir string, i int) (config, log string) {
	return filepath.Join(dir, fmt.Sprintf("node%d.json", i)), filepath.Join(dir, fmt.Sprintf("node%d.log", i))
}
