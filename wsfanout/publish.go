package wsfanout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/nines-go/nines/wsfanout/internal/home"
)

// Position is where in a topic a message is.
type Position struct {
	Epoch  string // who counts: "2.<node ID>"
	Offset uint64 // 0 for an ephemeral message
	Copies int    // 1 or 2: on how many nodes the message was when it was acknowledged
}

// Message is one message of a topic.
type Message struct {
	ID       string
	Topic    string
	Position Position
	Data     []byte
}

// PublishOptions for one publish. The zero value is a durable message to everyone.
type PublishOptions struct {
	// Ephemeral messages have no position and are on no second node. They are dropped where they cannot be delivered at once.
	Ephemeral bool
	// ID makes retries safe: within 5 minutes the same ID appears once in its topic. It reaches clients, and OnGap as after: take the key of
	// the row in the database. Default: a random one.
	ID string
	// ConflateKey says that of several messages with the same key only the newest matters: subscribers that are behind in a topic with Conflate get
	// only that. Default: every one matters.
	ConflateKey string
	// ExceptUsers and ExceptConns (Conn.ID) are not shown the message.
	ExceptUsers, ExceptConns []string
}

type ack struct {
	pos Position
	err error
}

// Publish delivers data to all subscribers of the topic on all nodes and returns when the message has its place: on two nodes, or on one that is
// alone, as Position.Copies says. data may be changed afterwards. When ctx ends first the error wraps ErrUncertain and ctx's.
func (h *Hub) Publish(ctx context.Context, topic string, data []byte, opts *PublishOptions) (Position, error) {
	var o PublishOptions
	if opts != nil {
		o = *opts
	}
	if h.closed() {
		return Position{}, ErrClosed
	}
	if err := checkTopic(topic); err != nil {
		return Position{}, fmt.Errorf("wsfanout: publish: %w", err)
	}
	if len(data) > h.cfg.MaxMessage {
		return Position{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), h.cfg.MaxMessage)
	}
	if len(o.ID) > maxIDLen || !utf8.ValidString(o.ID) {
		return Position{}, fmt.Errorf("wsfanout: publish: ID %q is not UTF-8 of at most %d bytes", o.ID, maxIDLen)
	}
	if o.ID == "" {
		o.ID = rand.Text()
	}
	if err := ctx.Err(); err != nil {
		return Position{}, err
	}
	e := envelope{exceptUsers: o.ExceptUsers, exceptConns: o.ExceptConns, conflate: o.ConflateKey, data: data}
	raw := e.encode()
	if len(raw) > h.cfg.MaxMessage+64<<10 {
		return Position{}, fmt.Errorf("%w: %d bytes of ExceptUsers and ExceptConns", ErrTooLarge, len(raw)-len(data))
	}

	select {
	case <-h.ready:
	case <-h.life.Done():
		return Position{}, ErrClosed
	case <-ctx.Done():
		return Position{}, fmt.Errorf("wsfanout: publish: hub does not run: %w", context.Cause(ctx))
	}
	h.holdBack(ctx, topic)
	done := make(chan ack, 1)
	var handle home.Handle
	var err error
	h.input(func() {
		if h.ended {
			err = ErrClosed
			return
		}
		if handle, err = h.node.Publish(h.now(), home.Publish{Topic: topic, ID: o.ID, Data: raw, Ephemeral: o.Ephemeral}); err == nil {
			h.waiting[handle] = done
		}
	})
	if errors.Is(err, ErrClosed) {
		return Position{}, err
	}
	if err != nil {
		return Position{}, fmt.Errorf("wsfanout: publish: %w", err)
	}
	h.count.published.Add(1)
	select {
	case a := <-done:
		return a.pos, a.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-h.life.Done():
		err = ErrClosed
	}
	select {
	case a := <-done: // both: the acknowledgement is worth more
		return a.pos, a.err
	default:
	}
	h.input(func() {
		delete(h.waiting, handle)
		h.node.Cancel(handle)
	})
	return Position{}, fmt.Errorf("%w: %w", ErrUncertain, err)
}

// ackLocked ends a publish.
func (h *Hub) ackLocked(a *home.Ack) {
	done := h.waiting[a.Handle]
	delete(h.waiting, a.Handle)
	if done == nil {
		return
	}
	r := ack{pos: Position{Epoch: a.At.Epoch.String(), Offset: a.At.Offset, Copies: a.Copies}}
	switch {
	case a.Err == nil:
		h.count.acked.Add(1)
	case errors.Is(a.Err, home.ErrNoReplica):
		r = ack{err: ErrNoReplica}
	default:
		r = ack{err: ErrUncertain}
	}
	done <- r // has room: one answer a handle
}

func checkTopic(topic string) error {
	if topic == "" || len(topic) > maxTopicLen || !utf8.ValidString(topic) {
		return fmt.Errorf("topic %q is not UTF-8 of 1 to %d bytes", topic, maxTopicLen)
	}
	return nil
}
