package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Each party of a measurement is a process of its own: this program, started again with a role. A child says on its standard output
// where it can be reached, works, says its result, and ends when its standard input does.

const childArg = "-child"

// roles are the functions that a child may run, by name. say prints a line for the parent.
var roles = map[string]func(arg string, say func(any)) error{}

type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func runChild(args []string) int {
	if len(args) != 2 || roles[args[0]] == nil {
		fmt.Fprintf(os.Stderr, "peerbench: no role %q\n", args)
		return 2
	}
	go func() { // the parent is gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	say := func(v any) {
		line, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
	if err := roles[args[0]](args[1], say); err != nil {
		fmt.Fprintf(os.Stderr, "peerbench: %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// start runs a role with an argument.
func start(role string, arg any) (*child, error) {
	text, err := json.Marshal(arg)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, childArg, role, string(text))}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)
	return c, c.cmd.Start()
}

// hear reads the next line of the child into v.
func (c *child) hear(v any) error {
	stuck := time.AfterFunc(2*time.Minute, func() { c.cmd.Process.Kill() })
	defer stuck.Stop()
	if !c.out.Scan() {
		return fmt.Errorf("%s ended without an answer", c.cmd.Args[2:])
	}
	return json.Unmarshal(c.out.Bytes(), v)
}

// end ends the child.
func (c *child) end() {
	c.in.Close()
	late := time.AfterFunc(10*time.Second, func() { c.cmd.Process.Kill() })
	defer late.Stop()
	c.cmd.Wait()
}

// cpu is the processor time of a child that has ended.
func (c *child) cpu() time.Duration {
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}
