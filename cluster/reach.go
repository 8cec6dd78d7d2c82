package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nines-go/nines/cluster/internal/seal"
)

const (
	reachWithin = time.Second     // one attempt
	reachQuick  = time.Minute     // how long a member that was lost is tried at the quick pace
	reachAtOnce = 16              // attempts at a time
	seedsEvery  = 5 * time.Second // while all is well
)

// row is an entry of discovery that is not a member and cannot be reached.
type row struct {
	entry Entry
	err   error
	since time.Time // unreachable
	ping  time.Time // LastPingAt when it was first unreachable
	known bool      // it was a member once, of this node or of a peer
}

// seeds reads discovery, one call at a time.
func (n *Node) seeds(ctx context.Context) (entries []Entry) {
	err := n.withDiscovery(ctx, func(ctx context.Context) (err error) {
		entries, err = n.cfg.Discovery.Seeds(ctx, n.cfg.ClusterName)
		return err
	})
	n.noteTrouble(err)
	return entries
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

// resolve returns an entry's address with its name looked up.
func (n *Node) resolve(ctx context.Context, e Entry) (string, error) {
	ip, err := resolveIP(ctx, e.Hostname)
	if err != nil {
		return "", err
	}
	port := e.GossipPort
	if port <= 0 {
		if port = n.cfg.GossipPort; port == 0 {
			port = DefaultPort
		}
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port)), nil
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
	return f
}

// reachLoop looks for members for as long as the Node runs: in discovery, and where members were seen in the last 24 h. Gossip alone never
// merges two halves again, and a join that races another may miss it.
func (n *Node) reachLoop(ctx context.Context) {
	select { // whoever registers later than another finds the other's entry: no two first nodes stay alone
	case <-n.registered:
	case <-n.settled:
	case <-ctx.Done():
		return
	}
	entries, read := n.seeds(ctx), time.Now()
	for {
		found := n.reach(ctx, entries)
		if !n.isSettled() && n.trouble0() == nil && found.quiet {
			n.settle()
		}
		select {
		case <-ctx.Done():
			return
		case <-n.life.Stopping():
			return
		case <-n.again:
		case <-time.After(n.pace(found)):
		}
		if now := time.Now(); !found.well || now.Sub(read) > seedsEvery {
			entries, read = n.seeds(ctx), now
		}
	}
}

func (n *Node) trouble0() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trouble
}

// pace is the pause before the next round.
func (n *Node) pace(f found) time.Duration {
	d := n.cfg.RetryInterval
	switch {
	case !n.isSettled() || n.isPaused():
		d = min(d, 100*time.Millisecond)
	case f.quick:
		d = min(d, 800*time.Millisecond)
	}
	return d/2 + rand.N(d/2+1)
}

func (n *Node) isPaused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused
}

// found is what a round came to.
type found struct {
	well   bool // everybody that is known of is a member
	quiet  bool // everybody was asked and either refused, failed, or is a member that knows this process
	nobody bool // nobody of this cluster is there
	quick  bool // a member was lost lately, or came by link alone
}

type target struct {
	addr  string
	entry *Entry
}

// reach makes one round.
func (n *Node) reach(ctx context.Context, entries []Entry) found {
	targets, quick := n.targets(ctx, entries)
	out := found{well: true, quiet: true, nobody: true, quick: quick}
	var mu sync.Mutex
	rows := map[string]row{}
	acked := false
	slots := make(chan struct{}, reachAtOnce)
	var wg sync.WaitGroup
	for _, t := range targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			known, err := n.approach(ctx, t)
			mu.Lock()
			defer mu.Unlock()
			out.nobody = out.nobody && (isRefused(err) || isForeign(err) || errors.Is(err, errSelf))
			switch {
			case known:
				acked = true
			case err == nil:
				out.quiet, out.well = false, false
			case !isRefused(err) && !errors.Is(err, errSelf):
				out.well = false
			}
			if err != nil && t.entry != nil && t.entry.ID != "" {
				rows[t.entry.ID] = row{entry: *t.entry, err: err}
			}
		})
	}
	wg.Wait()
	n.noteRows(rows)
	if acked {
		n.acknowledged()
	} else if out.nobody || n.graceOver() {
		n.verified() // there is nobody to be acknowledged by: a process that starts would go on alone too
	}
	return out
}

// graceOver reports whether the others had their time to answer after a pause of this process.
func (n *Node) graceOver() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().After(n.table.hold)
}

// acknowledged: a member knows this process by its ID.
func (n *Node) acknowledged() {
	n.verified()
	if n.isSettled() {
		return
	}
	n.mu.Lock()
	waiting := false
	for _, e := range n.table.members {
		waiting = waiting || e.present && !e.shown && e.fate != FateDead && e.fate != FateLeft
	}
	n.mu.Unlock()
	if !waiting { // else the next round, or the timer
		n.settle()
	}
}

// targets are the addresses where somebody may be who is not a member yet, or is one no longer; while this process is not settled or was
// paused, members too.
func (n *Node) targets(ctx context.Context, entries []Entry) (targets []target, quick bool) {
	type candidate struct {
		addr string
		e    *Entry
	}
	var all []candidate
	for i := range entries {
		addr, err := n.resolve(ctx, entries[i])
		if err == nil {
			all = append(all, candidate{addr, &entries[i]})
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	everybody := n.paused || !n.table.settled
	here := map[string]bool{n.addr: true}
	for _, e := range n.table.members {
		if e.shown && e.present && e.linked && e.addr != "" && !everybody {
			here[e.addr] = true
		}
		if e.shown && everybody && e.id != n.id && e.addr != "" {
			all = append(all, candidate{e.addr, nil})
		}
		if !e.present && (e.absent || e.linked) && !e.left && !e.dead && time.Since(e.since) < reachQuick {
			quick = true
		}
	}
	for _, addr := range n.table.lost() {
		all = append(all, candidate{addr, nil})
	}
	seen := map[string]bool{}
	for _, c := range all {
		if here[c.addr] || seen[c.addr] {
			continue
		}
		if c.e != nil && c.e.ID != "" {
			if c.e.ID == n.id || n.table.buried(c.e.ID) {
				continue
			}
			if e := n.table.members[c.e.ID]; e != nil && (e.left || e.shown && e.present && e.linked && !everybody) {
				continue
			}
		}
		seen[c.addr] = true
		targets = append(targets, target{c.addr, c.e})
	}
	return targets, quick
}

// approach asks who is at an address and joins it. known reports whether it knows this process as a member.
func (n *Node) approach(ctx context.Context, t target) (known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.timings().reach)
	defer cancel()
	f, err := n.wire.inquire(ctx, t.addr, question{ID: n.ID()})
	if err != nil {
		return false, err
	}
	if f.ID == n.ID() {
		return false, errSelf
	}
	if f.Fate == FateDead {
		n.evicted(f.ID)
		return false, nil
	}
	n.mu.Lock()
	e := n.table.members[f.ID]
	member := e != nil && e.present && !e.absent
	over := n.table.buried(f.ID)
	n.mu.Unlock()
	if over {
		return false, nil // it will be told, and go
	}
	if member && present(f.Fate) {
		return true, nil
	}
	// Twice: the first exchange makes both sides refute what was said of them, the second one brings that across.
	for range 2 {
		if _, err := n.gossip.Join([]string{t.addr}); err != nil {
			return false, err
		}
	}
	f, err = n.wire.inquire(ctx, t.addr, question{ID: n.ID()})
	return err == nil && present(f.Fate), nil
}

var errSelf = errors.New("this process itself")

func present(fate string) bool {
	return fate == FateAlive || fate == FateSuspect || fate == FateDraining
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isForeign: something answers, and is not of this cluster.
func isForeign(err error) bool { return errors.Is(err, seal.ErrKey) || errors.Is(err, seal.ErrCluster) }

// noteRows keeps which entries of discovery cannot be reached and since when.
func (n *Node) noteRows(fresh map[string]row) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, r := range fresh {
		if errors.Is(r.err, errSelf) || isRefused(r.err) {
			delete(fresh, id) // nobody is there: a process that ended without a word
			continue
		}
		r.since, r.ping = now, r.entry.LastPingAt
		if old, ok := n.rows[id]; ok {
			r.since, r.ping = old.since, old.ping
		}
		r.known = n.table.met(id)
		fresh[id] = r
	}
	n.rows = fresh
}

// running reports whether the process of an unreachable row is known to run.
func (r row) running(now time.Time) bool {
	return isForeign(r.err) || r.entry.LastPingAt.After(r.ping) || !r.known && now.Sub(r.entry.LastPingAt) < heartbeat*5/4
}

func (n *Node) pong(from string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.table.members[from]; ok {
		n.pongs[from] = time.Now()
	}
}
