package cluster_test

import (
	"context"
	"database/sql"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

type nilDiscovery struct{ cluster.Discovery }

func TestNewReportsEveryFault(t *testing.T) {
	var typedNil *nilDiscovery
	var nilDB *sql.DB
	_ = nilDB
	_, err := cluster.New(cluster.Config{
		Discovery: typedNil, Keys: [][]byte{make([]byte, 16)}, GossipPort: 70000, ServicePort: -1, BindAddr: "host:x",
		AdvertiseAddr: "a:b:c", RetryInterval: -1, MaxMessage: 1 << 40, Profile: 9, NodeName: strings.Repeat("x", 300),
	})
	require.Error(t, err)
	for _, want := range []string{
		"ClusterName is empty", "Discovery is a nil *cluster_test.nilDiscovery", "Keys[0] has 16 bytes", "GossipPort 70000", "ServicePort -1",
		`BindAddr "host:x"`, `AdvertiseAddr "a:b:c"`, "RetryInterval -1ns", "MaxMessage 1099511627776", "Profile 9", "NodeName has 300",
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestNewRefuses(t *testing.T) {
	good := cluster.Config{ClusterName: "c", Discovery: cluster.StaticDiscovery(), Keys: [][]byte{cluster.NewKey()}}
	_, err := cluster.New(good)
	require.NoError(t, err)
	for want, change := range map[string]func(c *cluster.Config){
		"Keys is empty":                func(c *cluster.Config) { c.Keys = nil },
		"both set":                     func(c *cluster.Config) { c.InsecureNoKeys = true },
		"Discovery is nil":             func(c *cluster.Config) { c.Discovery = nil },
		"nil database":                 func(c *cluster.Config) { c.Discovery = cluster.SQLDiscovery(nil) },
		"static address":               func(c *cluster.Config) { c.Discovery = cluster.StaticDiscovery("a:b:c") },
		"DNS name":                     func(c *cluster.Config) { c.Discovery = cluster.DNSDiscovery("") },
		"Network is a nil":             func(c *cluster.Config) { c.Network = (*typedNilNetwork)(nil) },
		"name two ports":               func(c *cluster.Config) { c.BindAddr, c.GossipPort = "127.0.0.1:1", 2 },
		"ClusterName \"" + long + "\"": func(c *cluster.Config) { c.ClusterName = long },
	} {
		cfg := good
		change(&cfg)
		_, err := cluster.New(cfg)
		require.ErrorContains(t, err, want)
	}
	_, err = cluster.New(cluster.Config{Single: true})
	require.NoError(t, err, "one node alone needs nothing")
}

var long = strings.Repeat("n", 65)

type typedNilNetwork struct{ cluster.Network }

func TestKeys(t *testing.T) {
	key := cluster.NewKey()
	text := cluster.FormatKey(key)
	for _, form := range []string{text, " " + text + "\n", strings.TrimRight(text, "="), strings.NewReplacer("+", "-", "/", "_").Replace(text)} {
		got, err := cluster.ParseKey(form)
		require.NoError(t, err)
		require.Equal(t, key, got)
	}
	for _, bad := range []string{"", "short", "!!!" + text, cluster.FormatKey(key[:16])} {
		_, err := cluster.ParseKey(bad)
		require.Error(t, err)
		if bad != "" {
			require.NotContains(t, err.Error(), bad)
		}
	}
}

func TestTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	n, err := cluster.New(cluster.Config{ClusterName: "c", Discovery: cluster.StaticDiscovery(), InsecureNoKeys: true, BindAddr: ln.Addr().String(), Logger: quiet})
	require.NoError(t, err)
	err = n.Run(context.Background())
	require.ErrorContains(t, err, "BindAddr")
	require.ErrorContains(t, err, ln.Addr().String())
	require.ErrorContains(t, err, "port 0 for a free one")
	require.ErrorIs(t, n.Post(context.Background(), n.ID(), "t", nil), cluster.ErrClosed)
}

func TestTakenUDPPort(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	n, err := cluster.New(cluster.Config{ClusterName: "c", Discovery: cluster.StaticDiscovery(), InsecureNoKeys: true, BindAddr: pc.LocalAddr().String(), Logger: quiet})
	require.NoError(t, err)
	require.ErrorContains(t, n.Run(context.Background()), "BindAddr")
}

func TestIDsSortByAge(t *testing.T) {
	last := ""
	for range 5000 {
		id := cluster.NewID()
		require.Greater(t, id, last)
		last = id
		at, ok := cluster.IDTime(id)
		require.True(t, ok, id)
		require.WithinDuration(t, time.Now(), at, time.Minute)
	}
	for _, bad := range []string{"", "x", strings.Repeat("0", 36), strings.ToUpper(last), last + "0", last[:14] + "4" + last[15:]} {
		_, ok := cluster.IDTime(bad)
		require.False(t, ok, bad)
	}
}

func TestIDIsRaisedAboveTheNewest(t *testing.T) {
	own := cluster.NewID()
	now := time.Now()
	same, err := cluster.IDAbove(own, "", now)
	require.NoError(t, err)
	require.Equal(t, own, same)
	ahead := cluster.MakeID(now.Add(time.Hour).UnixMilli(), 7)
	raised, err := cluster.IDAbove(own, ahead, now)
	require.NoError(t, err)
	require.Greater(t, raised, ahead)
	_, ok := cluster.IDTime(raised)
	require.True(t, ok)
	_, err = cluster.IDAbove(own, cluster.MakeID(now.Add(25*time.Hour).UnixMilli(), 0), now)
	require.ErrorContains(t, err, "set the clocks")

	// A clock that was set back since the ID was made is no reason to refuse the others.
	past := now.Add(-30 * 24 * time.Hour)
	newer := cluster.NewID()
	raised, err = cluster.IDAbove(own, newer, past)
	require.NoError(t, err)
	require.Greater(t, raised, newer)
}

func FuzzID(f *testing.F) {
	f.Add(cluster.NewID())
	f.Add("01890000-0000-7000-8000-000000000000")
	f.Add("-------------7----------------------")
	f.Fuzz(func(t *testing.T, id string) {
		if at, ok := cluster.IDTime(id); ok {
			require.Len(t, id, 36)
			require.False(t, at.IsZero())
		}
	})
}
