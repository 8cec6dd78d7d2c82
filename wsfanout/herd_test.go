//go:build linux

package wsfanout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

// many is the size of a test: all of it under make chaos.
func many(few, all int) int {
	if os.Getenv("NINES_CHAOS") != "" {
		return all
	}
	return few
}

// Thousands come back to one node at once, each a hundred messages behind: the home of the topic is asked once, and everyone has everything.
func TestHerd(t *testing.T) {
	clients, missed := many(1000, 5000), 100
	g := startGroup(t, 3, wsfanout.Config{MaxPerUser: 1 << 20})
	topic := g.topicOf(t, 0)
	edge := g.all[2]
	first := publish(t, g.all[0], topic, "m0")
	for i := range missed {
		publish(t, g.all[0], topic, fmt.Sprint("m", i+1))
	}
	// One that is there already: the node's ring begins behind what the others miss.
	here := listen(t, client.Config{URLs: []string{edge.url("here")}, Topics: []string{topic}})
	here.subscribed(t, 1)
	asked := edge.hub.Stats().Asked

	s := newSwarm(t)
	var complete, wrong atomic.Int64
	subscribe := fmt.Sprintf(`{"type":"subscribe","ref":1,"topics":{%q:"1|%s:%d|%s:%d|m0"}}`, topic, first.Epoch, first.Offset, first.Epoch, first.Offset)
	members := make([]*member, clients)
	for i := range members {
		next := uint64(0)
		members[i] = s.dial(edge.url("ann"), func(b []byte) {
			var f struct {
				Type, Kind string
				Offset     uint64
			}
			if err := json.Unmarshal(b, &f); err != nil {
				wrong.Add(1)
			}
			switch {
			case f.Type == "subscribed" && f.Kind == "resumed":
				next = f.Offset + 1
			case f.Type == "message" && f.Offset == next:
				if next++; next == first.Offset+uint64(missed)+1 {
					complete.Add(1)
				}
			case f.Type != "hello" && f.Type != "ping":
				wrong.Add(1)
			}
		})
		members[i].read()
	}
	begun := time.Now()
	for _, m := range members {
		m.send(subscribe)
	}
	require.Eventually(t, func() bool { return complete.Load() == int64(clients) || wrong.Load() > 0 }, 3*patience, 5*time.Millisecond,
		"%d of %d", complete.Load(), clients)
	require.Zero(t, wrong.Load())
	require.LessOrEqual(t, edge.hub.Stats().Asked, asked+1)
	t.Logf("%d clients have their %d messages after %v; questions to the home: %d", clients, missed, time.Since(begun), edge.hub.Stats().Asked-asked)
}

// timed is a swarm in one topic, whose deliveries are timed.
type timed struct {
	swarm   *swarm
	members []*member

	mu    sync.Mutex
	delay []time.Duration
	got   int
}

func newTimed(t testing.TB, s *server, n int) *timed {
	t.Helper()
	c := &timed{swarm: newSwarm(t)}
	mark := []byte(`"data":1`)
	for range n {
		m := c.swarm.dial(s.url("ann"), func(b []byte) {
			if i := bytes.Index(b, mark); i >= 0 {
				at, _ := strconv.ParseInt(string(b[i+len(mark)-1:i+len(mark)+18]), 10, 64)
				c.mu.Lock()
				c.delay = append(c.delay, time.Duration(time.Now().UnixNano()-at))
				c.got++
				c.mu.Unlock()
			}
		})
		m.read()
		m.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
		c.members = append(c.members, m)
	}
	require.Eventually(t, func() bool { return s.hub.Stats().Fresh == uint64(n) }, patience, time.Millisecond)
	return c
}

// p99 publishes messages, one after the other has arrived everywhere, and returns the 99th percentile of their delays.
func (c *timed) p99(t testing.TB, s *server, messages, readers int) time.Duration {
	t.Helper()
	c.mu.Lock()
	c.delay, c.got = c.delay[:0], 0
	c.mu.Unlock()
	for i := range messages {
		data := fmt.Appendf(nil, "%019d", time.Now().UnixNano())
		_, err := s.hub.Publish(t.Context(), "room", data, nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.got >= (i+1)*readers }, patience, time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.delay)
	return c.delay[len(c.delay)*99/100]
}

// stuck is a connection of a client that does not read.
type stuck struct {
	net.Conn
	full *atomic.Bool
}

func (s stuck) TryWrite(b []byte) (int, error) {
	if s.full.Load() {
		return 0, nil
	}
	return len(b), nil
}
func (stuck) Close() error { return nil }

// One in five stands still: what each of them costs.
func TestStalledSocketIsSmall(t *testing.T) {
	s := start(t, wsfanout.Config{})
	settled(t, s)
	members := many(1000, 5000)
	stalled := members / 5
	var no, full atomic.Bool
	require.NoError(t, s.hub.Simulate("room", members, func(i int) net.Conn {
		if i%5 == 0 {
			return stuck{full: &full}
		}
		return stuck{full: &no}
	}))
	flood := func() {
		for range 200 {
			_, err := s.hub.Publish(t.Context(), "room", fmt.Appendf(nil, "%q", strings.Repeat("x", 100)), nil)
			require.NoError(t, err)
		}
		require.Eventually(t, func() bool { return s.hub.SocketsPending() == s.hub.Lagging() && s.hub.BehindNow() == s.hub.Lagging() }, patience, 5*time.Millisecond)
	}
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse)
	}
	flood() // warm
	before, goroutines := heap(), runtime.NumGoroutine()
	full.Store(true)
	flood()
	require.Equal(t, stalled, s.hub.Lagging())
	each := (heap() - before) / stalled
	t.Logf("%d bytes for each stalled socket", each)
	require.LessOrEqual(t, each, 2048)
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2)
	full.Store(false)
	require.Eventually(t, func() bool { return s.hub.Lagging() == 0 && s.hub.BehindNow() == 0 }, patience, 5*time.Millisecond, "they go on from where they stand")
	require.Zero(t, s.hub.Stats().Behind)
	require.Zero(t, s.hub.Stats().Gaps)
	require.Eventually(t, func() bool { return s.hub.Stats().Delivered == uint64(400*members) }, patience, 5*time.Millisecond, "each has each once")
}

// One in five stands still, and the others do not feel it.
func TestStalledAreNotFelt(t *testing.T) {
	n := many(200, 5000)
	srv := startSmall(t, wsfanout.Config{MaxPerUser: 1 << 20})
	settled(t, srv)
	c := newTimed(t, srv, n)
	const messages = 10
	flood := func() {
		for range 300 { // more than the kernel takes
			_, err := srv.hub.Publish(t.Context(), "room", fmt.Appendf(nil, "%q", strings.Repeat("x", 100)), nil)
			require.NoError(t, err)
		}
	}
	flood() // warm
	require.Eventually(t, func() bool { return srv.hub.SocketsPending() == 0 && srv.hub.BehindNow() == 0 }, patience, 5*time.Millisecond)
	c.p99(t, srv, messages, n)
	var ratios []float64
	stalled := c.members[:n/5]
	for try := range 3 {
		all := c.p99(t, srv, messages, n)
		for _, m := range stalled {
			m.stall()
		}
		flood()
		require.Eventually(t, func() bool { return srv.hub.Lagging() == len(stalled) }, patience, 5*time.Millisecond, "%d", srv.hub.Lagging())
		require.Eventually(t, func() bool { return srv.hub.SocketsPending() == len(stalled) }, patience, 5*time.Millisecond, "the others have all")
		healthy := c.p99(t, srv, messages, n-len(stalled))
		ratios = append(ratios, float64(healthy)/float64(all))
		t.Logf("try %d: p99 of all %v, with one in five stalled %v", try, all, healthy)
		for _, m := range stalled {
			m.read()
		}
		require.Eventually(t, func() bool { return srv.hub.SocketsPending() == 0 && srv.hub.BehindNow() == 0 }, 2*patience, 5*time.Millisecond,
			"%d pending, %d behind", srv.hub.SocketsPending(), srv.hub.BehindNow())
	}
	require.Zero(t, srv.hub.Stats().Behind, "they read on from where they stood")
	require.Zero(t, srv.hub.Stats().Gaps)
	require.LessOrEqual(t, slices.Min(ratios), 1.2, "of %v", ratios)
}

// sink is a member's connection: what is written to it costs what a write costs, and is gone.
type sink struct {
	net.Conn
	writes *atomic.Int64
}

func (s sink) TryWrite(b []byte) (int, error) {
	for begun := time.Now(); time.Since(begun) < 2*time.Microsecond; {
	}
	s.writes.Add(1)
	return len(b), nil
}
func (sink) Close() error { return nil }

// bell is a connection that tells when it is written to.
type bell struct {
	net.Conn
	ring func()
}

func (s bell) TryWrite(b []byte) (int, error) { s.ring(); return len(b), nil }
func (bell) Close() error                     { return nil }

// A burst to a very large room, and a message to one user on the same node. How long that one takes is printed; what is checked depends less on
// what else the machine does: how many of the burst's writes (of 2 µs) mostly go before it. 500 of them are 1 ms of one core.
func TestLargeRoomDoesNotDelayOne(t *testing.T) {
	const most = 1500 / 3
	members := many(10_000, 50_000)
	s := start(t, wsfanout.Config{})
	settled(t, s)
	var writes, before atomic.Int64
	type arrival struct {
		at    time.Time
		after int64 // writes of the burst
	}
	got := make(chan arrival, 8)
	require.NoError(t, s.hub.Simulate("user/one", 1, func(int) net.Conn {
		return bell{ring: func() { got <- arrival{time.Now(), writes.Load() - before.Load()} }}
	}))
	<-got // subscribed
	require.NoError(t, s.hub.Simulate("large", members, func(int) net.Conn { return sink{writes: &writes} }))
	require.Eventually(t, func() bool { return writes.Load() >= int64(members) }, patience, time.Millisecond)
	measure := func() (p99 time.Duration, median int64) {
		var all []time.Duration
		var writesBefore []int64
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for range 100 {
			<-pace.C
			before.Store(writes.Load())
			begun := time.Now()
			_, err := s.hub.Publish(t.Context(), "user/one", []byte(`1`), nil)
			require.NoError(t, err)
			a := <-got
			all, writesBefore = append(all, a.at.Sub(begun)), append(writesBefore, a.after)
		}
		slices.Sort(all)
		slices.Sort(writesBefore)
		return all[98], writesBefore[50]
	}
	var after []int64
	for range 2 {
		quiet, _ := measure()
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 { // as much as the node takes, for as long as it lasts
			wg.Go(func() {
				for ctx.Err() == nil {
					if _, err := s.hub.Publish(ctx, "large", []byte(`"burst"`), nil); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}
			})
		}
		begun := s.hub.Stats().Published
		require.Eventually(t, func() bool { return s.hub.Stats().Published > begun+16 }, patience, time.Millisecond)
		burst, n := measure()
		after = append(after, n)
		stop()
		wg.Wait()
		t.Logf("p99 of a direct message: %v quiet, %v in a burst to %d, mostly after %d of its writes", quiet, burst, members, n)
		require.Eventually(t, func() bool { return s.hub.BehindNow() == 0 && s.hub.SocketsPending() == 0 }, patience, time.Millisecond)
	}
	require.LessOrEqual(t, slices.Min(after), int64(most), "of %v", after)
}

// A client that loses its node again and again is resumed at the next each time.
func TestTenHops(t *testing.T) {
	net := wsfanouttest.NewNetwork()
	t.Cleanup(net.Close)
	g := &group{net: net}
	for i := range 12 {
		g.at = append(g.at, net.Join(string(rune('A'+i))))
		g.all = append(g.all, start(t, wsfanout.Config{Transport: g.at[i]}))
	}
	settled(t, g.all...)
	keep := publish(t, g.all[11], "room", "first") // somebody always has the topic
	require.Equal(t, 2, keep.Copies)
	at := map[string]string{}
	var want []string
	for hop := range 10 {
		c := client.Config{URLs: []string{g.all[hop].url("ann")}, Cursors: at, Topics: []string{"room"}}
		l := listen(t, c)
		l.subscribed(t, 1)
		if hop > 0 {
			require.EqualValues(t, 1, l.Stats().Resumed, "hop %d: %+v", hop, l.Stats())
		}
		for i := range 5 {
			id := fmt.Sprintf("h%d-%d", hop, i)
			publish(t, g.all[11], "room", id)
			want = append(want, id)
		}
		l.sees(t, "room", want)
		require.Zero(t, l.gapCount())
		at = l.Cursors()
		l.Close()
		for i := range 5 { // while it is away
			id := fmt.Sprintf("a%d-%d", hop, i)
			publish(t, g.all[11], "room", id)
			if i == 2 {
				g.kill(hop)
				settled(t, g.all[hop+1:]...)
			}
		}
		want = nil
		for i := range 5 {
			want = append(want, fmt.Sprintf("a%d-%d", hop, i))
		}
	}
	l := listen(t, client.Config{URLs: []string{g.all[10].url("ann")}, Cursors: at})
	l.sees(t, "room", want)
	require.Zero(t, l.gapCount())
}
