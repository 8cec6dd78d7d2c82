package wsfanout_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

// connectSlow is connectRaw with a small kernel buffer, so that a client that does not read is soon felt.
func connectSlow(t testing.TB, url string) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				err = c.(*net.TCPConn).SetReadBuffer(16 << 10)
			}
			return c, err
		},
	}}})
	require.NoError(t, err)
	ws.SetReadLimit(4 << 20)
	t.Cleanup(func() { ws.CloseNow() })
	r := &raw{t, ws}
	r.next("hello")
	return r
}

// A client that reads slowly is fed from the ring as it has room, and misses nothing; it does not hold up the others.
func TestSlowClientCatchesUp(t *testing.T) {
	s := start(t, wsfanout.Config{})
	settled(t, s)
	fast := listen(t, client.Config{URLs: []string{s.url("fast")}, Topics: []string{"room", "small"}})
	fast.subscribed(t, 2)
	slow := connectSlow(t, s.url("slow"))
	slow.send(`{"type":"subscribe","ref":1,"topics":{"room":"","small":""}}`)
	slow.next("subscribed")
	slow.next("subscribed")
	body := strings.Repeat("x", 30_000)
	total, fills := 0, 0
	// More than the kernel's buffers and the socket's share, less than the ring.
	for ; fills < 20 && total < 2000; total++ {
		_, err := s.hub.Publish(t.Context(), "room", fmt.Appendf(nil, `"%d %s"`, total, body), nil)
		require.NoError(t, err)
		if total%10 == 0 {
			publish(t, s, "small", fmt.Sprint("s", total))
		}
		if s.hub.SocketPending() > 200<<10 {
			fills++
		}
	}
	require.Eventually(t, func() bool { return len(fast.ids("room")) == total }, patience, time.Millisecond)
	require.Equal(t, 20, fills)
	require.Less(t, s.hub.SocketPending(), 1<<20, "a slow socket is positions, not a queue")
	next, small := 0, 0
	for next < total {
		m, err := slow.read()
		require.NoError(t, err)
		require.NotEqual(t, "gap", m["kind"])
		switch m["topic"] {
		case "room":
			require.True(t, strings.HasPrefix(m["data"].(string), fmt.Sprint(next, " ")), "message %d", next)
			next++
		case "small":
			require.Equal(t, fmt.Sprint("s", 10*small), m["id"])
			small++
		}
	}
	require.Zero(t, s.hub.Stats().Behind)
}

// One that falls out of the ring is closed with 4008. Its cursor is then answered with what there is.
func TestFallsOutOfTheRing(t *testing.T) {
	s := start(t, wsfanout.Config{})
	settled(t, s)
	slow := connectSlow(t, s.url("slow"))
	slow.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
	first := slow.next("subscribed")
	body := strings.Repeat("x", 100_000)
	total := 0
	for ; total < 120; total++ { // 12 MB: more than any kernel buffer and the ring
		_, err := s.hub.Publish(t.Context(), "room", fmt.Appendf(nil, `"%d %s"`, total, body), nil)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return s.hub.Stats().RingBytes < 3<<20 }, patience, time.Millisecond, "rings are trimmed")
	seen := 0
	for {
		m, err := slow.read()
		if err != nil {
			require.EqualValues(t, 4008, websocket.CloseStatus(err), "%v: %d of %d, pending %d, %+v", err, seen, total, s.hub.SocketPending(), s.hub.Stats())
			break
		}
		if m["type"] == "message" {
			seen++
			require.EqualValues(t, seen, m["offset"], "what it gets has no hole")
		}
	}
	require.Less(t, seen, total)
	require.EqualValues(t, 1, s.hub.Stats().Behind)
	again := connectRaw(t, s.url("slow"))
	at := fmt.Sprintf("1|%s:%d||", first["epoch"], seen)
	again.send(`{"type":"subscribe","ref":1,"topics":{"room":"` + at + `"}}`)
	answer := again.next("subscribed")
	require.Equal(t, "gap", answer["kind"])
	require.Equal(t, "ring_overrun", answer["reason"])
}

// When deliveries stand still, publishers do, too: nothing piles up without bound.
func TestDeliveriesHoldPublishersBack(t *testing.T) {
	s := start(t, wsfanout.Config{})
	settled(t, s)
	l := listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{"room"}})
	l.subscribed(t, 1)
	const publishers, each = 8, 200
	var wg sync.WaitGroup
	s.hub.Stall(func() {
		for range publishers {
			wg.Go(func() {
				for range each {
					_, err := s.hub.Publish(context.Background(), "room", []byte(`1`), nil)
					require.NoError(t, err)
				}
			})
		}
		assert.Eventually(t, func() bool { return s.hub.Outbox() > wsfanout.OutboxFull }, patience, time.Millisecond)
		assert.Never(t, func() bool { return s.hub.Outbox() > wsfanout.OutboxFull+2*publishers }, 100*time.Millisecond, time.Millisecond)
	})
	wg.Wait()
	require.Eventually(t, func() bool { return len(l.ids("room")) == publishers*each }, patience, time.Millisecond)
}

// A resume of more than a socket's share comes whole.
func TestLargeResume(t *testing.T) {
	s := start(t, wsfanout.Config{})
	settled(t, s)
	l := listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{"room"}})
	l.subscribed(t, 1)
	at := l.Cursors()
	l.Close()
	var want []string
	for i := range 20 {
		id := fmt.Sprint("m", i)
		_, err := s.hub.Publish(t.Context(), "room", []byte(strings.Repeat("y", 45_000)), &wsfanout.PublishOptions{ID: id})
		require.NoError(t, err)
		want = append(want, id)
	}
	back := listen(t, client.Config{URLs: []string{s.url("ann")}, Cursors: at})
	back.sees(t, "room", want)
	require.Zero(t, back.gapCount())
}

// Whatever a client sends, the hub stays, and another client is served.
func FuzzClientFrames(f *testing.F) {
	for _, s := range []string{
		`{"type":"subscribe","ref":1,"topics":{"room":""}}`, `{"type":"subscribe","topics":{"room":"1|1.a:3|1.a:3|x"}}`,
		`{"type":"subscribe","topics":{"\u0000":"1|||","":"","a":"x"}}`, `{"type":"unsubscribe","names":["room","none"]}`,
		`{"type":"publish","ref":18446744073709551615,"topic":"room","data":{"a":1}}`, `{"type":"publish","topic":"room","data":"x","base64":true}`,
		`{"type":"publish","ref":1,"topic":"room"}`, `{"type":"publish","ref":1,"topic":"room","data":null,"text":true}`,
		`{}`, `[]`, `null`, `{"type":1}`, "\xff\xfe", `{"type":"subscribe","topics":{"room":"1|99999.zz:18446744073709551615|1.a:1,1.b:2|"}}`,
	} {
		f.Add([]byte(s), []byte(s))
	}
	s := start(f, wsfanout.Config{OnMessage: func(ctx context.Context, c *wsfanout.Conn, topic string, data []byte) error { return nil }})
	settled(f, s)
	f.Fuzz(func(t *testing.T, one, two []byte) {
		r := connectRaw(t, s.url("fuzz"))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, b := range [][]byte{one, two, []byte(`{"type":"publish","ref":7,"topic":"end","data":1}`)} {
			if r.ws.Write(ctx, websocket.MessageText, b) != nil {
				break
			}
		}
		for {
			_, b, err := r.ws.Read(ctx)
			if err != nil {
				require.EqualValues(t, 1008, websocket.CloseStatus(err), "%v", err)
				return
			}
			require.True(t, json.Valid(b), "%s", b)
			if strings.Contains(string(b), `"ref":7`) {
				return
			}
		}
	})
}
