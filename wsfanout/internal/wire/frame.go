package wire

import (
	"encoding/binary"
	"errors"
)

// Version is the frame version. The number of partitions and their hash are constants of it.
const Version = 1

// Partitions is how many partitions topics are hashed into.
const Partitions = 1024

// FrameSize is the size above which Encode begins another frame.
const FrameSize = 1 << 20

// ErrFrame is returned by Decode for a frame that it cannot read.
var ErrFrame = errors.New("wire: malformed frame")

// Encode returns the frames that carry the messages, in order. A frame is larger than FrameSize only when its last
// message makes it so.
func Encode(messages []Message) [][]byte {
	var frames [][]byte
	var e *encoder
	var body []byte
	for _, m := range messages {
		if e == nil {
			e = newEncoder()
		}
		// The body is written behind the frame and moved, because its length comes first.
		at := len(e.b)
		e.byte(byte(m.tag()))
		e.uint(uint64(m.Partition()))
		e.message(m)
		body = append(body[:0], e.b[at:]...)
		e.b = binary.AppendUvarint(e.b[:at], uint64(len(body)))
		e.b = append(e.b, body...)
		if len(e.b) >= FrameSize {
			frames = append(frames, e.b)
			e = nil
		}
	}
	if e != nil {
		frames = append(frames, e.b)
	}
	return frames
}

// Decode returns the messages of one frame. They share nothing with it. Messages of a kind that this version does not
// know are left out.
func Decode(frame []byte) ([]Message, error) {
	if len(frame) == 0 || frame[0] != Version {
		return nil, ErrFrame
	}
	d := &decoder{b: frame[1:]}
	var ms []Message
	for len(d.b) > 0 {
		n := d.uint()
		if d.bad || n > uint64(len(d.b)) || n == 0 {
			return nil, ErrFrame
		}
		rest := d.b[n:]
		d.b = d.b[:n]
		t := tag(d.byte())
		p := P{Part: d.int()}
		m := d.message(t, p)
		if m != nil {
			if d.bad || len(d.b) > 0 {
				return nil, ErrFrame
			}
			ms = append(ms, m)
		}
		if d.bad {
			return nil, ErrFrame
		}
		d.b = rest
	}
	return ms, nil
}

type tag uint8

func (e *encoder) message(m Message) {
	switch m := m.(type) {
	case *Prepare:
		e.term(m.G)
		e.symbol(m.Replica)
	case *Promise:
		e.term(m.G)
		e.copy(m.Copy)
		list(e, m.Open, e.open)
		e.term(m.Active)
		e.symbol(m.Replica)
		e.symbolList(m.View)
	case *ViewUpdate:
		e.term(m.G)
		e.symbolList(m.View)
	case *Nack:
		e.term(m.Refused)
		e.open(m.Promised)
	case *Install:
		e.term(m.G)
		e.copy(m.Copy)
	case *Installed:
		e.term(m.G)
		e.bool(m.Whole)
	case *Active:
		e.term(m.G)
		e.symbol(m.Replica)
	case *Offer:
		e.open(m.T)
	case *Pub:
		e.symbol(m.Topic)
		e.text(m.ID)
		e.bytes(m.Data)
		e.bool(m.Ephemeral)
	case *PubAck:
		e.symbol(m.Topic)
		e.text(m.ID)
		e.position(m.At)
		e.uint(uint64(m.Copies))
		e.bool(m.NoReplica)
	case *Rep:
		e.term(m.G)
		e.symbol(m.Topic)
		e.position(m.Prev)
		e.record(m.Record)
	case *RepAck:
		e.term(m.G)
		e.symbol(m.Topic)
		e.uint(m.Offset)
	case *Sub:
		e.term(m.G)
		e.uint(m.Request)
		e.symbol(m.Topic)
		e.cursor(m.Cursor)
		e.bool(m.Only)
	case *SubOK:
		e.term(m.G)
		e.uint(m.Request)
		e.symbol(m.Topic)
		e.byte(byte(m.Answer))
		e.text(m.Reason)
		e.position(m.Start)
		e.records(m.Records)
		e.bool(m.Only)
	case *Live:
		e.term(m.G)
		e.symbol(m.Topic)
		e.term(m.Prev)
		e.record(m.Record)
	case *Confirm:
		e.term(m.G)
		e.uint(m.Number)
	case *Confirmed:
		e.term(m.G)
		e.uint(m.Number)
	case *Return:
		e.term(m.G)
		list(e, m.Tips, e.tip)
	case *ReturnOK:
		e.term(m.G)
	case *Unsub:
		e.term(m.G)
		e.uint(m.Request)
		e.symbol(m.Topic)
	case *Digest:
		e.term(m.G)
		e.uint(m.Hash)
	case *Resub:
		e.term(m.G)
	case *Fetch:
		e.symbol(m.Topic)
		e.position(m.Before)
	case *Backfill:
		e.symbol(m.Topic)
		e.position(m.Before)
		e.position(m.Base)
		e.records(m.Records)
		e.bool(m.Older)
	case *Bye:
	}
}

func (d *decoder) message(t tag, p P) Message {
	switch t {
	case tagPrepare:
		return &Prepare{P: p, G: d.term(), Replica: d.symbol()}
	case tagPromise:
		return &Promise{
			P: p, G: d.term(), Copy: d.copy(), Open: listOf(d, d.open), Active: d.term(), Replica: d.symbol(),
			View: listOf(d, d.symbol),
		}
	case tagViewUpdate:
		return &ViewUpdate{P: p, G: d.term(), View: listOf(d, d.symbol)}
	case tagNack:
		return &Nack{P: p, Refused: d.term(), Promised: d.open()}
	case tagInstall:
		m := &Install{P: p, G: d.term(), Copy: d.copy()}
		if m.Copy == nil {
			d.fail()
		}
		return m
	case tagInstalled:
		return &Installed{P: p, G: d.term(), Whole: d.bool()}
	case tagActive:
		return &Active{P: p, G: d.term(), Replica: d.symbol()}
	case tagOffer:
		return &Offer{P: p, T: d.open()}
	case tagPub:
		return &Pub{P: p, Topic: d.symbol(), ID: d.text(), Data: d.bytes(), Ephemeral: d.bool()}
	case tagPubAck:
		return &PubAck{P: p, Topic: d.symbol(), ID: d.text(), At: d.position(), Copies: d.int(), NoReplica: d.bool()}
	case tagRep:
		return &Rep{P: p, G: d.term(), Topic: d.symbol(), Prev: d.position(), Record: d.record()}
	case tagRepAck:
		return &RepAck{P: p, G: d.term(), Topic: d.symbol(), Offset: d.uint()}
	case tagSub:
		return &Sub{P: p, G: d.term(), Request: d.uint(), Topic: d.symbol(), Cursor: d.cursor(), Only: d.bool()}
	case tagSubOK:
		m := &SubOK{P: p, G: d.term(), Request: d.uint(), Topic: d.symbol(), Answer: Answer(d.byte())}
		if m.Answer < Fresh || m.Answer > GapAnswer {
			d.fail()
		}
		m.Reason, m.Start, m.Records, m.Only = d.text(), d.position(), d.records(), d.bool()
		return m
	case tagLive:
		return &Live{P: p, G: d.term(), Topic: d.symbol(), Prev: d.term(), Record: d.record()}
	case tagConfirm:
		return &Confirm{P: p, G: d.term(), Number: d.uint()}
	case tagConfirmed:
		return &Confirmed{P: p, G: d.term(), Number: d.uint()}
	case tagReturn:
		return &Return{P: p, G: d.term(), Tips: listOf(d, d.tip)}
	case tagReturnOK:
		return &ReturnOK{P: p, G: d.term()}
	case tagUnsub:
		return &Unsub{P: p, G: d.term(), Request: d.uint(), Topic: d.symbol()}
	case tagDigest:
		return &Digest{P: p, G: d.term(), Hash: d.uint()}
	case tagResub:
		return &Resub{P: p, G: d.term()}
	case tagFetch:
		return &Fetch{P: p, Topic: d.symbol(), Before: d.position()}
	case tagBackfill:
		return &Backfill{P: p, Topic: d.symbol(), Before: d.position(), Base: d.position(), Records: d.records(), Older: d.bool()}
	case tagBye:
		return &Bye{P: p}
	}
	return nil
}
