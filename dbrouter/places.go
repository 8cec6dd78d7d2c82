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
	names   []string      // that must be resolved
	several bool          // the driver chooses among several servers with each dial
	moved   chan struct{} // a name has other addresses than when last looked at
}

// lookPause is the time between two looks at a name.
const lookPause = 10 * time.Millisecond

// newPlaces watches the names of a data source until ctx ends.
func newPlaces(ctx context.Context, wg *sync.WaitGroup, dsn string) *places {
	p := &places{moved: make(chan struct{}, 1)}
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
	if len(p.names) > 0 {
		wg.Go(func() { p.watch(ctx) })
	}
	return p
}

func (p *places) watch(ctx context.Context) {
	began := time.Now()
	var last []string
	for ctx.Err() == nil {
		if found := p.look(ctx); found != nil && !slices.Equal(found, last) {
			last = found
			select {
			case p.moved <- struct{}{}:
			default:
			}
		}
		pause := lookPause
		if time.Since(began) > 10*time.Minute {
			pause = chaseCalm
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// look returns the addresses of all names now; nil when they cannot be had.
func (p *places) look(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var all []string
	for _, n := range p.names {
		addrs, err := net.DefaultResolver.LookupHost(ctx, n)
		if err != nil {
			return nil
		}
		all = append(all, addrs...)
	}
	slices.Sort(all)
	return all
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
	if _, after, ok := strings.Cut(dsn, "@tcp("); ok {
		rest := after
		if before, _, ok := strings.Cut(rest, ")"); ok {
			return []string{before}
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
