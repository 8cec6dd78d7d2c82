package link

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Mesh keeps the links of one process. Its methods are safe for concurrent use.
type Mesh struct {
	cfg   Config
	log   *slog.Logger
	begin time.Time

	wg      sync.WaitGroup
	running chan struct{} // closed by Run
	end     chan struct{} // closed when Run ends

	peers atomic.Pointer[map[string]*peer] // copied on each change

	mu      sync.Mutex
	started bool
	closed  bool
	dead    map[string]struct{}   // processes that are given up for good
	order   []string              // dead, oldest first
	young   map[net.Conn]struct{} // accepted streams without a peer yet

	evMu   sync.Mutex
	events []func()
	evWake chan struct{}
}

const maxDead = 1 << 16 // IDs are of single processes; the oldest is forgotten above

// New checks cfg. Nothing runs before Run.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Retain == 0 {
		cfg.Retain = DefaultRetain
	}
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.Protocol == 0 {
		cfg.Protocol = Protocol
	}
	cfg.Window = max(cfg.Window, 2*chunkSize) // or the largest frame would never go
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	m := &Mesh{
		cfg: cfg, log: log, begin: time.Now(),
		running: make(chan struct{}), end: make(chan struct{}), evWake: make(chan struct{}, 1),
		dead: make(map[string]struct{}), young: make(map[net.Conn]struct{}),
	}
	m.peers.Store(&map[string]*peer{})
	return m, nil
}

// Run owns the goroutines of all links until ctx ends; it returns nil when the last has ended, calls of OnFrame included.
func (m *Mesh) Run(ctx context.Context) error {
	m.mu.Lock()
	if m.started {
		m.mu.Unlock()
		return errors.New("link: Run called twice")
	}
	m.started = true
	for _, p := range *m.peers.Load() {
		p.start()
	}
	close(m.running)
	m.mu.Unlock()
	var calls sync.WaitGroup
	calls.Go(m.dispatch)
	<-ctx.Done()

	m.mu.Lock()
	m.closed = true
	peers := *m.peers.Load()
	for nc := range m.young {
		nc.Close()
	}
	m.mu.Unlock()
	for _, p := range peers {
		p.finish(true)
	}
	m.wg.Wait()
	close(m.end)
	calls.Wait()
	return nil
}

// enter counts a caller's goroutine in, once Run runs.
func (m *Mesh) enter() bool {
	select {
	case <-m.running:
	case <-time.After(attemptTimeout):
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Add(1)
	return true
}

// track closes nc when the mesh ends, until the result is called.
func (m *Mesh) track(nc net.Conn) (untrack func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		nc.Close()
	}
	m.young[nc] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.young, nc)
	}
}

// goConn runs an established connection.
func (m *Mesh) goConn(c *conn) bool {
	m.wg.Go(func() { c.run() }) // the caller is counted: Run still waits
	return true
}

// event calls fn later, in order.
func (m *Mesh) event(fn func(string), id string) {
	if fn == nil {
		return
	}
	m.evMu.Lock()
	m.events = append(m.events, func() { fn(id) })
	m.evMu.Unlock()
	select {
	case m.evWake <- struct{}{}:
	default:
	}
}

func (m *Mesh) dispatch() {
	for {
		m.evMu.Lock()
		events := m.events
		m.events = nil
		m.evMu.Unlock()
		for _, fn := range events {
			fn()
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-m.evWake:
		case <-m.end:
			return
		}
	}
}

func (m *Mesh) mono() int64 { return int64(time.Since(m.begin)) }

func (m *Mesh) peer(id string) *peer { return (*m.peers.Load())[id] }

// admit returns the peer of that ID, a new one if there is none; nil when it was given up or the mesh has ended.
func (m *Mesh) admit(id string) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peer(id); p != nil {
		return p
	}
	if _, dead := m.dead[id]; dead || m.closed || id == m.cfg.Self || len(id) == 0 || len(id) > maxID {
		return nil
	}
	p := newPeer(m, id)
	peers := maps.Clone(*m.peers.Load())
	peers[id] = p
	m.peers.Store(&peers)
	if m.started {
		p.start()
	}
	return p
}

// bury ends a peer for good and tells of it once. p may be nil.
func (m *Mesh) bury(p *peer, tell func(string)) {
	m.mu.Lock()
	if m.closed || m.peer(p.id) != p {
		m.mu.Unlock()
		return
	}
	m.buryIDLocked(p.id)
	peers := maps.Clone(*m.peers.Load())
	delete(peers, p.id)
	m.peers.Store(&peers)
	m.mu.Unlock()
	p.finish(false)
	m.event(tell, p.id)
}

func (m *Mesh) buryIDLocked(id string) {
	if _, dead := m.dead[id]; dead {
		return
	}
	m.dead[id] = struct{}{}
	if m.order = append(m.order, id); len(m.order) > maxDead {
		delete(m.dead, m.order[0])
		m.order = m.order[1:]
	}
}

// Connect keeps a link to that process until Forget. Called again, it dials at once instead of after its pause. Of a process that was
// given up or forgotten it does nothing.
func (m *Mesh) Connect(id string) {
	p := m.admit(id)
	if p == nil {
		return
	}
	p.mu.Lock()
	p.wanted, p.urgent, p.gone = true, true, false
	p.mu.Unlock()
	p.nudge()
}

// Forget ends the link to a process that is gone for good: what is kept for it is dropped, and should it come back after all it is told
// that it was given up, because the streams to and from it cannot be continued. For a process that may return use GiveUp, or nothing.
func (m *Mesh) Forget(id string) {
	if p := m.peer(id); p != nil {
		m.bury(p, nil)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buryIDLocked(id)
}

// GiveUp says that the caller takes that process for gone. The link goes on as long as its retention has room; from the moment when it
// has none (which may be now) the process is given up for good: OnGivenUp is called, nothing more is delivered to it or taken from it,
// and when it connects it is told so. A process whose link comes up before is welcome, and the word is taken back; Connect takes it back too.
func (m *Mesh) GiveUp(id string) {
	p := m.peer(id)
	if p == nil {
		return
	}
	p.mu.Lock()
	p.gone = true
	full := p.starved && !p.over.Load()
	p.mu.Unlock()
	if full {
		p.giveUp()
	}
}

// Post queues parts as one payload for that process. It waits for room within ctx; the order is that of the calls. The parts are copied.
// nil means: delivered in order unless one of the two processes ends.
func (m *Mesh) Post(ctx context.Context, to string, lane Lane, parts ...[]byte) error {
	p := m.peer(to)
	if p == nil || lane >= lanes {
		return m.noPeer(to, lane)
	}
	return p.post(ctx, true, lane, parts)
}

// TryPost is Post without waiting: ErrBackpressure when there is no room.
func (m *Mesh) TryPost(to string, lane Lane, parts ...[]byte) error {
	p := m.peer(to)
	if p == nil || lane >= lanes {
		return m.noPeer(to, lane)
	}
	return p.post(context.Background(), false, lane, parts)
}

// PostTopic posts kind, the length of topic (at most 255), topic and body as one payload, and allocates nothing. false says that nothing was
// posted: Post, where the caller may wait, or TryPost does it or knows why not.
func (m *Mesh) PostTopic(to string, wait bool, lane Lane, kind byte, topic string, body []byte) bool {
	p := m.peer(to)
	return p != nil && p.tryPostTopic(wait, lane, kind, topic, body)
}

// Shut lets PostTopic to that process fail from now on, at once and for good.
func (m *Mesh) Shut(id string) {
	if p := m.peer(id); p != nil {
		p.shut.Store(true)
	}
}

func (m *Mesh) noPeer(id string, lane Lane) error {
	if lane >= lanes {
		panic("link: " + lane.String())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	if _, dead := m.dead[id]; dead {
		return ErrGivenUp
	}
	return ErrNoPeer
}

// Flush waits until everything that was posted so far to peers that are up is acknowledged.
func (m *Mesh) Flush(ctx context.Context) error {
	for _, p := range *m.peers.Load() {
		if err := p.flushed(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Renew ends the connections that Config.Keep does not want any more. The links are made anew, and what was on its way is sent again.
func (m *Mesh) Renew() {
	for _, p := range *m.peers.Load() {
		p.mu.Lock()
		c := p.conn
		p.mu.Unlock()
		if c != nil && !m.keep(c) {
			c.close()
		}
	}
}

func (m *Mesh) keep(c *conn) bool { return m.cfg.Keep == nil || m.cfg.Keep(c.nc) }

// Up reports whether the link to that process carries frames now.
func (m *Mesh) Up(id string) bool {
	p := m.peer(id)
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

// Reads counts what was read from that process' connections: while it grows, the process lives.
func (m *Mesh) Reads(id string) uint64 {
	if p := m.peer(id); p != nil {
		return p.reads.Load()
	}
	return 0
}

// Via returns the process that relays the link to that process at the moment; empty when the link is direct or not up.
func (m *Mesh) Via(id string) string {
	p := m.peer(id)
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil || !p.up {
		return ""
	}
	return p.conn.via
}

// Offset returns how far that process' clock is ahead of this one's, and the round trip with which it was measured; ok is false before
// the first measurement.
func (m *Mesh) Offset(id string) (offset, rtt time.Duration, ok bool) {
	p := m.peer(id)
	if p == nil {
		return 0, 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.clock.best()
	return s.offset, s.rtt, ok
}
