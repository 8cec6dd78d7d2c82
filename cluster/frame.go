package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster/internal/link"
)

const (
	laneControl = link.Control
	laneLive    = link.Live
	laneBulk    = link.Bulk
)

// Kinds of control frames, beside kindTaken and small kindReply, which travel there too: an answer must never wait behind messages, or two
// nodes whose handlers ask each other could stand still.
const (
	kindInfo = 16 // ID of a kindTaken that is wanted, or 0; JSON of info
	kindDead = 17 // JSON of a list of IDs that the sender knows to be dead
	kindHear = 18 // JSON of hearing: who is silent for whom
)

const maxControlReply = 256 << 10

// frame takes what the control lane of a link brings; it never waits.
func (n *Node) frame(from string, lane link.Lane, b []byte) {
	n.received.Add(1)
	if len(b) > 0 && b[0] >= kindInfo {
		if b[0] <= kindHear { // others are of a later version
			n.control(from, b)
		}
		return
	}
	m, err := openEnvelope(b)
	if err != nil {
		n.log.Warn("message cannot be read", "peer", from, "err", err)
		return
	}
	switch m.kind { // no message belongs here
	case kindTaken:
		n.calls.finish(from, m.id, answer{})
	case kindReply:
		n.calls.finish(from, m.id, replied(from, m))
	}
}

func (n *Node) control(from string, b []byte) {
	m, err := openControl(b)
	if err != nil {
		n.log.Warn("control frame cannot be read", "peer", from, "err", err)
		return
	}
	switch m.kind {
	case kindInfo:
		in, err := decodeInfo(from, m.body)
		if err != nil {
			n.log.Warn("what a peer told about itself cannot be read", "peer", from, "err", err)
			return
		}
		n.update(func(t *table, now time.Time) {
			t.told(in, now)
			for _, id := range in.Dead {
				t.rumour(id, from, now)
			}
			for id, ago := range in.Gone {
				t.heardLeft(id, time.Duration(ago)*time.Second, now)
			}
			n.todo[from] = struct{}{}
		})
		n.learnFlags(in.Flags)
		n.kickWorker()
		n.notify()
		if m.id != 0 {
			n.respond(from, link.Control, envelope(kindTaken, "", m.id), nil)
		}
	case kindHear:
		var h hearing
		if json.Unmarshal(m.body, &h) == nil {
			n.hearing(from, h)
		}
	case kindDead:
		var ids []string
		if json.Unmarshal(m.body, &ids) != nil {
			return
		}
		n.update(func(t *table, now time.Time) {
			for _, id := range ids {
				t.rumour(id, from, now)
			}
		})
	}
}

// rumour: a peer has proof that a process is dead. It is believed by a node that has no sign of life from that process itself.
func (t *table) rumour(id, from string, now time.Time) {
	e := t.members[id]
	if id == t.self || id == from || e != nil && (e.linked || e.left) {
		return
	}
	if _, ok := idTime(id); !ok {
		return
	}
	t.bury(id, "a peer has seen its connection reset and its port refuse", now)
}

// openControl reads kindInfo, kindDead and kindHear like other envelopes.
func openControl(b []byte) (message, error) {
	kind := b[0]
	b = append([]byte{kindSend}, b[1:]...)
	m, err := openEnvelope(b)
	m.kind = kind
	return m, err
}

func controlEnvelope(kind byte, id uint64) []byte {
	b := envelope(kindSend, "", id)
	b[0] = kind
	return b
}

const maxLost = 64 // members that a peer is told of as out of reach

// selfInfo is what this node tells, with the deaths and the members out of reach that a newcomer should know.
func (n *Node) selfInfo(gone time.Duration) []byte {
	n.mu.Lock()
	in := n.self.clone()
	in.Gone, in.Flags = n.goneLocked(gone), n.flagsToTellLocked()
	for id, e := range n.table.members {
		if e.dead && time.Since(e.since) < tellDeath {
			in.Dead = append(in.Dead, id)
		}
		if e.info != nil && (e.fate == FateSuspect || e.fate == FateFailed) && len(in.Lost) < maxLost {
			in.Lost = append(in.Lost, id)
		}
	}
	n.mu.Unlock()
	return in.encode()
}

// tellPeer tells one peer about this node, without waiting.
func (n *Node) tellPeer(id string) {
	n.respond(id, link.Control, controlEnvelope(kindInfo, 0), n.selfInfo(keepFate))
}

// tellDead spreads the proof of a death, without waiting.
func (n *Node) tellDead(dead string) {
	b, _ := json.Marshal([]string{dead})
	for _, id := range n.peers() {
		n.respond(id, link.Control, controlEnvelope(kindDead, 0), b)
	}
}

// tellAll tells every peer with a link about this node, and returns when they have taken it.
func (n *Node) tellAll(ctx context.Context) error {
	body := n.selfInfo(tellGone)
	var mu sync.Mutex
	failed := map[string]error{}
	n.each(n.peers(), func(id string) {
		call, c := n.calls.open(id)
		defer n.calls.forget(call)
		err := n.carry(ctx, id, link.Control, controlEnvelope(kindInfo, call), body)
		if errors.Is(err, ErrNoMember) { // who is gone need not know
			return
		}
		for err == nil {
			select {
			case a := <-c.answer:
				if !errors.Is(a.err, ErrNoMember) {
					err = a.err
				}
			case <-ctx.Done():
				err = context.Cause(ctx)
			case <-n.runCtx.Done():
				err = ErrClosed
			case <-time.After(50 * time.Millisecond):
				if n.mesh.Up(id) {
					continue
				}
			}
			break
		}
		if err != nil {
			mu.Lock()
			failed[id] = err
			mu.Unlock()
		}
	})
	if len(failed) > 0 {
		return &PeersError{Failed: failed}
	}
	return nil
}

// peers are the processes with a link that works.
func (n *Node) peers() (ids []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, e := range n.table.members {
		if e.linked && id != n.id {
			ids = append(ids, id)
		}
	}
	return ids
}

// carry hands a payload to the links and waits for room within ctx.
func (n *Node) carry(ctx context.Context, to string, lane link.Lane, head, body []byte) error {
	return n.onLink(to, func() error { return n.mesh.Post(ctx, to, lane, head, body) })
}

func (n *Node) tryCarry(to string, lane link.Lane, head, body []byte) error {
	return n.onLink(to, func() error { return n.mesh.TryPost(to, lane, head, body) })
}

// onLink makes the link of a member that was seen a moment ago, before the worker came to it.
func (n *Node) onLink(to string, post func() error) error {
	if n.mesh == nil {
		return ErrNoMember // Single
	}
	err := post()
	if errors.Is(err, link.ErrNoPeer) && present(n.Fate(to)) {
		n.mesh.Connect(to)
		err = post()
	}
	if err == nil {
		n.sent.Add(1)
	}
	return linkError(err)
}

func linkError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, link.ErrClosed):
		return ErrClosed
	case errors.Is(err, link.ErrNoPeer), errors.Is(err, link.ErrGivenUp):
		return ErrNoMember
	case errors.Is(err, link.ErrTooLarge):
		return ErrTooLarge
	case errors.Is(err, link.ErrBackpressure):
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return errors.Join(ErrBackpressure, err)
		}
		return ErrBackpressure
	}
	return err
}

// respond sends without making the caller wait.
func (n *Node) respond(to string, lane link.Lane, head, body []byte) {
	if err := n.tryCarry(to, lane, head, body); !errors.Is(err, ErrBackpressure) {
		return // sent, or the peer is gone
	}
	body = append([]byte(nil), body...)
	n.spawn(func() { _ = n.carry(n.runCtx, to, lane, head, body) })
}

// reply answers a request. It waits for room: until then the request holds its sender's credit.
func (n *Node) reply(to string, id uint64, b []byte, err error) {
	if n.runCtx.Err() != nil {
		return // this process ends: the asker learns that
	}
	head := envelope(kindReply, "", id)
	switch {
	case err == nil && len(b) > n.cfg.MaxMessage:
		head, b = append(head, statusTooLarge), nil
	case err == nil:
		head = append(head, statusOK)
	case errors.Is(err, ErrNoHandler):
		head, b = append(head, statusNoHandler), nil
	case errors.Is(err, ErrClosed):
		head, b = append(head, statusClosed), nil
	default:
		head, b = append(head, statusError), []byte(err.Error())
	}
	lane := link.Control
	if len(b) > maxControlReply {
		lane = link.Bulk
	}
	_ = n.carry(n.runCtx, to, lane, head, b) // an error is the end of one of the two
}
