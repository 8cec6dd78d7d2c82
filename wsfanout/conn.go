package wsfanout

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/sock"
)

// Codes of closed sockets beside those of the WebSocket standard. A client comes back after all but closeUnauthorized, closeReplaced and
// closeRevoked.
const (
	closeUnsupported  = 1003
	closePolicy       = 1008
	closeInternal     = 1011
	closeRestart      = 1012
	closeTryLater     = 1013
	closeUnauthorized = 4001
	closeRevoked      = 4003
	closeReplaced     = 4009
)

// Conn is one socket.
type Conn struct {
	hub    *Hub
	id     string
	who    Identity
	sock   *sock.Socket
	key    string        // who.User and the client's own ID; "" when it gave none
	number uint64        // the client's count of its connections
	since  time.Duration // when it began to authenticate

	// guarded by hub.exec
	subs     map[string]*sub
	gone     bool
	closed   bool // as behind
	waking   bool // the socket tells when it has room
	held     bool // nothing is shown before the user has been authorized again
	released bool // just now: what it missed is not its own fault

	mu      sync.Mutex
	allowed map[string]struct{} // topics that the server has subscribed
}

// ID names the socket, for PublishOptions.ExceptConns. The client knows it from the hello frame.
func (c *Conn) ID() string { return c.id }

// Identity is what Authenticate returned.
func (c *Conn) Identity() Identity { return c.who }

// Subscribe subscribes the socket to topics, without asking Authorize. It may be called at any time; topics that it is subscribed to already go
// on as they are. A client that comes back resumes them.
func (c *Conn) Subscribe(ctx context.Context, topics ...string) error {
	if c.hub.closed() {
		return ErrClosed
	}
	for _, t := range topics {
		if err := checkTopic(t); err != nil {
			return fmt.Errorf("wsfanout: subscribe: %w", err)
		}
	}
	c.mu.Lock()
	for _, t := range topics {
		c.allowed[t] = struct{}{}
	}
	c.mu.Unlock()
	opts := make([]TopicOptions, len(topics))
	for i, t := range topics {
		opts[i] = c.hub.optionsOf(t)
	}
	var err error
	c.hub.with(func() {
		for i, t := range topics {
			if _, ok := c.subs[t]; !ok && err == nil {
				err = c.hub.attachLocked(c, t, opts[i], cursor.Cursor{}, 0)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("wsfanout: subscribe: %w: at most %d", err, c.hub.cfg.MaxTopics)
	}
	return nil
}

// visit is a socket from the first word of its handshake to its end.
type visit struct {
	hub    *Hub
	addr   *string // counted for MaxPerAddress
	user   *string // counted for MaxPerUser
	who    Identity
	since  time.Duration // when it began to authenticate
	client string
	number uint64
	sock   *sock.Socket
}

func (v *visit) end() {
	if v.user != nil {
		v.hub.places.leave("user", *v.user)
	}
	if v.addr != nil {
		v.hub.places.leave("address", *v.addr)
	}
	v.hub.open.Add(-1)
	v.hub.handlers.Done()
}

func (v *visit) takeUser() bool {
	user := v.who.User
	if !v.hub.places.take("user", user, v.hub.cfg.MaxPerUser) {
		return false
	}
	v.user = &user
	return true
}

// ServeHTTP is the WebSocket endpoint. It returns when the handshake is done: the socket lives on by itself, without the buffers and the stack of the
// request.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.enter() {
		h.refuse(w, "not serving")
		return
	}
	v := &visit{hub: h, since: h.now()}
	done := v.end
	defer func() { done() }()
	if h.open.Add(1) > int64(h.cfg.MaxConns) {
		h.refuse(w, "too many connections")
		return
	}
	if h.cfg.MaxPerAddress > 0 {
		addr := h.cfg.RemoteAddr(r)
		if !h.places.take("address", addr, h.cfg.MaxPerAddress) {
			h.refuse(w, "too many connections from this address")
			return
		}
		v.addr = &addr
	}
	if h.cfg.Authenticate != nil {
		var err error
		if v.who, err = h.cfg.Authenticate(r); err != nil {
			code := http.StatusUnauthorized
			if errors.Is(err, ErrForbidden) {
				code = http.StatusForbidden
			}
			http.Error(w, http.StatusText(code), code)
			return
		}
		if !v.takeUser() {
			h.refuse(w, "too many connections of this user")
			return
		}
	}
	q := r.URL.Query()
	var err error
	v.number, err = strconv.ParseUint(q.Get("count"), 10, 53)
	if v.client = strings.Clone(q.Get("client")); v.client != "" && (err != nil || len(v.client) > 64) {
		http.Error(w, "client or count is malformed", http.StatusBadRequest)
		return
	}
	if v.sock, err = h.pool.Accept(w, r, h.cfg.Origins); err != nil {
		return // refused, and answered
	}
	ctx := context.WithoutCancel(r.Context())
	done = func() {}
	h.handlers.Go(func() {
		defer v.end()
		v.serve(ctx)
	})
}

// serve is the socket's life after the handshake.
func (v *visit) serve(ctx context.Context) {
	h, s := v.hub, v.sock
	defer s.Finish()
	defer func() { // a callback of the application, as net/http has it
		if p := recover(); p != nil {
			h.log.Error("panic while serving a socket", "panic", p, "stack", string(debug.Stack()))
			s.Close(closeInternal, "internal error")
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.runContext(), cancel)()
	if h.cfg.Authenticate == nil {
		var err error
		if v.who, err = h.firstFrame(ctx, s); err != nil {
			s.Close(closeUnauthorized, "not authenticated")
			return
		}
		if !v.takeUser() {
			h.count.refused.Add(1)
			s.Close(closeTryLater, "too many connections of this user")
			return
		}
	}
	c := &Conn{hub: h, id: rand.Text(), who: v.who, sock: s, number: v.number, since: v.since, subs: map[string]*sub{}, allowed: map[string]struct{}{}}
	if v.client != "" {
		c.key = clientKey(v.who.User, v.client)
	}
	if !h.join(c) {
		return
	}
	defer h.leave(c)
	h.greetSocket(c)
	if h.cfg.OnConnect != nil {
		if err := h.cfg.OnConnect(ctx, c); err != nil {
			h.logRefusal("socket refused by OnConnect", err)
			s.Close(closePolicy, "refused")
			return
		}
	}
	h.read(ctx, c)
}

func (h *Hub) runContext() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ctx
}

// enter counts a handler while the hub accepts.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.accept.Load() {
		return false
	}
	h.handlers.Add(1)
	return true
}

func (h *Hub) refuse(w http.ResponseWriter, why string) {
	h.count.refused.Add(1)
	w.Header().Set("Retry-After", strconv.Itoa(retryMin+mrand.IntN(retryMin))) // not all at once
	http.Error(w, why, http.StatusServiceUnavailable)
}

func (h *Hub) logRefusal(msg string, err error) {
	if !errors.Is(err, ErrForbidden) {
		h.log.Warn(msg, "error", err)
	}
}

func (h *Hub) firstFrame(ctx context.Context, s *sock.Socket) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	s.SetReadDeadline(deadline)
	b, _, err := s.Read()
	if err != nil {
		return Identity{}, err
	}
	s.SetReadDeadline(time.Time{})
	return h.cfg.AuthenticateFrame(ctx, b)
}

// join registers the socket. It refuses one whose client has a newer one.
func (h *Hub) join(c *Conn) bool {
	var old *Conn
	stale, revoked := false, false
	h.with(func() {
		if !h.accept.Load() {
			stale = true
			return
		}
		h.mu.Lock()
		revoked = h.revoked.hits(c.who, c.since)
		h.mu.Unlock()
		if revoked {
			return
		}
		if c.key != "" {
			if v, ok := h.takeover.Load(c.key); ok {
				if old = v.(*Conn); old.number >= c.number {
					stale, old = true, nil
					return
				}
			}
			h.takeover.Store(c.key, c)
		}
		h.conns[c] = struct{}{}
		if h.users[c.who.User] == nil {
			h.users[c.who.User] = map[*Conn]struct{}{}
		}
		h.users[c.who.User][c] = struct{}{}
	})
	if revoked { // between being authenticated and now
		c.sock.Close(closeRevoked, "revoked")
		return false
	}
	if stale {
		if h.accept.Load() {
			c.sock.Close(closeReplaced, "a newer connection of this client exists")
		} else {
			c.sock.Close(closeRestart, "restart: reconnect elsewhere")
		}
		return false
	}
	if old != nil {
		old.sock.Close(closeReplaced, "replaced by a newer connection of this client")
	}
	if c.key != "" && c.number > 1 {
		h.tell(&control{Takeover: &takeover{Key: c.key, Number: c.number}})
	}
	return true
}

func (h *Hub) leave(c *Conn) {
	h.with(func() {
		c.gone = true
		delete(h.conns, c)
		if delete(h.users[c.who.User], c); len(h.users[c.who.User]) == 0 {
			delete(h.users, c.who.User)
		}
		if c.key != "" {
			h.takeover.CompareAndDelete(c.key, c)
		}
		for _, s := range c.subs {
			h.detachLocked(s)
		}
	})
}

func (h *Hub) greetSocket(c *Conn) {
	c.sock.Send(sock.Text(frame.Marshal(frame.Server{
		Type: frame.Hello, Conn: c.id, Node: h.cfg.Node, Version: h.cfg.Version, Config: h.cfg.ConfigVersion,
	})))
}

// read takes the client's frames until the socket ends.
func (h *Hub) read(ctx context.Context, c *Conn) {
	frames := newBucket(h.cfg.MaxPerSecond)
	volume := newBucket(h.cfg.MaxBytesPerSecond)
	for {
		b, text, err := c.sock.Read()
		if err != nil {
			return
		}
		now := time.Now()
		var f frame.Client
		switch {
		case !text:
			c.sock.Close(closeUnsupported, "binary frames mean nothing here")
			return
		case !frames.take(1, now):
			c.sock.Close(closePolicy, "too many messages")
			return
		case !volume.take(len(b), now):
			c.sock.Close(closePolicy, "too many bytes")
			return
		case !isObject(b) || json.Unmarshal(b, &f) != nil:
			c.sock.Close(closePolicy, "a frame is not a JSON object of this protocol")
			return
		}
		switch f.Type {
		case frame.Subscribe:
			h.onSubscribe(ctx, c, &f)
		case frame.Unsubscribe:
			h.with(func() {
				for _, t := range f.Names {
					if s := c.subs[t]; s != nil {
						h.detachLocked(s)
					}
				}
			})
		case frame.Publish:
			h.onPublish(ctx, c, &f)
		default: // of a newer version
			c.sock.Send(sock.Text(frame.Marshal(frame.Server{Type: frame.Error, Ref: f.Ref, Code: frame.UnknownType, Error: "unknown type of frame"})))
		}
		c.waitForRoom(ctx)
	}
}

// waitForRoom reads on only when what was answered has gone out: who asks without reading gets no further than its own kernel's buffers.
func (c *Conn) waitForRoom(ctx context.Context) {
	if !c.sock.Full() {
		return
	}
	room := make(chan struct{})
	c.sock.WhenDrained(func() { close(room) })
	select {
	case <-room:
	case <-ctx.Done():
	}
}

// isObject reports whether b can be a JSON object; null would pass for one.
func isObject(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}

func (h *Hub) onSubscribe(ctx context.Context, c *Conn, f *frame.Client) {
	topics := make([]string, 0, len(f.Topics))
	for t := range f.Topics {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	type wanted struct {
		topic string
		opts  TopicOptions
		at    cursor.Cursor
	}
	deny := func(topic, code, why string) {
		c.sock.Send(sock.Text(frame.Marshal(frame.Server{Type: frame.Denied, Topic: topic, Ref: f.Ref, Code: code, Error: why})))
	}
	var good []wanted
	for _, t := range topics {
		if err := checkTopic(t); err != nil {
			deny(t, frame.BadTopic, "malformed topic")
		} else if at, err := cursor.Parse(f.Topics[t]); err != nil {
			deny(t, frame.BadCursor, "malformed cursor")
		} else if err := h.authorize(ctx, c, t); err != nil {
			code, text := public(err)
			deny(t, code, text)
		} else {
			good = append(good, wanted{t, h.optionsOf(t), at})
		}
	}
	h.with(func() {
		for _, w := range good {
			if err := h.attachLocked(c, w.topic, w.opts, w.at, f.Ref); err != nil {
				deny(w.topic, frame.TooManyTopics, fmt.Sprintf("too many topics: at most %d", h.cfg.MaxTopics))
			}
		}
	})
}

func (h *Hub) authorize(ctx context.Context, c *Conn, topic string) error {
	c.mu.Lock()
	_, ok := c.allowed[topic]
	c.mu.Unlock()
	switch {
	case ok:
		return nil
	case h.cfg.Authorize == nil:
		return ErrForbidden
	}
	err := h.cfg.Authorize(ctx, c.who, topic)
	if err != nil {
		h.logRefusal("subscription not authorized", err)
	}
	return err
}

func (h *Hub) onPublish(ctx context.Context, c *Conn, f *frame.Client) {
	done := frame.Server{Type: frame.Done, Topic: f.Topic, Ref: f.Ref}
	data, err := frame.Data(f.Data, f.Text, f.Base64)
	switch {
	case h.cfg.OnMessage == nil:
		done.Code, done.Error = public(ErrForbidden)
	case checkTopic(f.Topic) != nil:
		done.Code, done.Error = frame.BadTopic, "malformed topic"
	case err != nil || len(f.Data) == 0:
		done.Code, done.Error = frame.BadData, "malformed data"
	default:
		if err := h.cfg.OnMessage(ctx, c, f.Topic, data); err != nil {
			h.logRefusal("message of a client failed", err)
			done.Code, done.Error = public(err)
		}
	}
	if f.Ref != 0 {
		c.sock.Send(sock.Text(frame.Marshal(done)))
	}
}

// public is what a client may know of an error.
func public(err error) (code, text string) {
	if errors.Is(err, ErrForbidden) {
		return frame.Forbidden, err.Error()
	}
	return frame.Failed, "failed"
}
