package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/wsfanout/client"
)

const (
	publishersPerRoom = 4
	giveUp            = 30 * time.Second // a publish that is not acknowledged by then fails the run
	catchUp           = 15 * time.Second // for the last messages to reach everybody
)

// loadOptions are the flags of the load.
type loadOptions struct {
	duration             time.Duration
	rate, rooms, sockets int
}

func (o loadOptions) validate() error {
	var errs []error
	for _, c := range []struct {
		flag      string
		n, lo, hi int
	}{{"-rate", o.rate, 1, 10000}, {"-rooms", o.rooms, 1, 100}, {"-sockets", o.sockets, o.rooms, 5000}} {
		if c.n < c.lo || c.n > c.hi {
			errs = append(errs, fmt.Errorf("%s %d: give a number from %d to %d", c.flag, c.n, c.lo, c.hi))
		}
	}
	if o.duration < time.Second || o.duration > 24*time.Hour {
		errs = append(errs, fmt.Errorf("-for %s: give 1s to 24h", o.duration))
	}
	return errors.Join(errs...)
}

// load is publishers and subscribers that go through the proxy like browsers, and the tally of both.
type load struct {
	url   string
	http  *http.Client
	tally *Tally
	rooms []string // topics

	ctx    context.Context // of the publishers and subscribers; ended by close
	cancel context.CancelFunc
	pause  context.CancelFunc // ends the publishing
	pubs   sync.WaitGroup
	subs   []*subscription

	mu       sync.Mutex
	failed   error
	waiters  []*ackWaiter
	gapCount int
	lost     []time.Duration // how long connections were away
}

// ackWaiter waits for the first acknowledgement of a publish that was sent after a moment, to some rooms.
type ackWaiter struct {
	rooms map[string]bool
	after time.Time
	first chan time.Time
}

// startLoad signs in, makes the rooms, connects the subscribers, and begins to publish when all are subscribed.
func startLoad(ctx context.Context, base string, o loadOptions) (_ *load, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	l := &load{url: base, tally: NewTally(), http: &http.Client{
		Jar: jar, Timeout: 10 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 512},
	}}
	l.ctx, l.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := l.call(ctx, "/api/v4/demo/login", map[string]any{"username": "load"}, nil); err != nil {
		return nil, err
	}
	for i := range o.rooms {
		var room struct{ ID string }
		if err := l.call(ctx, "/api/v4/rooms", map[string]any{"name": fmt.Sprintf("load %d %d", i+1, time.Now().UnixNano())}, &room); err != nil {
			return nil, err
		}
		l.rooms = append(l.rooms, topicPrefix+room.ID)
	}
	for i := range o.sockets {
		s, err := l.subscribe(ctx, fmt.Sprintf("socket%d", i+1), l.rooms[i%len(l.rooms)])
		if err != nil {
			return nil, err
		}
		l.subs = append(l.subs, s)
	}
	publishing, pause := context.WithCancel(l.ctx)
	l.pause = pause
	n := len(l.rooms) * publishersPerRoom
	for i := range n {
		name, room := fmt.Sprintf("publisher%d", i+1), l.rooms[i%len(l.rooms)]
		l.tally.Publisher(name, room)
		every := time.Duration(float64(time.Second) * float64(n) / float64(o.rate))
		l.pubs.Go(func() { l.publish(publishing, name, room, every, every*time.Duration(i)/time.Duration(n)) })
	}
	return l, nil
}

// topicPrefix begins the topic of a room; the room's ID follows.
const topicPrefix = "room:"

func (l *load) topics() []string { return l.rooms }

// call sends one JSON request through the proxy, again while no node takes it.
func (l *load) call(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	for {
		retry, err := l.try(ctx, path, in, out)
		if err == nil || !retry {
			return err
		}
		if wait(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

// try sends it once. A refusal for good is not worth another try.
func (l *load) try(ctx context.Context, path string, in, out any) (retry bool, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+path, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := l.http.Do(req)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return true, err
	}
	if res.StatusCode >= 300 {
		return res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests, fmt.Errorf("%s answered %s: %s", path, res.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return false, nil
	}
	return false, json.Unmarshal(answer, out)
}

// publish sends numbered messages to a room, each once the one before is acknowledged, and each until it is, under one ID.
func (l *load) publish(ctx context.Context, name, room string, every, offset time.Duration) {
	if wait(ctx, offset) != nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		l.tally.Published()
		p := Payload{Publisher: name, Number: n}
		body := map[string]any{
			"room": strings.TrimPrefix(room, topicPrefix), "id": fmt.Sprintf("%s-%d-%d", name, n, time.Now().UnixNano()),
			"client": name, "n": n, "text": fmt.Sprintf("message %d of %s", n, name),
		}
		begun, pause := time.Now(), 5*time.Millisecond
		for {
			sent := time.Now()
			retry, err := l.try(l.ctx, "/api/v4/posts", body, nil)
			if err == nil {
				l.acked(p, room, sent)
				break
			}
			if l.ctx.Err() != nil {
				return
			}
			if !retry || time.Since(begun) > giveUp {
				l.fail(fmt.Errorf("%s/%d was not acknowledged: %w", name, n, err))
				return
			}
			if wait(l.ctx, pause) != nil {
				return
			}
			pause = min(2*pause, 100*time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *load) acked(p Payload, room string, sent time.Time) {
	now := time.Now()
	l.tally.Acked(p, now)
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.waiters[:0]
	for _, w := range l.waiters {
		if w.rooms[room] && sent.After(w.after) {
			w.first <- now
		} else {
			rest = append(rest, w)
		}
	}
	l.waiters = rest
}

// firstAck gives the time of the first acknowledgement of a publish that was sent to one of the rooms after the given moment.
func (l *load) firstAck(rooms []string, after time.Time) <-chan time.Time {
	w := &ackWaiter{rooms: map[string]bool{}, after: after, first: make(chan time.Time, 1)}
	for _, r := range rooms {
		w.rooms[r] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiters = append(l.waiters, w)
	return w.first
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = errors.Join(l.failed, err)
}

func (l *load) gaps() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gapCount
}

func (l *load) reconnects() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Duration(nil), l.lost...)
}

// finish stops publishing, waits for what is outstanding, and until everybody has seen everything or the time is over.
func (l *load) finish(ctx context.Context) error {
	l.pause()
	l.pubs.Wait()
	end := time.Now().Add(catchUp)
	for l.tally.Count().Lost > 0 && time.Now().Before(end) {
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.subs {
		if err := s.agree(); err != nil {
			l.failed = errors.Join(l.failed, err)
		}
	}
	return l.failed
}

func (l *load) close() {
	l.cancel()
	l.pubs.Wait()
	for _, s := range l.subs {
		s.client.Close()
	}
	l.http.CloseIdleConnections()
}

// subscription is one subscriber's connection, counted from its frames before the client drops anything but what was shown already.
type subscription struct {
	load   *load
	client *client.Client
	tally  *Subscriber
	room   string
	ready  chan struct{}
	once   sync.Once
	shown  map[string]uint64 // epoch → highest offset that came
	away   time.Time         // since when there is no connection
}

func (l *load) subscribe(ctx context.Context, name, room string) (*subscription, error) {
	s := &subscription{load: l, room: room, ready: make(chan struct{}), shown: map[string]uint64{}}
	// The frames of a subscription come only once it is confirmed, in OnFrame, which also registers it.
	u, err := url.Parse(l.url)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Origin": {l.url}}
	for _, c := range l.http.Jar.Cookies(u) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	s.client, err = client.Dial(ctx, client.Config{
		URLs: []string{"ws" + strings.TrimPrefix(l.url, "http") + "/api/v4/websocket"}, Header: header, Topics: []string{room},
		MinRetry: 50 * time.Millisecond, MaxRetry: time.Second,
		OnFrame: func(b []byte) { s.frame(name, b) },
		OnGap:   s.gap,
		OnState: s.state,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	select {
	case <-s.ready:
		return s, nil
	case <-time.After(giveUp):
		s.client.Close()
		return nil, fmt.Errorf("%s: the subscription to %s was not confirmed within %s", name, room, giveUp)
	}
}

// frame counts what a hub sends. A position that came before is not counted again: the client does not show it again either.
func (s *subscription) frame(name string, b []byte) {
	var f struct {
		Type, Topic, Epoch string
		Offset             uint64
		Data               struct {
			Client string
			N      int
		}
	}
	if json.Unmarshal(b, &f) != nil || f.Topic != s.room {
		return
	}
	switch f.Type {
	case "subscribed":
		s.once.Do(func() {
			s.tally = s.load.tally.Subscribe(name, s.room, time.Now())
			close(s.ready)
		})
	case "message":
		if f.Offset <= s.shown[f.Epoch] {
			return
		}
		s.shown[f.Epoch] = f.Offset
		s.tally.Saw(Payload{Publisher: f.Data.Client, Number: f.Data.N})
	}
}

func (s *subscription) gap(client.Gap) {
	s.load.mu.Lock()
	defer s.load.mu.Unlock()
	s.load.gapCount++
}

// state measures how long the connection is away.
func (s *subscription) state(st client.State) {
	switch {
	case st == client.Connected && !s.away.IsZero():
		s.load.mu.Lock()
		s.load.lost = append(s.load.lost, time.Since(s.away))
		s.load.mu.Unlock()
		s.away = time.Time{}
	case st != client.Connected && s.away.IsZero() && s.tally != nil:
		s.away = time.Now()
	}
}

// agree checks that the client showed what came.
func (s *subscription) agree() error {
	if shown, came := s.client.Stats().Messages, uint64(s.tally.Delivered()); shown != came {
		return fmt.Errorf("%s: %d messages came, the client showed %d", s.tally.name, came, shown)
	}
	return nil
}
