// Package sock serves WebSockets that mostly receive: many sockets, the same frames to all of them.
//
// coder/websocket does the handshake, the origin check, reading, ping, pong and the close handshake. The write side is here: Accept is given a
// http.Hijacker of ours, so that the few control frames which coder writes enter the same per-socket list as the prepared frames of the hub. A shard worker
// takes all that is pending of a socket and hands it to the kernel in one write that does not block. What the kernel does not take is left to
// a goroutine that lives only until the socket has caught up. The list holds pointers to shared frames and is bounded in bytes: a socket that
// falls further behind is closed with CodeBehind and may resume.
//
// Behind TLS in the same process, and where a socket cannot be written without blocking, that goroutine does all writes of the socket.
package sock

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// CodeBehind closes a socket that reads too slowly.
const CodeBehind = 4008

// Config of a Pool. Zero values are the defaults.
type Config struct {
	MaxPending   int           // bytes that a socket may be behind; 1 MiB
	ReadLimit    int64         // bytes of an inbound message; 32 KiB
	PingInterval time.Duration // of silence before a ping; 25 s. A socket that is silent for three intervals is dropped.
	WriteTimeout time.Duration // for a slow socket to take the next 64 KiB; 30 s
	Linger       time.Duration // for a closing handshake; 5 s
	Shards       int           // GOMAXPROCS
	Ping         *Frame        // sent beside the WebSocket ping, for clients that cannot see that; nil: none
}

func (c *Config) fill() {
	if c.MaxPending == 0 {
		c.MaxPending = 1 << 20
	}
	if c.ReadLimit == 0 {
		c.ReadLimit = 32 << 10
	}
	if c.PingInterval == 0 {
		c.PingInterval = 25 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 30 * time.Second
	}
	if c.Linger == 0 {
		c.Linger = 5 * time.Second
	}
	if c.Shards == 0 {
		c.Shards = runtime.GOMAXPROCS(0)
	}
}

// Pool owns the workers of a set of sockets.
type Pool struct {
	cfg    Config
	shards []*shard
	next   atomic.Uint64
	wg     sync.WaitGroup // shard workers and the goroutines of slow sockets
	ping   *Frame

	mu      sync.Mutex
	sockets map[*Socket]struct{}
	stopped bool
}

// NewPool starts nothing.
func NewPool(cfg Config) *Pool {
	cfg.fill()
	p := &Pool{cfg: cfg, sockets: map[*Socket]struct{}{}, ping: newFrame(opPing, nil)}
	for range cfg.Shards {
		p.shards = append(p.shards, newShard())
	}
	return p
}

// Run works until ctx ends, then cuts what is still open and returns when no goroutine is left.
func (p *Pool) Run(ctx context.Context) {
	for _, s := range p.shards {
		p.wg.Go(func() { s.run(ctx) })
	}
	t := time.NewTicker(p.cfg.PingInterval / 5)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-t.C:
			p.tick(now)
		}
	}
	p.mu.Lock()
	p.stopped = true
	open := make([]*Socket, 0, len(p.sockets))
	for s := range p.sockets {
		open = append(open, s)
	}
	p.mu.Unlock()
	for _, s := range open {
		s.cut()
	}
	p.wg.Wait()
}

// tick pings the silent and drops the dead.
func (p *Pool) tick(now time.Time) {
	var silent, dead []*Socket
	p.mu.Lock()
	for s := range p.sockets {
		quiet := now.Sub(time.Unix(0, s.heard.Load()))
		switch {
		case quiet > 3*p.cfg.PingInterval:
			dead = append(dead, s)
		case now.Sub(s.pinged) >= p.cfg.PingInterval:
			s.pinged = now
			silent = append(silent, s)
		}
	}
	p.mu.Unlock()
	for _, s := range dead {
		s.cut()
	}
	for _, s := range silent {
		s.Send(p.ping)
		if p.cfg.Ping != nil {
			s.Send(p.cfg.Ping)
		}
	}
}

func (p *Pool) add(s *Socket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	p.sockets[s] = struct{}{}
	return true
}

func (p *Pool) remove(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sockets, s)
}

// spawn runs fn unless the pool has stopped: then nobody would wait for it.
func (p *Pool) spawn(fn func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return false
	}
	p.wg.Go(fn)
	return true
}

// shard is one worker and the sockets that have something to write.
type shard struct {
	wake chan struct{}

	mu    sync.Mutex
	dirty []*Socket

	// of the worker alone
	taken   []*Socket
	scratch []byte
	joined  []*Frame // the frames that scratch holds
	raw     tryWriter
}

func newShard() *shard { return &shard{wake: make(chan struct{}, 1)} }

func (h *shard) push(s *Socket) {
	h.mu.Lock()
	h.dirty = append(h.dirty, s)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *shard) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		h.mu.Lock()
		h.taken, h.dirty = h.dirty, h.taken[:0]
		h.mu.Unlock()
		for i, s := range h.taken {
			s.write(h)
			h.taken[i] = nil
		}
		if h.joined = h.joined[:0]; cap(h.scratch) > 1<<20 {
			h.scratch = nil // one large burst must not be kept for ever
		}
	}
}

// join returns the bytes of the frames. Sockets of one topic mostly wait for the same frames: then the bytes are those of the last call.
func (h *shard) join(frames []*Frame) []byte {
	if len(frames) == 1 {
		return frames[0].b
	}
	if same(h.joined, frames) {
		return h.scratch
	}
	h.scratch = h.scratch[:0]
	for _, f := range frames {
		h.scratch = append(h.scratch, f.b...)
	}
	h.joined = append(h.joined[:0], frames...)
	return h.scratch
}

func same(a, b []*Frame) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
