package demo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/client"
)

const (
	chaosRooms      = 4
	chaosPublishers = 8
	chaosWatchers   = 12
	chaosRoamers    = 3 // of the watchers: they leave and come back with their cursor
	chaosPatience   = 90 * time.Second
)

// chaosLoad is publishers and subscribers behind the proxy, whose reports go to a judge.
type chaosLoad struct {
	t     *testing.T
	url   string
	http  *http.Client
	judge *judge
	rooms []string

	ctx     context.Context
	cancel  context.CancelFunc
	pubs    sync.WaitGroup
	pause   context.CancelFunc
	roaming sync.WaitGroup
	still   chan struct{} // closed when roamers stay
	done    []func()

	mu     sync.Mutex
	faults []string
	retry  int
	last   map[string]int // tries that did not succeed, by what was answered
}

func (l *chaosLoad) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func startChaosLoad(t *testing.T, base string, rate int, rng *rand.Rand) *chaosLoad {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	l := &chaosLoad{
		t: t, url: base, judge: newJudge(), still: make(chan struct{}), last: map[string]int{},
		http: &http.Client{Jar: jar, Timeout: 8 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	require.NoError(t, l.call("/api/v4/demo/login", map[string]any{"username": "chaos"}, nil))
	for i := range chaosRooms {
		var room struct{ ID string }
		require.Eventually(t, func() bool { // a try that fails may have made the room, so each has a name of its own
			name := fmt.Sprintf("chaos %d %d", i, time.Now().UnixNano())
			body, err := json.Marshal(map[string]any{"name": name})
			require.NoError(t, err)
			_, err = l.try("/api/v4/rooms", body, &room)
			return err == nil
		}, chaosPatience, 50*time.Millisecond)
		l.rooms = append(l.rooms, room.ID)
	}
	for i := range chaosWatchers {
		l.watch(fmt.Sprintf("w%d", i), l.rooms[i%chaosRooms], i < chaosRoamers, rand.New(rand.NewPCG(rng.Uint64(), 1)))
	}
	publishing, pause := context.WithCancel(l.ctx)
	l.pause = pause
	every := time.Second * chaosPublishers / time.Duration(rate)
	for i := range chaosPublishers {
		l.pubs.Go(func() {
			name, tick := fmt.Sprintf("p%d", i), time.NewTicker(every)
			defer tick.Stop()
			for n := 1; publishing.Err() == nil; n++ {
				l.publish(name, l.rooms[i%chaosRooms], n)
				select {
				case <-publishing.Done():
				case <-tick.C:
				}
			}
		})
	}
	return l
}

// publish sends one message, under one ID, until it is acknowledged.
func (l *chaosLoad) publish(name, room string, n int) string {
	id := fmt.Sprintf("%s-%d-%d", name, n, time.Now().UnixNano())
	l.judge.publishes(id, room)
	var answer struct {
		Epoch, Home string
		Offset      uint64
		Copies      int
	}
	err := l.call("/api/v4/posts", map[string]any{"room": room, "id": id, "client": name, "n": n, "text": id}, &answer)
	switch {
	case err == nil:
		l.judge.acked(id, answer.Epoch, answer.Offset, answer.Copies, answer.Home)
	case l.ctx.Err() == nil:
		l.fault("publish: %s was not acknowledged: %v", id, err)
	}
	return id
}

// call repeats a request until it is answered, for longer than any fault lasts. Only answers that promise a later success are repeated.
func (l *chaosLoad) call(path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	for begun, pause := time.Now(), 10*time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		again, err := l.try(path, body, out)
		if err == nil || !again || time.Since(begun) > chaosPatience {
			return err
		}
		l.mu.Lock()
		l.retry++
		text := err.Error()
		if i := strings.LastIndex(text, ": "); i >= 0 {
			text = text[i+2:]
		}
		l.last[text]++
		l.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

func (l *chaosLoad) try(path string, body []byte, out any) (again bool, err error) {
	req, err := http.NewRequestWithContext(l.ctx, http.MethodPost, l.url+path, bytes.NewReader(body))
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
	switch {
	case err != nil:
		return true, err
	case res.StatusCode >= 300:
		return res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusBadGateway,
			fmt.Errorf("%s: %s: %s", path, res.Status, bytes.TrimSpace(answer))
	case out == nil:
		return false, nil
	}
	return false, json.Unmarshal(answer, out)
}

// watch subscribes, and returns when that is confirmed. A roamer closes its client now and then and goes on with another.
func (l *chaosLoad) watch(name, room string, roams bool, rng *rand.Rand) {
	w := l.judge.watch(name, room)
	topic := "room:" + room
	u, err := url.Parse(l.url)
	require.NoError(l.t, err)
	header := http.Header{"Origin": {l.url}}
	for _, c := range l.http.Jar.Cookies(u) {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	confirmed := make(chan struct{})
	var once sync.Once
	cfg := client.Config{
		URLs: []string{"ws" + strings.TrimPrefix(l.url, "http") + "/api/v4/websocket"}, Header: header,
		MinRetry: 50 * time.Millisecond, MaxRetry: time.Second,
		OnFrame: func(b []byte) {
			var f struct{ Type, Topic string }
			if json.Unmarshal(b, &f) == nil && f.Type == "subscribed" && f.Topic == topic {
				once.Do(func() { w.since = time.Now(); close(confirmed) })
			}
		},
		OnMessage: func(m client.Message) {
			if m.Ephemeral {
				return
			}
			var d struct {
				Client string
				N      int
			}
			if err := json.Unmarshal(m.Data, &d); err != nil {
				l.fault("frame: %s was shown %q: %v", name, m.Data, err)
			}
			l.judge.shows(w, shown{id: m.ID, epoch: m.Epoch, offset: m.Offset, filled: m.Filled, from: d.Client, number: d.N})
		},
		OnHello:  func(client.Hello) { l.judge.shows(w, shown{id: connection}) },
		OnGap:    func(client.Gap) { l.judge.shows(w, shown{}) },
		OnDenied: func(_, reason string) { l.fault("denied: %s: %s", name, reason) },
	}
	first := cfg
	first.Topics = []string{topic}
	c, err := client.Dial(l.ctx, first)
	require.NoError(l.t, err)
	var mu sync.Mutex
	l.done = append(l.done, func() {
		mu.Lock()
		defer mu.Unlock()
		if err := c.Err(); err != nil && l.ctx.Err() == nil && strings.Contains(err.Error(), "refused") {
			l.fault("refused: %s: %v", name, err)
		}
		_ = c.Close()
	})
	select {
	case <-confirmed:
	case <-time.After(chaosPatience):
		require.Fail(l.t, "not subscribed", name)
	}
	if !roams {
		return
	}
	l.roaming.Go(func() {
		for {
			select {
			case <-l.still:
				return
			case <-l.ctx.Done():
				return
			case <-time.After(500*time.Millisecond + rand.N(3*time.Second)):
			}
			_ = c.Close()
			select {
			case <-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond):
			case <-l.ctx.Done():
				return
			}
			next := cfg
			next.Cursors = c.Cursors()
			fresh, err := client.Dial(l.ctx, next)
			if err != nil {
				if l.ctx.Err() == nil {
					l.fault("dial: %s: %v", name, err)
				}
				return
			}
			mu.Lock()
			c = fresh
			mu.Unlock()
		}
	})
}

// finish ends the publishing, waits for what is outstanding, sends a last message to every room and waits until everybody has it.
func (l *chaosLoad) finish() {
	close(l.still)
	l.roaming.Wait()
	l.pause()
	l.pubs.Wait()
	last := map[string]string{}
	for i, room := range l.rooms {
		last[room] = l.publish(fmt.Sprintf("last%d", i), room, 1)
	}
	why := "not asked"
	for end := time.Now().Add(chaosPatience); why != "" && time.Now().Before(end); {
		why = l.behind(last)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-l.ctx.Done():
			return
		}
	}
	if why != "" {
		l.fault("settle: %s", why)
	}
}

func (l *chaosLoad) behind(last map[string]string) string {
	l.judge.mu.Lock()
	defer l.judge.mu.Unlock()
	for _, w := range l.judge.watchers {
		if !has(w, last[w.room]) {
			return fmt.Sprintf("%s was not shown %s, the last of its room", w.name, last[w.room])
		}
	}
	return ""
}

func has(w *watcher, id string) bool {
	for i := len(w.events) - 1; i >= 0; i-- {
		if w.events[i].id == id {
			return true
		}
	}
	return false
}

func (l *chaosLoad) close() {
	for _, done := range l.done {
		done()
	}
	l.cancel()
	l.pubs.Wait()
	l.roaming.Wait()
	l.http.CloseIdleConnections()
}
