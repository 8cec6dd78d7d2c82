package election_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// lan is a network of namespaces in which each process has a machine of its own, and a way to a server on this one.
type lan struct {
	bridge, prefix string
	spaces         []string
}

// newLAN returns nil where namespaces cannot be made: then processes are cut off by proxies.
func newLAN(t *testing.T, n int) *lan {
	if os.Getuid() != 0 || os.Getenv("ELECTION_PROXIES") != "" {
		t.Log("not root: no network namespaces, connections are held up by proxies instead")
		return nil
	}
	tag := fmt.Sprintf("%x", rand.Uint32()&0xffffff)
	l := &lan{bridge: "nb" + tag, prefix: fmt.Sprintf("10.%d.%d.", 100+rand.IntN(100), rand.IntN(256))}
	t.Cleanup(func() {
		for _, s := range l.spaces {
			_ = ip("netns", "del", s)
		}
		_ = ip("link", "del", l.bridge)
	})
	steps := [][]string{{"link", "add", l.bridge, "type", "bridge"}, {"addr", "add", l.prefix + "1/24", "dev", l.bridge}, {"link", "set", l.bridge, "up"}}
	for i := range n {
		space := fmt.Sprintf("nn%s%d", tag, i)
		l.spaces = append(l.spaces, space)
		steps = append(steps, [][]string{
			{"netns", "add", space},
			{"link", "add", l.link(i), "type", "veth", "peer", "name", "eth0", "netns", space},
			{"link", "set", l.link(i), "master", l.bridge}, {"link", "set", l.link(i), "up"},
			{"-n", space, "addr", "add", l.addr(i) + "/24", "dev", "eth0"}, {"-n", space, "link", "set", "eth0", "up"}, {"-n", space, "link", "set", "lo", "up"},
		}...)
	}
	for _, s := range steps {
		if err := ip(s...); err != nil {
			t.Logf("no network namespaces, connections are held up by proxies instead: %v", err)
			return nil
		}
	}
	return l
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (l *lan) link(i int) string { return fmt.Sprintf("v%s%d", l.bridge[2:], i) }
func (l *lan) addr(i int) string { return fmt.Sprint(l.prefix, 10+i) }

// cut takes the cable out of a machine: nothing is reset, and what was sent comes through when it is back.
func (l *lan) cut(i int, cut bool) error {
	state := map[bool]string{true: "down", false: "up"}[cut]
	return ip("link", "set", l.link(i), state)
}

// command runs a program on a machine.
func (l *lan) command(i int, name string) *exec.Cmd {
	return exec.Command("ip", "netns", "exec", l.spaces[i], name)
}

// listen is where this machine can be reached from the others; without namespaces on the loopback address.
func (l *lan) listen(t *testing.T) net.Listener {
	host := "127.0.0.1"
	if l != nil {
		host = l.prefix + "1"
	}
	ln, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
