package cluster_test

import (
	"context"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

type nilDiscovery struct{ cluster.Discovery }

type fault struct {
	field  string
	change func(c *cluster.Config)
	want   []string
}

// Each fault of a Config, and what its error must say: the field, the value, and what to do about it.
var faults = []fault{
	{"ClusterName", func(c *cluster.Config) { c.ClusterName = "" }, []string{"ClusterName is empty", "set it to the same name on all nodes"}},
	{"ClusterName", func(c *cluster.Config) { c.ClusterName = long }, []string{`ClusterName "` + long, "65 bytes", "use at most 64"}},
	{"ClusterName", func(c *cluster.Config) { c.ClusterName = "a " }, []string{`ClusterName "a "`, "leave them out"}},
	{"ClusterName", func(c *cluster.Config) { c.ClusterName = "a\x00b" }, []string{`ClusterName "a\x00b"`, "leave them out"}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = nil }, []string{"Discovery is nil", "use SQLDiscovery, StaticDiscovery or DNSDiscovery, or set Single"}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = (*nilDiscovery)(nil) }, []string{"Discovery is a nil *cluster_test.nilDiscovery", "create it before New"}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = cluster.SQLDiscovery(nil) }, []string{"Discovery: SQLDiscovery has a nil database", "open it before New"}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = cluster.SQLDiscovery((*sqlx.DB)(nil)) }, []string{"Discovery: SQLDiscovery has a nil database", "open it before New"}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = cluster.SQLDiscovery(sqlx.NewDb(nil, "oracle")) }, []string{`"oracle"`, "use postgres, pgx, mysql, sqlite or sqlite3"}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = cluster.StaticDiscovery("ok", "a:b:c", "x:y") }, []string{`"a:b:c" is not "host" or "host:port"`, `"x:y" is not`}},
	{"Discovery", func(c *cluster.Config) { c.Discovery = cluster.DNSDiscovery("") }, []string{`DNS name ""`, `is not "host", "host:port" or "_service._proto.host"`}},
	{"Keys", func(c *cluster.Config) { c.Keys = nil }, []string{"Keys is empty", "make a key with keygen"}},
	{"Keys", func(c *cluster.Config) { c.Keys = [][]byte{make([]byte, 16)} }, []string{"Keys[0] has 16 bytes", "use 32, as ParseKey returns"}},
	{"Keys", func(c *cluster.Config) { c.Keys = append(c.Keys, c.Keys[0]) }, []string{"Keys[0] and Keys[1] are the same", "remove one"}},
	{"InsecureNoKeys", func(c *cluster.Config) { c.InsecureNoKeys = true }, []string{"Keys and InsecureNoKeys are both set", "clear one of them"}},
	{"NodeName", func(c *cluster.Config) { c.NodeName = strings.Repeat("x", 300) }, []string{`NodeName "xxx`, "300 bytes", "use at most 255"}},
	{"Version", func(c *cluster.Config) { c.Version = long }, []string{`Version "nnn`, "65 bytes", "use at most 64"}},
	{"Schema", func(c *cluster.Config) { c.Schema = -1 }, []string{"Schema -1 is negative", "use the number of the last migration"}},
	{"BindAddr", func(c *cluster.Config) { c.BindAddr = "host:x" }, []string{`BindAddr "host:x"`, `use "host" or "host:port"`}},
	{"BindAddr", func(c *cluster.Config) { c.BindAddr, c.GossipPort = "127.0.0.1:1", 2 }, []string{`BindAddr "127.0.0.1:1" and GossipPort 2 name two ports`, "clear one"}},
	{"GossipPort", func(c *cluster.Config) { c.GossipPort = 70000 }, []string{"GossipPort 70000 is out of range", "use 1 to 65535, or 0 for 8074"}},
	{"ServicePort", func(c *cluster.Config) { c.ServicePort = -1 }, []string{"ServicePort -1 is out of range", "use 1 to 65535, or 0 for none"}},
	{"AdvertiseAddr", func(c *cluster.Config) { c.AdvertiseAddr = "a:b:c" }, []string{`AdvertiseAddr "a:b:c"`, `use "host" or "host:port"`}},
	{"AdvertiseAddr", func(c *cluster.Config) { c.AdvertiseAddr = ":8074" }, []string{`AdvertiseAddr ":8074" names no host`, "as peers reach it"}},
	{"AdvertiseAddr", func(c *cluster.Config) { c.AdvertiseAddr = "10.0.0.1:0" }, []string{`AdvertiseAddr "10.0.0.1:0" has port 0`, "name the port"}},
	{"AdvertiseAddr", func(c *cluster.Config) { c.AdvertiseAddr = "0.0.0.0:8074" }, []string{`AdvertiseAddr "0.0.0.0:8074" is no address of one host`, "name the one that peers reach"}},
	{"OverrideHostname", func(c *cluster.Config) { c.OverrideHostname = "a:1" }, []string{`OverrideHostname "a:1"`, "use AdvertiseAddr"}},
	{"OverrideHostname", func(c *cluster.Config) { c.OverrideHostname = "http://a" }, []string{`OverrideHostname "http://a"`, "use AdvertiseAddr"}},
	{"OverrideHostname", func(c *cluster.Config) { c.OverrideHostname = "::" }, []string{`OverrideHostname "::" is no address of one host`, "name the one that peers reach"}},
	{"RetryInterval", func(c *cluster.Config) { c.RetryInterval = -1 }, []string{"RetryInterval -1ns is negative", "use 0 for the default"}},
	{"MaxMessage", func(c *cluster.Config) { c.MaxMessage = 1 << 40 }, []string{"MaxMessage 1099511627776 is out of range", "use 1 to 67108864"}},
	{"Profile", func(c *cluster.Config) { c.Profile = 9 }, []string{"Profile 9 is not known", "use LAN, Local or WAN"}},
	{"Network", func(c *cluster.Config) { c.Network = (*typedNilNetwork)(nil) }, []string{"Network is a nil *cluster_test.typedNilNetwork", "leave it nil"}},
}

func TestEveryFaultOfConfigIsNamedWithItsRemedy(t *testing.T) {
	good := cluster.Config{ClusterName: "c", Discovery: cluster.StaticDiscovery(), Keys: [][]byte{cluster.NewKey()}}
	_, err := cluster.New(good)
	require.NoError(t, err)
	all := good
	said := map[string]bool{}
	for _, f := range faults {
		cfg := good
		f.change(&cfg)
		_, err := cluster.New(cfg)
		require.Error(t, err, "%s: want %q", f.field, f.want)
		require.Contains(t, err.Error(), f.field)
		for _, want := range f.want {
			require.ErrorContains(t, err, want)
		}
		require.NotContains(t, err.Error(), string(good.Keys[0]))
		if !said[f.field] && f.field != "InsecureNoKeys" && f.field != "Keys" {
			said[f.field] = true
			f.change(&all)
		}
	}
	_, err = cluster.New(all)
	for field := range said { // all at once
		require.ErrorContains(t, err, field)
	}
	// Every field that can be wrong is in the table.
	fine := []string{"Single", "UseHostname", "NetworkInterface", "Compress", "Logger", "Hooks"} // any value will do, or Run finds out
	elsewhere := []string{"TLS"}
	for field := range reflect.TypeFor[cluster.Config]().Fields() {
		name := field.Name
		if !slices.Contains(fine, name) && !slices.Contains(elsewhere, name) {
			require.True(t, slices.ContainsFunc(faults, func(f fault) bool { return f.field == name }), "no fault of %s is known", name)
		}
	}
	_, err = cluster.New(cluster.Config{Single: true})
	require.NoError(t, err, "one node alone needs nothing")
}

// What only Run can find out.
func TestFaultsThatRunFinds(t *testing.T) {
	for name, x := range map[string]struct {
		change func(c *cluster.Config)
		want   []string
	}{
		"interface":                 {func(c *cluster.Config) { c.BindAddr, c.NetworkInterface = ":0", "nines-none0" }, []string{`NetworkInterface "nines-none0"`, "use a name that `ip link` shows"}},
		"interface without address": {func(c *cluster.Config) { c.BindAddr, c.NetworkInterface = ":0", "lo" }, []string{`NetworkInterface "lo" has no address`, "set AdvertiseAddr"}},
		"bind":                      {func(c *cluster.Config) { c.BindAddr = "192.0.2.1:0" }, []string{`BindAddr "192.0.2.1:0" cannot be used`, "name an address of this host"}},
		"advertise":                 {func(c *cluster.Config) { c.AdvertiseAddr = "nines.invalid" }, []string{`AdvertiseAddr "nines.invalid" does not resolve`, "use an IP address"}},
		"override":                  {func(c *cluster.Config) { c.OverrideHostname = "nines.invalid" }, []string{`OverrideHostname "nines.invalid" does not resolve`, "use an IP address"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cluster.Config{ClusterName: "c", Discovery: cluster.StaticDiscovery(), InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Logger: quiet}
			x.change(&cfg)
			n, err := cluster.New(cfg)
			require.NoError(t, err)
			err = n.Run(within(t))
			for _, want := range x.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
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
