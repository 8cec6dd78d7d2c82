package clustertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
)

// board is a Discovery in memory.
type board struct {
	mu   sync.Mutex
	rows map[string]cluster.Entry
	down error
}

var errNoRow = errors.New("clustertest: no such entry")

// Discovery returns the one table that the Nodes of this network share. It is reached from everywhere, also by hosts that are cut off, until
// FailDiscovery.
func (n *Network) Discovery() cluster.Discovery { return &n.board }

// FailDiscovery makes every call of Discovery answer err, until it is called with nil.
func (n *Network) FailDiscovery(err error) {
	n.board.mu.Lock()
	n.board.down = err
	n.board.mu.Unlock()
}

func (b *board) locked(ctx context.Context, fn func() error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return b.down
	}
	return fn()
}

func (b *board) Register(ctx context.Context, e cluster.Entry) error {
	return b.locked(ctx, func() error {
		e.CreateAt, e.LastPingAt = time.Now(), time.Now()
		b.rows[e.ID] = e
		return nil
	})
}

func (b *board) Heartbeat(ctx context.Context, id string) error {
	return b.locked(ctx, func() error {
		e, ok := b.rows[id]
		if !ok {
			return errNoRow
		}
		e.LastPingAt = time.Now()
		b.rows[id] = e
		return nil
	})
}

func (b *board) Seeds(ctx context.Context, name string) (entries []cluster.Entry, err error) {
	err = b.locked(ctx, func() error {
		for _, e := range b.rows {
			if e.ClusterName == name {
				entries = append(entries, e)
			}
		}
		return nil
	})
	return entries, err
}

func (b *board) Deregister(ctx context.Context, id string) error {
	return b.locked(ctx, func() error {
		delete(b.rows, id)
		return nil
	})
}
