package wsfanout

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/sock"
)

// A node that was out of reach may have missed a revocation. When it is back it shows nothing to anybody before the peers that it has met again have
// answered, which they do after telling what was revoked, and before the application has authorized its sockets once more. Meanwhile sockets are like
// slow ones: they have positions, and go on from there.

const (
	doubtTime     = 2 * time.Second // for peers to answer; one that does not is out of reach again
	reauthAtOnce  = 16
	reauthTimeout = 10 * time.Second
)

// doubt is guarded by hub.mu.
type doubt struct {
	peers map[string]bool // that have to answer; nil: none
	since time.Duration
}

// awayLocked notes peers that have left the view without having ended, and begins to doubt when one of them is back.
func (h *Hub) awayLocked(alive []string) {
	for id, p := range h.peers {
		if !p.hub || p.left || p.stopped || id == h.id {
			continue
		}
		if slices.Contains(alive, id) {
			if p.away {
				p.away = false
				h.doubtLocked(p)
			}
			continue
		}
		switch home.ParseFate(h.cfg.Transport.Fate(id)) {
		case home.Left, home.Dead:
		default:
			p.away = true
		}
	}
}

// doubtLocked holds all sockets until the peer has answered.
func (h *Hub) doubtLocked(peers ...*peer) {
	if h.doubt.peers == nil {
		h.doubt.peers, h.doubt.since = map[string]bool{}, h.now()
		h.outbox = append(h.outbox, step{fn: h.holdLocked})
	}
	for _, p := range peers {
		h.doubt.peers[p.id] = true
		p.push(nil, &control{Hello: true})
	}
}

// pausedLocked doubts all peers: what they told meanwhile is still under way.
func (h *Hub) pausedLocked() {
	var peers []*peer
	for _, p := range h.peers {
		if p.hub && !p.left && !p.stopped && slices.Contains(h.lastAlive, p.id) && p.id != h.id {
			peers = append(peers, p)
		}
	}
	if len(peers) > 0 {
		h.doubtLocked(peers...)
	}
}

func (h *Hub) holdLocked() {
	for c := range h.conns {
		c.held = true
	}
}

// answered ends the doubt about a peer.
func (h *Hub) answeredLocked(id string) {
	if h.doubt.peers[id] {
		if delete(h.doubt.peers, id); len(h.doubt.peers) == 0 {
			h.trustLocked()
		}
	}
}

// doubtTick does not wait for ever.
func (h *Hub) doubtTick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doubt.peers != nil && h.now()-h.doubt.since > doubtTime {
		h.trustLocked()
	}
}

func (h *Hub) trustLocked() {
	h.doubt.peers = nil
	h.spawnLocked(h.reauthorize)
}

// reauthorize asks the application about all sockets that are held.
func (h *Hub) reauthorize(ctx context.Context) {
	var held []*Conn
	h.with(func() {
		for c := range h.conns {
			if c.held {
				held = append(held, c)
			}
		}
	})
	if len(held) == 0 {
		return
	}
	if h.cfg.Reauthorize != nil || h.cfg.Authorize != nil {
		h.log.Info("node was out of reach: sockets are authorized again", "sockets", len(held))
	}
	next := make(chan *Conn)
	var wg sync.WaitGroup
	for range min(reauthAtOnce, len(held)) {
		wg.Go(func() {
			for c := range next {
				h.reauthorizeConn(ctx, c)
			}
		})
	}
	for _, c := range held {
		next <- c
	}
	close(next)
	wg.Wait()
}

func (h *Hub) reauthorizeConn(ctx context.Context, c *Conn) {
	ctx, cancel := context.WithTimeout(ctx, reauthTimeout)
	defer cancel()
	if h.cfg.Reauthorize != nil {
		if !h.ask(ctx, c, func() error { return h.cfg.Reauthorize(ctx, c.who) }, func() { c.sock.Close(closeRevoked, "no longer authorized") }) {
			return
		}
	}
	var topics []string
	h.with(func() { topics = slices.Sorted(maps.Keys(c.subs)) })
	for _, t := range topics {
		ended := func() {
			h.with(func() {
				if s := c.subs[t]; s != nil {
					h.detachLocked(s)
				}
			})
			c.sock.Send(sock.Text(frame.Marshal(frame.Server{Type: frame.Denied, Topic: t, Code: frame.Forbidden, Error: "no longer authorized"})))
		}
		c.mu.Lock()
		_, ours := c.allowed[t]
		c.mu.Unlock()
		if !ours && !h.ask(ctx, c, func() error { return h.authorize(ctx, c, t) }, ended) && ctx.Err() != nil {
			return
		}
	}
	h.with(func() {
		h.mu.Lock()
		again := h.doubt.peers != nil // out of reach once more: the next round lets it go
		h.mu.Unlock()
		if !again {
			c.held, c.waking = false, false
			c.released = true
			h.roomLocked(c)
			c.released = false
		}
	})
}

// ask repeats a question that failed for other reasons than that the answer is no. It reports whether the answer was yes.
func (h *Hub) ask(ctx context.Context, c *Conn, question func() error, no func()) bool {
	for {
		err := question()
		switch {
		case err == nil:
			return true
		case errors.Is(err, ErrForbidden):
			no()
			return false
		}
		select {
		case <-ctx.Done():
			h.log.Warn("socket could not be authorized again", "user", c.who.User, "error", err)
			c.sock.Close(closeTryLater, "cannot be authorized now: reconnect")
			return false
		case <-time.After(200 * time.Millisecond):
		}
	}
}
