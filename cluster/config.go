package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// The defaults of Config.
const (
	DefaultPort       = 8074
	DefaultMaxMessage = 64 << 20
)

// Config is what New needs. ClusterName, Discovery and Keys (or InsecureNoKeys) are required, unless Single is set. The zero value of every
// other field is its default.
type Config struct {
	// ClusterName separates clusters: only processes with the same name join, also when they share a database or a key. Required, at
	// most 64 bytes.
	ClusterName string

	// Single runs one node without listener, discovery and keys: Alive is this node. Everything else works as in a cluster of one.
	Single bool

	// Discovery tells where the others are: SQLDiscovery, StaticDiscovery, DNSDiscovery or your own. Required.
	Discovery Discovery

	// Keys are the cluster's secrets, 32 bytes each. The first one seals, all of them open, so that a key can be replaced while the
	// cluster runs. Required unless InsecureNoKeys.
	Keys [][]byte

	// InsecureNoKeys runs without keys: whoever reaches the port can join and read everything. Said in log and status.
	InsecureNoKeys bool

	// TLS asks for certificates too: mutual TLS on all streams between nodes. Default nil: the keys alone.
	TLS *TLS

	NodeName string // label for people, need not be unique; default os.Hostname
	Version  string // of the product, shown and compared: "10.4.2"
	Schema   int    // of the product's database, shown and compared

	// BindAddr is where to listen, "host" or "host:port"; default all interfaces and GossipPort. "127.0.0.1:0" takes a free port.
	BindAddr string
	// GossipPort is the one port for UDP and TCP; default 8074. BindAddr's port wins, where it has one.
	GossipPort int

	// The address that peers are told is the first of: AdvertiseAddr; OverrideHostname; BindAddr when it is one address; the first
	// address that is not loopback, link-local or multicast, of NetworkInterface when that is set (left out with UseHostname);
	// os.Hostname; loopback, with a warning.
	AdvertiseAddr, OverrideHostname, NetworkInterface string
	UseHostname                                       bool

	ServicePort int // of the product, shown in the discovery table; 0 is none

	// RetryInterval is the longest pause between attempts to reach a failed member or a seed; default 2 s, more than 5 s counts as 5 s. In
	// the first minute after a loss the pauses are below 1 s. Shorter heals faster and costs more connection attempts.
	RetryInterval time.Duration

	// Compress makes what goes over links and gossip smaller (deflate, LZW), for some CPU and about 700 KiB for each peer. Messages
	// of one sender share a window: leave it off where an attacker who chooses part of what is sent can see how long the rest makes it.
	// Nodes with and without it work together. Default false.
	Compress bool

	// MaxMessage is the largest payload in bytes; default and at most 64 MiB. It must be equal on all nodes.
	MaxMessage int

	// Profile is how patient failure detection is: LAN (default), Local, WAN.
	Profile Profile

	Network Network      // where to listen and dial; nil is the host's
	Logger  *slog.Logger // nil is slog.Default()
	Hooks   Hooks
}

// Network is where a Node listens and dials. Fault injection and in-memory clusters put theirs here. One that lives in simulated time has a
// method Boottime() time.Duration too: the Node takes its own pauses from that instead of the machine's clock.
type Network interface {
	// Listen accepts streams at addr, "host:port".
	Listen(ctx context.Context, addr string) (net.Listener, error)
	// ListenPacket opens a socket for datagrams at addr.
	ListenPacket(ctx context.Context, addr string) (net.PacketConn, error)
	// Dial opens a stream to addr.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Profile is a set of timings for failure detection.
type Profile int

// The profiles, with the time until a process that was cut off or paused is called failed. A process that died is known at once in all
// of them, from its connections.
const (
	LAN   Profile = iota // 1.0 to 1.5 s
	Local                // the same, with gossip that is quicker: one machine, tests
	WAN                  // 5 s; for round trips to 300 ms
)

// Hooks are optional functions for tracing. They run one at a time beside the Node's work; a slow one misses nothing but is late.
type Hooks struct {
	// MemberChanged is called after a member joined or changed its state; calls for one member may be merged, the last is never lost.
	MemberChanged func(m Member)
}

type hostNetwork struct{}

func (hostNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

func (hostNetwork) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, "udp", addr)
}

func (hostNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// validate reports every fault at once.
func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cluster: "+format, args...)) }
	if !c.Single {
		c.validateCluster(bad)
	}
	if len(c.ClusterName) > 64 {
		bad("ClusterName %q has %d bytes; use at most 64", c.ClusterName, len(c.ClusterName))
	}
	if !plain(c.ClusterName) {
		bad("ClusterName %q begins or ends with white space, or has control characters or broken UTF-8; leave them out, as nobody sees that names differ in them", c.ClusterName)
	}
	if len(c.NodeName) > 255 {
		bad("NodeName %.20q… has %d bytes; use at most 255", c.NodeName, len(c.NodeName))
	}
	if len(c.Version) > 64 {
		bad("Version %.20q… has %d bytes; use at most 64", c.Version, len(c.Version))
	}
	if c.Schema < 0 {
		bad("Schema %d is negative; use the number of the last migration, or 0 for none", c.Schema)
	}
	if c.RetryInterval < 0 {
		bad("RetryInterval %v is negative; use 0 for the default of 2 s", c.RetryInterval)
	}
	if c.MaxMessage < 0 || c.MaxMessage > DefaultMaxMessage {
		bad("MaxMessage %d is out of range; use 1 to %d, or 0 for the default", c.MaxMessage, DefaultMaxMessage)
	}
	if c.Profile < LAN || c.Profile > WAN {
		bad("Profile %d is not known; use LAN, Local or WAN", c.Profile)
	}
	if isTypedNil(c.Network) {
		bad("Network is a nil %T; leave it nil for the host's network", c.Network)
	}
	return errors.Join(errs...)
}

func (c *Config) validateCluster(bad func(string, ...any)) {
	if c.ClusterName == "" {
		bad("ClusterName is empty; set it to the same name on all nodes, as nodes without a name would not find each other")
	}
	switch {
	case c.Discovery == nil:
		bad("Discovery is nil; use SQLDiscovery, StaticDiscovery or DNSDiscovery, or set Single")
	case isTypedNil(c.Discovery):
		bad("Discovery is a nil %T; create it before New", c.Discovery)
	default:
		if v, ok := c.Discovery.(interface{ validate() error }); ok {
			if err := v.validate(); err != nil {
				bad("Discovery: %v", err)
			}
		}
	}
	switch {
	case len(c.Keys) == 0 && !c.InsecureNoKeys:
		bad("Keys is empty; make a key with keygen and give the same one to all nodes, or set InsecureNoKeys")
	case len(c.Keys) > 0 && c.InsecureNoKeys:
		bad("Keys and InsecureNoKeys are both set; clear one of them")
	}
	if err := checkKeys(c.Keys); err != nil {
		errs := err.(interface{ Unwrap() []error }).Unwrap()
		for _, err := range errs {
			bad("%s", strings.TrimPrefix(err.Error(), "cluster: "))
		}
	}
	if c.TLS != nil {
		c.TLS.validate(len(c.Keys), bad)
	}
	c.validateAddresses(bad)
}

// splitAddr reads "host", "host:port" or a bare IPv6 address. The port is -1 where there is none.
func splitAddr(addr string) (host string, port int, err error) {
	if addr == "" {
		return "", -1, nil
	}
	if net.ParseIP(addr) != nil {
		return addr, -1, nil
	}
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		var ae *net.AddrError
		if errors.As(err, &ae) && ae.Err == "missing port in address" {
			return addr, -1, nil
		}
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number up to 65535", text)
	}
	return host, int(n), nil
}

func isTypedNil(v any) bool {
	if v == nil {
		return false
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Slice, reflect.Interface:
		return r.IsNil()
	}
	return false
}
