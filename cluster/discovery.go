package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Discovery tells a Node where others may be found, and others where it is. It is the implementers' interface; calls come from one
// goroutine at a time, may take seconds and may fail: the Node tries again.
type Discovery interface {
	// Register makes e known, or renews what is known of e.ID.
	Register(ctx context.Context, e Entry) error
	// Heartbeat says that the process still runs, each 60 s. After an error the Node registers again.
	Heartbeat(ctx context.Context, id string) error
	// Seeds returns where members of the cluster may be; the caller's own entry may be among them.
	Seeds(ctx context.Context, clusterName string) ([]Entry, error)
	// Deregister forgets the process, when it leaves.
	Deregister(ctx context.Context, id string) error
}

// Entry is one row of discovery. Only Hostname must be known of a seed; GossipPort 0 is the reader's own default.
type Entry struct {
	ID          string    // of the process; empty where only an address is known
	Type        string    // "nines"
	ClusterName string    // as in Config
	Hostname    string    // address or name
	GossipPort  int       // for datagrams and streams; 0: the reader's own
	Port        int       // Config.ServicePort; 0: none
	CreateAt    time.Time // registered
	LastPingAt  time.Time // by the storage's own clock: only differences count
}

type static struct{ entries []Entry }

// StaticDiscovery is a fixed list of addresses, "host" or "host:port". It may hold the node's own address and nodes that do not run, so all
// nodes can have the same list.
func StaticDiscovery(addrs ...string) Discovery {
	s := &static{}
	for _, a := range addrs {
		host, port, err := splitAddr(strings.TrimSpace(a))
		if err != nil || host == "" {
			s.entries = append(s.entries, Entry{Hostname: a, GossipPort: -1})
			continue
		}
		s.entries = append(s.entries, Entry{Hostname: host, GossipPort: max(port, 0)})
	}
	return s
}

func (s *static) validate() error {
	var errs []error
	for _, e := range s.entries {
		if e.GossipPort < 0 {
			errs = append(errs, fmt.Errorf("static address %q is not \"host\" or \"host:port\"", e.Hostname))
		}
	}
	return errors.Join(errs...)
}

func (s *static) Register(context.Context, Entry) error    { return nil }
func (s *static) Heartbeat(context.Context, string) error  { return nil }
func (s *static) Deregister(context.Context, string) error { return nil }
func (s *static) Seeds(context.Context, string) ([]Entry, error) {
	return append([]Entry(nil), s.entries...), nil
}

type dnsNames struct {
	name     string
	resolver *net.Resolver
}

// DNSDiscovery looks name up each time: "host" or "host:port" for the A and AAAA records of a name such as a headless service, or
// "_service._proto.name" for SRV records, which bring the port.
func DNSDiscovery(name string) Discovery {
	return &dnsNames{name: strings.TrimSpace(name), resolver: net.DefaultResolver}
}

func (d *dnsNames) validate() error {
	host, _, err := splitAddr(d.name)
	if err != nil || host == "" {
		return fmt.Errorf("DNS name %q is not \"host\", \"host:port\" or \"_service._proto.host\"", d.name)
	}
	return nil
}

func (d *dnsNames) Register(context.Context, Entry) error    { return nil }
func (d *dnsNames) Heartbeat(context.Context, string) error  { return nil }
func (d *dnsNames) Deregister(context.Context, string) error { return nil }

func (d *dnsNames) Seeds(ctx context.Context, _ string) ([]Entry, error) {
	var entries []Entry
	if strings.HasPrefix(d.name, "_") {
		_, records, err := d.resolver.LookupSRV(ctx, "", "", d.name)
		if err != nil {
			return nil, fmt.Errorf("cluster: look up SRV %q: %w", d.name, err)
		}
		for _, r := range records {
			entries = append(entries, Entry{Hostname: strings.TrimSuffix(r.Target, "."), GossipPort: int(r.Port)})
		}
		return entries, nil
	}
	host, port, err := splitAddr(d.name)
	if err != nil {
		return nil, err
	}
	addrs, err := d.resolver.LookupHost(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("cluster: look up %q: %w", host, err)
	}
	for _, a := range addrs {
		entries = append(entries, Entry{Hostname: a, GossipPort: max(port, 0)})
	}
	return entries, nil
}

// addrOf returns the entry's address with the default port filled in.
func (e Entry) addr(defaultPort int) string {
	port := e.GossipPort
	if port <= 0 {
		port = defaultPort
	}
	return net.JoinHostPort(e.Hostname, strconv.Itoa(port))
}
