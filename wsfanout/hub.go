package wsfanout

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/internal/lifecycle"
	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/sock"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// Hub is this node's part: an http.Handler for WebSockets, and Publish. It is safe for concurrent use.
//
// Locks, in the order in which they may be taken: exec, mu, and the small ones of peers and sockets. Nothing blocks and no code of the
// application runs under any of them.
type Hub struct {
	cfg   Config
	log   *slog.Logger
	life  lifecycle.Life
	start time.Time
	pool  *sock.Pool
	wg    sync.WaitGroup // all goroutines of Run but those of pool
	count counters

	// mu guards the protocol: each input is one critical section, what it asks for is taken before the next.
	mu        sync.Mutex
	id        string     // of this process: known when the transport has had its look around
	node      *home.Node // nil until then
	ready     chan struct{}
	waiting   map[home.Handle]chan ack
	outbox    []step // asked for, not yet done
	last      time.Duration
	pausedAt  time.Duration
	everInput bool
	peers     map[string]*peer
	ctx       context.Context // of Run; nil before
	settled   bool            // the first view has been complete
	lastAlive []string        // of the transport
	ended     bool            // nothing more is taken
	revoked   revocations
	doubt     doubt

	// exec guards what the outbox is carried out on.
	exec     sync.Mutex
	conns    map[*Conn]struct{}
	attached map[home.ClientID]*sub // by the ID of its last attachment
	users    map[string]map[*Conn]struct{}
	rooms    map[string]*room
	prepared preparedFrames
	presence presence
	nextID   home.ClientID
	filling  int     // gaps that wait for OnGap
	large    []*room // with something in their queues

	roomy     roomy          // sockets that have room again
	since     []*wire.Record // scratch
	wakeLarge chan struct{}
	backlog   atomic.Int64 // events in the queues of large rooms

	handlers  sync.WaitGroup // ServeHTTP calls with a socket
	open      atomic.Int64   // sockets, those in the handshake included
	accept    atomic.Bool    // Run has begun and no Shutdown; changed with mu held
	fills     chan struct{}  // slots of OnGap
	uncertain time.Duration  // 0: the protocol's 30 s; tests wait for less
	places    places
	takeover  sync.Map // "user\x00client" → *Conn
}

// step is one thing to carry out on conns and rooms: an event of the protocol, or a function.
type step struct {
	event home.Event
	fn    func()
}

type counters struct {
	published, acked, delivered, gaps, resumed, fresh, behind, refused, conflated, dropped atomic.Uint64
}

// New checks the configuration and returns a Hub that does nothing until Run.
func New(cfg Config) (*Hub, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.fill()
	h := &Hub{
		cfg: cfg, log: cfg.Logger, start: time.Now(),
		waiting: map[home.Handle]chan ack{}, peers: map[string]*peer{},
		conns: map[*Conn]struct{}{}, attached: map[home.ClientID]*sub{}, users: map[string]map[*Conn]struct{}{}, rooms: map[string]*room{},
		fills: make(chan struct{}, fillsAtOnce), ready: make(chan struct{}), wakeLarge: make(chan struct{}, 1),
		since: make([]*wire.Record, 0, sock.MaxFrames),
	}
	h.pool = sock.NewPool(sock.Config{
		MaxPending: maxPending, HighWater: highWater, Compress: cfg.Compress, ReadLimit: cfg.MaxFrame, PingInterval: cfg.PingInterval,
		Ping: sock.Text(frame.Marshal(frame.Server{Type: frame.Ping})),
	})
	h.presence.init()
	return h, nil
}

// now is monotonic; only differences count.
func (h *Hub) now() time.Duration { return time.Since(h.start) }

// input runs fn, which gives the node input, and carries out what the node asks for.
func (h *Hub) input(fn func()) {
	h.mu.Lock()
	h.lockedInput(fn)
	h.mu.Unlock()
	h.flush()
}

func (h *Hub) lockedInput(fn func()) {
	now := h.now()
	if h.ctx != nil && h.everInput && now-h.last > pauseAfter {
		h.pausedAt = now
		h.node.Paused(now, now-h.last)
		h.log.Warn("process was paused", "for", now-h.last)
		h.pausedLocked()
	}
	if h.ctx != nil {
		h.last, h.everInput = now, true
	}
	fn()
	out := h.node.Take()
	for _, f := range out.Frames {
		if p := h.peerLocked(f.To); f.Bulk {
			p.pushBulk(f.Messages)
		} else {
			p.push(f.Messages, nil)
		}
	}
	for i := range out.Acks {
		h.ackLocked(&out.Acks[i])
	}
	for _, e := range out.Events {
		h.outbox = append(h.outbox, step{event: e})
	}
}

// do has fn run in turn with the events of the protocol, with exec held. It may return before fn has run.
func (h *Hub) do(fn func()) {
	h.mu.Lock()
	h.outbox = append(h.outbox, step{fn: fn})
	h.mu.Unlock()
	h.flush()
}

// with runs fn with exec held, and what came up meanwhile afterwards. Everything before fn has been carried out.
func (h *Hub) with(fn func()) {
	h.exec.Lock()
	h.drainLocked()
	fn()
	h.exec.Unlock()
	h.flush()
}

// flush carries out the outbox unless another goroutine does; that one then also takes what this one has left. When sockets cannot be served as
// fast as messages come, the outbox grows, and who brings more has to wait: publishers, and the handlers of peers, whose links then fill.
func (h *Hub) flush() {
	for {
		h.mu.Lock()
		n := len(h.outbox)
		h.mu.Unlock()
		switch {
		case n == 0:
			return
		case n > outboxFull:
			h.exec.Lock()
		case !h.exec.TryLock():
			return
		}
		h.drainLocked()
		h.exec.Unlock()
	}
}

// drainLocked carries out the outbox. What is meant for a large topic waits in its queue, so this does not take long.
func (h *Hub) drainLocked() {
	for {
		h.mu.Lock()
		steps := h.outbox
		h.outbox = nil
		h.mu.Unlock()
		if len(steps) == 0 {
			return
		}
		for _, s := range steps {
			switch e := s.event.(type) {
			case nil:
				s.fn()
			case *home.Answer:
				h.eventLocked(e.Topic, &cast{answer: e})
			case *home.Deliver:
				h.eventLocked(e.Topic, &cast{deliver: e})
			}
		}
	}
}

// Run works until Shutdown, or until ctx ends: that is the hard stop, which peers see as a crash. It returns nil when asked to stop.
func (h *Hub) Run(ctx context.Context) error {
	ok, err := h.life.Start()
	if err != nil {
		return fmt.Errorf("wsfanout: run: %w", err)
	}
	if !ok {
		return nil
	}
	defer h.life.Finish()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	h.mu.Lock()
	h.ctx = ctx
	h.mu.Unlock()
	poolCtx, stopPool := context.WithCancel(context.Background())
	defer stopPool()
	var pool sync.WaitGroup
	pool.Go(func() { h.pool.Run(poolCtx) })

	changed := make(chan struct{}, 1)
	stopNotify, stopHandle := func() {}, func() {}
	if h.cfg.Transport != nil {
		stopNotify = h.cfg.Transport.Notify(changed)
	}
	begun, err := h.begin(ctx, changed)
	if begun {
		if t := h.cfg.Transport; t != nil {
			stopHandle = t.Handle(transportTopic, h.receive)
		}
		h.wg.Go(func() { h.watch(ctx, changed) })
		h.wg.Go(func() { h.serveLarge(ctx) })
		h.setAccept(true)
		graceful := false
		select {
		case <-ctx.Done():
		case <-h.life.Stopping():
			graceful = h.drain(ctx)
		}
		h.setAccept(false)
		h.goodbye(graceful)
	}
	stopHandle()
	stopNotify()
	h.mu.Lock()
	h.ended = true
	cancel()
	h.mu.Unlock()
	stopPool()
	pool.Wait()
	h.handlers.Wait()
	h.wg.Wait()
	return err
}

// begin waits until the transport knows who this process is, and makes the node.
func (h *Hub) begin(ctx context.Context, changed <-chan struct{}) (bool, error) {
	protocol := home.Config{MinCopies: h.cfg.MinCopies, MinMembers: h.cfg.MinMembers, Uncertain: h.uncertain}
	if t := h.cfg.Transport; t == nil {
		protocol.ID = "solo-" + crand.Text()[:12]
		protocol.SoloDelay, protocol.Retry = time.Nanosecond, tickInterval/2 // there is nobody to wait for
	} else {
		poll := time.NewTicker(tickInterval)
		defer poll.Stop()
		for t.Alive() == nil {
			select {
			case <-ctx.Done():
				return false, nil
			case <-h.life.Stopping():
				return false, nil
			case <-changed:
			case <-poll.C:
			}
		}
		protocol.ID = t.ID()
	}
	node, err := home.New(protocol)
	if err != nil {
		return false, fmt.Errorf("wsfanout: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id, h.node = protocol.ID, node
	if h.cfg.Node == "" {
		h.cfg.Node = h.id
	}
	close(h.ready)
	return true, nil
}

func (h *Hub) setAccept(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accept.Store(on)
}

// spawn runs fn as a goroutine of Run, unless that is over.
func (h *Hub) spawn(fn func(ctx context.Context)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.spawnLocked(fn)
}

func (h *Hub) spawnLocked(fn func(ctx context.Context)) bool {
	ctx := h.ctx
	if ctx == nil || ctx.Err() != nil {
		return false
	}
	h.wg.Go(func() { fn(ctx) })
	return true
}

// closed reports whether the hub has stopped, or will never run. While it drains it still publishes.
func (h *Hub) closed() bool {
	select {
	case <-h.life.Done():
		return true
	default:
		return false
	}
}

// watch gives the node time and views.
func (h *Hub) watch(ctx context.Context, changed <-chan struct{}) {
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	h.look()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			h.look()
		case <-t.C:
			h.greet()
			h.input(func() { h.node.Tick(h.now()) })
			h.presenceTick()
			h.doubtTick()
		}
	}
}

// drain hands homes over, closes sockets in a spread and takes leave. It reports whether nothing was left that others need.
func (h *Hub) drain(ctx context.Context) bool {
	h.setAccept(false)
	h.input(func() {
		h.drainLockedPeers()
		h.node.Drain(h.now())
	})
	deadline := time.After(drainTime)
	wait := func(done func() bool) bool {
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		for {
			h.mu.Lock()
			ok := done()
			h.mu.Unlock()
			if ok {
				return true
			}
			select {
			case <-ctx.Done():
				return false
			case <-deadline:
				return false
			case <-t.C:
			}
		}
	}
	alone := func() bool { return h.aloneLocked() }
	wait(func() bool { return alone() || h.node.Stats().Homed == 0 })
	h.closeSockets(ctx)
	if ctx.Err() != nil {
		return false
	}
	ok := wait(func() bool { return alone() || h.node.MayLeave() })
	if ok {
		h.input(func() {
			h.ended = true
			h.node.Leave(h.now())
		})
	}
	return ok
}

// closeSockets closes all sockets over the spread, and waits until their handlers have returned.
func (h *Hub) closeSockets(ctx context.Context) {
	var conns []*Conn
	h.with(func() {
		for c := range h.conns {
			conns = append(conns, c)
		}
	})
	spread := min(h.cfg.DrainSpread, time.Duration(len(conns))*5*time.Millisecond)
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	t := time.NewTimer(0)
	defer t.Stop()
	for _, c := range conns {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c.sock.Send(sock.Text(frame.Marshal(frame.Server{Type: frame.Bye, Retry: 1 + rand.Int64N(500)})))
		c.sock.Close(closeRestart, "restart: reconnect elsewhere")
		t.Reset(spread / time.Duration(len(conns)))
	}
	done := make(chan struct{})
	h.spawn(func(context.Context) { h.handlers.Wait(); close(done) })
	select {
	case <-done:
	case <-ctx.Done():
	case <-time.After(drainTime):
	}
}

// Shutdown hands this node's part over, closes its sockets with a hint to come back elsewhere, and stops. It may be called before Run, twice
// and concurrently; it returns when Run has returned or ctx has ended.
func (h *Hub) Shutdown(ctx context.Context) error {
	if err := h.life.Stop(ctx); err != nil {
		return fmt.Errorf("wsfanout: shutdown: %w", err)
	}
	return nil
}

// Home returns the ID of the node that sequences the topic, as far as this node knows; "" while it knows none.
func (h *Hub) Home(topic string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.node == nil {
		return ""
	}
	id, _ := h.node.HomeOf(topic)
	return id
}

// Stats are counters since New and sizes of now.
type Stats struct {
	Settled bool // take-over and re-replication are complete, as far as this node is concerned: the next failure may come
	Homes   int  // partitions (of 1,024) that this node sequences
	Solo    int  // of those, without a second copy
	Orphans int  // partitions that nobody sequences at the moment, as far as this node knows

	Conns  int // open sockets
	Topics int // with subscribers here
	Users  int // with sockets here

	Published  uint64 // Publish calls
	Acked      uint64 // of those, acknowledged
	Publishing int    // of those, under way
	Delivered  uint64 // messages queued for sockets
	Fresh      uint64 // subscriptions that began anew
	Resumed    uint64 // subscriptions that went on without a hole
	Gaps       uint64 // reports of a gap to a client
	Behind     uint64 // sockets closed because they read too slowly
	Conflated  uint64 // messages left out because a newer one with their ConflateKey waited as well
	Compressed uint64 // frames, each once
	Dropped    uint64 // ephemeral messages that a socket had no room for
	Refused    uint64 // sockets refused because of a limit

	RingBytes int    // held for resuming clients
	Asked     uint64 // subscriptions and questions of this node to the homes of topics
	Terms     uint64 // take-overs by this node
	Epochs    uint64 // of those, with a new epoch
	Repairs   uint64 // holes from peers that were repaired
}

// Stats returns a snapshot. It may be called at any time.
func (h *Hub) Stats() Stats {
	s := Stats{
		Conns:     int(h.open.Load()),
		Published: h.count.published.Load(), Acked: h.count.acked.Load(), Delivered: h.count.delivered.Load(),
		Fresh: h.count.fresh.Load(), Resumed: h.count.resumed.Load(), Gaps: h.count.gaps.Load(),
		Behind: h.count.behind.Load(), Refused: h.count.refused.Load(),
		Conflated: h.count.conflated.Load(), Dropped: h.count.dropped.Load(), Compressed: h.pool.Deflations(),
	}
	h.with(func() { s.Topics, s.Users = len(h.rooms), len(h.users) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.node == nil {
		return s
	}
	n := h.node.Stats()
	s.Settled, s.Homes, s.Solo, s.Orphans = h.node.Settled(), n.Homed, n.Solo, n.Leaderless
	s.Publishing, s.RingBytes, s.Terms, s.Epochs, s.Repairs = n.Publishing, n.RingBytes, n.Terms, n.Epochs, n.Repairs
	s.Asked = n.Asked
	return s
}

// Check is nil when this node serves its part. Its errors tell what to do.
func (h *Hub) Check(ctx context.Context) error {
	if h.life.Closed() {
		return ErrClosed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ctx == nil:
		return &checkError{text: "hub does not run", remedy: "call Run"}
	case h.node == nil:
		return &checkError{text: "membership has not settled", remedy: "run the transport's node; see its status"}
	case h.pausedAt != 0 && h.now()-h.pausedAt < 2*time.Second:
		return &checkError{text: "process was paused a moment ago", remedy: "wait; if it happens again, look for swapping or a throttled CPU"}
	}
	if n := h.node.Stats().Leaderless; n > 0 {
		return &checkError{text: fmt.Sprintf("%d of 1024 partitions have no home", n), remedy: "wait for the take-over; if it lasts, see the membership"}
	}
	if n := h.node.Stats().Solo; n > 0 && len(h.viewLocked().Alive) > 1 {
		return &checkError{text: fmt.Sprintf("%d partitions have one copy", n), remedy: "wait until they are copied before another node stops", warning: true}
	}
	return nil
}

type checkError struct {
	text, remedy string
	warning      bool
}

func (e *checkError) Error() string  { return "wsfanout: " + e.text }
func (e *checkError) Remedy() string { return e.remedy }
func (e *checkError) Warning() bool  { return e.warning }
