// Package sock serves WebSockets that mostly receive: many sockets, the same frames to all of them.
//
// coder/websocket does the handshake, the origin check, reading, ping, pong and the close handshake. The write side is here: Accept is given a
// http.Hijacker of ours, so that the few control frames which coder writes enter the same list as the prepared frames of the hub. A shard worker
// takes all that is pending of a socket and hands it to the kernel in one write that does not block. Frames that few sockets get go first.
//
// The list holds pointers to shared frames, at most MaxFrames of them and HighWater bytes: [Socket.Offer] refuses above that, and while the kernel takes
// nothing. Who offers then keeps a position and comes back when [Socket.WhenDrained] says so. A socket that stands still costs its short list and
// nothing else: the worker tries it again now and then, less and less often up to four times a second.
//
// Behind TLS in the same process, and where a socket cannot be written without blocking, a goroutine that lives until the list is empty does the writes.
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

// MaxFrames is how many frames a socket may have waiting before Offer refuses.
const MaxFrames = 128

// Config of a Pool. Zero values are the defaults.
type Config struct {
	MaxPending   int           // bytes that Send may queue, above which the socket is closed; 1 MiB
	HighWater    int           // bytes above which Offer refuses; 256 KiB
	ReadLimit    int64         // bytes of an inbound message; 32 KiB
	PingInterval time.Duration // of silence before a ping; 25 s. A socket that is silent for three intervals is dropped.
	WriteTimeout time.Duration // for a slow socket to take anything; 30 s
	Linger       time.Duration // for a closing handshake; 5 s
	Shards       int           // GOMAXPROCS
	Compress     bool          // permessage-deflate, without context takeover, for clients that offer it
	CompressMin  int           // bytes of a frame from which on it is compressed; 512
	Ping         *Frame        // sent beside the WebSocket ping, for clients that cannot see that; nil: none
}

func (c *Config) fill() {
	if c.MaxPending == 0 {
		c.MaxPending = 1 << 20
	}
	if c.HighWater == 0 {
		c.HighWater = 256 << 10
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
	if c.CompressMin == 0 {
		c.CompressMin = 512
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

	deflations atomic.Uint64

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
