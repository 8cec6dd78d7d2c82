package wsfanout_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

// slowOn subscribes a client that does not read to a topic with a policy, and floods it with n messages of 1 KiB, of three keys.
func slowOn(t *testing.T, p wsfanout.SlowPolicy, n int) (*server, *raw) {
	t.Helper()
	return slowOnKeys(t, p, n, 3)
}

func slowOnKeys(t *testing.T, p wsfanout.SlowPolicy, n, keys int) (*server, *raw) {
	t.Helper()
	s := startSmall(t, wsfanout.Config{Topic: func(topic string) wsfanout.TopicOptions {
		if topic == "room" {
			return wsfanout.TopicOptions{Slow: p}
		}
		return wsfanout.TopicOptions{}
	}})
	settled(t, s)
	slow := connectSlow(t, s.url("slow"))
	slow.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
	slow.next("subscribed")
	floodKeys(t, s, 0, n, keys)
	require.Eventually(t, func() bool { return s.hub.Lagging() == 1 || s.hub.Stats().Behind+s.hub.Stats().Gaps > 0 }, patience, time.Millisecond)
	return s, slow
}

func flood(t *testing.T, s *server, from, n int) {
	t.Helper()
	floodKeys(t, s, from, n, 3)
}

func floodKeys(t *testing.T, s *server, from, n, keys int) {
	t.Helper()
	body := strings.Repeat("x", 1024)
	for i := from; i < from+n; i++ {
		_, err := s.hub.Publish(t.Context(), "room", fmt.Appendf(nil, `"%d %s"`, i, body), &wsfanout.PublishOptions{
			ID: fmt.Sprint("m", i), ConflateKey: fmt.Sprint("key", i%keys),
		})
		require.NoError(t, err)
	}
}

func number(m map[string]any, field string) int {
	n, _ := m[field].(float64)
	return int(n)
}

// Of what waited only the newest of each key is shown; positions follow each other all the same.
func TestConflate(t *testing.T) {
	const n = 400
	s, slow := slowOn(t, wsfanout.Conflate, n)
	// Ephemeral ones are conflated, too, and what has no key is just dropped.
	for i := range 30 {
		for _, key := range []string{"typing", ""} {
			_, err := s.hub.Publish(t.Context(), "room", fmt.Appendf(nil, `"e%s%d"`, key, i), &wsfanout.PublishOptions{Ephemeral: true, ConflateKey: key})
			require.NoError(t, err)
		}
	}
	at, shown, newest := 0, 0, map[int]string{}
	ephemeral := []string{}
	for at < n || len(ephemeral) == 0 {
		m, err := slow.read()
		require.NoError(t, err)
		switch m["type"] {
		case "message":
			require.Equal(t, at+1, number(m, "offset"))
			newest[at%3] = m["id"].(string)
			at, shown = at+1, shown+1
		case "skip":
			require.Equal(t, at+max(1, number(m, "n")), number(m, "offset"))
			at = number(m, "offset")
		case "ephemeral":
			ephemeral = append(ephemeral, m["data"].(string))
		case "gap":
			t.Fatal("nothing is missing")
		}
	}
	require.Less(t, shown, n)
	require.EqualValues(t, n-shown, s.hub.Stats().Conflated)
	require.Equal(t, map[int]string{0: "m399", 1: "m397", 2: "m398"}, newest)
	require.Equal(t, []string{"etyping29"}, ephemeral)
	flood(t, s, n, 3)
	require.Equal(t, "m400", slow.next("message")["id"])
	require.Equal(t, "m401", slow.next("message")["id"])
	require.Zero(t, s.hub.Stats().Behind)
}

// What waited is left out and told as a gap; the socket stays.
func TestDropGap(t *testing.T) {
	const n = 400
	s, slow := slowOn(t, wsfanout.DropGap, n)
	at := 0
	for {
		m, err := slow.read()
		require.NoError(t, err)
		if m["type"] == "gap" {
			require.Equal(t, "slow", m["reason"])
			require.Equal(t, fmt.Sprint("m", at-1), m["after"])
			require.Greater(t, number(m, "offset"), at)
			at = number(m, "offset")
			break
		}
		require.Equal(t, at+1, number(m, "offset"))
		at++
	}
	flood(t, s, n, 1)
	for at < n+1 {
		m, err := slow.read()
		require.NoError(t, err)
		if m["type"] == "message" {
			require.Equal(t, at+1, number(m, "offset"))
		}
		at = number(m, "offset") // of a gap again, when it was still behind
	}
	require.Zero(t, s.hub.Stats().Behind)
	require.Positive(t, s.hub.Stats().Gaps)
}

// One that is behind is closed at once, with a position to resume from.
func TestDisconnect(t *testing.T) {
	s, slow := slowOn(t, wsfanout.Disconnect, 400)
	at := 0
	for {
		m, err := slow.read()
		if err != nil {
			require.EqualValues(t, 4008, websocket.CloseStatus(err), "%v", err)
			break
		}
		require.Equal(t, at+1, number(m, "offset"))
		at++
	}
	require.Less(t, at, 400)
	require.EqualValues(t, 1, s.hub.Stats().Behind)
}

// With Conflate a ring that has moved on is a gap, not the end of the socket.
func TestConflateOutOfTheRing(t *testing.T) {
	s, slow := slowOnKeys(t, wsfanout.Conflate, 3000, 3000) // 3 MB, of which nothing can be left out
	require.Eventually(t, func() bool { return s.hub.Stats().RingBytes < 3<<20 }, patience, time.Millisecond, "rings are trimmed")
	at, gaps := 0, 0
	for at < 3000 {
		m, err := slow.read()
		require.NoError(t, err)
		switch m["type"] {
		case "message":
			require.Equal(t, at+1, number(m, "offset"))
			at++
		case "skip":
			require.Equal(t, at+max(1, number(m, "n")), number(m, "offset"))
			at = number(m, "offset")
		case "gap":
			gaps++
			require.Equal(t, "ring_overrun", m["reason"])
			at = number(m, "offset")
		}
	}
	require.Equal(t, 1, gaps)
	require.Zero(t, s.hub.Stats().Behind)
}

// A frame is compressed once, for those that want it; the others get it as it is. Both also send.
func TestCompress(t *testing.T) {
	s := start(t, wsfanout.Config{Compress: true, OnMessage: func(context.Context, *wsfanout.Conn, string, []byte) error { return nil }})
	settled(t, s)
	var ls []*listener
	for i := range 4 {
		l := listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{"room"}, Compress: i > 0})
		l.subscribed(t, 1)
		ls = append(ls, l)
	}
	var want []string
	body := strings.Repeat("all work and no play ", 100)
	for i := range 20 {
		id := fmt.Sprint("m", i)
		want = append(want, id)
		_, err := s.hub.Publish(t.Context(), "room", fmt.Appendf(nil, "%q", fmt.Sprint(i, body)), &wsfanout.PublishOptions{ID: id})
		require.NoError(t, err)
		publish(t, s, "room", id+"s")
		want = append(want, id+"s")
	}
	for _, l := range ls {
		l.sees(t, "room", want)
		require.Equal(t, fmt.Sprintf("%q", fmt.Sprint(19, body)), string(l.got[38].Data))
		require.NoError(t, l.Publish(t.Context(), "room", []byte(body)))
	}
	require.EqualValues(t, 20, s.hub.Stats().Compressed, "short ones are not worth it")

	// What goes over the wire is short, and it is off by default.
	for _, on := range []bool{true, false} {
		s := start(t, wsfanout.Config{Compress: on})
		settled(t, s)
		c, resp, err := websocket.Dial(t.Context(), s.url("bob"), &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
		require.NoError(t, err)
		defer c.CloseNow()
		require.Equal(t, on, strings.Contains(resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate"))
	}
}
