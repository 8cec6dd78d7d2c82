package cluster

import (
	"context"
	"math/rand/v2"
	"time"
)

// seeds reads discovery, one call at a time.
func (n *Node) seeds(ctx context.Context) (entries []Entry, err error) {
	err = n.withDiscovery(ctx, func(ctx context.Context) (err error) {
		entries, err = n.cfg.Discovery.Seeds(ctx, n.cfg.ClusterName)
		return err
	})
	n.noteTrouble(err)
	return entries, err
}

func (n *Node) withDiscovery(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, discoverySlow)
	defer cancel()
	select {
	case n.discovery <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-n.discovery }()
	return fn(ctx)
}

// noteTrouble keeps the state of discovery, and logs when it changes.
func (n *Node) noteTrouble(err error) {
	if n.runCtx.Err() != nil {
		return
	}
	n.mu.Lock()
	was := n.trouble
	n.trouble = err
	n.mu.Unlock()
	switch {
	case err != nil && was == nil:
		n.log.Warn("discovery fails", "err", err)
	case err == nil && was != nil:
		n.log.Info("discovery works again")
	}
}

// heartbeats keeps this process known to discovery.
func (n *Node) heartbeats(ctx context.Context, adv advertised) {
	e := Entry{ID: n.ID(), Type: entryType, ClusterName: n.cfg.ClusterName, Hostname: adv.Host, GossipPort: adv.Port, Port: n.cfg.ServicePort}
	registered := false
	for fails := 0; ; {
		err := n.withDiscovery(ctx, func(ctx context.Context) error {
			if registered {
				err := n.cfg.Discovery.Heartbeat(ctx, e.ID)
				if err == nil {
					return nil
				}
			}
			return n.cfg.Discovery.Register(ctx, e)
		})
		wait := heartbeat*9/10 + rand.N(heartbeat/5)
		if err != nil {
			wait = min(time.Duration(fails+1)*time.Second, maxRetry)
			fails++
		} else {
			if !registered {
				close(n.registered)
			}
			registered, fails = true, 0
		}
		n.noteTrouble(err)
		select {
		case <-ctx.Done():
			return
		case <-n.life.Stopping():
			return
		case <-time.After(wait):
		}
	}
}

// find answers a question of another process.
func (n *Node) find(q question) finding {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := finding{ID: n.id, Highest: n.table.highest(), Now: time.Now().UnixMilli(), Version: n.cfg.Version}
	if e := n.table.members[q.ID]; e != nil {
		f.Fate = e.fate
	} else if n.table.buried(q.ID) {
		f.Fate = FateDead
	}
	for _, t := range n.flagsToTellLocked() {
		if t.Remaining > 0 {
			f.Flags = append(f.Flags, t)
		}
	}
	return f
}
