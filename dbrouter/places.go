package dbrouter

import (
	"context"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// places are the addresses of a data source, watched while its master is away.
type places struct {
	names   []string // that must be resolved
	several bool     // the driver chooses among several servers with each dial
	last    []string
	busy    chan []string
}

func newPlaces(dsn string) *places {
	p := &places{busy: make(chan []string, 1)}
	hosts := hostsOf(dsn)
	p.several = len(hosts) > 1
	for _, h := range hosts {
		name, _, err := net.SplitHostPort(h)
		if err != nil {
			name = h
		}
		if name != "" && net.ParseIP(name) == nil && !strings.HasPrefix(name, "/") {
			p.names = append(p.names, name)
		}
	}
	p.busy <- nil
	return p
}

// moved reports whether a name has other addresses than when last looked at. It does not wait for a slow resolver: its answer is seen later.
func (p *places) moved(ctx context.Context, wg *sync.WaitGroup) bool {
	if len(p.names) == 0 {
		return false
	}
	select {
	case found := <-p.busy:
		moved := found != nil && !slices.Equal(found, p.last)
		if found != nil {
			p.last = found
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			var all []string
			for _, n := range p.names {
				addrs, err := net.DefaultResolver.LookupHost(ctx, n)
				if err != nil {
					all = nil
					break
				}
				all = append(all, addrs...)
			}
			slices.Sort(all)
			p.busy <- all
		})
		return moved
	default:
		return false
	}
}

// hostsOf returns the host or host:port of each server that a data source names; none when it names none.
func hostsOf(dsn string) []string {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		_, rest, _ := strings.Cut(dsn, "://")
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			rest = rest[:i]
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = rest[i+1:]
		}
		if u, err := url.Parse(dsn); err == nil && u.Query().Get("host") != "" {
			rest = u.Query().Get("host")
		}
		return strings.Split(rest, ",")
	}
	if i := strings.Index(dsn, "@tcp("); i >= 0 {
		rest := dsn[i+len("@tcp("):]
		if j := strings.IndexByte(rest, ')'); j >= 0 {
			return []string{rest[:j]}
		}
	}
	values := keyValues(dsn)
	if values["host"] == "" {
		return nil
	}
	hosts, ports := strings.Split(values["host"], ","), strings.Split(values["port"], ",")
	for i := range hosts {
		if i < len(ports) && ports[i] != "" {
			hosts[i] = net.JoinHostPort(hosts[i], ports[i])
		} else if len(ports) == 1 && ports[0] != "" {
			hosts[i] = net.JoinHostPort(hosts[i], ports[0])
		}
	}
	return hosts
}

// keyValues reads PostgreSQL's key=value form; what it cannot read it leaves out.
func keyValues(dsn string) map[string]string {
	m := map[string]string{}
	for rest := strings.TrimSpace(dsn); rest != ""; rest = strings.TrimSpace(rest) {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return m
		}
		after = strings.TrimLeft(after, " ")
		var b strings.Builder
		i, quoted := 0, strings.HasPrefix(after, "'")
		if quoted {
			i = 1
		}
		for ; i < len(after); i++ {
			c := after[i]
			if c == '\\' && i+1 < len(after) {
				i++
				b.WriteByte(after[i])
				continue
			}
			if quoted && c == '\'' {
				i++
				break
			}
			if !quoted && (c == ' ' || c == '\t' || c == '\n') {
				break
			}
			b.WriteByte(c)
		}
		m[strings.ToLower(strings.TrimSpace(key))] = b.String()
		rest = after[min(i, len(after)):]
	}
	return m
}
