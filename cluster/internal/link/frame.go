package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is
//
//	u32 length of what follows | u8 type | u8 flags | u8 lane | u8 zero | u64 sequence | payload
//
// in big-endian order. Frames with flagSequenced are numbered from 1 for each lane and direction, for the life of the two processes;
// they alone are kept, acknowledged and sent again. The others have sequence 0.
const (
	headerSize = 16
	maxFrame   = 1 << 20 // payload that is accepted; what is sent is cut at maxWhole
	maxHello   = 4 << 10 // payload of a frame of the handshake
)

// Protocol is the version of the protocol that is spoken, and OldestProtocol the oldest that is understood too. Two processes speak the lower
// of their versions.
//
//	1  what the frames of testdata are
//	2  features in the HELLO
const (
	Protocol       = 2
	OldestProtocol = 1
)

type frameType uint8

const (
	typeHello  frameType = 1
	typeResume frameType = 2
	typeRefuse frameType = 3
	typePing   frameType = 4
	typePong   frameType = 5
	typeAck    frameType = 6

	typeData  frameType = 16 // a whole payload
	typeFirst frameType = 17 // u32 length of the payload, then its beginning
	typeNext  frameType = 18 // more of it, until the length is reached
)

const (
	flagCritical  = 1 // a receiver that does not know the type ends the link, instead of skipping the frame
	flagSequenced = 2
)

type header struct {
	typ   frameType
	flags uint8
	lane  Lane
	seq   uint64
}

var (
	errShort  = errors.New("frame incomplete")
	errFormat = errors.New("malformed frame")
)

func putHeader(b []byte, h header, payload int) {
	_ = b[headerSize-1]
	binary.BigEndian.PutUint32(b, uint32(headerSize-4+payload))
	b[4], b[5], b[6], b[7] = byte(h.typ), h.flags, byte(h.lane), 0
	binary.BigEndian.PutUint64(b[8:], h.seq)
}

// parseFrame reads the frame at the beginning of b and returns its size. errShort asks for more bytes: size of them, or at least
// headerSize when size is 0.
func parseFrame(b []byte) (h header, payload []byte, size int, err error) {
	if len(b) < 4 {
		return h, nil, 0, errShort
	}
	n := binary.BigEndian.Uint32(b)
	if n < headerSize-4 || n > maxFrame+headerSize-4 {
		return h, nil, 0, errFormat
	}
	size = int(n) + 4
	if len(b) < size {
		return h, nil, size, errShort
	}
	h = header{typ: frameType(b[4]), flags: b[5], lane: Lane(b[6]), seq: binary.BigEndian.Uint64(b[8:])}
	if sequenced := h.flags&flagSequenced != 0; sequenced != (h.seq != 0) {
		return h, nil, 0, errFormat
	}
	return h, b[headerSize:size], size, nil
}

func appendFrame(b []byte, typ frameType, flags uint8, payload []byte) []byte {
	var h [headerSize]byte
	putHeader(h[:], header{typ: typ, flags: flags}, len(payload))
	return append(append(b, h[:]...), payload...)
}

// readFrame reads one frame of the handshake and not a byte more.
func readFrame(r io.Reader) (header, []byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return header{}, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < headerSize-4 || n > maxHello {
		return header{}, nil, errFormat
	}
	b := make([]byte, 4+n)
	copy(b, head[:])
	if _, err := io.ReadFull(r, b[4:]); err != nil {
		return header{}, nil, err
	}
	h, payload, _, err := parseFrame(b)
	return h, payload, err
}

// connName names a connection: who dialled it and their count of dials. Zero is none.
type connName struct {
	dialer string
	number uint64
}

// hello begins a connection, in both directions.
type hello struct {
	min, max    uint16 // protocol range
	features    uint64 // since version 2
	number      uint64 // of this dial; 0 in the answer
	last        connName
	id, cluster string
}

// whose tells in one byte who dialled the connection that a hello remembers.
const (
	whoseNone   = 0
	whoseMine   = 1
	whoseTheirs = 2
)

func (h hello) append(b []byte) []byte {
	var p []byte
	p = binary.BigEndian.AppendUint16(p, h.min)
	p = binary.BigEndian.AppendUint16(p, h.max)
	p = binary.BigEndian.AppendUint64(p, h.features)
	p = binary.BigEndian.AppendUint64(p, h.number)
	whose := byte(whoseNone)
	switch {
	case h.last.number == 0:
	case h.last.dialer == h.id:
		whose = whoseMine
	default:
		whose = whoseTheirs
	}
	p = append(p, whose)
	p = binary.BigEndian.AppendUint64(p, h.last.number)
	p = append(append(p, byte(len(h.id))), h.id...)
	p = append(append(p, byte(len(h.cluster))), h.cluster...)
	return appendFrame(b, typeHello, flagCritical, p)
}

// parseHello reads a hello that came to self. Bytes after what is known belong to later versions.
func parseHello(p []byte, self string) (h hello, err error) {
	if len(p) < 2+2+8+8+1+8+1 {
		return h, errFormat
	}
	h.min, h.max = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	h.features, h.number = binary.BigEndian.Uint64(p[4:]), binary.BigEndian.Uint64(p[12:])
	whose := p[20]
	h.last.number = binary.BigEndian.Uint64(p[21:])
	p = p[29:]
	if h.id, p, err = cutString(p); err != nil {
		return h, err
	}
	if h.cluster, _, err = cutString(p); err != nil {
		return h, err
	}
	switch {
	case whose == whoseMine:
		h.last.dialer = h.id
	case whose == whoseTheirs:
		h.last.dialer = self
	default:
		h.last = connName{}
	}
	if h.id == "" || h.min > h.max {
		return h, errFormat
	}
	return h, nil
}

func cutString(p []byte) (string, []byte, error) {
	if len(p) == 0 || len(p) < 1+int(p[0]) {
		return "", nil, errFormat
	}
	n := 1 + int(p[0])
	return string(p[1:n]), p[n:], nil
}

// position is what a receiver says of one lane: the sequence it waits for, and up to which byte of the lane the sender may go.
type position struct{ expect, limit uint64 }

type positions [lanes]position

const positionsSize = 1 + int(lanes)*16

func (ps positions) append(b []byte, typ frameType) []byte {
	var p [positionsSize]byte
	p[0] = byte(lanes)
	for i, at := range ps {
		binary.BigEndian.PutUint64(p[1+16*i:], at.expect)
		binary.BigEndian.PutUint64(p[9+16*i:], at.limit)
	}
	flags := uint8(0)
	if typ == typeResume {
		flags = flagCritical
	}
	return appendFrame(b, typ, flags, p[:])
}

func parsePositions(p []byte) (ps positions, err error) {
	if len(p) < positionsSize || p[0] < byte(lanes) {
		return ps, errFormat
	}
	for i := range ps {
		ps[i] = position{binary.BigEndian.Uint64(p[1+16*i:]), binary.BigEndian.Uint64(p[9+16*i:])}
		if ps[i].expect == 0 {
			return ps, errFormat
		}
	}
	return ps, nil
}

// Reasons of a refusal.
const (
	refuseCrossed = 1 // the other side's dial goes on
	refuseEvicted = 2 // the receiver of this was given up
	refuseOther   = 3 // cluster, protocol, self: the text says it
)

type refusal struct {
	code uint8
	text string
}

func (r refusal) Error() string { return "refused by the peer: " + r.text }

func (r refusal) append(b []byte) []byte {
	return appendFrame(b, typeRefuse, flagCritical, append([]byte{r.code}, r.text...))
}

func parseRefusal(p []byte) refusal {
	if len(p) == 0 {
		return refusal{code: refuseOther, text: "without a reason"}
	}
	return refusal{code: p[0], text: fmt.Sprintf("%.200q", p[1:])}
}

// ping carries two clocks of its sender; a pong returns them with two of the answerer's.
type ping struct{ mono, wall int64 }

type pong struct {
	ping
	received, sent int64 // wall
}

func (p ping) append(b []byte) []byte {
	var d [16]byte
	binary.BigEndian.PutUint64(d[:], uint64(p.mono))
	binary.BigEndian.PutUint64(d[8:], uint64(p.wall))
	return appendFrame(b, typePing, 0, d[:])
}

func parsePing(b []byte) (ping, error) {
	if len(b) < 16 {
		return ping{}, errFormat
	}
	return ping{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

func (p pong) append(b []byte) []byte {
	var d [32]byte
	binary.BigEndian.PutUint64(d[:], uint64(p.mono))
	binary.BigEndian.PutUint64(d[8:], uint64(p.wall))
	binary.BigEndian.PutUint64(d[16:], uint64(p.received))
	binary.BigEndian.PutUint64(d[24:], uint64(p.sent))
	return appendFrame(b, typePong, 0, d[:])
}

func parsePong(b []byte) (pong, error) {
	if len(b) < 32 {
		return pong{}, errFormat
	}
	p, _ := parsePing(b)
	return pong{p, int64(binary.BigEndian.Uint64(b[16:])), int64(binary.BigEndian.Uint64(b[24:]))}, nil
}
