package demo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	probeInterval = 250 * time.Millisecond
	probeTimeout  = 500 * time.Millisecond
	maxReplay     = 64 << 10 // bytes of a request body that are kept to send it to another node
)

// Proxy is the load balancer of the demo: it asks each node whether it is ready, sends requests and WebSockets to those that are, tries the
// next one when a node does not take a request, and closes the connections of a node that stopped answering.
type Proxy struct {
	backends []*backend
	next     atomic.Uint64
	reverse  *httputil.ReverseProxy
	log      *slog.Logger
}

// NewProxy returns a proxy in front of the nodes at addrs (host:port).
func NewProxy(addrs []string, log *slog.Logger) *Proxy {
	p := &Proxy{log: log}
	for _, a := range addrs {
		p.backends = append(p.backends, newBackend(a))
	}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host // the transport chooses the node
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:    p,
		ErrorHandler: p.fail,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p
}

// Run probes the nodes until ctx ends.
func (p *Proxy) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, b := range p.backends {
		wg.Go(func() { b.watch(ctx, p.log) })
	}
	wg.Wait()
	for _, b := range p.backends {
		b.closeAll()
	}
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.reverse.ServeHTTP(w, r)
}

func (p *Proxy) fail(w http.ResponseWriter, _ *http.Request, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "no node took the request: "+err.Error(), http.StatusBadGateway)
}

// RoundTrip sends the request to the first node, in turn, that takes it. A request that may have been carried out is not sent again
// unless it is safe to.
func (p *Proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	body, replayable, err := buffer(r)
	if err != nil {
		return nil, err
	}
	last := errors.New("no node is ready")
	for _, b := range p.order() {
		out := r.Clone(r.Context())
		if body != nil {
			out.Body = io.NopCloser(bytes.NewReader(body))
		}
		res, err := b.transport.RoundTrip(out)
		switch {
		case err == nil && res.StatusCode == http.StatusServiceUnavailable && replayable:
			last = errors.New(b.addr + " answered 503")
			res.Body.Close()
		case err == nil:
			return res, nil
		case r.Context().Err() != nil:
			return nil, r.Context().Err()
		case notSent(err) || safe(r):
			last = err
		default:
			return nil, err
		}
		if !replayable {
			break
		}
	}
	return nil, last
}

// order is the nodes in turn, the ready ones first.
func (p *Proxy) order() []*backend {
	n := len(p.backends)
	start := int(p.next.Add(1) % uint64(n))
	turn := append(slices.Clone(p.backends[start:]), p.backends[:start]...)
	slices.SortStableFunc(turn, func(a, b *backend) int {
		switch {
		case a.ready.Load() == b.ready.Load():
			return 0
		case a.ready.Load():
			return -1
		}
		return 1
	})
	return turn
}

// buffer reads a small body so that it can be sent again; a large or unbounded one is passed on once.
func buffer(r *http.Request) (body []byte, replayable bool, err error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, true, nil
	}
	if r.ContentLength < 0 || r.ContentLength > maxReplay {
		return nil, false, nil
	}
	body, err = io.ReadAll(r.Body)
	return body, true, err
}

func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func safe(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// backend is one node as the proxy sees it.
type backend struct {
	addr      string
	transport *http.Transport
	probe     *http.Client
	ready     atomic.Bool

	mu    sync.Mutex
	conns map[*trackedConn]struct{}
}

func newBackend(addr string) *backend {
	b := &backend{addr: addr, conns: map[*trackedConn]struct{}{}}
	dialer := net.Dialer{Timeout: time.Second}
	b.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return b.track(c), nil
		},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	b.probe = &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return b
}

// watch keeps ready true while the node says that it is.
func (b *backend) watch(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		answered, ready := b.ask(ctx)
		if was := b.ready.Swap(ready); was != ready {
			log.Debug("node changed", "addr", b.addr, "ready", ready)
		}
		if !answered { // paused or gone: its clients must go elsewhere. A node that drains answers and closes its sockets itself.
			b.closeAll()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *backend) ask(ctx context.Context) (answered, ready bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.addr+"/api/v4/system/ping", nil)
	if err != nil {
		return false, false
	}
	res, err := b.probe.Do(req)
	if err != nil {
		return false, false
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxReplay))
	return true, res.StatusCode == http.StatusOK
}

// trackedConn is a connection to a node that can be closed when the node stops answering.
type trackedConn struct {
	net.Conn
	backend *backend
}

func (b *backend) track(c net.Conn) *trackedConn {
	t := &trackedConn{Conn: c, backend: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[t] = struct{}{}
	return t
}

func (c *trackedConn) Close() error {
	c.backend.mu.Lock()
	delete(c.backend.conns, c)
	c.backend.mu.Unlock()
	return c.Conn.Close()
}

func (b *backend) closeAll() {
	b.mu.Lock()
	conns := make([]*trackedConn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
