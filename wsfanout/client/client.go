// Package client receives topics from hubs of package wsfanout, over as many connections as it takes.
//
// A Client keeps for each topic where it stands. When its connection ends it goes to another node, at once the first time, and shows where it
// stands; the hub answers for each topic that nothing was missed and sends what came meanwhile, or that something was: OnGap. Messages that
// come twice on the way are shown once.
//
// What Cursors returns can be stored, and given to another Client later: it goes on from there if the hubs still hold what followed (5 minutes
// or 1 MiB a topic), else OnGap says so.
package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/frame"
)

var (
	// ErrClosed is returned by methods after Close, and after a hub has refused for good.
	ErrClosed = errors.New("client: closed")
	// ErrRefused is wrapped by what Dial and Err return when a hub said that coming back is of no use.
	ErrRefused = errors.New("client: refused")
	// ErrUncertain is returned by Publish when the connection ended before the answer: the message may or may not have been taken.
	ErrUncertain = errors.New("client: publish not answered")
)

// Stats are counters since Dial.
type Stats struct {
	Connects   uint64 // greetings of hubs
	Frames     uint64
	Messages   uint64 // shown, with a position
	Filled     uint64 // shown after a gap, from the application
	Ephemeral  uint64
	Duplicates uint64 // come again and not shown
	Ignored    uint64 // of a subscription that was being renewed; they come again
	Holes      uint64 // messages that did not follow, after each of which the topic was resumed
	Gaps       uint64 // told to OnGap
	Fresh      uint64
	Resumed    uint64
}

// Client is safe for concurrent use.
type Client struct {
	cfg    Config
	id     string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	first  chan error // nil at the first hello, or why there was none
	count  struct {
		connects, frames, messages, filled, ephemeral, duplicates, ignored, holes, gaps, fresh, resumed atomic.Uint64
	}

	mu      sync.Mutex
	ws      *websocket.Conn // greeted; nil while there is none
	topics  map[string]*topic
	ref     uint64
	pending map[uint64]chan error
	err     error
	closed  bool
}

type topic struct {
	cur  cursor.Cursor
	ref  uint64 // of the subscription that is not answered yet; 0: none
	live bool   // answered on this connection
	recent
}

// Dial connects and returns when a hub has greeted. It goes from URL to URL and waits in between as later, until ctx ends. ctx is not used
// afterwards.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.fill()
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{
		cfg: cfg, id: rand.Text(), cancel: cancel, first: make(chan error, 1),
		topics: map[string]*topic{}, pending: map[uint64]chan error{},
	}
	for _, t := range cfg.Topics {
		c.topics[t] = &topic{}
	}
	for t, s := range cfg.Cursors {
		cur, _ := cursor.Parse(s) // validated
		c.topics[t] = &topic{cur: cur}
	}
	c.wg.Go(func() { c.run(run) })
	select {
	case err := <-c.first:
		if err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		err := context.Cause(ctx)
		c.mu.Lock()
		if c.err != nil {
			err = fmt.Errorf("%w; last: %w", err, c.err)
		}
		c.mu.Unlock()
		c.Close()
		return nil, fmt.Errorf("client: dial: %w", err)
	}
}

// run keeps a connection until Close, or until a hub says that there is no use.
func (c *Client) run(ctx context.Context) {
	defer c.end()
	at := mathrand.IntN(len(c.cfg.URLs))
	fails := 0
	for n := uint64(1); ctx.Err() == nil; n++ {
		c.state(Connecting)
		begun := time.Now()
		hint, greeted, err := c.connect(ctx, c.cfg.URLs[at%len(c.cfg.URLs)], n)
		at++
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		if errors.Is(err, ErrRefused) {
			select {
			case c.first <- err:
			default:
			}
			return
		}
		pause := hint
		switch {
		case hint > 0:
			fails = 0
		case greeted && time.Since(begun) > time.Second:
			fails = 0 // at once
		default:
			fails++
			pause = fullJitter(fails, c.cfg.MinRetry, c.cfg.MaxRetry)
		}
		if pause > 0 {
			c.state(Waiting)
			t := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

// fullJitter spreads callers that failed together over the whole pause.
func fullJitter(fails int, low, high time.Duration) time.Duration {
	d := high
	if s := min(fails-1, 30); low<<s > 0 && low<<s < high {
		d = low << s
	}
	return 1 + mathrand.N(d)
}

func (c *Client) end() {
	c.mu.Lock()
	c.closed = true
	if c.err == nil {
		c.err = ErrClosed
	}
	c.mu.Unlock()
	c.state(Closed)
}

func (c *Client) state(s State) {
	if c.cfg.OnState != nil {
		c.cfg.OnState(s)
	}
}

// connect is one connection from handshake to end.
func (c *Client) connect(ctx context.Context, base string, n uint64) (hint time.Duration, greeted bool, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return 0, false, err
	}
	q := u.Query()
	q.Set("client", c.id)
	q.Set("count", strconv.FormatUint(n, 10))
	u.RawQuery = q.Encode()
	dial, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	mode := websocket.CompressionDisabled
	if c.cfg.Compress {
		mode = websocket.CompressionNoContextTakeover
	}
	ws, resp, err := websocket.Dial(dial, u.String(), &websocket.DialOptions{
		HTTPClient: c.cfg.HTTPClient, HTTPHeader: c.cfg.Header.Clone(), CompressionMode: mode,
	})
	if err != nil {
		if resp != nil {
			switch resp.StatusCode {
			case http.StatusUnauthorized, http.StatusForbidden:
				return 0, false, fmt.Errorf("%w: %s", ErrRefused, resp.Status)
			case http.StatusServiceUnavailable:
				if s, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && s > 0 && len(c.cfg.URLs) == 1 {
					hint = time.Duration(s)*time.Second + mathrand.N(time.Duration(s)*time.Second)
				}
			}
		}
		return hint, false, err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(c.cfg.MaxFrame)
	if c.cfg.First != nil {
		if err := c.write(ctx, ws, c.cfg.First()); err != nil {
			return 0, false, err
		}
	}
	defer c.lost()
	for {
		read, cancel := context.WithTimeout(ctx, c.cfg.Silence)
		_, b, err := ws.Read(read)
		cancel()
		if err != nil {
			switch websocket.CloseStatus(err) {
			case 4001, 4003, 4009:
				return 0, greeted, fmt.Errorf("%w: %w", ErrRefused, err)
			}
			return hint, greeted, err
		}
		c.count.frames.Add(1)
		if c.cfg.OnFrame != nil {
			c.cfg.OnFrame(b)
		}
		retry, err := c.take(ctx, ws, b, &greeted, n)
		if err != nil {
			return 0, greeted, err
		}
		hint = max(hint, retry)
	}
}

// lost notes that there is no connection.
func (c *Client) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ws = nil
	for _, t := range c.topics {
		t.live, t.ref = false, 0
	}
	for ref, done := range c.pending {
		done <- ErrUncertain
		delete(c.pending, ref)
	}
}

func (c *Client) write(ctx context.Context, ws *websocket.Conn, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.WriteTimeout)
	defer cancel()
	return ws.Write(ctx, websocket.MessageText, b)
}

// Subscribe adds a topic: from now on, or from a cursor. A topic that is there already goes on as it is.
func (c *Client) Subscribe(ctx context.Context, name, at string) error {
	cur, err := cursor.Parse(at)
	if err != nil {
		return fmt.Errorf("client: subscribe: cursor of %q: %w", name, err)
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	if _, ok := c.topics[name]; ok {
		c.mu.Unlock()
		return nil
	}
	c.topics[name] = &topic{cur: cur}
	ws, frames := c.ws, [][]byte(nil)
	if ws != nil {
		frames = c.subscribeLocked(name)
	}
	c.mu.Unlock()
	for _, f := range frames {
		if err := c.write(ctx, ws, f); err != nil {
			break // the next connection does it
		}
	}
	return nil
}

// Unsubscribe ends a topic and forgets where it stood.
func (c *Client) Unsubscribe(ctx context.Context, name string) error {
	c.mu.Lock()
	ws := c.ws
	delete(c.topics, name)
	c.mu.Unlock()
	if ws != nil {
		_ = c.write(ctx, ws, frame.Marshal(frame.Client{Type: frame.Unsubscribe, Names: []string{name}}))
	}
	return nil
}

// subscribeLocked makes the frames that resume the topics: few, and each small enough for a hub.
func (c *Client) subscribeLocked(names ...string) (frames [][]byte) {
	const limit = 24 << 10
	c.ref++
	batch, size := map[string]string{}, 0
	flush := func() {
		if len(batch) > 0 {
			frames = append(frames, frame.Marshal(frame.Client{Type: frame.Subscribe, Ref: c.ref, Topics: batch}))
		}
		batch, size = map[string]string{}, 0
	}
	for _, name := range names {
		t := c.topics[name]
		if t == nil {
			continue
		}
		t.ref, t.live = c.ref, false
		s := t.cur.String()
		if size += len(name) + len(s) + 8; size > limit {
			flush()
			size = len(name) + len(s) + 8
		}
		batch[name] = s
	}
	flush()
	return frames
}

// Publish sends a message, if the hub takes messages of clients, and waits for its answer.
func (c *Client) Publish(ctx context.Context, name string, data []byte) error {
	f := frame.Client{Type: frame.Publish, Topic: name}
	f.SetData(data)
	done := make(chan error, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	ws := c.ws
	if ws == nil {
		c.mu.Unlock()
		return errors.New("client: publish: not connected")
	}
	c.ref++
	f.Ref = c.ref
	c.pending[f.Ref] = done
	c.mu.Unlock()
	if err := c.write(ctx, ws, frame.Marshal(f)); err != nil {
		c.forget(f.Ref)
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		c.forget(f.Ref)
		return fmt.Errorf("%w: %w", ErrUncertain, context.Cause(ctx))
	}
}

func (c *Client) forget(ref uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, ref)
}

// Cursors returns where each topic stands, to be stored and given to another Client.
func (c *Client) Cursors() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]string, len(c.topics))
	for name, t := range c.topics {
		m[name] = t.cur.String()
	}
	return m
}

// Stats returns a snapshot.
func (c *Client) Stats() Stats {
	n := &c.count
	return Stats{
		Connects: n.connects.Load(), Frames: n.frames.Load(), Messages: n.messages.Load(), Filled: n.filled.Load(), Ephemeral: n.ephemeral.Load(),
		Duplicates: n.duplicates.Load(), Ignored: n.ignored.Load(), Holes: n.holes.Load(), Gaps: n.gaps.Load(), Fresh: n.fresh.Load(), Resumed: n.resumed.Load(),
	}
}

// Err is why the last connection ended; nil while none has.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and returns when no function of Config runs any more. It may be called twice.
func (c *Client) Close() error {
	c.mu.Lock()
	ws := c.ws
	c.mu.Unlock()
	c.cancel()
	if ws != nil {
		ws.CloseNow()
	}
	c.wg.Wait()
	return nil
}
