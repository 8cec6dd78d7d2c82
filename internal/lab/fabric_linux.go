package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Fabric is hosts on a switch of their own: network namespaces with no way out. Their addresses are the caller's choice within 10.10.10.0/24.
type Fabric struct {
	t      testing.TB
	prefix string
	addrs  []string
}

var fabrics atomic.Int64

// NewFabric makes one host for each address. It needs root, iproute2 and nftables.
func NewFabric(t testing.TB, addrs ...string) *Fabric {
	t.Helper()
	f := &Fabric{t: t, prefix: fmt.Sprintf("nf%d-%d", os.Getpid(), fabrics.Add(1)), addrs: addrs}
	for _, tool := range []string{"ip", "nft"} {
		_, err := exec.LookPath(tool)
		Need(t, tool, err)
	}
	t.Cleanup(func() {
		for i := range addrs {
			_ = exec.Command("ip", "netns", "del", f.host(i)).Run()
		}
		_ = exec.Command("ip", "netns", "del", f.prefix+"sw").Run()
	})
	out, err := exec.Command("ip", "netns", "add", f.prefix+"sw").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	Need(t, "network namespaces (root)", err)
	f.ip("-n", f.prefix+"sw", "link", "add", "br0", "type", "bridge")
	f.ip("-n", f.prefix+"sw", "link", "set", "br0", "up")
	for i, addr := range addrs {
		f.ip("netns", "add", f.host(i))
		f.ip("-n", f.host(i), "link", "add", "eth0", "type", "veth", "peer", "name", f.port(i), "netns", f.prefix+"sw")
		f.ip("-n", f.prefix+"sw", "link", "set", f.port(i), "master", "br0", "up")
		f.ip("-n", f.host(i), "addr", "add", addr+"/24", "dev", "eth0")
		f.ip("-n", f.host(i), "link", "set", "lo", "up")
		f.ip("-n", f.host(i), "link", "set", "eth0", "up")
	}
	return f
}

func (f *Fabric) host(i int) string { return fmt.Sprintf("%sh%d", f.prefix, i) }
func (f *Fabric) port(i int) string { return fmt.Sprintf("p%d", i) }

func (f *Fabric) ip(args ...string) {
	f.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		f.t.Fatalf("lab: ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Command is a program that runs on host i.
func (f *Fabric) Command(i int, name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", f.host(i), name}, args...)...)
}

// Cut pulls the cable of host i; Plug puts it back.
func (f *Fabric) Cut(i int) {
	f.t.Helper()
	f.ip("-n", f.prefix+"sw", "link", "set", f.port(i), "down")
}

// Plug ends Cut.
func (f *Fabric) Plug(i int) { f.t.Helper(); f.ip("-n", f.prefix+"sw", "link", "set", f.port(i), "up") }

// Dial connects from host i to an address of the fabric.
func (f *Fabric) Dial(ctx context.Context, i int, addr string) (net.Conn, error) {
	// A socket belongs to the namespace of the thread that makes it.
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer own.Close()
	there, err := os.Open("/run/netns/" + f.host(i))
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", addr)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread() // else the thread ends with the goroutine, rather than work on in another network
	}
	return conn, err
}
