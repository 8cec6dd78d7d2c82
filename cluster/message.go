package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Kinds of message envelope: kind, length of topic, topic, for all but post an ID, body. A reply's body starts with a status.
const (
	kindPost    = 1
	kindSend    = 2 // wants kindTaken
	kindTaken   = 3
	kindRequest = 4 // wants kindReply
	kindReply   = 5
)

// Statuses of a reply.
const (
	statusOK        = 0
	statusError     = 1 // body is the text
	statusNoHandler = 2
	statusTooLarge  = 3
	statusClosed    = 4
)

// MaxTopic is how many bytes a topic may have.
const MaxTopic = 255

// envelope is what precedes the body on a link.
func envelope(kind byte, topic string, id uint64) []byte {
	b := make([]byte, 0, 2+len(topic)+binary.MaxVarintLen64+1)
	b = append(b, kind, byte(len(topic)))
	b = append(b, topic...)
	if kind != kindPost {
		b = binary.AppendUvarint(b, id)
	}
	return b
}

type message struct {
	kind  byte
	topic string
	id    uint64
	body  []byte
}

var errEnvelope = errors.New("malformed message envelope")

func openEnvelope(b []byte) (m message, err error) {
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return m, errEnvelope
	}
	m.kind, m.topic, b = b[0], string(b[2:2+int(b[1])]), b[2+int(b[1]):]
	switch m.kind {
	case kindPost:
	case kindSend, kindTaken, kindRequest, kindReply:
		id, n := binary.Uvarint(b)
		if n <= 0 {
			return m, errEnvelope
		}
		m.id, b = id, b[n:]
		if m.kind == kindReply && len(b) == 0 {
			return m, errEnvelope
		}
	default:
		return m, errEnvelope
	}
	m.body = b
	return m, nil
}

// calls is the questions and sends that wait for an answer.
type calls struct {
	mu   sync.Mutex
	next uint64
	wait map[uint64]*call
}

type call struct {
	to     string
	answer chan answer // buffered: 1
}

type answer struct {
	payload []byte
	err     error
}

func newCalls() *calls { return &calls{wait: map[uint64]*call{}} }

func (c *calls) open(to string) (uint64, *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	w := &call{to: to, answer: make(chan answer, 1)}
	c.wait[c.next] = w
	return c.next, w
}

func (c *calls) forget(id uint64) {
	c.mu.Lock()
	delete(c.wait, id)
	c.mu.Unlock()
}

func (c *calls) finish(from string, id uint64, a answer) {
	c.mu.Lock()
	w := c.wait[id]
	if w != nil && w.to == from {
		delete(c.wait, id)
	} else {
		w = nil
	}
	c.mu.Unlock()
	if w != nil {
		w.answer <- a
	}
}

// fail ends all calls to a process, or to everybody when to is empty.
func (c *calls) fail(to string, err error) {
	c.mu.Lock()
	var ended []*call
	for id, w := range c.wait {
		if to == "" || w.to == to {
			ended = append(ended, w)
			delete(c.wait, id)
		}
	}
	c.mu.Unlock()
	for _, w := range ended {
		w.answer <- answer{err: err}
	}
}

// Handle registers fn for a topic. For one sender and topic fn runs once at a time and in order; other topics and senders run beside it. The
// payload is valid until fn returns. What fn returns goes to the asker of Request or Gather, and nowhere when nobody asked. A fn that does not
// keep up makes its senders wait, after a bounded buffer for each sender.
//
// Handle may be called before Run, and after messages have come: a topic without handler holds up to 4 MiB for up to 60 s (all topics
// together 16 MiB), and a request for it is answered ErrNoHandler after 1 s. What is held beyond that is dropped and counted in
// Stats.Unhandled. After stop, and unless Handle is called again, the topic's messages are dropped at once.
// The topic may have MaxTopic bytes; a longer or empty one panics, as does a nil fn. Of several handlers of one topic the newest is in charge.
func (n *Node) Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func()) {
	checkHandle("Handle", topic, fn)
	return n.inbox.handle(topic, fn)
}

// checkHandle panics where a handler could never be called: a programmer's mistake, also where a product has put the topic together from a
// name and another topic.
func checkHandle(method, topic string, fn Handler) {
	if topic == "" || len(topic) > MaxTopic {
		panic("cluster: " + method + ": " + topicError(topic).Error())
	}
	if fn == nil {
		panic("cluster: " + method + ": fn is nil")
	}
}

func topicError(topic string) error {
	return fmt.Errorf("topic %.40q has %d bytes; use 1 to %d (MaxTopic), names that are part of it included", topic, len(topic), MaxTopic)
}

// Send returns nil when the process to has taken the message: its handler will run, unless that process ends first. An error leaves it open
// whether it did, except for ErrNoMember, ErrTooLarge and ErrClosed before anything was sent.
func (n *Node) Send(ctx context.Context, to, topic string, payload []byte) error {
	if err := n.ready(ctx, to, topic, payload); err != nil {
		return wrap("send", to, topic, err)
	}
	if to == n.ID() {
		return wrap("send", to, topic, n.local(ctx, topic, payload, nil))
	}
	_, err := n.ask(ctx, kindSend, to, topic, payload)
	return wrap("send", to, topic, err)
}

// Post queues the message behind all earlier ones for the process to, a member or any other process with a link, and returns; the peer gets
// them in that order, each once, also over reconnections. It is lost only with that process (Fate dead, left, or given up for good). Post
// blocks within ctx while the peer has no credit left, which is 64 MiB for what it has not acknowledged. From three quarters of a megabyte on
// (more where the round trip is long) it lets a peer that keeps acknowledging catch up first, whatever ctx says then. To this node itself: the
// same, without a link.
func (n *Node) Post(ctx context.Context, to, topic string, payload []byte) error {
	if n.postQuick(to, topic, payload, true) {
		return nil
	}
	if err := n.ready(ctx, to, topic, payload); err != nil {
		return wrap("post", to, topic, err)
	}
	if to == n.ID() {
		return wrap("post", to, topic, n.local(ctx, topic, payload, nil))
	}
	return wrap("post", to, topic, n.carry(ctx, to, laneLive, envelope(kindPost, topic, 0), payload))
}

// postQuick is Post where nothing stands in the way.
func (n *Node) postQuick(to, topic string, payload []byte, wait bool) bool {
	m := n.quick.Load()
	if m == nil || topic == "" || len(topic) > MaxTopic || len(payload) > n.cfg.MaxMessage {
		return false
	}
	return m.PostTopic(to, wait, laneLive, kindPost, topic, payload)
}

// TryPost is Post that never blocks: ErrBackpressure.
func (n *Node) TryPost(to, topic string, payload []byte) error {
	if n.postQuick(to, topic, payload, false) {
		return nil
	}
	if err := n.check(to, topic, payload); err != nil {
		return wrap("post", to, topic, err)
	}
	if to == n.ID() {
		return wrap("post", to, topic, n.tryLocal(topic, payload))
	}
	return wrap("post", to, topic, n.tryCarry(to, laneLive, envelope(kindPost, topic, 0), payload))
}

// PostBulk is Post on a lane of its own, for large amounts that must not delay the rest. It has no order against Post.
func (n *Node) PostBulk(ctx context.Context, to, topic string, payload []byte) error {
	if err := n.ready(ctx, to, topic, payload); err != nil {
		return wrap("post", to, topic, err)
	}
	if to == n.ID() {
		return wrap("post", to, topic, n.local(ctx, topic, payload, nil))
	}
	return wrap("post", to, topic, n.carry(ctx, to, laneBulk, envelope(kindPost, topic, 0), payload))
}

// Request returns what the handler on the process to answered. A handler's error comes back as *RemoteError. It ends at once with
// ErrNoMember when that process dies or leaves; whether the handler ran is then unknown. Without a deadline in ctx it waits as long as that
// process may still answer.
func (n *Node) Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error) {
	if err := n.ready(ctx, to, topic, payload); err != nil {
		return nil, wrap("request", to, topic, err)
	}
	if to == n.ID() {
		got := make(chan answer, 1)
		err := n.local(ctx, topic, payload, func(b []byte, err error) { got <- answer{b, remoteError(to, topic, err)} })
		if err != nil {
			return nil, wrap("request", to, topic, err)
		}
		select {
		case a := <-got:
			return a.payload, wrap("request", to, topic, a.err)
		case <-ctx.Done():
			return nil, wrap("request", to, topic, context.Cause(ctx))
		case <-n.life.Done():
			return nil, wrap("request", to, topic, ErrClosed)
		}
	}
	b, err := n.ask(ctx, kindRequest, to, topic, payload)
	return b, wrap("request", to, topic, err)
}

// Broadcast sends to every member of Alive, this node included, and returns nil when each process has taken the message; else *PeersError
// says which have not, as far as known when ctx ends. A member that dies or leaves meanwhile counts as not having taken it.
func (n *Node) Broadcast(ctx context.Context, topic string, payload []byte) error {
	ids, err := n.everyone(ctx)
	if err != nil {
		return fmt.Errorf("cluster: broadcast %q: %w", topic, err)
	}
	var mu sync.Mutex
	failed := map[string]error{}
	n.each(ids, func(id string) {
		if err := n.Send(ctx, id, topic, payload); err != nil {
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

// TryBroadcast posts to every member of Alive, this node included, without waiting. Members without credit do not get it.
func (n *Node) TryBroadcast(topic string, payload []byte) {
	for _, id := range n.Alive() {
		_ = n.TryPost(id, topic, payload)
	}
}

// Reply is one member's answer to Gather.
type Reply struct {
	Payload []byte
	Err     error
}

// Gather asks every member of Alive, this node included, at the same time, and returns what had come when all had answered or ctx ended: one
// Reply per member. Before the first settled view it waits within ctx.
func (n *Node) Gather(ctx context.Context, topic string, payload []byte) map[string]Reply {
	ids, err := n.everyone(ctx)
	if err != nil {
		return map[string]Reply{}
	}
	var mu sync.Mutex
	replies := make(map[string]Reply, len(ids))
	n.each(ids, func(id string) {
		b, err := n.Request(ctx, id, topic, payload)
		mu.Lock()
		replies[id] = Reply{Payload: b, Err: err}
		mu.Unlock()
	})
	return replies
}

func (n *Node) each(ids []string, fn func(id string)) {
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { fn(id) })
	}
	wg.Wait()
}

// everyone is Alive, once there is one.
func (n *Node) everyone(ctx context.Context) ([]string, error) {
	select {
	case <-n.settled:
	case <-n.life.Stopping():
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if n.life.Closed() && n.Alive() == nil {
		return nil, ErrClosed
	}
	return n.Alive(), nil
}

// check refuses what can never be sent.
func (n *Node) check(to, topic string, payload []byte) error {
	switch {
	case topic == "" || len(topic) > MaxTopic:
		return topicError(topic)
	case len(payload) > n.cfg.MaxMessage:
		return ErrTooLarge
	}
	select {
	case <-n.running:
	default:
		if n.life.Closed() {
			return ErrClosed
		}
		return ErrNoMember
	}
	select {
	case <-n.ended:
		return ErrClosed
	default:
	}
	if to == n.ID() {
		return nil
	}
	switch n.Fate(to) {
	case FateDead, FateLeft:
		return ErrNoMember
	}
	return nil
}

// ready is check, after Run has begun.
func (n *Node) ready(ctx context.Context, to, topic string, payload []byte) error {
	if len(payload) > n.cfg.MaxMessage {
		return ErrTooLarge
	}
	select {
	case <-n.running:
	default:
		select {
		case <-n.running:
		case <-n.ended:
			return ErrClosed
		case <-n.life.Done():
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return n.check(to, topic, payload)
}

// ask sends and waits for the answer.
func (n *Node) ask(ctx context.Context, kind byte, to, topic string, payload []byte) ([]byte, error) {
	id, c := n.calls.open(to)
	defer n.calls.forget(id)
	if err := n.carry(ctx, to, laneLive, envelope(kind, topic, id), payload); err != nil {
		return nil, err
	}
	switch n.Fate(to) { // it may have ended before the call was open
	case FateDead, FateLeft:
		n.calls.finish(to, id, answer{err: ErrNoMember})
	}
	select {
	case a := <-c.answer:
		return a.payload, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-n.ended:
		return nil, ErrClosed
	}
}

// local delivers to this node itself: in order, not on the caller's goroutine.
func (n *Node) local(ctx context.Context, topic string, payload []byte, reply func([]byte, error)) error {
	if err := n.loopback.take(ctx, cost(topic, payload)); err != nil {
		return err
	}
	n.loop(topic, payload, reply)
	return nil
}

func (n *Node) tryLocal(topic string, payload []byte) error {
	if !n.loopback.try(cost(topic, payload)) {
		return ErrBackpressure
	}
	n.loop(topic, payload, nil)
	return nil
}

func (n *Node) loop(topic string, payload []byte, reply func([]byte, error)) {
	n.inbox.deliver(topic, delivery{from: n.ID(), payload: payload, reply: reply, credit: n.loopback})
}

func replied(from string, m message) answer {
	body := append([]byte(nil), m.body[1:]...)
	switch m.body[0] {
	case statusOK:
		return answer{payload: body}
	case statusNoHandler:
		return answer{err: ErrNoHandler}
	case statusTooLarge:
		return answer{err: fmt.Errorf("the reply: %w", ErrTooLarge)}
	case statusClosed:
		return answer{err: ErrNoMember}
	}
	return answer{err: &RemoteError{From: from, Text: string(body)}}
}

// remoteError makes a local handler's error look like a remote one's.
func remoteError(from, topic string, err error) error {
	if err == nil || errors.Is(err, ErrNoHandler) || errors.Is(err, ErrClosed) {
		return err
	}
	return &RemoteError{From: from, Topic: topic, Text: err.Error()}
}

func wrap(verb, to, topic string, err error) error {
	if err == nil {
		return nil
	}
	var re *RemoteError
	if errors.As(err, &re) {
		re.Topic = topic
		return re
	}
	return fmt.Errorf("cluster: %s %q to %s: %w", verb, topic, to, err)
}
