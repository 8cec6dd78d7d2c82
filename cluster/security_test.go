package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

// rounds is few in every day's test, and many where NINES_CHAOS asks for it.
func rounds(few, many int) int {
	if os.Getenv("NINES_CHAOS") != "" {
		return many
	}
	return few
}

// TestKeysAreReplacedUnderLoad replaces the key of three nodes that send each other a thousand messages a second.
func TestKeysAreReplacedUnderLoad(t *testing.T) {
	ctx := within(t)
	var b *board
	nodes := group(t, 3, func(_ int, c *cluster.Config) { b = c.Discovery.(*board) })
	var mu sync.Mutex
	next := map[string]uint64{}
	var bad []string
	for i, n := range nodes {
		n.Handle("n", func(_ context.Context, from string, p []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			way := fmt.Sprint(from, " to ", i)
			if seq := binary.BigEndian.Uint64(p); seq != next[way] {
				bad = append(bad, fmt.Sprint(way, " got ", seq, " want ", next[way]))
			}
			next[way]++
			return nil, nil
		})
	}
	stop := make(chan struct{})
	var sent [3]atomic.Uint64
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond) // two ways, two messages each: 1,000 a second from each node, 3,000 in all
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				seq := sent[i].Load()
				for _, to := range nodes {
					if to == n {
						continue
					}
					if err := n.Post(ctx, to.ID(), "n", binary.BigEndian.AppendUint64(nil, seq)); err != nil {
						t.Errorf("post: %v", err)
						return
					}
				}
				sent[i].Add(1)
			}
		})
	}
	current := testKey
	for round := range rounds(2, 50) {
		fresh := cluster.NewKey()
		for _, keys := range [][][]byte{{current, fresh}, {fresh, current}, {fresh}} {
			for _, n := range nodes {
				require.NoError(t, n.SetKeys(keys))
			}
			if round == 0 {
				<-time.After(200 * time.Millisecond) // load under these keys
			}
		}
		current = fresh
		for i := range nodes {
			at := sent[i].Load()
			eventually(t, func() bool { return sent[i].Load() > at+20 }, nil)
		}
		agree(t, nodes...)
		for _, n := range nodes {
			require.Len(t, n.Alive(), 3)
		}
	}
	close(stop)
	wg.Wait()
	for i, from := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			way := fmt.Sprint(from.ID(), " to ", j)
			eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return next[way] == sent[i].Load() }, func() string {
				mu.Lock()
				defer mu.Unlock()
				return fmt.Sprint(way, ": ", next[way], " of ", sent[i].Load())
			})
		}
	}
	require.Empty(t, bad)
	require.Positive(t, nodes[0].Stats().Reconnections, "links under the old key are made anew")
	t.Logf("%d messages each way", sent[0].Load())

	stale := start(t, b, func(c *cluster.Config) { c.NodeName = "stale" })
	eventually(t, func() bool {
		r := reason(stale, cluster.CodeUnreachable)
		return r != nil && strings.Contains(r.Text, "no key in common")
	}, nil)
	require.Len(t, nodes[0].Alive(), 3)
	require.NoError(t, stale.SetKeys([][]byte{current}))
	agree(t, append(nodes, stale)...)
}

func TestSetKeysRefuses(t *testing.T) {
	n, err := cluster.New(cluster.Config{ClusterName: "x", Discovery: newBoard(), Keys: [][]byte{testKey}})
	require.NoError(t, err)
	require.ErrorContains(t, n.SetKeys(nil), "Keys is empty")
	require.ErrorContains(t, n.SetKeys([][]byte{testKey, make([]byte, 31)}), "Keys[1] has 31 bytes")
	require.ErrorContains(t, n.SetKeys([][]byte{testKey, testKey}), "Keys[0] and Keys[1] are the same")
	require.NoError(t, n.SetKeys([][]byte{cluster.NewKey()}), "before Run too")
	open, err := cluster.New(cluster.Config{ClusterName: "x", Discovery: newBoard(), InsecureNoKeys: true})
	require.NoError(t, err)
	require.ErrorContains(t, open.SetKeys([][]byte{testKey}), "InsecureNoKeys")
	_, err = cluster.New(cluster.Config{ClusterName: "x", Discovery: newBoard()})
	require.ErrorContains(t, err, "Keys is empty", "not without saying InsecureNoKeys")
	_, err = cluster.New(cluster.Config{ClusterName: "x", Discovery: newBoard(), InsecureNoKeys: true, TLS: &cluster.TLS{}})
	for _, says := range []string{"TLS.Certificate is nil", "TLS.Roots is nil", "TLS is set without Keys"} {
		require.ErrorContains(t, err, says)
	}
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, key, cert, pool}
}

// node is a TLS for a node of that name.
func (a *authority) node(name string) *cluster.TLS {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(a.t, err)
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &cluster.TLS{Certificate: func() (*tls.Certificate, error) { return c, nil }, Roots: a.pool}
}

// everyName is a Discovery that shows entries of all clusters.
type everyName struct{ *board }

func (e everyName) Seeds(context.Context, string) (all []cluster.Entry, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.rows {
		all = append(all, x)
	}
	return all, nil
}

// TestMismatchesAreRefused starts a node beside one that it does not fit to. Neither becomes a member of the other, and the younger one, which
// may not serve, says why.
func TestMismatchesAreRefused(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	keyless := func(c *cluster.Config) { c.Keys, c.InsecureNoKeys = nil, true }
	otherKey := func(c *cluster.Config) { c.Keys = [][]byte{cluster.NewKey()} }
	otherName := func(c *cluster.Config) { c.ClusterName = "other" }
	named := func(a *authority, cert string, names ...string) func(c *cluster.Config) {
		return func(c *cluster.Config) {
			c.TLS = a.node(cert)
			c.TLS.Names = names
		}
	}
	both := func(fs ...func(c *cluster.Config)) func(c *cluster.Config) {
		return func(c *cluster.Config) {
			for _, f := range fs {
				f(c)
			}
		}
	}
	for name, x := range map[string]struct {
		old, young func(c *cluster.Config)
		says       string
	}{
		"another key":                   {func(*cluster.Config) {}, otherKey, "no key in common"},
		"keys and none":                 {func(*cluster.Config) {}, keyless, "no key in common"},
		"none and keys":                 {keyless, func(*cluster.Config) {}, "no key in common"},
		"another name, same key":        {func(*cluster.Config) {}, otherName, "another cluster"},
		"another name, no keys":         {keyless, both(keyless, otherName), "another cluster"},
		"certificates and none":         {named(ours, "old"), func(*cluster.Config) {}, "certificate refused"},
		"none and certificates":         {func(*cluster.Config) {}, named(ours, "young"), "certificate refused"},
		"another authority":             {named(ours, "old"), named(theirs, "young"), "certificate refused"},
		"a certificate of another node": {named(ours, "old"), both(named(ours, "old", "old", "young")), "certificate refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := everyName{newBoard()}
			old := start(t, d, func(c *cluster.Config) { c.NodeName = "old"; x.old(c) })
			require.NoError(t, old.WaitReady(within(t)))
			eventually(t, func() bool { return d.len() == 1 }, nil)
			young := start(t, d, func(c *cluster.Config) { c.NodeName = "young"; x.young(c) })
			eventually(t, func() bool { return reason(young, cluster.CodeUnreachable) != nil && len(young.Alive()) == 1 }, nil)
			r := reason(young, cluster.CodeUnreachable)
			require.Contains(t, r.Text, x.says)
			require.True(t, r.NotReady)
			require.Equal(t, []string{old.ID()}, old.Alive())
			require.Equal(t, []string{young.ID()}, young.Alive())
			require.ErrorIs(t, young.TryPost(old.ID(), "t", nil), cluster.ErrNoMember)
			require.Zero(t, old.Stats().Links+young.Stats().Links)
			require.Positive(t, old.Stats().Refused)
			t.Log(r.Text)
		})
	}
}

func TestNodesWithCertificatesJoin(t *testing.T) {
	ctx := within(t)
	a := newAuthority(t)
	nodes := group(t, 3, func(i int, c *cluster.Config) {
		c.TLS = a.node(c.NodeName)
		if i == 2 {
			c.TLS = a.node("n2.cluster.test")
			c.NodeName = "any"
		}
		c.TLS.Names = []string{"n0", "N1", "*.cluster.test"}
	})
	nodes[1].Handle("echo", func(_ context.Context, _ string, p []byte) ([]byte, error) { return p, nil })
	got, err := nodes[2].Request(ctx, nodes[1].ID(), "echo", []byte("x"))
	require.NoError(t, err)
	require.Equal(t, "x", string(got))

	n, err := cluster.New(cluster.Config{ClusterName: "test", Discovery: newBoard(), Keys: [][]byte{testKey}, BindAddr: "127.0.0.1:0", NodeName: "me", TLS: a.node("you"), Logger: quiet})
	require.NoError(t, err)
	require.ErrorContains(t, n.Run(ctx), `use one of Roots for NodeName "me"`)
}

// tap keeps the datagrams that are sent through it.
type tap struct {
	cluster.Network
	mu   sync.Mutex
	sent [][]byte
}

func (x *tap) ListenPacket(ctx context.Context, addr string) (net.PacketConn, error) {
	pc, err := x.Network.ListenPacket(ctx, addr)
	return tapConn{pc, x}, err
}

type tapConn struct {
	net.PacketConn
	tap *tap
}

func (c tapConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.tap.mu.Lock()
	c.tap.sent = append(c.tap.sent, append([]byte(nil), b...))
	c.tap.mu.Unlock()
	return c.PacketConn.WriteTo(b, to)
}

// TestForgedAndReplayedDatagramsAreRefused sends a node ten thousand of each.
func TestForgedAndReplayedDatagramsAreRefused(t *testing.T) {
	wires := &tap{Network: faultnet.New(nil)}
	nodes := group(t, 2, func(i int, c *cluster.Config) {
		if i == 1 {
			c.Network = wires
		}
	})
	target := nodes[0]
	eventually(t, func() bool { wires.mu.Lock(); defer wires.mu.Unlock(); return len(wires.sent) > 50 }, nil)
	nodes[1].kill()
	<-nodes[1].done
	eventually(t, func() bool { return target.Fate(nodes[1].ID()) == cluster.FateDead }, nil)
	eventually(t, func() bool { // nothing of the dead one is on its way any more
		before := target.Opened()
		<-time.After(50 * time.Millisecond)
		return target.Opened() == before
	}, nil)
	c, err := net.Dial("udp", target.Addr())
	require.NoError(t, err)
	defer c.Close()
	opened := target.Opened()
	throw := func(what string, count int, make func(i int) []byte) {
		refused := target.Stats().Refused
		for i := range count {
			_, err := c.Write(make(i))
			require.NoError(t, err)
			for end := time.Now().Add(patience); i%50 == 49 && target.Stats().Refused < refused+uint64(i)+1; time.Sleep(50 * time.Microsecond) {
				require.True(t, time.Now().Before(end), "%s: sent faster than read?", what) // what the kernel drops would not be counted
			}
		}
		require.Equal(t, opened, target.Opened(), "%s: delivered", what)
	}
	throw("replayed", 10000, func(i int) []byte { return wires.sent[i%len(wires.sent)] })
	throw("changed", 4000, func(i int) []byte {
		b := append([]byte(nil), wires.sent[i%len(wires.sent)]...)
		b[(i*7919)%len(b)] ^= 1 << (i % 8)
		return b
	})
	stranger := cluster.NewKey()
	throw("sealed with another key", 2000, func(i int) []byte { return cluster.SealDatagram(stranger, nodes[1].ID(), "test", []byte("gforged")) })
	throw("of another cluster", 2000, func(i int) []byte { return cluster.SealDatagram(testKey, nodes[1].ID(), "other", []byte("gforged")) })
	throw("plain gossip", 2000, func(i int) []byte { return append([]byte{8}, "FORGED-UDP"...) })
	require.Equal(t, []string{target.ID()}, target.Alive())
}

// TestForgedStreamsAreRefused throws frames at the port, as a link would bring them, and other protocols.
func TestForgedStreamsAreRefused(t *testing.T) {
	nodes := group(t, 2, nil)
	target := nodes[0]
	var handled atomic.Int64
	target.Handle("t", func(context.Context, string, []byte) ([]byte, error) { handled.Add(1); return nil, nil })
	message := append(cluster.Envelope(1, "t", 0), "forged"...)
	frame := binary.BigEndian.AppendUint32(nil, uint32(12+len(message)))
	frame = append(frame, 16, 3, 1, 0)
	frame = binary.BigEndian.AppendUint64(frame, 1)
	frame = append(frame, message...)
	hello := append([]byte{0, 0, 0, 0x35, 1, 1}, make([]byte, 40)...)
	const each = 100
	for name, greeting := range map[string][]byte{
		"frames":          nil,
		"link":            append([]byte("l"), hello...),
		"keyless":         append(append([]byte("nines1\x04test"), 'l'), hello...),
		"http":            []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"ssh":             []byte("SSH-2.0-OpenSSH_9.6\r\n"),
		"gossip":          append([]byte{10}, "plain memberlist"...),
		"TLS of somebody": {0x16, 3, 1, 0, 4, 1, 0, 0, 0},
	} {
		refused := target.Stats().Refused
		for range each / 7 {
			c, err := net.Dial("tcp", target.Addr())
			require.NoError(t, err)
			b := append([]byte(nil), greeting...)
			for range each {
				b = append(b, frame...)
			}
			_, _ = c.Write(b) // it may be closed meanwhile
			_ = c.SetReadDeadline(time.Now().Add(patience))
			buf := make([]byte, 512)
			for err == nil {
				_, err = c.Read(buf)
			}
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "%s: closed at once", name)
			c.Close()
		}
		eventually(t, func() bool { return target.Stats().Refused >= refused+each/7 }, func() string { return name })
	}
	require.Zero(t, handled.Load())
	require.NoError(t, nodes[1].Send(within(t), target.ID(), "t", []byte("real")))
	eventually(t, func() bool { return handled.Load() == 1 }, nil)
}

// TestIdleStrangersHoldNoMoreThanTheCap opens 500 connections that say nothing, from one address and from many, and lets a node join meanwhile.
func TestIdleStrangersHoldNoMoreThanTheCap(t *testing.T) {
	var b *board
	nodes := group(t, 1, func(_ int, c *cluster.Config) {
		b = c.Discovery.(*board)
		c.BindAddr = "0.0.0.0:0"
		c.AdvertiseAddr = "127.0.0.1"
	})
	target := nodes[0]
	_, port, err := net.SplitHostPort(target.Addr())
	require.NoError(t, err)
	for name, x := range map[string]struct {
		from  func(i int) string
		limit int
	}{
		"one address":    {func(int) string { return "127.0.0.1" }, 8},
		"many addresses": {func(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/200, 1+i%200) }, 64},
	} {
		var conns []net.Conn
		for i := range 500 {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(x.from(i))}}
			c, err := d.Dial("tcp", "127.0.0.1:"+port)
			require.NoError(t, err)
			conns = append(conns, c)
		}
		eventually(t, func() bool { return target.Strangers() <= x.limit && target.Stats().TurnedAway >= uint64(500-x.limit) }, func() string { return name })
		joiner := start(t, b, func(c *cluster.Config) { c.NodeName = name })
		agree(t, append(nodes, joiner)...)
		require.LessOrEqual(t, target.Strangers(), x.limit, name)
		for _, c := range conns {
			c.Close()
		}
		eventually(t, func() bool { return target.Strangers() == 0 }, nil)
		nodes = append(nodes, joiner)
	}
}
