package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/coder/websocket"
	"github.com/lxzan/gws"

	"github.com/nines-go/nines/wsfanout"
)

func oursFanout() (*party, error) {
	hub, err := wsfanout.New(wsfanout.Config{
		Authenticate: func(*http.Request) (wsfanout.Identity, error) { return wsfanout.Identity{User: "u"}, nil },
		Authorize:    func(context.Context, wsfanout.Identity, string) error { return nil },
		MaxPerUser:   1 << 20, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hub.Run(ctx) })
	for hub.Check(ctx) != nil {
		time.Sleep(time.Millisecond)
	}
	return &party{
		handler: hub,
		publish: func(data []byte) { _, _ = hub.Publish(ctx, "room", data, nil) },
		joined:  func() int { return int(hub.Stats().Fresh) },
		close:   func() { cancel(); wg.Wait() },
	}, nil
}

// rawFanout is the limit: a goroutine for each socket, prepared frames, all that waits in one write, and nothing else.
func rawFanout() (*party, error) {
	type client struct {
		mu      sync.Mutex
		pending []byte
		wake    chan struct{}
	}
	var mu sync.Mutex
	var all []*client
	serve := func(c net.Conn) {
		cl := &client{wake: make(chan struct{}, 1)}
		mu.Lock()
		all = append(all, cl)
		mu.Unlock()
		var buf []byte
		for range cl.wake {
			cl.mu.Lock()
			buf, cl.pending = cl.pending, buf[:0]
			cl.mu.Unlock()
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}
	return &party{
		handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n")
			go serve(c)
		}),
		publish: func(data []byte) {
			frame := append([]byte{0x81, 126, byte(len(data) >> 8), byte(len(data))}, data...)
			mu.Lock()
			defer mu.Unlock()
			for _, c := range all {
				c.mu.Lock()
				c.pending = append(c.pending, frame...)
				c.mu.Unlock()
				select {
				case c.wake <- struct{}{}:
				default:
				}
			}
		},
		joined: func() int { mu.Lock(); defer mu.Unlock(); return len(all) },
		close:  func() {},
	}, nil
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	mu  sync.Mutex
	all map[*gws.Conn]struct{}
}

func (h *gwsHandler) OnOpen(c *gws.Conn) { h.mu.Lock(); defer h.mu.Unlock(); h.all[c] = struct{}{} }

func gwsFanout() (*party, error) {
	h := &gwsHandler{all: map[*gws.Conn]struct{}{}}
	up := gws.NewUpgrader(h, &gws.ServerOption{})
	return &party{
		handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := up.Upgrade(w, r)
			if err != nil {
				return
			}
			go c.ReadLoop()
		}),
		publish: func(data []byte) {
			b := gws.NewBroadcaster(gws.OpcodeText, data)
			defer b.Close()
			h.mu.Lock()
			defer h.mu.Unlock()
			for c := range h.all {
				_ = b.Broadcast(c)
			}
		},
		joined: func() int { h.mu.Lock(); defer h.mu.Unlock(); return len(h.all) },
		close:  func() {},
	}, nil
}

// coderFanout is the hub that one writes in an afternoon: a channel and a goroutine for each socket.
func coderFanout() (*party, error) {
	var mu sync.Mutex
	all := map[chan []byte]struct{}{}
	return &party{
		handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			ctx := c.CloseRead(context.Background())
			queue := make(chan []byte, 256)
			mu.Lock()
			all[queue] = struct{}{}
			mu.Unlock()
			for b := range queue {
				if c.Write(ctx, websocket.MessageText, b) != nil {
					return
				}
			}
		}),
		publish: func(data []byte) {
			mu.Lock()
			defer mu.Unlock()
			for q := range all {
				q <- data
			}
		},
		joined: func() int { mu.Lock(); defer mu.Unlock(); return len(all) },
		close:  func() {},
	}, nil
}

// centrifugeFanout keeps a history, as without it nothing can be resumed.
func centrifugeFanout() (*party, error) {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelNone})
	if err != nil {
		return nil, err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{UserID: "u"}}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, cb centrifuge.SubscribeCallback) {
			cb(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnableRecovery: true}}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	return &party{
		handler: centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{CheckOrigin: func(*http.Request) bool { return true }}),
		publish: func(data []byte) { _, _ = node.Publish("room", data, centrifuge.WithHistory(1000, time.Minute)) },
		joined:  func() int { return node.Hub().NumSubscribers("room") },
		close:   func() { _ = node.Shutdown(context.Background()) },
	}, nil
}
