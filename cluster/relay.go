package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/cluster/internal/link"
)

// Two members without a way to each other speak through a third one: the lowest ID that has links to both. Of the relay, the one that asks
// gets a stream to the other's port, in which it then authenticates itself as on any other; the relay reads nothing and can change nothing.
// The link's own order and acknowledgements hold from end to end, so that going from the direct way to the relay and back loses nothing.

const (
	maxRelayed   = 256 // streams that this node relays at once
	relayIdle    = 10 * time.Second
	relayBuffer  = 64 << 10
	relayConnect = 2 * time.Second
)

// What a relay answers.
const (
	relayOK       = 0
	relayNoLink   = 1 // to the one that was asked for
	relayFull     = 2
	relayNoAnswer = 3 // its port does not answer
)

// relays counts the streams that this node relays.
type relays struct{ now atomic.Int64 }

// relay reaches a member through another one.
func (n *Node) relay(ctx context.Context, to string) (c net.Conn, via string, err error) {
	var errs []error
	for id, addr := range n.relayers(to) {
		if c, err := n.relayThrough(ctx, id, addr, to); err == nil {
			return c, id, nil
		} else {
			errs = append(errs, fmt.Errorf("through %s: %w", id, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", errors.Join(append(errs, link.ErrNoRelay)...)
}

// relayers are the members with a direct link to this node, ascending, and their addresses.
func (n *Node) relayers(to string) func(yield func(id, addr string) bool) {
	n.mu.Lock()
	addrs := map[string]string{}
	for id, e := range n.table.members {
		if e.linked && e.addr != "" && id != n.id && id != to {
			addrs[id] = e.addr
		}
	}
	n.mu.Unlock()
	return func(yield func(id, addr string) bool) {
		var ids []string
		for id := range addrs {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			if n.mesh.Up(id) && n.mesh.Via(id) == "" && n.mesh.Has(id, link.FeatureRelay) && !yield(id, addrs[id]) {
				return
			}
		}
	}
}

func (n *Node) relayThrough(ctx context.Context, id, addr, to string) (_ net.Conn, err error) {
	c, err := n.wire.dial(ctx, addr, toRelay)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			c.Close()
		}
	}()
	if _, err := c.Write(shortString(to)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	if answer[0] != relayOK {
		return nil, fmt.Errorf("it does not relay (%d)", answer[0])
	}
	inner, err := n.wire.guard.client(ctx, c)
	if err != nil {
		return nil, err
	}
	_, err = inner.Write(append([]byte{toRelayed}, shortString(id)...))
	return inner, err
}

// serveRelay connects a member with another one.
func (n *Node) serveRelay(from net.Conn) {
	defer from.Close()
	_ = from.SetDeadline(time.Now().Add(strangerTimeout))
	to, err := readShortString(from)
	if err != nil {
		return
	}
	refuse := func(why byte) { _, _ = from.Write([]byte{why}) }
	if n.relays.now.Add(1) > maxRelayed {
		n.relays.now.Add(-1)
		refuse(relayFull)
		return
	}
	defer n.relays.now.Add(-1)
	n.mu.Lock()
	addr := ""
	if e := n.table.members[to]; e != nil && e.linked {
		addr = e.addr
	}
	n.mu.Unlock()
	if addr == "" || !n.mesh.Up(to) || n.mesh.Via(to) != "" || !n.mesh.Has(to, link.FeatureRelay) {
		refuse(relayNoLink)
		return
	}
	ctx, cancel := context.WithTimeout(n.wire.ctx, relayConnect)
	raw, err := n.cfg.Network.Dial(ctx, addr)
	cancel()
	if err != nil {
		refuse(relayNoAnswer)
		return
	}
	if raw = n.wire.track(raw); raw == nil {
		return
	}
	defer raw.Close()
	if _, err := from.Write([]byte{relayOK}); err != nil {
		return
	}
	done := make(chan struct{})
	n.spawn(func() {
		defer close(done)
		splice(raw, from)
	})
	splice(from, raw)
	<-done
}

// splice copies until one of the two ends, or is silent for longer than a link's heartbeats allow, and ends both.
func splice(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, relayBuffer)
	for {
		_ = from.SetReadDeadline(time.Now().Add(relayIdle))
		k, err := from.Read(b)
		if k > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(relayIdle))
			if _, err := to.Write(b[:k]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// shortString is a string of at most 255 bytes behind its length.
func shortString(s string) []byte { return append([]byte{byte(len(s))}, s...) }

func readShortString(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}
