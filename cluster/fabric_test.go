package cluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
)

// fabric is hosts on a switch of their own: network namespaces, with no way out. Their addresses are 10.10.10.1 and on.
type fabric struct {
	t      *testing.T
	prefix string
	hosts  int
}

var fabrics atomic.Int64

func newFabric(t *testing.T, hosts int) *fabric {
	t.Helper()
	f := &fabric{t: t, prefix: fmt.Sprintf("nc%d-%d", os.Getpid(), fabrics.Add(1)), hosts: hosts}
	for _, tool := range []string{"ip", "nft"} {
		_, err := exec.LookPath(tool)
		lab.Need(t, tool, err)
	}
	t.Cleanup(func() {
		for i := range hosts {
			_ = exec.Command("ip", "netns", "del", f.host(i)).Run()
		}
		_ = exec.Command("ip", "netns", "del", f.prefix+"sw").Run()
	})
	out, err := exec.Command("ip", "netns", "add", f.prefix+"sw").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	lab.Need(t, "network namespaces (root)", err)
	f.ip("-n", f.prefix+"sw", "link", "add", "br0", "type", "bridge")
	f.ip("-n", f.prefix+"sw", "link", "set", "br0", "up")
	for i := range hosts {
		f.ip("netns", "add", f.host(i))
		f.ip("-n", f.host(i), "link", "add", "eth0", "type", "veth", "peer", "name", f.port(i), "netns", f.prefix+"sw")
		f.ip("-n", f.prefix+"sw", "link", "set", f.port(i), "master", "br0", "up")
		f.ip("-n", f.host(i), "addr", "add", f.addr(i)+"/24", "dev", "eth0")
		f.ip("-n", f.host(i), "link", "set", "lo", "up")
		f.ip("-n", f.host(i), "link", "set", "eth0", "up")
	}
	return f
}

func (f *fabric) host(i int) string { return fmt.Sprintf("%sh%d", f.prefix, i) }
func (f *fabric) port(i int) string { return fmt.Sprintf("p%d", i) }
func (f *fabric) addr(i int) string { return fmt.Sprintf("10.10.10.%d", i+1) }

func (f *fabric) ip(args ...string) {
	f.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(f.t, err, "ip %s: %s", strings.Join(args, " "), out)
}

// cut pulls the cable of a host; plug brings it back.
func (f *fabric) cut(i int)  { f.ip("-n", f.prefix+"sw", "link", "set", f.port(i), "down") }
func (f *fabric) plug(i int) { f.ip("-n", f.prefix+"sw", "link", "set", f.port(i), "up") }

// drop loses what the switch would forward, as the rule says, beside what other rules say.
func (f *fabric) drop(rule string) {
	f.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", f.prefix+"sw", "nft",
		"add table bridge chaos; add chain bridge chaos cut { type filter hook forward priority 0; policy accept; }; add rule bridge chaos cut "+rule+" counter drop").CombinedOutput()
	require.NoError(f.t, err, "%s: %s", rule, out)
}

// heal forgets all rules.
func (f *fabric) heal() {
	f.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", f.prefix+"sw", "nft", "flush ruleset").CombinedOutput()
	require.NoError(f.t, err, "%s", out)
}

// spawn runs a node on each host, which knows the addresses of all.
func (f *fabric) spawn() (children []*child) {
	f.t.Helper()
	for i := range f.hosts {
		children = append(children, f.start(i))
	}
	for _, c := range children {
		c.ready(f.t)
	}
	assembled(f.t, children...)
	return children
}

func (f *fabric) start(i int) *child {
	var seeds []string
	for k := range f.hosts {
		seeds = append(seeds, f.addr(k)+":8074")
	}
	return spawnAt(f.t, []string{"ip", "netns", "exec", f.host(i)}, f.addr(i)+":8074", seeds...)
}
