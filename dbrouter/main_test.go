package dbrouter_test

import (
	"context"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) {
	_ = mysql.SetLogger(log.New(io.Discard, "", 0)) // it complains about every fault that the tests make
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && os.Getenv(childEnv) == "" {
		_ = f.Value.Set("4") // they wait more than they work
	}
	names.listen()
	_, _ = net.LookupHost("first.test") // what the resolver of the process makes at its first use must not belong to a test's bubble
	os.Exit(m.Run())
}

// nameServer answers for the names of tests; the resolver of this process asks it.
type nameServer struct {
	mu    sync.Mutex
	addrs map[string][4]byte
}

var names = &nameServer{addrs: map[string][4]byte{}}

func (n *nameServer) set(name string, addr [4]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[name+"."] = addr
}

func (n *nameServer) listen() {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	go func() {
		buf := make([]byte, 1500)
		for {
			k, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:k]) != nil || len(q.Questions) == 0 {
				continue
			}
			a := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, Authoritative: true}, Questions: q.Questions}
			n.mu.Lock()
			addr, ok := n.addrs[q.Questions[0].Name.String()]
			n.mu.Unlock()
			switch {
			case !ok:
				a.RCode = dnsmessage.RCodeNameError
			case q.Questions[0].Type == dnsmessage.TypeA:
				a.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 0},
					Body: &dnsmessage.AResource{A: addr}}}
			}
			if b, err := a.Pack(); err == nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	}()
}
