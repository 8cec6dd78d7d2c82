package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"github.com/nines-go/nines/wsfanout/internal/frame"
)

// take handles one frame. Only the client's goroutine calls it.
func (c *Client) take(ctx context.Context, ws *websocket.Conn, b []byte, greeted *bool, n uint64) (retry time.Duration, err error) {
	var f frame.Server
	if err := json.Unmarshal(b, &f); err != nil {
		return 0, fmt.Errorf("client: frame of the hub: %w", err)
	}
	switch f.Type {
	case frame.Hello:
		*greeted = true
		return 0, c.hello(ctx, ws, &f, n)
	case frame.Bye:
		return time.Duration(f.Retry) * time.Millisecond, nil
	case frame.Done:
		c.mu.Lock()
		done := c.pending[f.Ref]
		delete(c.pending, f.Ref)
		c.mu.Unlock()
		if done != nil && f.Error != "" {
			done <- fmt.Errorf("client: publish: %s", f.Error)
		} else if done != nil {
			done <- nil
		}
	case frame.Denied:
		c.mu.Lock()
		t := c.topics[f.Topic]
		mine := t != nil && t.ref == f.Ref
		if mine {
			delete(c.topics, f.Topic)
		}
		c.mu.Unlock()
		if mine && c.cfg.OnDenied != nil {
			c.cfg.OnDenied(f.Topic, f.Error)
		}
	case frame.Presence:
		if c.cfg.OnPresence != nil {
			c.cfg.OnPresence(Presence{Topic: f.Topic, Full: f.Full, Users: f.Users, Join: f.Join, Leave: f.Leave, Count: f.Count})
		}
	case frame.Subscribed:
		return 0, c.subscribed(&f)
	case frame.Message, frame.Skip, frame.Gap, frame.Fill, frame.Ephemeral:
		return 0, c.record(ctx, ws, &f)
	}
	return 0, nil // ping, and what newer hubs say
}

func (c *Client) hello(ctx context.Context, ws *websocket.Conn, f *frame.Server, n uint64) error {
	c.count.connects.Add(1)
	c.mu.Lock()
	c.ws, c.err = ws, nil
	names := make([]string, 0, len(c.topics))
	for name := range c.topics {
		names = append(names, name)
	}
	frames := c.subscribeLocked(names...)
	c.mu.Unlock()
	if c.cfg.OnHello != nil {
		c.cfg.OnHello(Hello{Conn: f.Conn, Node: f.Node, Version: f.Version, Config: f.Config, Count: int(n)})
	}
	for _, b := range frames {
		if err := c.write(ctx, ws, b); err != nil {
			return err
		}
	}
	c.state(Connected)
	select {
	case c.first <- nil:
	default:
	}
	return nil
}

// subscribed begins a topic on this connection. An answer to anything but the last request is of no meaning any more.
func (c *Client) subscribed(f *frame.Server) error {
	at, err := f.Position()
	if err != nil {
		return err
	}
	c.mu.Lock()
	t := c.topics[f.Topic]
	switch {
	case f.Ref != 0 && (t == nil || t.ref != f.Ref), f.Ref == 0 && t != nil && (t.ref != 0 || t.live):
		c.mu.Unlock()
		return nil
	case t == nil: // the hub subscribed it
		t = &topic{}
		c.topics[f.Topic] = t
	case f.Ref == 0 && !t.cur.IsZero():
		// The hub subscribed a topic that this client already knows: what it missed comes with the answer to its own request.
		c.mu.Unlock()
		return nil
	}
	t.ref, t.live = 0, true
	t.cur.Start(at)
	t.gapped = t.gapped || f.Kind != frame.Fresh && f.Kind != frame.Resumed
	c.mu.Unlock()
	switch f.Kind {
	case frame.Fresh:
		c.count.fresh.Add(1)
	case frame.Resumed:
		c.count.resumed.Add(1)
	default:
		c.gap(f)
	}
	return nil
}

func (c *Client) gap(f *frame.Server) {
	c.count.gaps.Add(1)
	if c.cfg.OnGap != nil {
		c.cfg.OnGap(Gap{Topic: f.Topic, Reason: f.Reason, After: f.After, Epoch: f.Epoch, Offset: f.Offset, Filled: f.Filled})
	}
}

// record shows what the cursor does not know yet.
func (c *Client) record(ctx context.Context, ws *websocket.Conn, f *frame.Server) error {
	at, err := f.Position()
	if err != nil {
		return err
	}
	data, err := frame.Data(f.Data, f.Text, f.Base64)
	if err != nil {
		return err
	}
	c.mu.Lock()
	t := c.topics[f.Topic]
	if t == nil || !t.live {
		c.mu.Unlock()
		c.count.ignored.Add(1)
		return nil
	}
	show := true
	var resume [][]byte
	switch {
	case f.Type == frame.Skip && f.N > 1 && t.cur.Pos.Offset+uint64(f.N) == at.Offset: // the last of N records that are not shown
		t.cur.Pos.Offset = at.Offset - 1
		_, _ = t.cur.Take(at, true, "")
		show = false
	case f.Type == frame.Message, f.Type == frame.Skip, f.Type == frame.Gap && f.N == 1:
		if show, err = t.cur.Take(at, f.Type != frame.Message, f.ID); err != nil {
			show, resume = false, c.subscribeLocked(f.Topic)
		}
	case f.Type == frame.Gap:
		t.cur.Start(at)
	case f.Type == frame.Fill && f.ID != "":
		t.cur.Last = f.ID
	}
	switch f.Type {
	case frame.Gap:
		t.gapped = true
	case frame.Message, frame.Fill:
		show = show && !t.again(f.ID)
		if show {
			t.add(f.ID)
		}
	}
	c.mu.Unlock()
	if resume != nil {
		c.count.holes.Add(1)
		for _, b := range resume {
			if err := c.write(ctx, ws, b); err != nil {
				return errors.Join(errors.New("client: resume after a hole"), err)
			}
		}
		return nil
	}
	if f.Type == frame.Skip {
		return nil
	}
	if !show {
		c.count.duplicates.Add(1)
		return nil
	}
	switch f.Type {
	case frame.Gap:
		c.gap(f)
		return nil
	case frame.Message:
		c.count.messages.Add(1)
	case frame.Fill:
		c.count.filled.Add(1)
	case frame.Ephemeral:
		c.count.ephemeral.Add(1)
	}
	if c.cfg.OnMessage != nil {
		c.cfg.OnMessage(Message{Topic: f.Topic, ID: f.ID, Epoch: f.Epoch, Offset: f.Offset, Data: data,
			Ephemeral: f.Type == frame.Ephemeral, Filled: f.Type == frame.Fill})
	}
	return nil
}
