package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/nines-go/nines/cluster/internal/link"
	"github.com/nines-go/nines/cluster/internal/seal"
)

const (
	settleWithin  = 1500 * time.Millisecond
	heartbeat     = 60 * time.Second
	maxRetry      = 5 * time.Second
	discoverySlow = 5 * time.Second
	leaveWithin   = 2 * time.Second
	inboxCredit   = 4 << 20 // bytes of one sender and lane that wait for handlers
)

// Run joins the cluster and takes part in it until Shutdown, which makes it return nil, or until ctx ends, which is the hard stop: nobody is
// told, peers see a dead process. Do not give it the ctx of signal.NotifyContext. It returns an error when the port cannot be had, and
// ErrEvicted when the cluster has given this process up: start a new one then.
func (n *Node) Run(ctx context.Context) error {
	ok, err := n.life.Start()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if !ok {
		n.finish()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.runCtx = ctx
	n.pause.reset()
	if n.cfg.Single {
		err = n.runSingle(ctx, cancel)
	} else {
		err = n.runCluster(ctx, cancel)
	}
	cancel()
	n.finish()
	return err
}

// finish ends the life, once all goroutines have.
func (n *Node) finish() {
	n.quick.Store(nil)
	n.inbox.close()
	close(n.ended)
	n.mu.Lock()
	n.publishLocked()
	n.mu.Unlock()
	n.calls.fail("", ErrClosed)
	n.wg.Wait()
	n.life.Finish()
	n.notify()
}

func (n *Node) runSingle(ctx context.Context, cancel func()) error {
	n.inbox.start(ctx, n.spawn)
	n.spawn(func() { n.tick(ctx) })
	close(n.running)
	n.settle()
	select {
	case <-ctx.Done():
	case <-n.life.Stopping():
	}
	return nil
}

func (n *Node) runCluster(ctx context.Context, cancel func()) error {
	start := time.Now()
	ln, pc, err := listen(ctx, &n.cfg)
	if err != nil {
		return err
	}
	adv, err := chooseAddress(ctx, &n.cfg, ln.Addr().(*net.TCPAddr))
	if err != nil {
		ln.Close()
		pc.Close()
		return err
	}
	streams, err := n.ring.openStreams(n.cfg.ClusterName)
	if err == nil && n.cfg.TLS != nil {
		var id seal.Identity
		if id, err = n.identity(); err == nil {
			streams.WithIdentity(id)
		}
	}
	if err != nil {
		ln.Close()
		pc.Close()
		return fmt.Errorf("cluster: %w", err)
	}
	guard := &guard{streams: streams}
	w := newWire(n.log, n.cfg.Network, guard, ln, pc, adv, n.spawn)
	defer w.close()
	meshed := make(chan struct{})
	w.onLink = func(c net.Conn, via string) {
		select {
		case <-meshed:
			if err := n.mesh.AcceptVia(c, via); err != nil {
				n.log.Debug("link ended", "err", err)
			}
		case <-ctx.Done():
			c.Close()
		}
	}
	w.onAsk = func(c net.Conn) { answerQuestion(c, n.find) }
	w.onRelay = func(c net.Conn) {
		select {
		case <-meshed:
			n.serveRelay(c)
		case <-ctx.Done():
			c.Close()
		}
	}
	w.onPong = n.pong
	n.mu.Lock()
	n.wire, n.addr, n.warning = w, adv.String(), adv.Warn
	n.self = n.self.clone()
	n.self.Addr = adv.String()
	n.mu.Unlock()
	n.spawn(w.accept)

	seeds := n.firstLook(ctx, start)
	if err := n.chooseID(ctx, seeds); err != nil {
		return err
	}
	if guard.packets, err = n.ring.openPackets(n.ID(), n.cfg.ClusterName); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if n.mesh, err = n.newMesh(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	n.inbox.start(ctx, n.spawn)
	n.spawn(func() {
		if err := n.mesh.Run(ctx); err != nil {
			n.fail(err)
		}
	})
	n.spawn(w.read)
	close(meshed)
	if err := n.startGossip(w); err != nil {
		return err
	}
	defer n.gossip.Shutdown()
	n.quick.Store(n.mesh)
	close(n.running)
	n.log.Info("node runs", "id", n.ID(), "cluster", n.cfg.ClusterName, "addr", adv.String(), "from", adv.From)
	if adv.Warn != "" {
		n.log.Warn(adv.Warn)
	}
	if len(n.cfg.Keys) == 0 {
		n.log.Warn("this node runs without keys: whoever reaches its port can join; set Keys")
	}

	settle := time.AfterFunc(settleWithin-time.Since(start), n.settle)
	defer settle.Stop()
	n.spawn(func() { n.work(ctx) })
	n.spawn(func() { n.callHooks(ctx) })
	n.spawn(func() { n.tick(ctx) })
	n.spawn(func() { n.heartbeats(ctx, adv) })
	n.spawn(func() { n.reachLoop(ctx) })

	select {
	case <-ctx.Done():
		return nil
	case err := <-n.fatal:
		return err
	case <-n.life.Stopping():
	}
	n.leave(ctx)
	return nil
}

func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

// firstLook reads discovery for the first time.
func (n *Node) firstLook(ctx context.Context, start time.Time) []Entry {
	ctx, cancel := context.WithDeadline(ctx, start.Add(settleWithin-n.timings().ask))
	defer cancel()
	seeds, _ := n.seeds(ctx) // the reacher asks again
	return seeds
}

// chooseID makes this node's ID greater than all that its seeds know of.
func (n *Node) chooseID(ctx context.Context, seeds []Entry) error {
	ctx, cancel := context.WithTimeout(ctx, n.timings().ask)
	defer cancel()
	var mu sync.Mutex
	highest := ""
	var wg sync.WaitGroup
	for _, s := range seeds {
		wg.Go(func() {
			addr, err := n.resolve(ctx, s)
			if err != nil || addr == n.Addr() {
				return
			}
			f, err := n.wire.inquire(ctx, n.timings().ask, addr, question{ID: n.ID()}, nil)
			if err != nil || f.ID == n.ID() {
				return
			}
			mu.Lock()
			highest = max(highest, f.Highest, f.ID)
			mu.Unlock()
		})
	}
	wg.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	id, err := idAbove(n.id, highest, time.Now())
	if err != nil {
		return err
	}
	n.self = n.self.clone()
	n.id, n.self.ID = id, id
	n.table = newTable(n.self, n.self.Addr, time.Now())
	n.table.hearings = n.timings().hearings
	return nil
}

func (n *Node) startGossip(w *wire) (err error) {
	d := &delegate{
		meta: gossipMeta(byte(n.protocol), 1),
		joined: func(id, addr string) {
			n.update(func(t *table, now time.Time) { t.gossipJoin(id, addr, now) })
			n.isBack()
		},
		gone: func(id string, left bool) {
			select {
			case <-n.ended: // memberlist's suspicion timers outlive its Shutdown
				return
			default:
			}
			n.update(func(t *table, now time.Time) {
				t.gossipLeave(id)
				if left { // it said so, to somebody
					t.heardLeft(id, 0, now)
				}
			})
		},
		buried: func(id string) bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.table.buried(id)
		},
	}
	c := gossipConfig(n.cfg.Profile, n.ID(), n.cfg.ClusterName, n.cfg.Compress, w, d, n.log)
	c.DisableTcpPingsForNode = n.answersDatagrams
	n.gossip, err = memberlist.Create(c)
	if err != nil {
		return fmt.Errorf("cluster: gossip: %w", err)
	}
	return nil
}

// newMesh makes the links. Its callbacks only change the table.
func (n *Node) newMesh() (*link.Mesh, error) {
	return link.New(link.Config{
		Self: n.ID(), Cluster: n.cfg.ClusterName, Logger: n.log, Retain: n.retain,
		Dial: func(ctx context.Context, id string) (net.Conn, error) {
			n.mu.Lock()
			addr := ""
			if e := n.table.members[id]; e != nil {
				addr = e.addr
			}
			n.mu.Unlock()
			if addr == "" {
				return nil, errors.New("its address is not known")
			}
			return n.wire.dial(ctx, addr, toLink)
		},
		Relay:    n.relay,
		Keep:     n.ring.streams.Trusts,
		Compress: n.cfg.Compress, Protocol: n.protocol,
		OnFrame: n.frame, Taker: n.intake,
		OnUp: func(id string) {
			n.meetings.up(id)
			n.update(func(t *table, now time.Time) { t.linkUp(id, now) })
			n.isBack()
			n.tellPeer(id)
		},
		OnDown: func(id string) {
			n.meetings.down(id)
			n.update(func(t *table, now time.Time) { t.linkDown(id, now) })
		},
		OnDead: func(id string) {
			n.meetings.down(id)
			n.update(func(t *table, now time.Time) { t.bury(id, "its connection was reset and its port refuses", now) })
			n.tellDead(id)
		},
		OnGivenUp: func(id string) {
			n.meetings.down(id)
			n.update(func(t *table, now time.Time) {
				t.bury(id, "it was out of reach for longer than what was sent to it could be kept", now)
			})
		},
		OnEvicted: n.evicted,
	})
}

// evicted: a peer has given this process up for good. Of two that have given each other up, the older stays.
func (n *Node) evicted(by string) {
	n.mu.Lock()
	stays := n.leaving || n.table.buried(by) && n.id < by
	n.mu.Unlock()
	if stays {
		return
	}
	n.fail(fmt.Errorf("%w: by %s", ErrEvicted, by))
}

// tick drives what depends on time alone.
func (n *Node) tick(ctx context.Context) {
	t := time.NewTicker(pauseTick)
	defer t.Stop()
	flags, last := n.pause.clock(), time.Now()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		flags = n.sweepFlags(flags)
		gap := n.pause.tick()
		n.mu.Lock()
		if gap > 0 {
			n.pausedLocked(gap)
		}
		gap, n.gap = n.gap, 0
		n.mu.Unlock()
		if gap > 0 {
			n.log.Warn("this process was paused; it is not ready until a peer has acknowledged it again", "pause", gap.Round(time.Millisecond))
			n.notify()
		}
		if n.cfg.Single {
			n.verified(n.pauses())
		}
		now := time.Now()
		n.listen(now.Sub(last))
		last = now
		n.update(nil)
		if i%5 == 0 {
			for _, topic := range n.inbox.sweep(time.Now()) {
				n.log.Warn("messages were dropped because nothing handles their topic; call Handle before or soon after Run", "topic", topic)
			}
		}
	}
}

// Drain makes this node not ready and not eligible for new work, tells its peers, and returns when those that can be reached know it. Draining
// cannot be taken back. Before Run, and with Single, it only marks the node.
func (n *Node) Drain(ctx context.Context) error {
	select {
	case <-n.ended:
		return nil
	default:
	}
	n.mu.Lock()
	was := n.self.Draining
	if !was {
		n.changeSelfLocked(func(in *info) { in.Draining = true })
	}
	n.mu.Unlock()
	if !was {
		n.log.Info("node drains")
		n.update(nil)
	}
	if n.cfg.Single || !n.isRunning() {
		return nil
	}
	return n.tellAll(ctx)
}

// Shutdown drains, says goodbye, deletes this node's row and ends Run. It is safe before Run, repeatedly and concurrently. When ctx ends first,
// Run ends all the same a little later.
func (n *Node) Shutdown(ctx context.Context) error {
	if err := n.Drain(ctx); err != nil {
		n.log.Debug("not all peers know that this node drains", "err", err)
	}
	if err := n.life.Stop(ctx); err != nil {
		return fmt.Errorf("cluster: shutdown: %w", err)
	}
	return nil
}

// leave says goodbye.
func (n *Node) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	n.mu.Lock()
	n.leaving = true
	n.changeSelfLocked(func(in *info) { in.Left = true })
	n.mu.Unlock()
	if err := n.tellAll(ctx); err != nil {
		n.log.Debug("not all peers know that this node leaves", "err", err)
	}
	if err := n.withDiscovery(ctx, func(ctx context.Context) error { return n.cfg.Discovery.Deregister(ctx, n.ID()) }); err != nil {
		n.log.Warn("the row of this process stays in discovery until it is stale", "err", err)
	}
	if err := n.gossip.Leave(n.timings().gossip * 4); err != nil {
		n.log.Debug("gossip may see this node fail", "err", err)
	}
	n.log.Info("node left", "id", n.ID())
}
