package cluster_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

func TestAddressLadder(t *testing.T) {
	anywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: 8074}
	one := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9000}
	all := cluster.Config{AdvertiseAddr: "192.0.2.1:1", OverrideHostname: "192.0.2.2", NetworkInterface: "lo", UseHostname: true}
	for _, x := range []struct {
		what       string
		change     func(c *cluster.Config)
		bound      *net.TCPAddr
		addr, rung string
	}{
		{"first of all AdvertiseAddr", func(c *cluster.Config) {}, one, "192.0.2.1:1", "AdvertiseAddr"},
		{"without a port: the one that is listened at", func(c *cluster.Config) { c.AdvertiseAddr = "192.0.2.1" }, one, "192.0.2.1:9000", "AdvertiseAddr"},
		{"IPv6", func(c *cluster.Config) { c.AdvertiseAddr = "2001:db8::1" }, one, "[2001:db8::1]:9000", "AdvertiseAddr"},
		{"a name", func(c *cluster.Config) { c.AdvertiseAddr = "localhost" }, one, "127.0.0.1:9000", "AdvertiseAddr"},
		{"then OverrideHostname", func(c *cluster.Config) { c.AdvertiseAddr = "" }, one, "192.0.2.2:9000", "OverrideHostname"},
		{"then the address that is listened at", func(c *cluster.Config) { c.AdvertiseAddr, c.OverrideHostname = "", "" }, one, "10.1.2.3:9000", "BindAddr"},
	} {
		c := all
		x.change(&c)
		addr, rung, warning, err := cluster.ChooseAddress(context.Background(), c, x.bound)
		require.NoError(t, err, x.what)
		require.Equal(t, []string{x.addr, x.rung, ""}, []string{addr, rung, warning}, x.what)
	}

	// What follows depends on the machine.
	var first string
	ifaces, err := net.Interfaces()
	require.NoError(t, err)
	name := ""
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		require.NoError(t, err)
		for _, a := range addrs {
			ip := a.(*net.IPNet).IP
			if i.Flags&net.FlagUp != 0 && first == "" && ip.To4() != nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
				first, name = ip.String(), i.Name
			}
		}
	}
	addr, rung, warning, err := cluster.ChooseAddress(context.Background(), cluster.Config{}, anywhere)
	require.NoError(t, err)
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	require.Equal(t, "8074", port)
	if first != "" {
		require.Equal(t, []string{first, "NetworkInterface", ""}, []string{host, rung, warning})
		addr, _, _, err = cluster.ChooseAddress(context.Background(), cluster.Config{NetworkInterface: name}, anywhere)
		require.NoError(t, err)
		require.Equal(t, first+":8074", addr)
	}
	_, rung, warning, err = cluster.ChooseAddress(context.Background(), cluster.Config{UseHostname: true}, anywhere)
	require.NoError(t, err)
	require.Contains(t, []string{"hostname", "loopback"}, rung, "UseHostname leaves the interfaces out")
	require.Equal(t, rung == "loopback", warning != "")
	if warning != "" {
		require.Contains(t, warning, "set AdvertiseAddr")
	}
}

// Two nodes on one host, with one name: each at a port of its own, for TCP and UDP.
func TestTwoNodesOnOneHost(t *testing.T) {
	nodes := group(t, 2, func(i int, c *cluster.Config) { c.NodeName = "same" })
	a, b := nodes[0].Self(), nodes[1].Self()
	require.Equal(t, a.Name, b.Name)
	require.NotEqual(t, a.Addr, b.Addr)
	require.NoError(t, nodes[0].Check(within(t)))
	for _, n := range nodes { // what answers at that port is the node, over both
		eventually(t, func() bool { return reason(n, cluster.CodeDatagrams) == nil }, nil)
		ua, err := net.ResolveUDPAddr("udp", n.Addr())
		require.NoError(t, err)
		_, err = net.ListenUDP("udp", ua)
		require.Error(t, err, "the UDP port is taken too")
	}
}

// A node is started anew with the same name at another address: it is another process, and the old one is not held against it.
func TestSameNameAtANewAddress(t *testing.T) {
	b := newBoard()
	stays := start(t, b, func(c *cluster.Config) { c.NodeName = "stays" })
	old := start(t, b, func(c *cluster.Config) { c.NodeName = "moves" })
	agree(t, stays, old)
	old.kill()
	<-old.done
	moved := start(t, b, func(c *cluster.Config) { c.NodeName, c.BindAddr = "moves", "127.0.0.3:0" })
	agree(t, stays, moved)
	require.NoError(t, moved.WaitReady(within(t)))
	require.Equal(t, cluster.FateDead, stays.Fate(old.ID()))
	require.Nil(t, reason(stays, cluster.CodeDown), "its successor is here")
}
