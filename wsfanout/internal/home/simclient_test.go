package home_test

import (
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// connect attaches a client somewhere.
func (s *sim) connect(c *subscriber) {
	p := s.pick()
	if p == nil {
		s.after(time.Second, func() { s.connect(c) })
		return
	}
	c.gen++
	s.nextConn++
	c.node, c.conn, c.last = p.id, s.nextConn, s.now
	s.log("client %s at %s with %s", c.name, p.id, c.cur)
	conn, cur := c.conn, c.cur.Clone()
	s.do(p, func() {
		p.conns[conn] = c
		p.n.Attach(s.now, conn, c.topic, cur)
	})
}

// disconnect cuts a client off: what was on its way to it is lost.
func (s *sim) disconnect(c *subscriber) {
	c.gen++
	p, conn := s.nodes[c.node], c.conn
	c.node, c.conn = "", 0
	if p == nil {
		return
	}
	s.after(s.between(0, 2*time.Second), func() {
		s.do(p, func() {
			delete(p.conns, conn)
			p.n.Detach(s.now, conn, c.topic)
		})
	})
}

func (s *sim) hop(c *subscriber) {
	s.disconnect(c)
	gen := c.gen
	s.after(s.between(0, 3*time.Second), func() {
		if c.gen == gen {
			s.connect(c)
		}
	})
}

func (s *sim) event(p *process, e home.Event) {
	switch e := e.(type) {
	case *home.Answer:
		if c := p.conns[e.Client]; c != nil {
			s.toClient(c, e.Client, func() { s.answered(c, e) })
		} else {
			s.fail("answer for a client that is not there")
		}
	case *home.Deliver:
		for _, id := range e.Clients {
			if c := p.conns[id]; c != nil {
				s.toClient(c, id, func() { s.delivered(c, e) })
			} else {
				s.fail("delivery for a client that is not there")
			}
		}
	}
}

func (s *sim) toClient(c *subscriber, conn home.ClientID, f func()) {
	if c.conn != conn {
		return
	}
	gen := c.gen
	c.last = max(c.last, s.now+s.between(0, 10*time.Millisecond))
	s.after(c.last-s.now, func() {
		if c.gen == gen && c.conn == conn {
			f()
		}
	})
}

func (s *sim) answered(c *subscriber, a *home.Answer) {
	c.answers++
	s.log("client %s answer %v start %v records %d", c.name, a.Kind, a.Start, len(a.Records))
	switch a.Kind {
	case home.Gapped:
		s.gap(c, "answer "+a.Reason)
	case home.Fresh:
		if !c.cur.IsZero() {
			s.fail("client %s was answered fresh to %v", c.name, c.cur)
		}
	case home.Resumed:
		if c.cur.IsZero() {
			s.fail("client %s was resumed from nothing", c.name)
		}
	}
	if c.since < 0 {
		c.since = s.now
	}
	c.cur.Start(a.Start)
	for _, r := range a.Records {
		s.record(c, r)
	}
}

func (s *sim) delivered(c *subscriber, d *home.Deliver) {
	if d.Gap != nil {
		s.gap(c, "delivery "+d.Gap.Reason)
		c.cur.Start(d.Gap.Start)
	}
	for _, r := range d.Records {
		s.record(c, r)
	}
}

func (s *sim) gap(c *subscriber, why string) {
	s.log("client %s GAP %s", c.name, why)
	c.reports++
	c.gapAt = s.now
	if s.cfg.noGap {
		s.fail("client %s was told a gap: %s", c.name, why)
	}
}

func (s *sim) record(c *subscriber, r *home.Record) {
	s.same(c.topic, r)
	k := place{c.topic, r.Position}
	if before := s.prev[k]; before != c.cur.Pos && !s.sameBirth(c.topic, before, c.cur.Pos) {
		s.fail("client %s stands at %v and gets %v, which follows %v", c.name, c.cur.Pos, r.Position, before)
	}
	show, err := c.cur.Take(r.Position, r.Kind == wire.Gap, r.ID)
	if err != nil {
		s.fail("client %s at %v gets %v", c.name, c.cur.Pos, r.Position)
		return
	}
	s.log("client %s record %v %s shown %v", c.name, r.Position, r.ID, show)
	if !show {
		return
	}
	if r.Kind == wire.Gap {
		s.gap(c, "record "+string(r.Data))
		return
	}
	if at, ok := c.shown[r.ID]; ok && at == c.reports {
		s.fail("client %s was shown %s twice", c.name, r.ID)
	}
	c.shown[r.ID] = c.reports
}

// sameBirth reports whether two positions both stand before a topic's first record: an epoch later it is told in its own
// name.
func (s *sim) sameBirth(topic string, a, b cursor.Position) bool {
	if a.Offset != b.Offset || s.truth[place{topic, a}] != "" {
		return false
	}
	return s.truth[place{topic, b}] == "" || s.cfg.node.IdleAge != 0 // forgotten at its end, and born again there
}
