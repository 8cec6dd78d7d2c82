package cluster

import (
	"context"
	"net"

	"github.com/nines-go/nines/cluster/internal/seal"
)

// guard is what keeps strangers out: sealed datagrams and authenticated streams.
type guard struct {
	streams *seal.Streams
	packets *seal.Datagrams // set once the ID is known
}

func (g *guard) client(ctx context.Context, c net.Conn) (net.Conn, error) {
	return g.streams.Client(ctx, c)
}

func (g *guard) server(ctx context.Context, c net.Conn) (net.Conn, error) {
	return g.streams.Server(ctx, c)
}

func (g *guard) seal(plain []byte) []byte { return g.packets.Seal(nil, plain) }

func (g *guard) open(packet []byte) (from string, plain []byte, err error) {
	plain, from, err = g.packets.Open(nil, packet)
	return from, plain, err
}
