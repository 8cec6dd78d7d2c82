package wire

import (
	"encoding/binary"
	"math"
)

// An encoder writes one frame: the version, then messages, each as its length, tag, partition and fields. Numbers are
// unsigned varints. Node IDs and topics are symbols: 0 and the text where they come first, then their place in the order of
// first use within the frame.
type encoder struct {
	b       []byte
	symbols map[string]uint64
}

func newEncoder() *encoder {
	return &encoder{b: []byte{Version}, symbols: map[string]uint64{}}
}

func (e *encoder) uint(u uint64) { e.b = binary.AppendUvarint(e.b, u) }
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}
func (e *encoder) byte(v byte) { e.b = append(e.b, v) }
func (e *encoder) bytes(v []byte) {
	e.uint(uint64(len(v)))
	e.b = append(e.b, v...)
}
func (e *encoder) text(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}
func (e *encoder) symbol(s string) {
	if k, ok := e.symbols[s]; ok {
		e.uint(k)
		return
	}
	e.symbols[s] = uint64(len(e.symbols) + 1)
	e.uint(0)
	e.text(s)
}
func (e *encoder) term(t Term) {
	e.uint(t.N)
	e.symbol(t.Node)
}
func (e *encoder) position(p Position) {
	e.term(p.Epoch)
	e.uint(p.Offset)
}
func (e *encoder) record(r *Record) {
	e.position(r.Position)
	e.byte(byte(r.Kind))
	e.text(r.ID)
	e.bytes(r.Data)
}
func (e *encoder) open(o Open) {
	e.term(o.Term)
	e.symbol(o.Replica)
	var f byte
	if o.Known {
		f |= 1
	}
	if o.Left {
		f |= 2
	}
	e.byte(f)
}
func (e *encoder) records(rs []*Record)   { list(e, rs, e.record) }
func (e *encoder) symbolList(ss []string) { list(e, ss, e.symbol) }
func (e *encoder) tip(t Tip) {
	e.symbol(t.Topic)
	e.position(t.At)
}
func (e *encoder) copy(c *Copy) {
	e.bool(c != nil)
	if c == nil {
		return
	}
	e.term(c.Acc)
	e.uint(c.Length)
	e.bool(c.Token)
	list(e, c.Lineage, func(l Lineage) { e.term(l.Epoch); e.bool(l.Verified) })
	e.uint(c.Floor)
	e.term(c.FloorBy)
	list(e, c.Topics, func(t Topic) {
		e.symbol(t.Name)
		e.position(t.Born)
		e.term(t.From)
		e.position(t.Base)
		e.bool(t.Tail)
		e.bool(t.Older)
		list(e, t.Marks, e.position)
		e.records(t.Records)
		e.uint(t.Committed)
	})
	list(e, c.Window, func(w Window) {
		e.symbol(w.Topic)
		e.text(w.ID)
		e.position(w.At)
	})
}
func (e *encoder) cursor(c Cursor) {
	e.position(c.Pos)
	list(e, c.Seen, e.position)
	e.text(c.Last)
}

func list[T any](e *encoder, xs []T, f func(T)) {
	e.uint(uint64(len(xs)))
	for _, x := range xs {
		f(x)
	}
}

// A decoder reads one frame. After the first fault every read returns zero.
type decoder struct {
	b       []byte
	bad     bool
	symbols []string
}

func (d *decoder) uint() uint64 {
	u, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return u
}

func (d *decoder) int() int {
	u := d.uint()
	if u > math.MaxInt32 {
		d.fail()
		return 0
	}
	return int(u)
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

func (d *decoder) take() []byte {
	u := d.uint()
	if u > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:u]
	d.b = d.b[u:]
	return v
}

func (d *decoder) bytes() []byte {
	v := d.take()
	if len(v) == 0 {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

func (d *decoder) text() string { return string(d.take()) }

func (d *decoder) symbol() string {
	k := d.uint()
	if k == 0 {
		s := d.text()
		if !d.bad {
			d.symbols = append(d.symbols, s)
		}
		return s
	}
	if k > uint64(len(d.symbols)) {
		d.fail()
		return ""
	}
	return d.symbols[k-1]
}

func (d *decoder) term() Term { return Term{N: d.uint(), Node: d.symbol()} }

func (d *decoder) position() Position { return Position{Epoch: d.term(), Offset: d.uint()} }

func (d *decoder) record() *Record {
	r := &Record{Position: d.position(), Kind: Kind(d.byte()), ID: d.text(), Data: d.bytes()}
	if r.Kind > Ephemeral {
		d.fail()
	}
	return r
}

func (d *decoder) open() Open {
	o := Open{Term: d.term(), Replica: d.symbol()}
	f := d.byte()
	if f > 3 {
		d.fail()
	}
	o.Known, o.Left = f&1 != 0, f&2 != 0
	return o
}

func (d *decoder) tip() Tip { return Tip{Topic: d.symbol(), At: d.position()} }

func (d *decoder) records() []*Record { return listOf(d, d.record) }

func (d *decoder) cursor() Cursor {
	return Cursor{Pos: d.position(), Seen: listOf(d, d.position), Last: d.text()}
}

func (d *decoder) copy() *Copy {
	if !d.bool() {
		return nil
	}
	return &Copy{
		Acc: d.term(), Length: d.uint(), Token: d.bool(),
		Lineage: listOf(d, func() Lineage { return Lineage{Epoch: d.term(), Verified: d.bool()} }),
		Floor:   d.uint(),
		FloorBy: d.term(),
		Topics: listOf(d, func() Topic {
			return Topic{
				Name: d.symbol(), Born: d.position(), From: d.term(), Base: d.position(), Tail: d.bool(), Older: d.bool(),
				Marks: listOf(d, d.position), Records: d.records(), Committed: d.uint(),
			}
		}),
		Window: listOf(d, func() Window { return Window{Topic: d.symbol(), ID: d.text(), At: d.position()} }),
	}
}

// listOf reads a list. A count beyond the bytes that are left is a fault, so a frame cannot ask for more memory than a
// small multiple of its size.
func listOf[T any](d *decoder, f func() T) []T {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	var xs []T
	for ; n > 0 && !d.bad; n-- {
		xs = append(xs, f())
	}
	return xs
}
