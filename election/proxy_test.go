package election_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/stretchr/testify/require"
)

// proxy stands between a client and a server. Sever ends the connections to the server and says nothing to the clients: what a firewall,
// a NAT or a load balancer does.
type proxy struct {
	ln      net.Listener
	target  string
	mu      sync.Mutex
	up      []net.Conn
	down    []net.Conn
	severed bool
	held    chan struct{} // not nil: nothing comes through until it is closed
	wg      sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy { return proxyOn(t, (*lan)(nil).listen(t), target) }

func proxyOn(t *testing.T, ln net.Listener, target string) *proxy {
	p := &proxy{ln: ln, target: target}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.hold(false)
		p.mu.Lock()
		for _, c := range append(p.up, p.down...) {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.down = append(p.down, c)
		if !p.severed {
			if u, err := net.Dial("tcp", p.target); err == nil {
				p.up = append(p.up, u)
				p.wg.Go(func() { p.pass(u, c) })
				p.wg.Go(func() { p.pass(c, u) })
			}
		}
		p.mu.Unlock()
	}
}

// dsn is a data source that goes through the proxy.
func (p *proxy) dsn(t *testing.T, dsn string) string {
	host, port, err := net.SplitHostPort(p.ln.Addr().String())
	require.NoError(t, err)
	to := fmt.Sprintf("host=%s port=%s", host, port)
	if strings.Contains(dsn, "@tcp(") {
		to = "tcp(" + net.JoinHostPort(host, port) + ")"
	}
	return address.ReplaceAllString(dsn, to)
}

// pass copies what comes, and holds it up while it is told to. The end of one side is the end of both.
func (p *proxy) pass(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		held, severed := p.held, p.severed
		p.mu.Unlock()
		if held != nil {
			<-held
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			if !severed {
				to.Close()
			}
			return
		}
	}
}

// hold keeps everything on its way, as a network does that is cut; what was sent comes through when it ends.
func (p *proxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on && p.held == nil {
		p.held = make(chan struct{})
	} else if !on && p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// sever also keeps later connections without an answer.
func (p *proxy) sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.severed = true
	for _, c := range p.up {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// Golden scenario 13: the server's side of the holder's connections is reset and the holder hears nothing. Its session lock is free at
// once: another does fenced work, and other work only when the trust of the first must have ended. That one notices by its poll.
func TestSilentHolder(t *testing.T) { onEngines(t, silentHolder) }

func silentHolder(t *testing.T, e engine) {
	server := e.server(t, 0)
	p := newProxy(t, server.Addr(0))
	c := electiontest.New()
	a := start(t, c, "a", openPostgres(t, e.driver, p.dsn(t, server.DSN(0))), nil)
	eventually(t, "a leads", a.IsLeader)
	b := start(t, c, "b", e.pool(t, server, 0), nil)
	eventually(t, "b waits for the lock", func() bool { return e.waiters(t, b.db) == 1 })
	first := a.State().Term
	stop := watchUnfenced(t, a, b)
	ended := make(chan time.Time, 1)
	go func() {
		_ = a.Lead(context.Background(), func(ctx context.Context, _ uint64) error {
			<-ctx.Done()
			select {
			case ended <- time.Now():
			default:
			}
			return nil
		})
	}()
	eventually(t, "Lead runs", func() bool { return a.Stats().Running == 1 })
	late := a.Stats().LockLosses // by a poll that was slow on a busy machine
	cut := time.Now()
	p.sever()
	var fenced time.Duration
	var term uint64
	require.NoError(t, b.LeadFenced(within(t), func(_ context.Context, n uint64) error {
		term, fenced = n, time.Since(cut)
		return nil
	}))
	require.Greater(t, term, first)
	noticed := (<-ended).Sub(cut)
	eventually(t, "b leads unfenced", b.IsLeader)
	t.Logf("fenced work elsewhere after %v, the holder stopped after %v, unfenced work after %v", fenced, noticed, time.Since(cut))
	if late == 0 {
		require.Less(t, fenced, 2*time.Second, "it waited for the lease")
		require.Less(t, noticed, 2*time.Second, "it did not poll")
	}
	require.Greater(t, time.Since(cut), 1900*time.Millisecond)
	stop()
	tx, err := b.db.Begin()
	require.NoError(t, err)
	require.ErrorIs(t, a.Commit(within(t), tx, first), election.ErrDeposed)
}
