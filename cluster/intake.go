package cluster

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/nines-go/nines/cluster/internal/link"
)

const allowance = 64 << 10 // of a sender's credit, taken at once

// intake brings the messages of one sender and lane from the link to the queues of their handlers. The link calls it from one goroutine at a
// time. Messages for one topic that come together are added under one lock.
type intake struct {
	n      *Node
	from   string
	lane   link.Lane
	credit *credit
	allow  int64        // of credit, not given to a message yet
	q      *queue       // of the last message
	open   bool         // q is locked
	taken  []uint64     // sends that are to be confirmed
	late   atomic.Int32 // confirmations that wait for room
}

// intake is the link's way to the inbox.
func (n *Node) intake(from string, lane link.Lane) link.Taker {
	if lane == link.Control {
		return nil
	}
	return &intake{n: n, from: from, lane: lane, credit: newCredit(inboxCredit)}
}

// Take adds a message to its queue, unless that has to wait for something or is one of the rare kinds.
func (x *intake) Take(b []byte) bool {
	if len(b) < 2 || len(b) < 2+int(b[1]) || x.late.Load() > 0 {
		return false
	}
	kind, name, body := b[0], b[2:2+int(b[1])], b[2+int(b[1]):]
	var id uint64
	switch kind {
	case kindPost:
	case kindSend, kindRequest:
		v, n := binary.Uvarint(body)
		if n <= 0 {
			return false
		}
		id, body = v, body[n:]
	default:
		return false
	}
	if x.q == nil || x.q.topic.name != string(name) {
		x.Flush()
		if x.q = x.n.inbox.find(x.from, name); x.q == nil {
			return false
		}
	}
	size := cost(x.q.topic.name, body)
	if x.allow < size {
		if !x.credit.try(max(size, allowance)) {
			return false
		}
		x.allow += max(size, allowance)
	}
	if !x.open {
		x.q.mu.Lock()
		x.open = true
	}
	if r := x.q.topic.current.Load(); x.q.over || r == nil || r.inline {
		x.Flush()
		x.q = nil
		return false
	}
	x.allow -= size
	if kind == kindSend {
		x.taken = append(x.taken, id)
		id = 0
	}
	x.q.fill.add(item{payload: body, id: id, credit: x.credit}, false)
	return true
}

// Flush lets the handlers see what was taken.
func (x *intake) Flush() {
	if x.open {
		x.open = false
		x.n.meetings.message(x.from)
		x.q.unlockFilled()
	}
	for i, id := range x.taken {
		if errors.Is(x.n.tryCarry(x.from, link.Control, envelope(kindTaken, "", id), nil), ErrBackpressure) {
			x.confirmLater(slices.Clone(x.taken[i:]))
			break
		}
	}
	x.taken = x.taken[:0]
}

// confirmLater waits for room. Meanwhile Take takes nothing, and Handle waits itself.
func (x *intake) confirmLater(ids []uint64) {
	x.late.Add(1)
	x.n.spawn(func() {
		defer x.late.Add(-1)
		for _, id := range ids {
			_ = x.n.carry(x.n.runCtx, x.from, link.Control, envelope(kindTaken, "", id), nil)
		}
	})
}

// Handle takes a message that Take did not. It waits while too much of the sender's waits for handlers, or for room for an answer.
func (x *intake) Handle(b []byte) {
	x.Flush()
	if len(b) > 0 && b[0] >= kindInfo {
		return // a control frame, on a lane where none belongs, or one of a later version
	}
	m, err := openEnvelope(b)
	if err != nil {
		x.n.log.Warn("message cannot be read", "peer", x.from, "err", err)
		return
	}
	switch m.kind {
	case kindTaken:
		x.n.calls.finish(x.from, m.id, answer{})
		return
	case kindReply:
		x.n.calls.finish(x.from, m.id, replied(x.from, m))
		return
	}
	size := cost(m.topic, m.body)
	x.credit.give(x.allow) // or a message that needs all of it would wait for itself
	x.allow = 0
	if x.credit.take(x.n.runCtx, size) != nil {
		return
	}
	d := delivery{from: x.from, payload: m.body, credit: x.credit}
	if m.kind == kindRequest {
		d.id = m.id
	}
	x.n.meetings.message(x.from)
	x.n.inbox.deliver(m.topic, d)
	if m.kind == kindSend {
		_ = x.n.carry(x.n.runCtx, x.from, link.Control, envelope(kindTaken, "", m.id), nil)
	}
}
