package wsfanout

import (
	"time"

	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/sock"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// SlowPolicy is what becomes of a subscriber whose socket takes less than there is. Nothing is queued for it in any case but a short list: it has a
// position, and reads on from the ring of its node when there is room again.
type SlowPolicy uint8

const (
	// Resume lets it read on from where it stands. When the ring has moved on, the socket is closed with 4008, and the client, which has a position
	// to resume from, is answered a gap for what is no longer there. The default.
	Resume SlowPolicy = iota
	// Conflate does the same, but of the messages with one ConflateKey that waited only the newest is shown, ephemeral ones included. A ring that has
	// moved on is reported as a gap, and the socket stays open.
	Conflate
	// DropGap leaves out all that waited and reports a gap; the socket stays open. OnGap is not asked.
	DropGap
	// Disconnect closes the socket with 4008 as soon as it is behind.
	Disconnect
)

// PresenceMode is what is known of who is subscribed to a topic.
type PresenceMode uint8

const (
	// Listed topics answer Hub.Presence. The default.
	Listed PresenceMode = iota
	// Told topics also send their subscribers who joins and who leaves.
	Told
	// Hidden topics cost nothing: Hub.Presence is empty.
	Hidden
)

// TopicOptions is how a topic is treated.
type TopicOptions struct {
	Slow     SlowPolicy   // default Resume
	Presence PresenceMode // default Listed
}

// Reasons of a gap that the node itself decides on.
const reasonSlow = "slow"

// latestKeys bounds the keys whose newest ephemeral message is kept for slow sockets, latestAge their age.
const (
	latestKeys = 256
	latestAge  = 10 * time.Second
)

// latest is the newest ephemeral message of a key.
type latest struct {
	number uint64
	at     time.Time
	p      *prepared
}

func (h *Hub) optionsOf(topic string) TopicOptions {
	if h.cfg.Topic == nil {
		return TopicOptions{}
	}
	return h.cfg.Topic(topic)
}

// slowLocked deals with a subscription whose socket has no room.
func (h *Hub) slowLocked(s *sub) {
	s.mode = behind
	if s.room.opts.Slow == Disconnect && !s.conn.held {
		h.behindLocked(s)
		return
	}
	h.wakeLocked(s)
}

// behindLocked closes a socket that has fallen behind for good.
func (h *Hub) behindLocked(s *sub) {
	if !s.conn.closed {
		s.conn.closed = true
		h.count.behind.Add(1)
		s.conn.sock.Close(sock.CodeBehind, "behind: resume from your position")
	}
}

// dropGapLocked goes on at the end of the ring and reports what was left out.
func (h *Hub) dropGapLocked(s *sub) {
	h.mu.Lock()
	at, ok := h.node.At(s.room.topic)
	h.mu.Unlock()
	s.mode = live
	if !ok || at == s.at {
		return
	}
	h.count.gaps.Add(1)
	s.at = at
	s.conn.sock.Send(sock.Text(frame.Marshal(frame.Server{Type: frame.Gap, Topic: s.room.topic, Reason: reasonSlow, After: s.last,
		Epoch: at.Epoch.String(), Offset: at.Offset})))
}

// conflateLocked queues records of which only the newest of each key matters. It reports false when the socket has no room for more.
func (h *Hub) conflateLocked(s *sub, records []*wire.Record, lane sock.Lane) bool {
	newest := map[string]uint64{}
	for _, rec := range records {
		if p := h.prepareLocked(s.room.topic, rec); p != nil && p.env.conflate != "" {
			newest[p.env.conflate] = rec.Offset
		}
	}
	// Runs of what is left out become one frame.
	run, end := 0, (*wire.Record)(nil)
	leave := func() bool {
		if run == 0 {
			return true
		}
		f := sock.Text(frame.Marshal(frame.Server{Type: frame.Skip, Topic: s.room.topic, N: run, Epoch: end.Epoch.String(), Offset: end.Offset}))
		if !s.conn.sock.Offer(f, lane) {
			return false
		}
		s.at, run = end.Position, 0
		return true
	}
	for _, rec := range records {
		p := h.prepareLocked(s.room.topic, rec)
		old := p != nil && p.env.conflate != "" && newest[p.env.conflate] > rec.Offset && rec.Offset > s.at.Offset
		if run > 0 && (!old || end.Epoch != rec.Epoch) && !leave() {
			return false
		}
		if old {
			run, end = run+1, rec
			h.count.conflated.Add(1)
			continue
		}
		if s.mode == live && !h.showLocked(s, rec, p, lane) {
			return false
		}
	}
	return leave()
}

// ephemeralLocked shows a message that may be dropped, if the socket has room. Of a topic with Conflate the newest of each key comes later.
func (h *Hub) ephemeralLocked(s *sub, p *prepared, lane sock.Lane) {
	if p == nil || s.mode != live && s.mode != behind || p.env.leavesOut(s.conn) {
		return
	}
	if s.missed == 0 && !s.conn.held && s.conn.sock.Offer(p.frame, lane) {
		h.count.delivered.Add(1)
		return
	}
	h.count.dropped.Add(1)
	if r := s.room; r.opts.Slow == Conflate && p.env.conflate != "" {
		if s.missed == 0 {
			s.missed = r.ephemeral
		}
		h.wakeLocked(s)
	}
}

// keepLocked remembers an ephemeral message for those that cannot take it now.
func (h *Hub) keepLocked(r *room, rec *wire.Record, p *prepared) {
	if rec.Kind != wire.Ephemeral || r.opts.Slow != Conflate || p == nil || p.env.conflate == "" {
		return
	}
	if len(r.latest) >= latestKeys || r.latest == nil {
		r.latest = map[string]*latest{}
	}
	r.ephemeral++
	r.latest[p.env.conflate] = &latest{r.ephemeral, time.Now(), p}
}

// missedLocked shows the ephemeral messages that a slow socket has missed, the newest of each key.
func (h *Hub) missedLocked(s *sub) {
	for from := s.missed; from != 0; {
		var next *latest
		for _, l := range s.room.latest {
			if l.number >= from && (next == nil || l.number < next.number) && time.Since(l.at) < latestAge {
				next = l
			}
		}
		if next == nil {
			s.missed = 0
			return
		}
		if !next.p.env.leavesOut(s.conn) {
			if !s.conn.sock.Offer(next.p.frame, sock.Direct) {
				s.missed = next.number
				h.wakeLocked(s)
				return
			}
			h.count.delivered.Add(1)
		}
		from = next.number + 1
	}
}
