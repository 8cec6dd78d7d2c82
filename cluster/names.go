package cluster

import (
	"context"
	"net"
	"sync"
	"time"
)

// How long an address stands for its name.
const (
	nameFresh = 5 * time.Second
	nameKeep  = 24 * time.Hour // where the name server does not answer any more
)

// names remembers what names of peers stand for, so that a name server is not asked at each attempt, and may be away.
type names struct {
	resolver *net.Resolver

	mu sync.Mutex
	m  map[string]named
}

type named struct {
	ip net.IP
	at time.Time
}

func newNames() *names { return &names{resolver: net.DefaultResolver, m: map[string]named{}} }

// lookup returns the address that host stands for. An answer that is a few seconds old will do, and an old one is better than none.
func (s *names) lookup(ctx context.Context, host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	s.mu.Lock()
	old, ok := s.m[host]
	s.mu.Unlock()
	if ok && time.Since(old.at) < nameFresh {
		return old.ip, nil
	}
	ip, err := resolveIP(ctx, s.resolver, host)
	if err != nil {
		if ok && time.Since(old.at) < nameKeep {
			return old.ip, nil
		}
		return nil, err
	}
	s.mu.Lock()
	s.m[host] = named{ip, time.Now()}
	s.mu.Unlock()
	return ip, nil
}

// fresh reports whether host certainly stands for one of those addresses.
func (s *names) fresh(host string, addrs map[string]bool, port string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[host]
	return ok && time.Since(x.at) < nameFresh && addrs[net.JoinHostPort(x.ip.String(), port)]
}
