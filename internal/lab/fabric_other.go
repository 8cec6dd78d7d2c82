//go:build !linux

package lab

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"testing"
)

// Fabric is hosts on a switch of their own: on Linux only.
type Fabric struct{}

var errFabric = errors.New("there are network namespaces on Linux only")

// NewFabric skips the test.
func NewFabric(t testing.TB, _ ...string) *Fabric {
	t.Helper()
	Need(t, "network namespaces", errFabric)
	return &Fabric{}
}

// Command is a program that runs on host i.
func (f *Fabric) Command(_ int, name string, args ...string) *exec.Cmd {
	return exec.Command(name, args...)
}

// Cut pulls the cable of host i.
func (f *Fabric) Cut(int) {}

// Plug ends Cut.
func (f *Fabric) Plug(int) {}

// Dial connects from host i.
func (f *Fabric) Dial(context.Context, int, string) (net.Conn, error) { return nil, errFabric }
