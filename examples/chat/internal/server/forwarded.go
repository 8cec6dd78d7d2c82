package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// clientAddresses tells who asks: X-Forwarded-* is believed only where each proxy that added to it is trusted.
type clientAddresses struct{ trusted []netip.Prefix }

func newClientAddresses(proxies []string) clientAddresses {
	var c clientAddresses
	for _, p := range proxies {
		if prefix, err := parseProxy(p); err == nil { // Validate has seen it
			c.trusted = append(c.trusted, prefix)
		}
	}
	return c
}

func (c clientAddresses) isTrusted(addr netip.Addr) bool {
	for _, p := range c.trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func peer(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("")
}

// client is the address of the one who asks: the last one that is not a trusted proxy.
func (c clientAddresses) client(r *http.Request) string {
	addr := peer(r)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && c.isTrusted(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
	return addr.String()
}

// secure reports whether the one who asks uses HTTPS.
func (c clientAddresses) secure(r *http.Request) bool {
	return r.TLS != nil || c.isTrusted(peer(r)) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}
