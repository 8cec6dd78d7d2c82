package sock

import (
	"encoding/binary"
	"unicode/utf8"
)

const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
)

// Frame is a whole WebSocket frame of the server, ready to be written. It never changes, so that all sockets may share it.
type Frame struct{ b []byte }

// Text returns the frame of one text message. The payload is copied.
func Text(payload []byte) *Frame { return newFrame(opText, payload) }

// Len is the size on the wire in bytes.
func (f *Frame) Len() int { return len(f.b) }

func newFrame(op byte, payload []byte) *Frame {
	b := make([]byte, 0, len(payload)+10)
	b = append(b, 0x80|op)
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = append(b, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return &Frame{append(b, payload...)}
}

// closeFrame cuts the reason at what a control frame can hold.
func closeFrame(code int, reason string) *Frame {
	const limit = 123
	for len(reason) > limit || !utf8.ValidString(reason) {
		reason = reason[:min(limit, len(reason)-1)]
	}
	return newFrame(opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}

// frameLen reports how long the frame at the start of b is, and whether b holds enough to tell. Frames of a server are not masked.
func frameLen(b []byte) (int, bool) {
	if len(b) < 2 {
		return 0, false
	}
	switch n := int(b[1] & 0x7f); n {
	case 126:
		if len(b) < 4 {
			return 0, false
		}
		return 4 + int(binary.BigEndian.Uint16(b[2:])), true
	case 127:
		if len(b) < 10 {
			return 0, false
		}
		return 10 + int(binary.BigEndian.Uint64(b[2:])), true
	default:
		return 2 + n, true
	}
}
