package wsfanout

import (
	"slices"

	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/sock"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

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
	switch rec.Kind {
	case wire.Gap:
		return nil
	case wire.Ephemeral: // never asked for again
		p := &prepared{}
		var err error
		if p.env, err = decodeEnvelope(rec.Data); err != nil {
			return nil
		}
		p.frame = sock.Text(frame.AppendMessage(nil, frame.Ephemeral, topic, "", 0, "", p.env.data))
		return p
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
