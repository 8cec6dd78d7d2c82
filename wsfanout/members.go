package wsfanout

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

const (
	transportTopic = "wsfanout"

	kindProtocol = 1 // a frame of the topic protocol
	kindControl  = 2 // JSON of control

	helloEvery = 200 * time.Millisecond
	helloFor   = 3 * time.Second // a member that has not answered by then runs no hub
)

// control is what hubs tell each other beside the topic protocol, on the same ordered link.
type control struct {
	Hello    bool         `json:"hello,omitempty"`    // I run a hub; answer
	Ack      bool         `json:"ack,omitempty"`      // so do I
	Drain    bool         `json:"drain,omitempty"`    // I take no new homes
	Left     bool         `json:"left,omitempty"`     // I have handed everything over
	Stopped  bool         `json:"stopped,omitempty"`  // I have not
	Revoked  []revocation `json:"revoked,omitempty"`  // close these sockets
	Takeover *takeover    `json:"takeover,omitempty"` // this client has a newer socket here
	Present  []present    `json:"present,omitempty"`  // who is here, to the home
	Roster   []present    `json:"roster,omitempty"`   // who is anywhere, from the home
	Who      *present     `json:"who,omitempty"`      // a question to the home
	Here     *present     `json:"here,omitempty"`     // its answer
}

// peer is another process. Its queue is carried by one goroutine, so that what is posted to it keeps its order.
type peer struct {
	id string
	h  *Hub

	// guarded by h.mu
	hub      bool // it runs a hub: it has said hello, or anything else
	draining bool
	left     bool          // it has handed over and stopped
	stopped  bool          // its hub has stopped without that, or its link has given up
	first    time.Duration // when it was first seen alive
	asked    time.Duration
	away     bool   // it has left the view without having ended, as far as this node knows
	told     uint64 // number of the last revocation that it has been told
	items    []item
	sending  bool
	bulk     [][]byte // frames for the bulk lane
	bulking  bool
}

// item is a batch of protocol messages or a control, in the order of their making.
type item struct {
	messages []wire.Message
	control  *control
}

func (h *Hub) peerLocked(id string) *peer {
	p := h.peers[id]
	if p == nil {
		p = &peer{id: id, h: h, first: h.now(), asked: -helloEvery}
		h.peers[id] = p
	}
	return p
}

// push queues for the peer; h.mu is held. What has been revoked goes first.
func (p *peer) push(messages []wire.Message, c *control) {
	if p.left || p.stopped || p.h.ctx == nil || p.id == p.h.id {
		return
	}
	p.tellRevoked()
	if len(messages) > 0 || c != nil {
		p.items = append(p.items, item{messages, c})
	}
	if len(p.items) > 0 && !p.sending {
		p.sending = p.h.spawnLocked(p.send)
	}
}

// send carries the queue to the transport until it is empty. A process that cannot be posted to any more is given up as a whole: going on
// after a hole would break the order that the protocol stands on.
func (p *peer) send(ctx context.Context) {
	h := p.h
	for {
		h.mu.Lock()
		items := p.items
		if p.items = nil; len(items) == 0 {
			p.sending = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		for _, b := range encodeItems(items) {
			if err := p.post(ctx, b); err != nil {
				h.mu.Lock()
				p.sending, p.items = false, nil
				h.mu.Unlock()
				if ctx.Err() == nil {
					h.giveUp(p, err)
				}
				return
			}
		}
	}
}

// post keeps trying while the membership has not given the process up.
func (p *peer) post(ctx context.Context, b []byte) error {
	t := p.h.cfg.Transport
	deadline := time.Now().Add(drainTime)
	for {
		err := t.Post(ctx, p.id, transportTopic, b)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		switch home.ParseFate(t.Fate(p.id)) {
		case home.Dead, home.Left, home.Failed:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// pushBulk queues frames for the bulk lane; h.mu is held. They may be lost: who waits for them asks again.
func (p *peer) pushBulk(messages []wire.Message) {
	if p.left || p.stopped || p.h.ctx == nil || p.id == p.h.id {
		return
	}
	for _, b := range wire.Encode(messages) {
		p.bulk = append(p.bulk, append(append(make([]byte, 0, 1+len(b)), kindProtocol), b...))
	}
	if !p.bulking {
		p.bulking = p.h.spawnLocked(p.sendBulk)
	}
}

// sendBulk carries the bulk queue to the transport until it is empty.
func (p *peer) sendBulk(ctx context.Context) {
	h := p.h
	for {
		h.mu.Lock()
		frames := p.bulk
		if p.bulk = nil; len(frames) == 0 {
			p.bulking = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		for _, b := range frames {
			if err := h.cfg.Transport.PostBulk(ctx, p.id, transportTopic, b); err != nil && ctx.Err() == nil {
				h.log.Debug("older records not sent", "peer", p.id, "error", err)
			}
		}
	}
}

func encodeItems(items []item) [][]byte {
	var frames [][]byte
	var batch []wire.Message
	flush := func() {
		for _, b := range wire.Encode(batch) {
			frames = append(frames, append(append(make([]byte, 0, 1+len(b)), kindProtocol), b...))
		}
		batch = nil
	}
	for _, it := range items {
		if it.control == nil {
			batch = append(batch, it.messages...)
			continue
		}
		if len(batch) > 0 {
			flush()
		}
		b, _ := json.Marshal(it.control) // strings and flags always encode
		frames = append(frames, append([]byte{kindControl}, b...))
	}
	if len(batch) > 0 {
		flush()
	}
	return frames
}

// giveUp treats the process as dead: nothing more is sent to it or taken from it.
func (h *Hub) giveUp(p *peer, err error) {
	h.mu.Lock()
	known := p.stopped || p.left
	p.stopped = true
	h.mu.Unlock()
	if !known {
		h.log.Warn("peer given up", "peer", p.id, "error", err)
	}
	h.look()
}

// receive takes one frame of a peer.
func (h *Hub) receive(ctx context.Context, from string, payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		return nil, errEnvelope
	}
	switch payload[0] {
	case kindProtocol:
		messages, err := wire.Decode(payload[1:])
		if err != nil {
			// A frame that cannot be read is a hole like any other.
			h.mu.Lock()
			p := h.peerLocked(from)
			h.mu.Unlock()
			h.giveUp(p, err)
			return nil, err
		}
		if h.known(from) {
			h.look()
		}
		h.input(func() {
			if p := h.peerLocked(from); !p.stopped {
				if p.away {
					p.away = false
					h.doubtLocked(p)
				}
				h.node.Receive(h.now(), from, messages)
			}
		})
		h.holdPeer()
	case kindControl:
		var c control
		if err := json.Unmarshal(payload[1:], &c); err != nil {
			return nil, err
		}
		h.control(from, &c)
	}
	return nil, nil // other kinds are of newer versions
}

// known notes that the process runs a hub, and reports whether that is news.
func (h *Hub) known(from string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.peerLocked(from)
	news := !p.hub
	p.hub = true
	return news
}

func (h *Hub) control(from string, c *control) {
	if len(c.Revoked) > 0 { // before anything that it may lead to
		h.revoke(c.Revoked)
	}
	news := h.known(from)
	h.mu.Lock()
	p := h.peerLocked(from)
	if c.Ack {
		h.answeredLocked(from)
	}
	if c.Hello {
		p.push(nil, &control{Ack: true, Drain: h.life.Closed()})
	}
	if c.Drain && !p.draining {
		p.draining, news = true, true
	}
	if c.Left {
		p.left, news = true, true
	}
	if c.Stopped {
		p.stopped, news = true, true
	}
	h.mu.Unlock()
	if news {
		h.look()
	}
	if c.Takeover != nil {
		h.closeOlder(*c.Takeover)
	}
	if len(c.Present)+len(c.Roster) > 0 || c.Who != nil || c.Here != nil {
		h.presenceHear(from, c)
	}
}

// tell queues a control for every other hub in the view.
func (h *Hub) tell(c *control) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range h.viewLocked().Alive {
		if id != h.id {
			h.peerLocked(id).push(nil, c)
		}
	}
}

// viewLocked is the membership as the protocol sees it: members that run a hub.
func (h *Hub) viewLocked() home.View {
	t := h.cfg.Transport
	if t == nil {
		return home.View{Settled: true, Alive: []string{h.id}, Fate: func(string) home.Fate { return home.Alive }}
	}
	alive := t.Alive()
	if alive == nil { // it has stopped before this hub: that says nothing about the others
		alive = h.lastAlive
	}
	h.lastAlive = alive
	h.awayLocked(alive)
	v := home.View{Settled: alive != nil, Alive: []string{h.id}, Fate: h.fateLocked}
	for _, id := range alive {
		if id == h.id {
			continue
		}
		switch p := h.peerLocked(id); {
		case p.left || p.stopped:
		case p.hub:
			v.Alive = append(v.Alive, id)
		case h.now()-p.first < helloFor || home.ParseFate(t.Fate(id)) == home.Suspect:
			v.Settled = false // it may yet answer
		}
	}
	h.settled = h.settled || v.Settled
	v.Settled = h.settled
	return v
}

func (h *Hub) fateLocked(id string) home.Fate {
	if id == h.id {
		if h.life.Closed() {
			return home.Draining
		}
		return home.ParseFate(h.cfg.Transport.Fate(id))
	}
	if p := h.peers[id]; p != nil {
		switch {
		case p.left:
			return home.Left
		case p.stopped:
			return home.Dead
		case p.draining:
			if f := home.ParseFate(h.cfg.Transport.Fate(id)); f != home.Alive {
				return f
			}
			return home.Draining
		}
	}
	return home.ParseFate(h.cfg.Transport.Fate(id))
}

// look gives the node the present view, and forgets the users of nodes that are gone.
func (h *Hub) look() {
	var alive []string
	h.input(func() {
		v := h.viewLocked()
		alive = v.Alive
		h.node.SetView(h.now(), v)
	})
	h.presenceKeep(alive)
}

// greet says hello to members that have not answered, and looks again when one of them has had its time.
func (h *Hub) greet() {
	t := h.cfg.Transport
	if t == nil {
		return
	}
	again := false
	h.mu.Lock()
	now := h.now()
	for _, id := range t.Alive() {
		p := h.peerLocked(id)
		if id == h.id || p.hub || p.left || p.stopped {
			continue
		}
		if p.asked == -helloEvery || now-p.first < helloFor && now-p.asked >= helloEvery {
			p.asked = now
			p.push(nil, &control{Hello: true})
		}
		again = again || now-p.first < helloFor+4*tickInterval
	}
	h.mu.Unlock()
	if again {
		h.look()
	}
}

func (h *Hub) drainLockedPeers() {
	for _, id := range h.viewLocked().Alive {
		if id != h.id {
			h.peerLocked(id).push(nil, &control{Drain: true})
		}
	}
	if h.cfg.Transport != nil {
		h.node.SetView(h.now(), h.viewLocked())
	}
}

// aloneLocked reports whether there is nobody to hand anything over to.
func (h *Hub) aloneLocked() bool {
	v := h.viewLocked()
	for _, id := range v.Alive {
		if id != h.id && v.Fate(id) != home.Draining {
			return false
		}
	}
	return true
}

// goodbye is the last that peers hear. It waits a moment for the queues to empty.
func (h *Hub) goodbye(graceful bool) {
	if h.cfg.Transport == nil {
		return
	}
	b, _ := json.Marshal(&control{Left: graceful, Stopped: !graceful})
	frame := append([]byte{kindControl}, b...)
	h.mu.Lock()
	var peers []*peer
	for _, id := range h.viewLocked().Alive {
		if p := h.peers[id]; id != h.id && p != nil {
			peers = append(peers, p)
		}
	}
	h.mu.Unlock()
	deadline := time.Now().Add(time.Second)
	for graceful && time.Now().Before(deadline) {
		h.mu.Lock()
		busy := false
		for _, p := range peers {
			busy = busy || p.sending
		}
		h.mu.Unlock()
		if !busy {
			break
		}
		<-time.After(5 * time.Millisecond)
	}
	for _, p := range peers {
		_ = h.cfg.Transport.TryPost(p.id, transportTopic, frame) // they also see it by the membership
	}
}
