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

	taker Taker    // nil: OnFrame
	asm   assembly // of whoever takes: the reader while the goroutine is idle, else the goroutine

	mu     sync.Mutex
	blocks []*block
	idle   bool
	wake   chan struct{}
}

// block holds whole frames that wait for their handler.
type block struct{ buf []byte }

const blockSize = readSize // so that what one read brought always fits

var blocks = sync.Pool{New: func() any { return &block{buf: make([]byte, 0, blockSize)} }}

func (b *block) free() {
	if cap(b.buf) == blockSize {
		b.buf = b.buf[:0]
		blocks.Put(b)
	}
}

// add appends frames.
func (in *inLane) add(frames []byte) {
	in.mu.Lock()
	var tail *block
	if n := len(in.blocks); n > 0 {
		tail = in.blocks[n-1]
	}
	if tail == nil || len(tail.buf)+len(frames) > cap(tail.buf) {
		if len(frames) <= blockSize {
			tail = blocks.Get().(*block)
		} else {
			tail = new(block)
		}
		in.blocks = append(in.blocks, tail)
	}
	tail.buf = append(tail.buf, frames...)
	wake := in.idle
	in.idle = false
	in.mu.Unlock()
	if wake {
		in.wake <- struct{}{} // has room: the taker was idle
	}
}

// swap waits for frames and exchanges them for an empty list; nil when end is closed.
func (in *inLane) swap(empty []*block, end <-chan struct{}) []*block {
	for {
		in.mu.Lock()
		if len(in.blocks) > 0 {
			full := in.blocks
			in.blocks = empty[:0]
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

// take handles the frames of a lane until the peer ends.
func (p *peer) take(lane Lane) {
	in := &p.in[lane]
	var list []*block
	for {
		if list = in.swap(list, p.end); list == nil {
			return
		}
		for i, b := range list {
			list[i] = nil
			if err := p.takeBlock(lane, b.buf); err != nil { // the reader has checked the frames: the peer does not keep to the protocol
				p.m.log.Error("link: malformed payload, peer given up", "peer", p.id, "lane", lane, "error", err)
				p.giveUp()
				return
			}
			if p.over.Load() {
				return
			}
			b.free()
		}
	}
}

func (p *peer) takeBlock(lane Lane, b []byte) error {
	in := &p.in[lane]
	pending := 0 // consumed, not yet told
	for len(b) > 0 && !p.over.Load() {
		h, payload, size, err := parseFrame(b)
		if err != nil {
			return err
		}
		if h.typ != typeData || in.asm.want != 0 {
			if payload, err = in.asm.add(h.typ, payload); err != nil {
				return err
			}
		}
		if payload != nil {
			payload = payload[:len(payload):len(payload)]
			switch {
			case in.taker == nil:
				p.m.cfg.OnFrame(p.id, lane, payload)
			case !in.taker.Take(payload):
				in.taker.Handle(payload)
			}
			if h.typ != typeData {
				in.asm.done()
			}
		}
		b = b[size:]
		if pending += size; pending >= consumeStep {
			p.consume(lane, uint64(pending))
			pending = 0
		}
	}
	if in.taker != nil {
		in.taker.Flush()
	}
	p.consume(lane, uint64(pending))
	return nil
}

// bring hands frames of one lane on. Where nothing waits in it they are taken at once, by the reader, which saves a copy and a goroutine's
// waking; the rest is the lane's goroutine's.
func (p *peer) bring(lane Lane, frames []byte) {
	in := &p.in[lane]
	if in.taker != nil && in.isIdle() {
		taken := 0
		for taken < len(frames) && in.asm.want == 0 {
			h, payload, size, err := parseFrame(frames[taken:])
			if err != nil || h.typ != typeData || !in.taker.Take(payload[:len(payload):len(payload)]) {
				break
			}
			taken += size
		}
		in.taker.Flush()
		p.consume(lane, uint64(taken))
		frames = frames[taken:]
	}
	if len(frames) > 0 {
		in.add(frames)
	}
}

// isIdle reports whether the lane's goroutine waits for frames. Only the reader, by add, ends that.
func (in *inLane) isIdle() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.idle && len(in.blocks) == 0
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
