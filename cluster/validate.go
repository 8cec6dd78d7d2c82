package cluster

import (
	"net"
	"strings"
	"unicode"
	"unicode/utf8"
)

// validateAddresses reports what is wrong with where to listen and what to tell peers.
func (c *Config) validateAddresses(bad func(string, ...any)) {
	if c.GossipPort < 0 || c.GossipPort > 65535 {
		bad("GossipPort %d is out of range; use 1 to 65535, or 0 for %d", c.GossipPort, DefaultPort)
	}
	if c.ServicePort < 0 || c.ServicePort > 65535 {
		bad("ServicePort %d is out of range; use 1 to 65535, or 0 for none", c.ServicePort)
	}
	if _, port, err := splitAddr(c.BindAddr); err != nil {
		bad("BindAddr %q: %v; use \"host\" or \"host:port\"", c.BindAddr, err)
	} else if port > 0 && c.GossipPort > 0 && port != c.GossipPort {
		bad("BindAddr %q and GossipPort %d name two ports; clear one of them", c.BindAddr, c.GossipPort)
	}
	if c.AdvertiseAddr != "" {
		host, port, err := splitAddr(c.AdvertiseAddr)
		switch {
		case err != nil:
			bad("AdvertiseAddr %q: %v; use \"host\" or \"host:port\"", c.AdvertiseAddr, err)
		case host == "":
			bad("AdvertiseAddr %q names no host; use \"host\" or \"host:port\" as peers reach it", c.AdvertiseAddr)
		case port == 0:
			bad("AdvertiseAddr %q has port 0; name the port that peers reach, or none for the one that is listened at", c.AdvertiseAddr)
		case nowhere(host):
			bad("AdvertiseAddr %q is no address of one host; name the one that peers reach", c.AdvertiseAddr)
		}
	}
	if h := c.OverrideHostname; h != "" {
		_, port, err := splitAddr(h)
		switch {
		case err != nil || port >= 0 || strings.ContainsAny(h, "/ \t\n"):
			bad("OverrideHostname %q is not a name or an address alone; use AdvertiseAddr for \"host:port\"", h)
		case nowhere(h):
			bad("OverrideHostname %q is no address of one host; name the one that peers reach", h)
		}
	}
}

// nowhere reports whether host is an address that stands for no host in particular.
func nowhere(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsUnspecified() || ip.IsMulticast())
}

// plain reports whether a name looks to people like what it is.
func plain(name string) bool {
	return utf8.ValidString(name) && strings.TrimSpace(name) == name && !strings.ContainsFunc(name, unicode.IsControl)
}
