package wsfanout

import (
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
	again  bool            // attached again in the middle: the client has its answer
	told   bool            // who is there
	index  int             // in room.subs
	missed uint64          // number of the first ephemeral message that it has to get yet; 0: none
}

// attachLocked subscribes, or subscribes anew from another cursor.
func (h *Hub) attachLocked(c *Conn, topic string, opts TopicOptions, at cursor.Cursor, ref uint64) error {
	if c.gone {
		return nil
	}
	s := c.subs[topic]
	if s == nil {
		if len(c.subs) >= h.cfg.MaxTopics {
			return errTopics
		}
		r := h.rooms[topic]
		if r == nil {
			r = &room{topic: topic, opts: opts}
			h.rooms[topic] = r
		}
		s = &sub{conn: c, room: r}
		c.subs[topic] = s
		r.add(s)
		h.presenceAddLocked(r, c.who.User)
	}
	old := s.id
	delete(h.attached, old)
	h.nextID++
	s.id = h.nextID
	h.attached[s.id] = s
	s.mode, s.ref, s.last, s.skip, s.fills, s.again = waiting, ref, at.Last, nil, nil, false
	if ref != 0 {
		s.told = false // the client begins anew
	}
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
	r.remove(s)
	h.presenceRemoveLocked(r, s.conn.who.User)
	if len(r.subs) == 0 {
		h.dropRoomLocked(r)
	}
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
	switch {
	case a.Kind == home.Gapped && s.again:
		f = frame.Server{Type: frame.Gap, Topic: a.Topic, Reason: a.Reason, After: s.last, Epoch: f.Epoch, Offset: f.Offset}
		if h.gapLocked(s, f, a.Start); s.mode == filling {
			return
		}
	case s.again:
	case a.Kind == home.Fresh:
		f.Kind = frame.Fresh
		h.count.fresh.Add(1)
		c.sock.Send(sock.Text(frame.Marshal(f)))
	case a.Kind == home.Resumed:
		f.Kind = frame.Resumed
		h.count.resumed.Add(1)
		c.sock.Send(sock.Text(frame.Marshal(f)))
	default:
		f.Kind, f.Reason, f.After = frame.Lost, a.Reason, s.last
		h.count.gaps.Add(1)
		if h.fillLocked(s, f) {
			return
		}
		c.sock.Send(sock.Text(frame.Marshal(f)))
	}
	s.mode = live
	h.rollLocked(s)
	if c.held {
		s.mode = behind // what there is comes when the socket is let go
		h.wakeLocked(s)
		return
	}
	h.feedLocked(s, a.Records)
}

// deliverLocked brings what a cast holds to one subscriber.
func (h *Hub) deliverLocked(s *sub, c *cast, lane sock.Lane) {
	// One that has read on from the ring already stands elsewhere than the gap begins.
	if g := c.deliver.Gap; g != nil && s.mode == live && s.at == g.From {
		h.gapLocked(s, frame.Server{Type: frame.Gap, Topic: s.room.topic, Reason: g.Reason, After: s.last,
			Epoch: g.Start.Epoch.String(), Offset: g.Start.Offset}, g.Start)
	}
	for i, rec := range c.deliver.Records {
		if rec.Kind == wire.Ephemeral {
			h.ephemeralLocked(s, c.frames[i], lane)
		} else if s.mode == live && !h.showLocked(s, rec, c.frames[i], lane) {
			h.slowLocked(s)
		}
	}
}

// feedLocked queues records for a subscription until its socket is full; the rest stays in the ring.
func (h *Hub) feedLocked(s *sub, records []*wire.Record) {
	if s.room.opts.Slow == Conflate && len(records) > 1 {
		if !h.conflateLocked(s, records, sock.Direct) {
			h.slowLocked(s)
		}
		return
	}
	for _, rec := range records {
		if s.mode != live {
			return // a gap on the way, or the socket is full
		}
		if !h.showLocked(s, rec, h.prepareLocked(s.room.topic, rec), sock.Direct) {
			h.slowLocked(s)
		}
	}
}

// showLocked queues one record for one socket. It reports false when the socket has no room.
func (h *Hub) showLocked(s *sub, rec *wire.Record, p *prepared, lane sock.Lane) bool {
	if rec.Offset <= s.at.Offset {
		return true // caught up from the ring already
	}
	c := s.conn
	if rec.Offset != s.at.Offset+1 {
		// The node never delivers over a hole. Should it, asking again is always right.
		h.attachAgainLocked(s)
		return true
	}
	if c.held {
		return false
	}
	switch {
	case rec.Kind == wire.Gap:
		if c.sock.Full() {
			return false
		}
		h.gapLocked(s, frame.Server{Type: frame.Gap, Topic: s.room.topic, Reason: string(rec.Data), After: s.last, ID: rec.ID, N: 1,
			Epoch: rec.Epoch.String(), Offset: rec.Offset}, rec.Position)
		return true
	case p.env.leavesOut(c) || s.skip[rec.ID]:
		if !c.sock.Offer(p.skipFrame(s.room.topic, rec), lane) {
			return false
		}
		delete(s.skip, rec.ID)
	default:
		if !c.sock.Offer(p.frame, lane) {
			return false
		}
		s.last = rec.ID
		h.count.delivered.Add(1)
	}
	s.at = rec.Position
	return true
}

// attachAgainLocked asks for what comes after what the socket has. What filled a gap has all been sent by then, and stays known.
func (h *Hub) attachAgainLocked(s *sub) {
	skip := s.skip
	at := cursor.Cursor{Pos: s.at, Seen: []cursor.Position{s.at}, Last: s.last}
	if err := h.attachLocked(s.conn, s.room.topic, s.room.opts, at, s.ref); err != nil {
		h.log.Error("subscription lost", "topic", s.room.topic, "error", err) // cannot be: it exists
	}
	s.skip, s.again = skip, true
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
	c := s.conn
	s.wakeup = true
	if c.waking || c.held {
		return
	}
	c.waking = true
	c.sock.WhenDrained(func() {
		h.roomy.Lock()
		h.roomy.conns = append(h.roomy.conns, c)
		h.roomy.Unlock()
		h.wakeWorker()
	})
}

// roomLocked goes on with the subscriptions of a socket that has room again.
func (h *Hub) roomLocked(c *Conn) {
	c.waking = false
	if c.held || c.gone {
		return
	}
	for _, s := range c.subs {
		if !s.wakeup {
			continue
		}
		s.wakeup = false
		if s.mode == behind {
			h.catchUpLocked(s)
		}
		if s.missed != 0 {
			h.missedLocked(s)
		}
		h.rollLocked(s)
	}
}

// catchUpLocked feeds a subscription from the ring.
func (h *Hub) catchUpLocked(s *sub) {
	c := s.conn
	if c.held {
		s.mode = behind
		h.wakeLocked(s)
		return
	}
	for len(s.fills) > 0 {
		if !c.sock.Offer(s.fills[0], sock.Direct) {
			s.mode = behind
			h.wakeLocked(s)
			return
		}
		s.fills = s.fills[1:]
		h.count.delivered.Add(1)
	}
	if s.room.opts.Slow == DropGap && s.skip == nil && s.mode == behind {
		h.dropGapLocked(s)
		return
	}
	for {
		buf := h.since[:0]
		if s.room.opts.Slow == Conflate {
			buf = nil // what comes last decides on what comes first
		}
		h.mu.Lock()
		records, ok := h.node.Since(s.room.topic, s.at, buf)
		h.mu.Unlock()
		switch {
		case ok:
			s.mode = live
			h.feedLocked(s, records)
			if s.mode == live && buf != nil && len(records) == cap(buf) {
				continue
			}
		case s.skip == nil && s.room.opts.Slow == Resume && !c.released:
			// It has read so slowly that the ring has moved on. With its cursor it gets what there is, or is told.
			h.behindLocked(s)
		default:
			h.attachAgainLocked(s)
		}
		return
	}
}
