package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
)

// Bounds that tests need.
const (
	ChunkSize  = chunkSize
	MaxWhole   = maxWhole
	HeaderSize = headerSize
)

// GoldenFrames are one of each frame.
func GoldenFrames() []struct {
	Name  string
	Bytes []byte
} {
	type golden = struct {
		Name  string
		Bytes []byte
	}
	h := hello{min: 1, max: 2, features: 3, number: 4, last: connName{"node-a", 5}, id: "node-a", cluster: "prod"}
	ps := positions{{1, 2}, {3, 4}, {5, 6}}
	o := newOutLane(Live)
	o.nextSeq = 0x0102030405060708
	o.appendWhole(5, [][]byte{[]byte("he"), []byte("llo")})
	data := bytes.Clone(o.chunks[0].buf)
	p := ping{0x11, 0x22}
	first := newOutLane(Bulk)
	cut := cutter{left: 2 * maxWhole, parts: [][]byte{make([]byte, 2*maxWhole)}}
	for first.appendNext(&cut) {
	}
	return []golden{
		{"hello", h.append(nil)},
		{"resume", ps.append(nil, typeResume)},
		{"refuse", refusal{refuseOther, "no"}.append(nil)},
		{"ping", p.append(nil)},
		{"pong", pong{p, 0x33, 0x44}.append(nil)},
		{"ack", ps.append(nil, typeAck)},
		{"data", data},
		{"first (head)", first.chunks[0].buf[:24]},
		{"next (head)", first.chunks[1].buf[:24]},
		{"next (last)", first.chunks[2].buf},
	}
}

// Decode reads everything that may come from a peer and returns what it makes of it.
func Decode(b []byte) (string, error) {
	h, payload, size, err := parseFrame(b)
	if err != nil {
		return "", err
	}
	if size > len(b) || len(payload) != size-headerSize {
		panic("frame larger than its bytes")
	}
	if h2, p2, err := readFrame(bytes.NewReader(b)); err == nil {
		if h2 != h || !bytes.Equal(p2, payload) {
			panic("two readers, two results")
		}
	}
	switch h.typ {
	case typeHello:
		v, err := parseHello(payload, "self")
		return fmt.Sprintf("%+v", v), err
	case typeResume, typeAck:
		v, err := parsePositions(payload)
		return fmt.Sprintf("%+v", v), err
	case typeRefuse:
		return parseRefusal(payload).Error(), nil
	case typePing:
		v, err := parsePing(payload)
		return fmt.Sprintf("%+v", v), err
	case typePong:
		v, err := parsePong(payload)
		return fmt.Sprintf("%+v", v), err
	case typeFirst:
		var a assembly
		_, err := a.add(h.typ, payload)
		return "first", err
	}
	return fmt.Sprintf("%+v", h), nil
}

// ErrIncomplete is what Decode says of the beginning of a frame.
var ErrIncomplete = errShort

// Assemble gives frames to one lane's assembly and returns the payloads.
func Assemble(b []byte) (payloads [][]byte, err error) {
	var a assembly
	for len(b) > 0 {
		h, payload, size, err := parseFrame(b)
		if err != nil {
			return payloads, err
		}
		whole, err := a.add(h.typ, payload)
		if err != nil {
			return payloads, err
		}
		if whole != nil {
			payloads = append(payloads, bytes.Clone(whole))
			a.done()
		}
		b = b[size:]
	}
	return payloads, nil
}

// Encode returns payloads as the bytes of a lane.
func Encode(payloads ...[]byte) []byte {
	o := newOutLane(Live)
	for _, p := range payloads {
		if len(p) <= maxWhole {
			o.appendWhole(len(p), [][]byte{p})
			continue
		}
		cut := cutter{left: len(p), parts: [][]byte{p}}
		for o.appendNext(&cut) {
		}
	}
	var b []byte
	for _, c := range o.chunks {
		b = append(b, c.buf...)
	}
	if uint64(len(b)) != o.end {
		panic("offset is wrong")
	}
	n := 0
	for _, p := range payloads {
		n += encodedSize(len(p))
	}
	if n != len(b) {
		panic(fmt.Sprintf("encodedSize says %d, it is %d", n, len(b)))
	}
	return b
}

// Stranger speaks to a Mesh by hand: it dials as id and establishes a connection.
func Stranger(nc net.Conn, id, cluster string, number uint64) error {
	return StrangerAfter(nc, id, cluster, number, "", 0)
}

// StrangerAfter is Stranger that remembers a connection.
func StrangerAfter(nc net.Conn, id, cluster string, number uint64, lastDialer string, last uint64) error {
	h := hello{min: OldestProtocol, max: Protocol, number: number, id: id, cluster: cluster, last: connName{lastDialer, last}}
	if _, err := nc.Write(h.append(nil)); err != nil {
		return err
	}
	hd, payload, err := readFrame(nc)
	if err != nil {
		return err
	}
	if hd.typ == typeRefuse {
		return parseRefusal(payload)
	}
	ps := positions{{1, 1 << 20}, {1, 1 << 20}, {1, 1 << 20}}
	if _, err := nc.Write(ps.append(nil, typeResume)); err != nil {
		return err
	}
	if hd, payload, err = readFrame(nc); err != nil {
		return err
	}
	if hd.typ == typeRefuse {
		return parseRefusal(payload)
	}
	return nil
}

// AcceptByHand answers a Mesh that has dialled, as id, and returns the number of the dial.
func AcceptByHand(nc net.Conn, id, cluster string) (number uint64, err error) {
	_, payload, err := readFrame(nc)
	if err != nil {
		return 0, err
	}
	in, err := parseHello(payload, id)
	if err != nil {
		return 0, err
	}
	h := hello{min: OldestProtocol, max: Protocol, id: id, cluster: cluster}
	if _, err := nc.Write(h.append(nil)); err != nil {
		return 0, err
	}
	if _, err := readResume(nc); err != nil {
		return 0, err
	}
	ps := positions{{1, 1 << 20}, {1, 1 << 20}, {1, 1 << 20}}
	_, err = nc.Write(ps.append(nil, typeResume))
	return in.number, err
}

// RawFrame is a frame of any type.
func RawFrame(typ, flags byte, lane Lane, seq uint64, payload []byte) []byte {
	var h [headerSize]byte
	putHeader(h[:], header{frameType(typ), flags, lane, seq}, len(payload))
	return append(h[:], payload...)
}

// Flags and types for RawFrame.
const (
	FlagCritical  = flagCritical
	FlagSequenced = flagSequenced
	TypeData      = byte(typeData)
)

// Drain reads until the connection ends.
func Drain(nc net.Conn) error {
	_, err := io.Copy(io.Discard, nc)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Receive gives b to a connection's reader, step bytes at a time, and returns the payloads of all lanes that come out.
func Receive(b []byte, step int) (payloads []string, failed bool) {
	m, err := New(Config{
		Self: "self", Cluster: "test", Window: 1 << 20, Logger: slog.New(slog.DiscardHandler),
		Dial:    func(context.Context, string) (net.Conn, error) { return nil, ErrRefused },
		OnFrame: func(_ string, lane Lane, p []byte) { payloads = append(payloads, lane.String()+string(p)) },
	})
	if err != nil {
		panic(err)
	}
	p := newPeer(m, "peer")
	c := newConn(p, nil, connName{"peer", 1})
	p.positionsLocked()
	var buf []byte
	for len(b) > 0 && !failed {
		n := min(step, len(b))
		buf, b = append(buf, b[:n]...), b[n:]
		used, _, err := c.frames(buf)
		failed = err != nil
		buf = buf[used:]
	}
	for l := range lanes {
		for _, bl := range p.in[l].blocks {
			if p.takeBlock(l, bl.buf) != nil {
				failed = true
				break
			}
		}
	}
	return payloads, failed
}

// Ahead is how many bytes of a lane are written and not acknowledged.
func (m *Mesh) Ahead(id string, l Lane) uint64 {
	p := m.peer(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	o := &p.out[l]
	if o.sendChunk >= len(o.chunks) {
		return 0
	}
	return o.chunks[o.sendChunk].start + uint64(o.sendAt) - o.chunks[0].start
}
