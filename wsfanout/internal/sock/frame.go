package sock

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"sync"
	"unicode/utf8"
)

const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	rsv1    = 0x40
)

// Frame is a whole WebSocket frame of the server, ready to be written. It never changes, so that all sockets may share it.
type Frame struct {
	b []byte

	once sync.Once
	z    *Frame // the same compressed, or itself where that would not be shorter; made when the first socket wants it
}

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
	return &Frame{b: append(b, payload...)}
}

var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // the level is one of its own
	return w
}}

// deflated returns the frame for sockets that have agreed on permessage-deflate without context takeover: one for all of them.
func (p *Pool) deflated(f *Frame) *Frame {
	if f.b[0]&0xf != opText || len(f.b) < p.cfg.CompressMin {
		return f
	}
	f.once.Do(func() {
		p.deflations.Add(1)
		f.z = f
		head := 2
		switch f.b[1] {
		case 126:
			head = 4
		case 127:
			head = 10
		}
		var out bytes.Buffer
		w := deflaters.Get().(*flate.Writer)
		defer deflaters.Put(w)
		w.Reset(&out)
		_, err := w.Write(f.b[head:])
		if err == nil {
			err = w.Flush()
		}
		if b, ok := bytes.CutSuffix(out.Bytes(), []byte{0, 0, 0xff, 0xff}); err == nil && ok && len(b) < len(f.b)-head {
			f.z = newFrame(opText|rsv1, b)
		}
	})
	return f.z
}

// Deflations is how many frames have been compressed.
func (p *Pool) Deflations() uint64 { return p.deflations.Load() }

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
