package wsfanout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

// raw is a socket without a client's rule.
type raw struct {
	t  testing.TB
	ws *websocket.Conn
}

func dial(t testing.TB, url string, header http.Header) (*raw, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		return nil, resp, err
	}
	ws.SetReadLimit(4 << 20)
	t.Cleanup(func() { ws.CloseNow() })
	return &raw{t, ws}, resp, nil
}

func connectRaw(t testing.TB, url string) *raw {
	t.Helper()
	r, _, err := dial(t, url, nil)
	require.NoError(t, err)
	require.Equal(t, "hello", r.next("hello")["type"])
	return r
}

func (r *raw) read() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := r.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	require.NoError(r.t, json.Unmarshal(b, &m), "%s", b)
	return m, nil
}

// next returns the next frame of a type, and skips others.
func (r *raw) next(typ string) map[string]any {
	r.t.Helper()
	for {
		m, err := r.read()
		require.NoError(r.t, err)
		if m["type"] == typ {
			return m
		}
	}
}

func (r *raw) send(frame string) {
	r.t.Helper()
	require.NoError(r.t, r.ws.Write(context.Background(), websocket.MessageText, []byte(frame)))
}

// closed reads to the end and returns the close code.
func (r *raw) closed() int {
	r.t.Helper()
	for {
		if _, err := r.read(); err != nil {
			return int(websocket.CloseStatus(err))
		}
	}
}

func TestOrigin(t *testing.T) {
	for _, c := range []struct {
		origins []string
		origin  string
		ok      bool
	}{
		{nil, "", true}, // no browser
		{nil, "http://HOST", true},
		{nil, "http://evil.example", false},
		{nil, "http://HOST.evil.example", false},
		{nil, "null", false},
		{[]string{"chat.example.com"}, "https://chat.example.com", true},
		{[]string{"chat.example.com"}, "https://chat.example.com.evil.example", false},
		{[]string{"*.example.com"}, "https://a.example.com", true},
		{[]string{"*.example.com"}, "https://example.com", false},
		{[]string{"*.example.com"}, "https://evilexample.com", false},
		{[]string{"*.example.com"}, "http://HOST", true},
	} {
		t.Run(fmt.Sprint(c.origins, " ", c.origin), func(t *testing.T) {
			s := start(t, wsfanout.Config{Origins: c.origins})
			settled(t, s)
			h := http.Header{}
			if c.origin != "" {
				h.Set("Origin", strings.ReplaceAll(c.origin, "HOST", s.http.Listener.Addr().String()))
			}
			_, resp, err := dial(t, s.url("ann"), h)
			if c.ok {
				require.NoError(t, err)
			} else {
				require.Error(t, err)
				require.Equal(t, http.StatusForbidden, resp.StatusCode)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	s := start(t, wsfanout.Config{
		MaxConns: 3, MaxPerUser: 2, MaxTopics: 2, MaxFrame: 1024, MaxPerSecond: 4,
		Authenticate: func(r *http.Request) (wsfanout.Identity, error) {
			switch u := r.URL.Query().Get("user"); u {
			case "":
				return wsfanout.Identity{}, errors.New("no session")
			case "mallory":
				return wsfanout.Identity{}, wsfanout.ErrForbidden
			default:
				return wsfanout.Identity{User: u}, nil
			}
		},
		Authorize: func(_ context.Context, id wsfanout.Identity, topic string) error {
			switch {
			case topic == "broken":
				return errors.New("secret: database is down")
			case topic == "secret":
				return fmt.Errorf("%w: not a member", wsfanout.ErrForbidden)
			}
			return nil
		},
	})
	settled(t, s)
	status := func(user string) (int, http.Header) {
		r, resp, err := dial(t, s.url(user), nil)
		if err == nil {
			r.ws.CloseNow()
		}
		return resp.StatusCode, resp.Header
	}
	code, _ := status("")
	require.Equal(t, 401, code)
	code, _ = status("mallory")
	require.Equal(t, 403, code)

	a, b := connectRaw(t, s.url("ann")), connectRaw(t, s.url("ann"))
	code, h := status("ann")
	require.Equal(t, 503, code, "of one user")
	require.Contains(t, "345", h.Get("Retry-After"))
	c := connectRaw(t, s.url("bob"))
	code, h = status("eve")
	require.Equal(t, 503, code, "of the node")
	require.Contains(t, "345", h.Get("Retry-After"))
	require.EqualValues(t, 2, s.hub.Stats().Refused)

	// A refused topic does not end the socket; the client hears no more than it may.
	a.send(`{"type":"subscribe","ref":1,"topics":{"secret":"","broken":"","bad":"no cursor","":""}}`)
	errs := map[string]string{}
	for range 4 {
		m := a.next("denied")
		topic, _ := m["topic"].(string)
		errs[topic] = m["error"].(string)
	}
	require.Equal(t, map[string]string{"secret": "wsfanout: not allowed: not a member", "broken": "failed", "bad": "malformed cursor", "": "malformed topic"}, errs)
	a.send(`{"type":"publish","ref":2,"topic":"room","data":1}`)
	require.Contains(t, a.next("done")["error"], "not allowed", "without OnMessage clients cannot send")
	a.send(`{"type":"from a newer version"}`)
	require.Equal(t, "unknown_type", a.next("error")["code"])
	a.send(`{"type":"subscribe","ref":3,"topics":{"a":"","b":""}}`)
	a.next("subscribed")
	a.next("subscribed")
	a.send(`{"type":"subscribe","ref":4,"topics":{"c":""}}`)
	require.Equal(t, "too_many_topics", a.next("denied")["code"])
	a.ws.CloseNow()

	for range 100 {
		if b.ws.Write(context.Background(), websocket.MessageText, []byte(`{"type":"x"}`)) != nil {
			break
		}
	}
	require.Equal(t, 1008, b.closed(), "too many messages")

	c.send(`{"type":"` + strings.Repeat("x", 2000) + `"}`)
	require.Equal(t, 1009, c.closed(), "frame too large")
	require.Eventually(t, func() bool { return s.hub.Stats().Conns == 0 }, patience, time.Millisecond)
	d := connectRaw(t, s.url("bob"))
	d.send(`no JSON`)
	require.Equal(t, 1008, d.closed())

	_, err := s.hub.Publish(t.Context(), "room", make([]byte, 1<<20+1), nil)
	require.ErrorIs(t, err, wsfanout.ErrTooLarge)
	_, err = s.hub.Publish(t.Context(), "", nil, nil)
	require.ErrorContains(t, err, `topic ""`)
	_, err = s.hub.Publish(t.Context(), "room", nil, &wsfanout.PublishOptions{ID: "\xff"})
	require.ErrorContains(t, err, "ID")
}

func TestAuthenticateFrame(t *testing.T) {
	s := start(t, wsfanout.Config{AuthenticateFrame: func(ctx context.Context, first []byte) (wsfanout.Identity, error) {
		if string(first) != `{"token":"good"}` {
			return wsfanout.Identity{}, wsfanout.ErrForbidden
		}
		return wsfanout.Identity{User: "ann"}, nil
	}})
	settled(t, s)
	bad, _, err := dial(t, s.http.URL, nil)
	require.NoError(t, err)
	bad.send(`{"token":"bad"}`)
	require.Equal(t, 4001, bad.closed())
	l := listen(t, client.Config{URLs: []string{s.http.URL}, Topics: []string{"room"}, First: func() []byte { return []byte(`{"token":"good"}`) }})
	l.subscribed(t, 1)
	publish(t, s, "room", "m1")
	l.sees(t, "room", []string{"m1"})
}

// Topics that the server subscribes at connect are resumed like any other.
func TestServerSubscribes(t *testing.T) {
	s := start(t, wsfanout.Config{
		OnConnect: func(ctx context.Context, c *wsfanout.Conn) error {
			if c.Identity().User == "mallory" {
				return wsfanout.ErrForbidden
			}
			return c.Subscribe(ctx, "user/"+c.Identity().User)
		},
		Authorize: func(context.Context, wsfanout.Identity, string) error { return wsfanout.ErrForbidden },
	})
	settled(t, s)
	r, _, err := dial(t, s.url("mallory"), nil)
	require.NoError(t, err)
	require.Equal(t, 1008, r.closed())

	l := listen(t, client.Config{URLs: []string{s.url("ann")}})
	l.subscribed(t, 1)
	var want []string
	for i := range 40 {
		id := fmt.Sprint("m", i)
		if i%10 == 5 {
			s.drop()
		}
		publish(t, s, "user/ann", id)
		want = append(want, id)
	}
	l.sees(t, "user/ann", want)
	require.Zero(t, l.gapCount())
	require.Positive(t, l.Stats().Resumed)
}

func TestExceptAndEphemeral(t *testing.T) {
	s := start(t, wsfanout.Config{})
	settled(t, s)
	ann := listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{"room"}})
	bob := listen(t, client.Config{URLs: []string{s.url("bob")}, Topics: []string{"room"}})
	ann.subscribed(t, 1)
	bob.subscribed(t, 1)
	pub := func(id string, o wsfanout.PublishOptions) wsfanout.Position {
		o.ID = id
		p, err := s.hub.Publish(t.Context(), "room", []byte(id), &o)
		require.NoError(t, err)
		return p
	}
	pub("1", wsfanout.PublishOptions{ExceptUsers: []string{"ann"}})
	pub("2", wsfanout.PublishOptions{ExceptConns: []string{bob.hello().Conn}})
	require.Zero(t, pub("3", wsfanout.PublishOptions{Ephemeral: true, ExceptUsers: []string{"bob"}}).Offset)
	pub("4", wsfanout.PublishOptions{})
	ann.sees(t, "room", []string{"2", "", "4"})
	bob.sees(t, "room", []string{"1", "4"})
	require.Equal(t, "3", string(ann.got[1].Data))
	require.True(t, ann.got[1].Ephemeral)
	require.Zero(t, ann.Stats().Holes, "what is left out leaves no hole")
	require.Equal(t, "4", string(bob.got[1].Data), "data comes out as it went in")
}

// Of two sockets of one client the one with the higher count stays, on whichever nodes they are.
func TestTakeover(t *testing.T) {
	g := startGroup(t, 2, wsfanout.Config{})
	url := func(i, count int) string { return fmt.Sprintf("%s&client=tab1&count=%d", g.all[i].url("ann"), count) }
	first := connectRaw(t, url(0, 1))
	other := connectRaw(t, fmt.Sprintf("%s&client=tab1&count=9", g.all[0].url("bob"))) // another user's ID means nothing
	second := connectRaw(t, url(0, 2))
	require.Equal(t, 4009, first.closed())
	third := connectRaw(t, url(1, 3))
	require.Equal(t, 4009, second.closed())
	late, _, err := dial(t, url(1, 2), nil)
	require.NoError(t, err)
	require.Equal(t, 4009, late.closed(), "an older one comes late")
	third.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
	require.Equal(t, "fresh", third.next("subscribed")["kind"])
	other.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
	other.next("subscribed")
	for _, q := range []string{"&client=x", "&client=x&count=-1", "&client=" + strings.Repeat("x", 65) + "&count=1"} {
		_, resp, err := dial(t, g.all[0].url("ann")+q, nil)
		require.Error(t, err)
		require.Equal(t, 400, resp.StatusCode, q)
	}
}

func TestRevoke(t *testing.T) {
	g := startGroup(t, 2, wsfanout.Config{})
	a := connectRaw(t, g.all[0].url("ann")+"&session=1")
	b := connectRaw(t, g.all[1].url("ann")+"&session=1")
	c := connectRaw(t, g.all[1].url("ann")+"&session=2")
	d := connectRaw(t, g.all[1].url("bob")+"&session=1")
	require.NoError(t, g.all[0].hub.Revoke(t.Context(), "ann", "1"))
	require.Equal(t, 4003, a.closed())
	require.Equal(t, 4003, b.closed())
	c.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
	c.next("subscribed")
	require.NoError(t, g.all[0].hub.Revoke(t.Context(), "ann", ""))
	require.Equal(t, 4003, c.closed())
	d.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
	d.next("subscribed")
}

func TestPresence(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{})
	present := func(i int, want ...string) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			got, err := g.all[i].hub.Presence(t.Context(), "room")
			require.NoError(c, err)
			require.Equal(c, want, got)
		}, patience, 10*time.Millisecond)
	}
	ann := listen(t, client.Config{URLs: []string{g.all[0].url("ann")}, Topics: []string{"room"}})
	listen(t, client.Config{URLs: []string{g.all[1].url("ann")}, Topics: []string{"room"}})
	listen(t, client.Config{URLs: []string{g.all[2].url("bob")}, Topics: []string{"room"}})
	for i := range 3 {
		present(i, "ann", "bob")
	}
	// A node that joins is told.
	g.at = append(g.at, g.net.Join("D"))
	g.all = append(g.all, start(t, wsfanout.Config{Transport: g.at[3]}))
	present(3, "ann", "bob")
	// A dead node's users are gone at once, if they are nowhere else.
	g.kill(2)
	present(0, "ann")
	present(3, "ann")
	// Who leaves lingers: the other socket of ann stays in any case.
	require.NoError(t, ann.Unsubscribe(t.Context(), "room"))
	g.kill(1)
	present(3, "ann")
	present(3)
}

// What OnGap returns comes before what is left in the log, and is not shown again from there.
func TestOnGap(t *testing.T) {
	var after []string
	release := make(chan struct{})
	s := start(t, wsfanout.Config{OnGap: func(ctx context.Context, id wsfanout.Identity, topic, a string) ([]wsfanout.Message, error) {
		after = append(after, id.User+" "+topic+" "+a)
		<-release
		if a == "fail" {
			return nil, errors.New("database is down")
		}
		return []wsfanout.Message{{ID: "lost", Data: []byte(`"lost"`)}, {ID: "m1", Data: []byte(`"m1"`)}, {ID: "m2", Data: []byte(`"m2"`)}}, nil
	}})
	settled(t, s)
	publish(t, s, "room", "m1")
	publish(t, s, "room", "m2")
	publish(t, s, "room", "m3")
	// A cursor of a log that this hub never knew: its position cannot be matched.
	l := listen(t, client.Config{URLs: []string{s.url("ann")}, Cursors: map[string]string{"room": "1|7.gone:44|7.gone:44|seen"}})
	require.Eventually(t, func() bool { return s.hub.Stats().Gaps == 1 }, patience, time.Millisecond)
	publish(t, s, "room", "m4") // while the application is asked
	close(release)
	l.sees(t, "room", []string{"lost", "m1", "m2", "m3", "m4"})
	require.Equal(t, []string{"ann room seen"}, after)
	require.Equal(t, 1, l.gapCount())
	require.True(t, l.gaps[0].Filled)
	require.Equal(t, "seen", l.gaps[0].After)
	publish(t, s, "room", "m5")
	l.sees(t, "room", []string{"lost", "m1", "m2", "m3", "m4", "m5"})

	// The application fails: the gap is told as it is.
	f := listen(t, client.Config{URLs: []string{s.url("ann")}, Cursors: map[string]string{"room": "1|7.gone:44|7.gone:44|fail"}})
	f.sees(t, "room", []string{"m1", "m2", "m3", "m4", "m5"})
	require.False(t, f.gaps[0].Filled)
}

// Also where the records after the gap are at another node, as this one has heard of the topic only since.
func TestOnGapAwayFromTheHome(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{OnGap: func(context.Context, wsfanout.Identity, string, string) ([]wsfanout.Message, error) {
		return []wsfanout.Message{{ID: "lost", Data: []byte(`"lost"`)}, {ID: "m1", Data: []byte(`"m1"`)}, {ID: "m2", Data: []byte(`"m2"`)}}, nil
	}})
	settled(t, g.all...)
	topic := g.topicOf(t, 0)
	for _, id := range []string{"m1", "m2", "m3"} {
		publish(t, g.all[0], topic, id)
	}
	for _, s := range g.all {
		here := listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{topic}})
		require.Eventually(t, func() bool { return here.Stats().Fresh == 1 }, patience, time.Millisecond)
		back := listen(t, client.Config{URLs: []string{s.url("ann")}, Cursors: map[string]string{topic: "1|7.gone:44|7.gone:44|seen"}})
		back.sees(t, topic, []string{"lost", "m1", "m2", "m3"})
		require.Equal(t, 1, back.gapCount())
	}
}

func TestHubWithoutRun(t *testing.T) {
	hub, err := wsfanout.New(wsfanout.Config{Authenticate: who})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	hub.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, 503, w.Code)
	require.Error(t, hub.Check(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = hub.Publish(ctx, "room", nil, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, wsfanout.ErrUncertain, "it is certain")
	require.NoError(t, hub.Shutdown(t.Context()))
	require.NoError(t, hub.Run(t.Context()))
	_, err = hub.Publish(t.Context(), "room", nil, nil)
	require.ErrorIs(t, err, wsfanout.ErrClosed)
	_, err = hub.Presence(t.Context(), "room")
	require.ErrorIs(t, err, wsfanout.ErrClosed)
	require.ErrorIs(t, hub.Revoke(t.Context(), "ann", ""), wsfanout.ErrClosed)
	require.ErrorIs(t, hub.Check(t.Context()), wsfanout.ErrClosed)
	require.Empty(t, hub.Home("room"))
}

func TestInvalidConfig(t *testing.T) {
	var nilTransport *fakeTransport
	_, err := wsfanout.New(wsfanout.Config{Transport: nilTransport, Origins: []string{"["}, MinCopies: 3, MaxMessage: 2 << 20, MaxConns: -1})
	for _, want := range []string{"Authenticate is nil", "Transport is a nil", `Origins has "["`, "MinCopies is 3", "MaxMessage is 2097152", "MaxConns is -1"} {
		require.ErrorContains(t, err, want)
	}
	_, err = wsfanout.New(wsfanout.Config{Authenticate: who, MinCopies: 2})
	require.ErrorContains(t, err, "MinCopies is 2 without a Transport")
}

type fakeTransport struct{ wsfanout.Transport }
