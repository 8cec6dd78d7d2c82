package wsfanout

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/sock"
)

// Codes of closed sockets beside those of the WebSocket standard. A client comes back after all but closeUnauthorized, closeReplaced and
// closeRevoked.
const (
	closePolicy       = 1008
	closeRestart      = 1012
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
	key    string // who.User and the client's own ID; "" when it gave none
	number uint64 // the client's count of its connections

	// guarded by hub.exec
	subs   map[string]*sub
	gone   bool
	closed bool // as behind
	waking bool // the socket tells when it has room
	held   bool // nothing is shown before the user has been authorized again

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

// ServeHTTP is the WebSocket endpoint.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.enter() {
		h.refuse(w, "not serving")
		return
	}
	defer h.handlers.Done()
	defer h.open.Add(-1)
	if h.open.Add(1) > int64(h.cfg.MaxConns) {
		h.refuse(w, "too many connections")
		return
	}
	var who Identity
	if h.cfg.Authenticate != nil {
		var err error
		if who, err = h.cfg.Authenticate(r); err != nil {
			code := http.StatusUnauthorized
			if errors.Is(err, ErrForbidden) {
				code = http.StatusForbidden
			}
			http.Error(w, http.StatusText(code), code)
			return
		}
		if h.full(who.User) {
			h.refuse(w, "too many connections of this user")
			return
		}
	}
	q := r.URL.Query()
	clientID := q.Get("client")
	number, err := strconv.ParseUint(q.Get("count"), 10, 53)
	if clientID != "" && (err != nil || len(clientID) > 64) {
		http.Error(w, "client or count is malformed", http.StatusBadRequest)
		return
	}
	s, err := h.pool.Accept(w, r, h.cfg.Origins)
	if err != nil {
		return // refused, and answered
	}
	defer s.Finish()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(h.runContext(), cancel)()
	if h.cfg.Authenticate == nil {
		if who, err = h.firstFrame(ctx, s); err != nil {
			s.Close(closeUnauthorized, "not authenticated")
			return
		}
		if h.full(who.User) {
			h.count.refused.Add(1)
			s.Close(1013, "too many connections of this user")
			return
		}
	}
	c := &Conn{hub: h, id: rand.Text(), who: who, sock: s, number: number, subs: map[string]*sub{}, allowed: map[string]struct{}{}}
	if clientID != "" {
		c.key = clientKey(who.User, clientID)
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
	w.Header().Set("Retry-After", retryAfter)
	http.Error(w, why, http.StatusServiceUnavailable)
}

func (h *Hub) full(user string) (full bool) {
	h.with(func() { full = len(h.users[user]) >= h.cfg.MaxPerUser })
	return full
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
	stale := false
	h.with(func() {
		if !h.accept.Load() {
			stale = true
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
	rate := float64(h.cfg.MaxPerSecond)
	tokens, last := 5*rate, time.Now()
	for {
		b, _, err := c.sock.Read()
		if err != nil {
			return
		}
		now := time.Now()
		tokens = min(5*rate, tokens+now.Sub(last).Seconds()*rate) - 1
		if last = now; tokens < 0 {
			c.sock.Close(closePolicy, "too many messages")
			return
		}
		var f frame.Client
		if err := json.Unmarshal(b, &f); err != nil {
			c.sock.Close(closePolicy, "a frame is not a JSON object of this protocol")
			return
		}
		switch f.Type {
		case frame.Subscribe:
			err = h.onSubscribe(ctx, c, &f)
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
		}
		if err != nil {
			c.sock.Close(closePolicy, err.Error())
			return
		}
	}
}

func (h *Hub) onSubscribe(ctx context.Context, c *Conn, f *frame.Client) error {
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
	var good []wanted
	for _, t := range topics {
		err := checkTopic(t)
		var at cursor.Cursor
		if err == nil {
			at, err = cursor.Parse(f.Topics[t])
		}
		if err == nil {
			err = h.authorize(ctx, c, t)
		}
		if err != nil {
			c.sock.Send(sock.Text(frame.Marshal(frame.Server{Type: frame.Denied, Topic: t, Ref: f.Ref, Error: publicText(err)})))
			continue
		}
		good = append(good, wanted{t, h.optionsOf(t), at})
	}
	var err error
	h.with(func() {
		for _, w := range good {
			if err == nil {
				err = h.attachLocked(c, w.topic, w.opts, w.at, f.Ref)
			}
		}
	})
	return err
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
	err := error(ErrForbidden)
	if h.cfg.OnMessage != nil {
		var data []byte
		if err = checkTopic(f.Topic); err == nil {
			data, err = frame.Data(f.Data, f.Text, f.Base64)
		}
		if err == nil {
			if err = h.cfg.OnMessage(ctx, c, f.Topic, data); err != nil {
				h.logRefusal("message of a client failed", err)
			}
		}
	}
	if f.Ref != 0 {
		done := frame.Server{Type: frame.Done, Topic: f.Topic, Ref: f.Ref}
		if err != nil {
			done.Error = publicText(err)
		}
		c.sock.Send(sock.Text(frame.Marshal(done)))
	}
}

// publicText is what a client may know of an error.
func publicText(err error) string {
	if errors.Is(err, ErrForbidden) {
		return err.Error()
	}
	return "failed"
}
