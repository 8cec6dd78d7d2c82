package wsfanout_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

// What a client may do wrong, and what becomes of it: the table of doc.go. Nobody else notices.
func TestTableOfFaults(t *testing.T) {
	s := start(t, wsfanout.Config{
		MaxTopics: 3, MaxFrame: 8192, MaxPerSecond: 10, MaxBytesPerSecond: 10_000, MaxPerUser: 1000,
		OnMessage: func(context.Context, *wsfanout.Conn, string, []byte) error { return nil },
		Authorize: func(_ context.Context, _ wsfanout.Identity, topic string) error {
			switch topic {
			case "secret":
				return wsfanout.ErrForbidden
			case "broken":
				return context.DeadlineExceeded
			}
			return nil
		},
	})
	settled(t, s)
	other := listen(t, client.Config{URLs: []string{s.url("other")}, Topics: []string{"room"}})
	other.subscribed(t, 1)
	text, binary := websocket.MessageText, websocket.MessageBinary
	var want []string
	for name, c := range map[string]struct {
		typ   websocket.MessageType
		send  []string
		frame string // type and code of the answer
		kind  string // of a gap
		close int
	}{
		"binary":                  {typ: binary, send: []string{`{"type":"subscribe"}`}, close: 1003},
		"not JSON":                {typ: text, send: []string{`hello`}, close: 1008},
		"not an object":           {typ: text, send: []string{`[]`}, close: 1008},
		"null":                    {typ: text, send: []string{`null`}, close: 1008},
		"a wrong kind of field":   {typ: text, send: []string{`{"type":7}`}, close: 1008},
		"not UTF-8":               {typ: text, send: []string{"\xff\xfe"}, close: 1008},
		"cut short":               {typ: text, send: []string{`{"type":"subscribe","topics":{"a":`}, close: 1008},
		"empty":                   {typ: text, send: []string{``}, close: 1008},
		"too large":               {typ: text, send: []string{`{"type":"` + strings.Repeat("x", 9000) + `"}`}, close: 1009},
		"too many":                {typ: text, send: slicesRepeat(`{"type":"unsubscribe"}`, 60), close: 1008},
		"too much":                {typ: text, send: slicesRepeat(`{"type":"unsubscribe","names":["`+strings.Repeat("x", 4000)+`"]}`, 20), close: 1008},
		"unknown command":         {typ: text, send: []string{`{"type":"fly","ref":1}`}, frame: "error unknown_type"},
		"no command":              {typ: text, send: []string{`{}`}, frame: "error unknown_type"},
		"empty topic":             {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"":""}}`}, frame: "denied bad_topic"},
		"long topic":              {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"` + strings.Repeat("x", 256) + `":""}}`}, frame: "denied bad_topic"},
		"forbidden topic":         {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"secret":""}}`}, frame: "denied forbidden"},
		"topic that nobody knows": {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"broken":""}}`}, frame: "denied failed"},
		"too many topics":         {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"a":"","b":"","c":"","d":""}}`}, frame: "denied too_many_topics"},
		"no cursor":               {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"room":"x"}}`}, frame: "denied bad_cursor"},
		"long cursor":             {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"room":"1|1.a:1||` + strings.Repeat("x", 4090) + `"}}`}, frame: "denied bad_cursor"},
		"forged position":         {typ: text, send: []string{`{"type":"subscribe","ref":1,"topics":{"room":"1|99.nobody:18446744073709551615|99.nobody:1|x"}}`}, frame: "subscribed", kind: "gap"},
		"publish to no topic":     {typ: text, send: []string{`{"type":"publish","ref":1,"data":1}`}, frame: "done bad_topic"},
		"publish of nothing":      {typ: text, send: []string{`{"type":"publish","ref":1,"topic":"room"}`}, frame: "done bad_data"},
		"publish of bad base64":   {typ: text, send: []string{`{"type":"publish","ref":1,"topic":"room","data":"!","base64":true}`}, frame: "done bad_data"},
	} {
		t.Run(name, func(t *testing.T) {
			r := connectRaw(t, s.url("mallory"))
			for _, b := range c.send {
				if r.ws.Write(t.Context(), c.typ, []byte(b)) != nil {
					break
				}
			}
			if c.close != 0 {
				require.Equal(t, c.close, r.closed())
				return
			}
			typ, code, _ := strings.Cut(c.frame, " ")
			m := r.next(typ)
			for code == "too_many_topics" && m["code"] == nil {
				m = r.next(typ)
			}
			if code != "" {
				require.Equal(t, code, m["code"])
				require.NotEmpty(t, m["error"])
			}
			if c.kind != "" {
				require.Equal(t, c.kind, m["kind"])
			}
			r.send(`{"type":"subscribe","ref":9,"topics":{"again":""}}`) // it is still served
			for m["ref"] != float64(9) {
				var err error
				m, err = r.read()
				require.NoError(t, err)
			}
		})
		id := fmt.Sprint("m", len(want))
		publish(t, s, "room", id)
		want = append(want, id)
	}
	other.sees(t, "room", want)
	require.Equal(t, client.Stats{Connects: 1, Frames: other.Stats().Frames, Messages: uint64(len(want)), Fresh: 1}, other.Stats())
}

func slicesRepeat(s string, n int) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}

// One that asks and asks, and never reads: it is held up, the hub's memory is not.
func TestAsksAndNeverReads(t *testing.T) {
	s := startSmall(t, wsfanout.Config{MaxPerSecond: 1 << 30, MaxBytesPerSecond: 1 << 30})
	settled(t, s)
	conn, err := net.Dial("tcp", s.http.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(conn, "GET /?user=u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	require.NoError(t, err)
	question := []byte(`{"type":"` + strings.Repeat("x", 90) + `"}`)
	frame := append([]byte{0x81, 0x80 | byte(len(question)), 0, 0, 0, 0}, question...)
	many := bytes.Repeat(frame, 1000)
	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(patience)))
	sent := 0
	for ; sent < 1000; sent++ {
		require.NoError(t, conn.SetWriteDeadline(time.Now().Add(2*time.Second)))
		if _, err := conn.Write(many); err != nil {
			require.ErrorIs(t, err, errTimeout(err))
			break
		}
		require.Less(t, s.hub.SocketPending(), 300<<10)
	}
	require.Less(t, sent, 1000, "it is not read from any more")
	require.Less(t, s.hub.SocketPending(), 300<<10)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_ = conn.SetWriteDeadline(time.Time{})
}

func errTimeout(err error) error {
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return err
	}
	return context.DeadlineExceeded
}

// An address has its limit as a user has, and gets its places back.
func TestPerAddress(t *testing.T) {
	s := start(t, wsfanout.Config{MaxPerAddress: 2})
	settled(t, s)
	a, _ := connectRaw(t, s.url("a")), connectRaw(t, s.url("b"))
	_, resp, err := dial(t, s.url("c"), nil)
	require.Error(t, err)
	require.Equal(t, 503, resp.StatusCode)
	a.ws.CloseNow()
	require.Eventually(t, func() bool {
		r, _, err := dial(t, s.url("c"), nil)
		if err == nil {
			r.ws.CloseNow()
		}
		return err == nil
	}, patience, 5*time.Millisecond)
}

// A panic in a callback ends its socket, and nothing else.
func TestPanicInACallback(t *testing.T) {
	s := start(t, wsfanout.Config{OnMessage: func(context.Context, *wsfanout.Conn, string, []byte) error { panic("mistake") }})
	settled(t, s)
	other := listen(t, client.Config{URLs: []string{s.url("other")}, Topics: []string{"room"}})
	other.subscribed(t, 1)
	r := connectRaw(t, s.url("ann"))
	r.send(`{"type":"publish","ref":1,"topic":"room","data":1}`)
	require.Equal(t, 1011, r.closed())
	publish(t, s, "room", "m")
	other.sees(t, "room", []string{"m"})
	require.Eventually(t, func() bool { return s.hub.Stats().Conns == 1 }, patience, time.Millisecond)
}
