package cluster_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

// nameServer is a real name server on loopback, for one zone.
type nameServer struct {
	mu      sync.Mutex
	records map[string][]dns.RR // by "name type"
	silent  bool
	asked   int
	addr    string
}

func newNameServer(t *testing.T) *nameServer {
	s := &nameServer{records: map[string][]dns.RR{}}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = pc.LocalAddr().String()
	ln, err := net.Listen("tcp", s.addr)
	require.NoError(t, err)
	handler := dns.HandlerFunc(s.serve)
	for _, server := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			require.NoError(t, server.Shutdown())
			require.NoError(t, <-done)
		})
	}
	return s
}

func (s *nameServer) serve(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.silent {
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.Answer = s.records[q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype]]
	known := false
	for key := range s.records {
		known = known || len(key) > len(q.Question[0].Name) && key[:len(q.Question[0].Name)] == q.Question[0].Name
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

// set replaces the records of a name.
func (s *nameServer) set(t *testing.T, lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.records)
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		require.NoError(t, err)
		key := rr.Header().Name + " " + dns.TypeToString[rr.Header().Rrtype]
		s.records[key] = append(s.records[key], rr)
	}
}

func (s *nameServer) setSilent(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.addr)
	}}
}

// startWith runs a node that asks that name server.
func startWith(t *testing.T, s *nameServer, d cluster.Discovery, bind string) *running {
	n, err := cluster.New(cluster.Config{ClusterName: "test", Discovery: d, Keys: [][]byte{testKey}, BindAddr: bind, Logger: logger(), Version: "1.0.0"})
	require.NoError(t, err)
	n.ResolveWith(s.resolver())
	return run(t, n)
}

func TestDNSDiscoveryWithARealServer(t *testing.T) {
	s := newNameServer(t)
	a := start(t, cluster.StaticDiscovery(), func(c *cluster.Config) { c.BindAddr = "127.0.0.2:0" })
	require.NoError(t, a.WaitReady(within(t)))
	_, text, err := net.SplitHostPort(a.Addr())
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)

	t.Run("A and AAAA", func(t *testing.T) {
		s.set(t, "nodes.nines.test. 0 A 127.0.0.3", "nodes.nines.test. 0 A 127.0.0.2", "nodes.nines.test. 0 AAAA ::1")
		b := startWith(t, s, cluster.DNSDiscovery(fmt.Sprint("nodes.nines.test:", port)), "127.0.0.1:0")
		agree(t, a, b)
		require.NoError(t, b.Check(context.Background()), "addresses where nobody listens are no fault")
		require.NoError(t, b.Shutdown(within(t)))
	})
	t.Run("SRV", func(t *testing.T) {
		s.set(t, fmt.Sprintf("_nines._tcp.nines.test. 0 SRV 10 10 %d a.nines.test.", port), "_nines._tcp.nines.test. 0 SRV 20 10 1 gone.nines.test.",
			"a.nines.test. 0 A 127.0.0.2")
		b := startWith(t, s, cluster.DNSDiscovery("_nines._tcp.nines.test"), "127.0.0.1:0")
		agree(t, a, b)
		eventually(t, func() bool { return reason(b, cluster.CodeSeed) != nil }, nil)
		require.Contains(t, reason(b, cluster.CodeSeed).Text, "the seed gone.nines.test:1 does not answer since")
		require.Contains(t, reason(b, cluster.CodeSeed).Text, "no such host")
		require.NoError(t, b.WaitReady(within(t)))
		require.NoError(t, b.Shutdown(within(t)))
	})
	t.Run("a name that comes later", func(t *testing.T) {
		s.set(t)
		b := startWith(t, s, cluster.DNSDiscovery(fmt.Sprint("late.nines.test:", port)), "127.0.0.1:0")
		require.NoError(t, b.WaitReady(within(t)), "the first node of a headless service has no name yet")
		require.NotNil(t, reason(b, cluster.CodeDiscovery))
		s.set(t, "late.nines.test. 0 A 127.0.0.2")
		agree(t, a, b)
		eventually(t, func() bool { return reason(b, cluster.CodeDiscovery) == nil }, nil)
		require.NoError(t, b.Shutdown(within(t)))
	})
	t.Run("static names, and a name server that hangs", func(t *testing.T) {
		s.set(t, "a.nines.test. 0 A 127.0.0.2")
		b := startWith(t, s, cluster.StaticDiscovery(fmt.Sprint("a.nines.test:", port), "hangs.nines.test"), "127.0.0.1:0")
		agree(t, a, b)
		s.setSilent(true)
		a.kill()
		<-a.done
		eventually(t, func() bool { return len(b.Alive()) == 1 }, nil)
		again := start(t, cluster.StaticDiscovery(), func(c *cluster.Config) { c.BindAddr = a.Addr() })
		at := time.Now()
		agree(t, again, b) // it knows where the name pointed
		t.Log("found again after", time.Since(at).Round(time.Millisecond), "without a name server")
	})
}
