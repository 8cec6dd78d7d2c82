package wsfanout

import (
	"fmt"
	"slices"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/sock"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// mode is how a subscription gets its records.
type mode uint8

const (
	waiting mode = iota // for the answer to Attach
	live                // as they come
	behind              // from the node's ring, when the socket has room again
	filling             // OnGap runs; then as behind
)

// sub is one topic of one socket. All fields are guarded by hub.exec.
type sub struct {
	conn   *Conn
	room   *room
	mode   mode
	ref    uint64          // of the client's request that the next answer is for
	at     cursor.Position // of the last record that was queued for the socket, or the start
	last   string          // publish ID of the last one shown, for OnGap
	skip   map[string]bool // IDs that OnGap has returned
	fills  []*sock.Frame   // of OnGap, not yet queued
	id     home.ClientID   // of the last attachment: what comes late for an earlier one finds nobody
	wakeup bool            // the socket tells when it has room
}

// room is a topic with subscribers here.
type room struct {
	topic string
	subs  []*sub
}

// attachLocked subscribes, or subscribes anew from another cursor.
func (h *Hub) attachLocked(c *Conn, topic string, at cursor.Cursor, ref uint64) error {
	if c.gone {
		return nil
	}
	s := c.subs[topic]
	if s == nil {
		if len(c.subs) >= h.cfg.MaxTopics {
			return fmt.Errorf("too many topics: at most %d", h.cfg.MaxTopics)
		}
		r := h.rooms[topic]
		if r == nil {
			r = &room{topic: topic}
			h.rooms[topic] = r
		}
		s = &sub{conn: c, room: r}
		c.subs[topic] = s
		r.subs = append(r.subs, s)
		h.presenceAddLocked(topic, c.who.User)
	}
	old := s.id
	delete(h.attached, old)
	h.nextID++
	s.id = h.nextID
	h.attached[s.id] = s
	s.mode, s.ref, s.last, s.skip, s.fills = waiting, ref, at.Last, nil, nil
	h.mu.Lock()
	h.lockedInput(func() {
		h.node.Attach(h.now(), s.id, topic, at)
		if old != 0 {
			h.node.Detach(h.now(), old, topic)
		}
	})
	h.mu.Unlock()
	return nil
}

func (h *Hub) detachLocked(s *sub) {
	delete(s.conn.subs, s.room.topic)
	delete(h.attached, s.id)
	r := s.room
	if i := slices.Index(r.subs, s); i >= 0 {
		last := len(r.subs) - 1
		r.subs[i], r.subs[last] = r.subs[last], nil
		r.subs = r.subs[:last]
	}
	if len(r.subs) == 0 {
		delete(h.rooms, r.topic)
	}
	h.presenceRemoveLocked(r.topic, s.conn.who.User)
	h.mu.Lock()
	h.lockedInput(func() { h.node.Detach(h.now(), s.id, r.topic) })
	h.mu.Unlock()
}

// answerLocked begins a subscription.
func (h *Hub) answerLocked(a *home.Answer) {
	s := h.attached[a.Client]
	if s == nil {
		return
	}
	c := s.conn
	f := frame.Server{Type: frame.Subscribed, Topic: a.Topic, Ref: s.ref, N: len(a.Records), Epoch: a.Start.Epoch.String(), Offset: a.Start.Offset}
	s.at = a.Start
	switch a.Kind {
	case home.Fresh:
		f.Kind = frame.Fresh
		h.count.fresh.Add(1)
	case home.Resumed:
		f.Kind = frame.Resumed
		h.count.resumed.Add(1)
	default:
		f.Kind, f.Reason, f.After = frame.Lost, a.Reason, s.last
		h.count.gaps.Add(1)
		if h.fillLocked(s, f) {
			return
		}
	}
	c.sock.Send(sock.Text(frame.Marshal(f)))
	s.mode = live
	h.feedLocked(s, a.Records)
}

// deliverLocked brings records to the subscribers of a topic.
func (h *Hub) deliverLocked(d *home.Deliver) {
	r := h.rooms[d.Topic]
	if r == nil {
		return
	}
	if d.Gap != nil {
		for _, s := range r.subs {
			if s.mode == live {
				h.gapLocked(s, frame.Server{Type: frame.Gap, Topic: d.Topic, Reason: d.Gap.Reason, After: s.last,
					Epoch: d.Gap.Start.Epoch.String(), Offset: d.Gap.Start.Offset}, d.Gap.Start)
			}
		}
	}
	for _, rec := range d.Records {
		if rec.Kind == wire.Ephemeral {
			h.ephemeralLocked(r, rec)
			continue
		}
		p := h.prepareLocked(r.topic, rec)
		for _, s := range r.subs {
			if s.mode == live && !h.showLocked(s, rec, p) {
				s.mode = behind
				h.wakeLocked(s)
			}
		}
	}
}

// ephemeralLocked shows a message that may be dropped to those that keep up.
func (h *Hub) ephemeralLocked(r *room, rec *wire.Record) {
	e, err := decodeEnvelope(rec.Data)
	if err != nil {
		return
	}
	f := sock.Text(frame.AppendMessage(nil, frame.Ephemeral, r.topic, "", 0, "", e.data))
	for _, s := range r.subs {
		if (s.mode == live || s.mode == behind) && !e.leavesOut(s.conn) && s.conn.sock.Pending() < highWater {
			s.conn.sock.Send(f)
			h.count.delivered.Add(1)
		}
	}
}

// feedLocked queues records for a subscription until its socket is full; the rest stays in the ring.
func (h *Hub) feedLocked(s *sub, records []*wire.Record) {
	for _, rec := range records {
		if s.mode != live {
			return // a gap on the way, or the socket is full
		}
		if !h.showLocked(s, rec, h.prepareLocked(s.room.topic, rec)) {
			s.mode = behind
			h.wakeLocked(s)
			return
		}
	}
}

// showLocked queues one record for one socket. It reports false when the socket has no room.
func (h *Hub) showLocked(s *sub, rec *wire.Record, p *prepared) bool {
	if rec.Offset <= s.at.Offset {
		return true // caught up from the ring already
	}
	c := s.conn
	if rec.Offset != s.at.Offset+1 {
		// The node never delivers over a hole. Should it, asking again is always right.
		h.attachAgainLocked(s)
		return true
	}
	if c.sock.Pending() > highWater {
		return false
	}
	switch {
	case rec.Kind == wire.Gap:
		s.at = rec.Position
		h.gapLocked(s, frame.Server{Type: frame.Gap, Topic: s.room.topic, Reason: string(rec.Data), After: s.last, ID: rec.ID, N: 1,
			Epoch: rec.Epoch.String(), Offset: rec.Offset}, rec.Position)
		return true
	case p.env.leavesOut(c) || s.skip[rec.ID]:
		delete(s.skip, rec.ID)
		c.sock.Send(p.skipFrame(s.room.topic, rec))
	default:
		c.sock.Send(p.frame)
		s.last = rec.ID
		h.count.delivered.Add(1)
	}
	s.at = rec.Position
	return true
}

// attachAgainLocked asks for what comes after what the socket has. What filled a gap has all been sent by then, and stays known.
func (h *Hub) attachAgainLocked(s *sub) {
	skip := s.skip
	if err := h.attachLocked(s.conn, s.room.topic, cursor.Cursor{Pos: s.at, Seen: []cursor.Position{s.at}, Last: s.last}, s.ref); err != nil {
		h.log.Error("subscription lost", "topic", s.room.topic, "error", err) // cannot be: it exists
	}
	s.skip = skip
}

// gapLocked reports a gap in the middle of a subscription. The client then stands at start.
func (h *Hub) gapLocked(s *sub, f frame.Server, start cursor.Position) {
	h.count.gaps.Add(1)
	s.at = start
	if !h.fillLocked(s, f) {
		s.conn.sock.Send(sock.Text(frame.Marshal(f)))
	}
}

// wakeLocked has the socket tell when it has room.
func (h *Hub) wakeLocked(s *sub) {
	if s.wakeup {
		return
	}
	s.wakeup = true
	c := s.conn
	c.sock.WhenDrained(highWater/4, func() { h.do(func() { h.roomLocked(c) }) })
}

// roomLocked goes on with the subscriptions of a socket that has room again.
func (h *Hub) roomLocked(c *Conn) {
	for _, s := range c.subs {
		s.wakeup = false
	}
	for _, s := range c.subs {
		if s.mode == behind {
			h.catchUpLocked(s)
		}
	}
}

// catchUpLocked feeds a subscription from the ring.
func (h *Hub) catchUpLocked(s *sub) {
	c := s.conn
	for len(s.fills) > 0 {
		if c.sock.Pending() > highWater {
			s.mode = behind
			h.wakeLocked(s)
			return
		}
		c.sock.Send(s.fills[0])
		s.fills = s.fills[1:]
		h.count.delivered.Add(1)
	}
	h.mu.Lock()
	records, ok := h.node.Since(s.room.topic, s.at)
	h.mu.Unlock()
	switch {
	case ok:
		s.mode = live
		h.feedLocked(s, records)
	case s.skip == nil:
		// It has read so slowly that the ring has moved on. With its cursor it gets what there is, or is told.
		h.count.behind.Add(1)
		c.sock.Close(sock.CodeBehind, "behind: resume from your position")
	default:
		h.attachAgainLocked(s)
	}
}

// prepared is a record as a frame, made once for all its subscribers here.
type prepared struct {
	env   envelope
	frame *sock.Frame
	skip  *sock.Frame
}

func (p *prepared) skipFrame(topic string, rec *wire.Record) *sock.Frame {
	if p.skip == nil {
		p.skip = sock.Text(frame.Marshal(frame.Server{Type: frame.Skip, Topic: topic, Epoch: rec.Epoch.String(), Offset: rec.Offset}))
	}
	return p.skip
}

func (e *envelope) leavesOut(c *Conn) bool {
	return len(e.exceptUsers) > 0 && slices.Contains(e.exceptUsers, c.who.User) ||
		len(e.exceptConns) > 0 && slices.Contains(e.exceptConns, c.id)
}

// preparedFrames keeps the frames of late, for subscribers that come back at the same time.
type preparedFrames struct {
	of    map[*wire.Record]*prepared
	order []*wire.Record
	bytes int
}

const (
	preparedBytes = 8 << 20
	preparedCount = 8192
)

func (h *Hub) prepareLocked(topic string, rec *wire.Record) *prepared {
	if rec.Kind == wire.Gap {
		return nil
	}
	k := &h.prepared
	if p := k.of[rec]; p != nil {
		return p
	}
	p := &prepared{}
	var err error
	if p.env, err = decodeEnvelope(rec.Data); err != nil {
		h.log.Error("record cannot be read", "topic", topic, "id", rec.ID, "error", err)
	}
	p.frame = sock.Text(frame.AppendMessage(nil, frame.Message, topic, rec.Epoch.String(), rec.Offset, rec.ID, p.env.data))
	if k.of == nil {
		k.of = map[*wire.Record]*prepared{}
	}
	k.of[rec] = p
	k.order = append(k.order, rec)
	k.bytes += p.frame.Len()
	for len(k.order) > 1 && (k.bytes > preparedBytes || len(k.order) > preparedCount) {
		k.bytes -= k.of[k.order[0]].frame.Len()
		delete(k.of, k.order[0])
		k.order = k.order[1:]
	}
	return p
}
