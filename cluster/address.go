package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// advertised is the address that peers are told.
type advertised struct {
	Host string // as chosen: an address or a name
	IP   net.IP // what Host stands for
	Port int
	From string // the rung of the ladder, for the log
	Warn string // why it is probably wrong; empty is fine
}

func (a advertised) String() string { return net.JoinHostPort(a.IP.String(), strconv.Itoa(a.Port)) }

// chooseAddress walks down the ladder. bound is the address that the listener has.
func chooseAddress(ctx context.Context, c *Config, bound *net.TCPAddr) (advertised, error) {
	if c.AdvertiseAddr != "" {
		host, port, _ := splitAddr(c.AdvertiseAddr)
		if port <= 0 {
			port = bound.Port
		}
		return resolved(ctx, advertised{Host: host, Port: port, From: "AdvertiseAddr"})
	}
	if c.OverrideHostname != "" {
		return resolved(ctx, advertised{Host: c.OverrideHostname, Port: bound.Port, From: "OverrideHostname"})
	}
	if bound.IP != nil && !bound.IP.IsUnspecified() {
		return advertised{Host: bound.IP.String(), IP: bound.IP, Port: bound.Port, From: "BindAddr"}, nil
	}
	if !c.UseHostname {
		ip, err := interfaceIP(c.NetworkInterface)
		if err != nil {
			return advertised{}, err
		}
		if ip != nil {
			return advertised{Host: ip.String(), IP: ip, Port: bound.Port, From: "NetworkInterface"}, nil
		}
	}
	if name, err := os.Hostname(); err == nil {
		if a, err := resolved(ctx, advertised{Host: name, Port: bound.Port, From: "hostname"}); err == nil && !a.IP.IsLoopback() {
			return a, nil
		}
	}
	return advertised{Host: "127.0.0.1", IP: net.IPv4(127, 0, 0, 1), Port: bound.Port, From: "loopback",
		Warn: "no address but loopback was found: other hosts cannot reach this node; set AdvertiseAddr"}, nil
}

func resolved(ctx context.Context, a advertised) (advertised, error) {
	ip, err := resolveIP(ctx, net.DefaultResolver, a.Host)
	if err != nil {
		return a, fmt.Errorf("cluster: %s %q does not resolve to an address: %w; use an IP address or a name that the other nodes resolve too", a.From, a.Host, err)
	}
	a.IP = ip
	return a, nil
}

// resolveIP prefers IPv4, which every peer can reach that resolves the same name.
func resolveIP(ctx context.Context, r *net.Resolver, host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	addrs, err := r.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if a.IP.To4() != nil {
			return a.IP, nil
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("no addresses")
	}
	return addrs[0].IP, nil
}

// interfaceIP returns the first usable address of the named interface, or of any interface that is up; nil when there is none.
func interfaceIP(name string) (net.IP, error) {
	var ifaces []net.Interface
	if name != "" {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("cluster: NetworkInterface %q: %w; use a name that `ip link` shows", name, err)
		}
		ifaces = []net.Interface{*i}
	} else {
		all, err := net.Interfaces()
		if err != nil {
			return nil, nil // the hostname may still do
		}
		ifaces = all
	}
	var six net.IP
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok || !usable(n.IP) {
				continue
			}
			if n.IP.To4() != nil {
				return n.IP, nil
			}
			if six == nil {
				six = n.IP
			}
		}
	}
	if six == nil && name != "" {
		return nil, fmt.Errorf("cluster: NetworkInterface %q has no address that other hosts could reach; name another one or set AdvertiseAddr", name)
	}
	return six, nil
}

func usable(ip net.IP) bool {
	return !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified()
}
