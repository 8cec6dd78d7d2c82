package link

import (
	"encoding/binary"
	"sync"
)

const (
	chunkSize = 64 << 10
	maxWhole  = chunkSize - headerSize // payload of the largest frame that is sent
)

// chunk holds whole encoded frames: it is what is sent and what is kept until it is acknowledged. Bytes once written never change while
// the chunk is in a lane or pinned, so a writer may read them without a lock.
type chunk struct {
	buf         []byte
	first, next uint64 // sequences [first, next)
	start       uint64 // byte of the lane at buf[0]
	waste       int    // bytes at its end that no frame fitted into
	pins        int    // writers that read it
	freed       bool
}

var chunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, 0, chunkSize)} }}

func (c *chunk) free() {
	c.freed = true
	c.release()
}

func (c *chunk) release() {
	if c.freed && c.pins == 0 {
		*c = chunk{buf: c.buf[:0]}
		chunks.Put(c)
	}
}

// outLane is the outgoing half of one lane: the frames that are not acknowledged, and how far they were sent on the present connection.
type outLane struct {
	lane     Lane
	chunks   []*chunk
	nextSeq  uint64 // of the next frame
	end      uint64 // bytes so far
	acked    uint64 // sequence
	retained int    // bytes in chunks, those left empty included, and reserved ones

	sendChunk, sendAt int    // position in chunks
	sent              uint64 // bytes so far on any connection
	limit             uint64 // the peer's credit, in bytes of the lane
	ahead             uint64 // how far sending may be ahead of what is acknowledged; 0 is as far as the credit goes

	pace  pacing
	busy  bool      // a post that was granted appends its frames
	queue []*waiter // posts that wait for their turn
}

// waiter is a post that could not be done at once.
type waiter struct {
	size     int
	reserved bool // counted in retained
	granted  bool
	ready    chan struct{}
}

func newOutLane(l Lane) outLane {
	o := outLane{lane: l, nextSeq: 1, pace: pacing{above: paceAbove}}
	if l == Bulk {
		o.ahead = bulkAhead
	}
	return o
}

// What is written to a connection cannot be overtaken any more, and its buffers hold megabytes. So bulk is at most this far ahead of its
// acknowledgements: enough for bulkRate at the round trip that is measured.
const (
	bulkAhead = 512 << 10
	bulkRate  = 200 << 20 // bytes a second
)

// encodedSize is how many bytes of a lane n bytes of payload become.
func encodedSize(n int) int {
	if n <= maxWhole {
		return headerSize + n
	}
	n += 4 // the length in the first fragment
	return n + (n+maxWhole-1)/maxWhole*headerSize
}

// grow returns n bytes at the end of the lane for one frame.
func (o *outLane) grow(n int) []byte {
	var tail *chunk
	if len(o.chunks) > 0 {
		tail = o.chunks[len(o.chunks)-1]
	}
	if tail == nil || len(tail.buf)+n > cap(tail.buf) {
		if tail != nil {
			tail.waste = cap(tail.buf) - len(tail.buf)
			o.retained += tail.waste
		}
		tail = chunks.Get().(*chunk)
		tail.first, tail.next, tail.start = o.nextSeq, o.nextSeq, o.end
		o.chunks = append(o.chunks, tail)
	}
	at := len(tail.buf)
	tail.buf = tail.buf[:at+n]
	tail.next++
	o.nextSeq++
	o.end += uint64(n)
	return tail.buf[at : at+n]
}

// appendWhole appends one payload of at most maxWhole bytes.
func (o *outLane) appendWhole(n int, parts [][]byte) {
	seq := o.nextSeq
	b := o.grow(headerSize + n)
	putHeader(b, header{typeData, flagCritical | flagSequenced, o.lane, seq}, n)
	b = b[headerSize:]
	for _, p := range parts {
		b = b[copy(b, p):]
	}
}

// cutter cuts a large payload into frames.
type cutter struct {
	parts [][]byte
	left  int
	begun bool
}

// appendNext appends the next frame of a large payload and reports whether there are more.
func (o *outLane) appendNext(c *cutter) bool {
	typ, prefix := typeNext, 0
	if !c.begun {
		typ, prefix = typeFirst, 4
	}
	n := min(c.left, maxWhole-prefix)
	seq := o.nextSeq
	b := o.grow(headerSize + prefix + n)
	putHeader(b, header{typ, flagCritical | flagSequenced, o.lane, seq}, prefix+n)
	b = b[headerSize:]
	if !c.begun {
		binary.BigEndian.PutUint32(b, uint32(c.left))
		b, c.begun = b[4:], true
	}
	c.left -= n
	for len(b) > 0 {
		k := copy(b, c.parts[0])
		b = b[k:]
		if c.parts[0] = c.parts[0][k:]; len(c.parts[0]) == 0 {
			c.parts = c.parts[1:]
		}
	}
	return c.left > 0
}

// gather appends what may be sent now to bufs, about quantum bytes of it, and pins the chunks that it belongs to.
func (o *outLane) gather(bufs [][]byte, pinned []*chunk, quantum int) ([][]byte, []*chunk) {
	for quantum > 0 && o.sendChunk < len(o.chunks) {
		c := o.chunks[o.sendChunk]
		end, limit := len(c.buf), o.reach()
		if c.start+uint64(end) > limit {
			end = c.within(o.sendAt, limit)
		}
		if end > o.sendAt {
			bufs = append(bufs, c.buf[o.sendAt:end])
			pinned = append(pinned, c)
			c.pins++
			quantum -= end - o.sendAt
			o.sendAt = end
			o.sent = max(o.sent, c.start+uint64(end))
		}
		if end < len(c.buf) || o.sendChunk == len(o.chunks)-1 {
			break
		}
		o.sendChunk, o.sendAt = o.sendChunk+1, 0
	}
	return bufs, pinned
}

// reach is the byte of the lane up to which may be sent now.
func (o *outLane) reach() uint64 {
	if o.ahead == 0 {
		return o.limit
	}
	return min(o.limit, o.chunks[0].start+o.ahead)
}

// sendable reports whether gather would find something.
func (o *outLane) sendable() bool {
	if o.sendChunk >= len(o.chunks) {
		return false
	}
	c, at := o.chunks[o.sendChunk], o.sendAt
	if at == len(c.buf) {
		if o.sendChunk == len(o.chunks)-1 {
			return false
		}
		c, at = o.chunks[o.sendChunk+1], 0
	}
	return c.within(at, o.reach()) > at
}

// within returns the end of the last frame from at on that does not pass the limit.
func (c *chunk) within(at int, limit uint64) int {
	for at < len(c.buf) {
		size := 4 + int(binary.BigEndian.Uint32(c.buf[at:]))
		if c.start+uint64(at+size) > limit {
			break
		}
		at += size
	}
	return at
}

// ack forgets the frames up to seq and returns how many bytes that freed.
func (o *outLane) ack(seq uint64) int {
	if seq <= o.acked || seq >= o.nextSeq {
		return 0
	}
	o.acked = seq
	freed, n := 0, 0
	for n < len(o.chunks) && o.chunks[n].next <= seq+1 {
		freed += len(o.chunks[n].buf) + o.chunks[n].waste
		o.chunks[n].free()
		o.chunks[n] = nil
		n++
	}
	if n == 0 {
		return 0
	}
	if n == len(o.chunks) {
		o.chunks = o.chunks[:0]
	} else {
		o.chunks = o.chunks[n:]
	}
	if o.sendChunk < n {
		o.sendChunk, o.sendAt = 0, 0
	} else {
		o.sendChunk -= n
	}
	o.retained -= freed
	o.caughtUp()
	return freed
}

// holds reports whether sending can go on at that sequence without a hole or a repetition.
func (o *outLane) holds(expect uint64) bool { return expect > o.acked && expect <= o.nextSeq }

// rewind lets sending go on at that sequence, which holds, and returns how many bytes are sent again.
func (o *outLane) rewind(expect uint64) (repeated uint64) {
	o.sendChunk, o.sendAt = 0, 0
	for i, c := range o.chunks {
		if expect >= c.next && i < len(o.chunks)-1 {
			continue
		}
		at := 0
		for seq := c.first; seq < expect && at < len(c.buf); seq++ {
			at += 4 + int(binary.BigEndian.Uint32(c.buf[at:]))
		}
		o.sendChunk, o.sendAt = i, at
		if from := c.start + uint64(at); from < o.sent {
			repeated = o.sent - from
		}
		break
	}
	return repeated
}

// drop forgets everything.
func (o *outLane) drop() {
	for _, c := range o.chunks {
		c.free()
	}
	o.chunks, o.sendChunk, o.sendAt, o.retained = nil, 0, 0, 0
}
