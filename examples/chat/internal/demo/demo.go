// Package demo runs a whole cluster on one machine: three nodes as child processes, a proxy in front of them, a database file and a folder.
// Keys, or a script, kill, pause, cut, stop and restart the nodes while people, or a load, go on chatting.
package demo

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Main is the command `chat demo`. It returns the exit status.
func Main(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	var o options
	var l loadOptions
	auto := flags.Bool("auto", false, "run a load, kill nodes by script, print a verdict as JSON and end")
	node := flags.String("node", "", "") // the child process
	flags.IntVar(&o.nodes, "n", 3, "number of nodes, 1 to 9")
	flags.StringVar(&o.addr, "addr", host+":8080", "address of the proxy")
	flags.StringVar(&o.dir, "dir", "", "folder of the database, the files and the logs; kept at the end (default: a temporary one, removed)")
	flags.DurationVar(&l.duration, "for", 30*time.Second, "with -auto: how long")
	flags.IntVar(&l.rate, "rate", 200, "with -auto: messages a second, over all rooms")
	flags.IntVar(&l.rooms, "rooms", 5, "with -auto: rooms")
	flags.IntVar(&l.sockets, "sockets", 30, "with -auto: subscribers, spread over the rooms")
	flags.Usage = func() { usage(flags) }
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *node != "" {
		return runNode(*node)
	}
	if err := errors.Join(o.validate(flags.Args(), *auto), l.validate()); err != nil {
		fmt.Fprintln(os.Stderr, "chat demo:", err)
		return 2
	}
	ctx, cancel := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer cancel()
	run := func() error { return interactive(ctx, o) }
	if *auto {
		run = func() error { return scripted(ctx, o, l) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chat demo:", err)
		return 1
	}
	return 0
}

func usage(flags *flag.FlagSet) {
	fmt.Fprintln(flags.Output(), "usage: chat demo [flags]")
	flags.VisitAll(func(f *flag.Flag) {
		if f.Usage != "" {
			fmt.Fprintf(flags.Output(), "  -%-10s %s (default %q)\n", f.Name, f.Usage, f.DefValue)
		}
	})
}

func (o options) validate(rest []string, auto bool) error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("argument %q is not known: the demo takes only flags", rest[0]))
	}
	if o.nodes < 1 || o.nodes > 9 {
		errs = append(errs, fmt.Errorf("-n %d: give a number from 1 to 9", o.nodes))
	}
	if auto && o.nodes < 3 {
		errs = append(errs, fmt.Errorf("-n %d: -auto needs at least 3 nodes, so that two copies are left when one dies", o.nodes))
	}
	return errors.Join(errs...)
}

// interactive runs the demo for a person.
func interactive(ctx context.Context, o options) (err error) {
	start := time.Now()
	fmt.Printf("starting %d nodes …\n", o.nodes)
	c, err := launch(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.waitSettled(ctx, 15*time.Second); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		fmt.Println("warning:", err)
	}
	if _, port, err := net.SplitHostPort(o.addr); err == nil && port != "0" && !strings.HasSuffix(c.url, ":"+port) {
		fmt.Printf("port %s is taken: the proxy has another one\n", port)
	}
	fmt.Printf("ready after %.1f s\n\n", time.Since(start).Seconds())
	c.banner()
	err = c.keys(ctx, os.Stdin)
	fmt.Println("stopping …")
	return err
}

func (c *demoCluster) banner() {
	fmt.Printf("  chat     %s\n  console  %s/admin/ha/\n  folder   %s\n\n", c.url, c.url, c.dir)
	c.table(context.Background())
	fmt.Print(`
  k N  kill -9 node N            z N  pause or resume it (SIGSTOP)
  p N  cut it off, or join it    t N  stop it gently
  r N  restart it                s    status      q  quit      (each with Enter)

Open the chat in two windows, write, and kill the node that one of them is on.
`)
}

// table prints a line a node.
func (c *demoCluster) table(ctx context.Context) {
	views := c.views(ctx)
	for _, p := range c.nodes {
		s, pid := p.current()
		line := fmt.Sprintf("  %s    http://%s  pid %d  %s", p.name, p.addr, pid, s)
		if v, ok := views[p]; ok {
			line += fmt.Sprintf("  sees %d nodes", len(v.Alive))
			if v.Leader == v.ID {
				line += fmt.Sprintf("  LEADER, term %d", v.Term)
			}
		}
		fmt.Println(line)
	}
}

// keys carries out one line after the other until q, the end of ctx, or the end of input with ctx.
func (c *demoCluster) keys(ctx context.Context, in io.Reader) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(in)
		for scan.Scan() {
			select {
			case lines <- scan.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		fmt.Print("> ")
		select {
		case <-ctx.Done():
			fmt.Println()
			return nil
		case line, ok := <-lines:
			if !ok { // no keyboard: run until the signal
				lines = nil
				continue
			}
			quit, err := c.key(ctx, line)
			if err != nil {
				fmt.Println(" ", err)
			}
			if quit {
				return nil
			}
		}
	}
}

// key carries out one line.
func (c *demoCluster) key(ctx context.Context, line string) (quit bool, err error) {
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if len(verb) == 2 { // k2 is k 2
		verb, rest = verb[:1], verb[1:]
	}
	switch verb {
	case "":
		return false, nil
	case "q":
		return true, nil
	case "s":
		c.table(ctx)
		return false, nil
	case "k", "z", "p", "r", "t":
	default:
		return false, fmt.Errorf("%q is no key: k z p r t with a node's number, s, q", line)
	}
	i, err := strconv.Atoi(strings.TrimSpace(rest))
	if err != nil {
		return false, fmt.Errorf("%s needs the number of a node: %s 2", verb, verb)
	}
	p, err := c.node(i)
	if err != nil {
		return false, err
	}
	start := time.Now()
	switch verb {
	case "k":
		err = p.kill()
	case "z":
		err = p.pause()
	case "p":
		err = p.cut()
	case "r":
		err = p.start(ctx)
	case "t":
		stopCtx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		err = p.stop(stopCtx)
	}
	if err != nil {
		return false, err
	}
	s, _ := p.current()
	fmt.Printf("  %s is %s (%s)\n", p.name, s, time.Since(start).Round(time.Millisecond))
	return false, nil
}
