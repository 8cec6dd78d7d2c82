package link

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
)

// inLane is the incoming half of one lane: the reader of a connection adds whole frames, one goroutine for the life of the peer takes
// them. It never blocks the reader: the sender keeps within the credit.
type inLane struct {
	consumed atomic.Uint64 // bytes of the lane that were handled
	granted  atomic.Uint64 // limit that the peer was told

	mu   sync.Mutex
	buf  []byte
	idle bool
	wake chan struct{}
}

// add appends frames.
func (in *inLane) add(frames []byte) {
	in.mu.Lock()
	in.buf = append(in.buf, frames...)
	wake := in.idle
	in.idle = false
	in.mu.Unlock()
	if wake {
		in.wake <- struct{}{} // has room: the taker was idle
	}
}

// swap waits for frames and exchanges them for an empty buffer; nil when end is closed.
func (in *inLane) swap(empty []byte, end <-chan struct{}) []byte {
	for {
		in.mu.Lock()
		if len(in.buf) > 0 {
			full := in.buf
			in.buf = empty[:0]
			in.mu.Unlock()
			return full
		}
		in.idle = true
		in.mu.Unlock()
		select {
		case <-in.wake:
		case <-end:
			return nil
		}
	}
}

// keepBuffer is the largest buffer that an idle lane keeps.
const keepBuffer = 1 << 20

// take handles the frames of a lane until the peer ends.
func (p *peer) take(lane Lane) {
	in := &p.in[lane]
	var spare []byte
	var asm assembly
	for {
		batch := in.swap(spare, p.end)
		if batch == nil {
			return
		}
		pending := uint64(0) // consumed, not yet told
		for b := batch; len(b) > 0; {
			if p.over.Load() {
				return
			}
			h, payload, size, err := parseFrame(b)
			if err == nil {
				payload, err = asm.add(h.typ, payload)
			}
			if err != nil { // the reader has checked the frame: the peer does not keep to the protocol
				p.m.log.Error("link: malformed payload, link ends", "peer", p.id, "lane", lane, "error", err)
				p.giveUp()
				return
			}
			if payload != nil {
				p.m.cfg.OnFrame(p.id, lane, payload)
				asm.done()
			}
			b = b[size:]
			if pending += uint64(size); pending >= consumeStep {
				p.consume(lane, pending)
				pending = 0
			}
		}
		p.consume(lane, pending)
		if spare = batch; cap(spare) > keepBuffer {
			in.mu.Lock()
			if len(in.buf) == 0 {
				spare = nil
			}
			in.mu.Unlock()
		}
	}
}

const consumeStep = 16 << 10

// consume counts handled bytes and tells the peer when that is worth it.
func (p *peer) consume(lane Lane, n uint64) {
	in := &p.in[lane]
	limit := in.consumed.Add(n) + uint64(p.m.cfg.Window)
	if limit-in.granted.Load() >= uint64(p.m.cfg.Window)/4 {
		p.requestAck()
	}
}

// assembly puts the fragments of a payload together.
type assembly struct {
	buf  []byte
	want int
}

var errFragment = errors.New("fragment out of place")

// add takes the next frame of a lane and returns the payload that it completes, or nil.
func (a *assembly) add(typ frameType, payload []byte) ([]byte, error) {
	switch typ {
	case typeData:
		if a.want != 0 {
			return nil, errFragment
		}
		return payload[:len(payload):len(payload)], nil
	case typeFirst:
		if a.want != 0 || len(payload) < 4 {
			return nil, errFragment
		}
		n := binary.BigEndian.Uint32(payload)
		if n > MaxPayload || int(n) <= len(payload)-4 {
			return nil, errFragment
		}
		a.want = int(n)
		a.buf = append(make([]byte, 0, a.want), payload[4:]...)
		return nil, nil
	case typeNext:
		if a.want == 0 || len(payload) == 0 || len(a.buf)+len(payload) > a.want {
			return nil, errFragment
		}
		a.buf = append(a.buf, payload...)
		if len(a.buf) < a.want {
			return nil, nil
		}
		return a.buf, nil
	}
	return nil, nil // of a later version, not critical
}

// done drops what add returned.
func (a *assembly) done() { *a = assembly{} }
