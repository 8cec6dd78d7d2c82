package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/server"
	"github.com/nines-go/nines/internal/lab"
)

type room struct{ ID, Name string }

type message struct {
	Seq    int64
	ID     string
	Room   string
	User   string
	Text   string
	File   string
	Client string
	N      int64
}

type taken struct {
	ID     string
	Seq    int64
	Epoch  string
	Offset uint64
	Copies int
	Home   string
}

func post(room, id, text string) map[string]any {
	return map[string]any{"room": room, "id": id, "text": text}
}

func TestChat(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{})
	ann, ben := signUp(t, s.url, "ann"), signUp(t, s.url, "ben")

	var rooms []room
	ann.must(http.StatusOK, "GET", "/api/v4/rooms", nil, &rooms)
	require.Equal(t, []room{{"lobby", "Lobby"}}, rooms)

	annSocket, benSocket := ann.connect("rooms", "room:lobby"), ben.connect("rooms", "room:lobby")
	var made room
	ann.must(http.StatusCreated, "POST", "/api/v4/rooms", map[string]string{"name": "  Plans   for  May "}, &made)
	require.Equal(t, "Plans for May", made.Name)
	ann.must(http.StatusConflict, "POST", "/api/v4/rooms", map[string]string{"name": "Plans for May"}, nil)
	require.Eventually(t, func() bool { return len(benSocket.got()) == 1 && benSocket.got()[0].Topic == "rooms" }, long, 10*time.Millisecond)

	// A repeat is answered in the same way and appears once.
	var first, again taken
	ann.must(http.StatusCreated, "POST", "/api/v4/posts", map[string]any{"room": "lobby", "id": "a-1", "text": "hello ben", "client": "c", "n": 1}, &first)
	ann.must(http.StatusOK, "POST", "/api/v4/posts", map[string]any{"room": "lobby", "id": "a-1", "text": "hello ben", "client": "c", "n": 1}, &again)
	require.Equal(t, first, again)
	require.NotEmpty(t, first.Epoch)
	require.NotEmpty(t, first.Home)
	require.EqualValues(t, 1, first.Copies)
	ann.must(http.StatusConflict, "POST", "/api/v4/posts", post("lobby", "a-1", "something else"), nil)
	ben.must(http.StatusConflict, "POST", "/api/v4/posts", map[string]any{"room": "lobby", "id": "a-1", "text": "hello ben", "client": "c", "n": 1}, nil)
	ben.must(http.StatusCreated, "POST", "/api/v4/posts", post("lobby", "b-1", "hello ann"), nil)
	for _, socket := range []*inbox{annSocket, benSocket} {
		require.Eventually(t, func() bool { return len(socket.got()) == 3 }, long, 10*time.Millisecond)
		require.Equal(t, []string{"", "hello ben", "hello ann"}, socket.texts())
		require.Equal(t, "a-1", socket.got()[1].ID)
	}

	// Typing reaches the others and is nowhere stored.
	require.NoError(t, annSocket.Publish(t.Context(), "room:lobby", []byte(`{"type":"typing"}`)))
	require.Eventually(t, func() bool { return len(benSocket.got()) == 4 }, long, 10*time.Millisecond)
	require.True(t, benSocket.got()[3].Ephemeral)
	require.JSONEq(t, `{"type":"typing","user":"ann"}`, string(benSocket.got()[3].Data))
	require.Error(t, annSocket.Publish(t.Context(), "room:lobby", []byte(`{"type":"message","text":"past the table"}`)))
	require.Error(t, annSocket.Publish(t.Context(), "room:nowhere", []byte(`{"type":"typing"}`)))

	var list []message
	ben.must(http.StatusOK, "GET", "/api/v4/rooms/lobby/messages", nil, &list)
	require.Len(t, list, 2)
	require.Equal(t, message{Seq: first.Seq, ID: "a-1", Room: "lobby", User: "ann", Text: "hello ben", Client: "c", N: 1}, list[0])

	var here []string
	require.Eventually(t, func() bool {
		ann.must(http.StatusOK, "GET", "/api/v4/rooms/lobby/presence", nil, &here)
		return len(here) == 2
	}, long, 10*time.Millisecond)
	require.ElementsMatch(t, []string{"ann", "ben"}, here)
}

func TestHistoryAndSearch(t *testing.T) {
	historyAndSearch(t, config(t.TempDir()), func() {})
}

// TestHistoryAndSearchOnReplicas writes to a master, reads history from a replica and searches on another one.
func TestHistoryAndSearchOnReplicas(t *testing.T) {
	db := lab.Postgres(t, 2)
	cfg := config(t.TempDir())
	cfg.SqlSettings.DriverName, cfg.SqlSettings.DataSource = "postgres", db.URL(0)
	cfg.SqlSettings.DataSourceReplicas, cfg.SqlSettings.DataSourceSearchReplicas = []string{db.URL(1)}, []string{db.URL(2)}
	historyAndSearch(t, cfg, db.Replayed)
}

// TestWhoWroteReadsIt has the replica stand still.
func TestWhoWroteReadsIt(t *testing.T) {
	db := lab.Postgres(t, 1)
	cfg := config(t.TempDir())
	cfg.SqlSettings.DriverName, cfg.SqlSettings.DataSource, cfg.SqlSettings.DataSourceReplicas = "postgres", db.URL(0), []string{db.URL(1)}
	s := start(t, cfg, server.Options{})
	ann, ben := signUp(t, s.url, "ann"), signUp(t, s.url, "ben")
	db.Replayed()
	db.PauseReplay(1)
	defer db.ResumeReplay(1)
	count := func(p *person) (rooms, messages int) {
		var r []room
		p.must(http.StatusOK, "GET", "/api/v4/rooms", nil, &r)
		var m []message
		p.must(http.StatusOK, "GET", "/api/v4/rooms/lobby/messages", nil, &m)
		return len(r), len(m)
	}
	require.Eventually(t, func() bool { // what ben wrote when he signed up is long ago by then
		r, m := count(ben)
		u, err := url.Parse(s.url + "/api/")
		require.NoError(t, err)
		return r == 1 && m == 0 && len(ben.http.Jar.Cookies(u)) == 1
	}, long, 100*time.Millisecond)
	ann.must(http.StatusCreated, "POST", "/api/v4/rooms", map[string]string{"name": "Plans"}, nil)
	ann.must(http.StatusCreated, "POST", "/api/v4/posts", post("lobby", "p", "hello"), nil)
	rooms, messages := count(ann)
	require.Equal(t, [2]int{2, 1}, [2]int{rooms, messages})
	rooms, messages = count(ben)
	require.Equal(t, [2]int{1, 0}, [2]int{rooms, messages}, "the reads of others stay on the replica")
}

func historyAndSearch(t *testing.T, cfg server.Config, replayed func()) {
	s := start(t, cfg, server.Options{})
	ann := signUp(t, s.url, "ann")
	for i := 1; i <= 7; i++ {
		ann.must(http.StatusCreated, "POST", "/api/v4/posts", post("lobby", fmt.Sprint("m", i), fmt.Sprintf("message number%d: the Straße is \"long\" OR short", i)), nil)
	}
	replayed()
	ids := func(path string) (ids string) {
		var list []message
		ann.must(http.StatusOK, "GET", path, nil, &list)
		for _, m := range list {
			ids += m.ID + " "
		}
		return ids
	}
	var all []message
	ann.must(http.StatusOK, "GET", "/api/v4/rooms/lobby/messages", nil, &all)
	require.Len(t, all, 7)
	require.Equal(t, "m5 m6 m7 ", ids("/api/v4/rooms/lobby/messages?limit=3"))
	require.Equal(t, "m2 m3 ", ids(fmt.Sprintf("/api/v4/rooms/lobby/messages?limit=2&before=%d", all[3].Seq)))
	require.Equal(t, "m5 m6 ", ids(fmt.Sprintf("/api/v4/rooms/lobby/messages?limit=2&after=%d", all[3].Seq)))
	require.Equal(t, "m4 ", ids("/api/v4/search?q=number4"))
	require.Equal(t, "m7 m6 m5 m4 m3 m2 m1 ", ids("/api/v4/search?q=stra%C3%9Fe+numb&room=lobby"))
	require.Equal(t, "", ids("/api/v4/search?q=number4&room=other"))
	require.Equal(t, "", ids("/api/v4/search?q=%22%27--+%2A"), "nothing to search for")
	require.Equal(t, "", ids("/api/v4/search?q=number4+OR+absent%22"), "what a search engine takes for an operator is a word")
	for path, code := range map[string]int{
		"/api/v4/rooms/none/messages": 404, "/api/v4/rooms/none/presence": 404, "/api/v4/rooms/lobby/messages?before=x": 400,
		"/api/v4/rooms/lobby/messages?limit=-1": 400, "/api/v4/search": 400, "/api/v4/nothing": 404,
	} {
		ann.must(code, "GET", path, nil, nil)
	}
}

func TestPostRefuses(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{})
	ann := signUp(t, s.url, "ann")
	for name, c := range map[string]struct {
		body any
		code int
	}{
		"no id":          {post("lobby", "", "x"), 400},
		"bad id":         {post("lobby", "a b", "x"), 400},
		"no text":        {post("lobby", "i", ""), 400},
		"long text":      {post("lobby", "i", strings.Repeat("ä", 4001)), 400},
		"zero byte":      {post("lobby", "i", "a\x00b"), 400},
		"no room":        {post("none", "i", "x"), 404},
		"other file":     {map[string]any{"room": "lobby", "id": "i", "file": "../../etc/passwd"}, 400},
		"negative":       {map[string]any{"room": "lobby", "id": "i", "text": "x", "n": -1}, 400},
		"client":         {map[string]any{"room": "lobby", "id": "i", "text": "x", "client": "<b>"}, 400},
		"not an object":  {[]int{1}, 400},
		"very large":     {post("lobby", "i", strings.Repeat("x", 70<<10)), 413},
		"room is number": {map[string]any{"room": 1}, 400},
	} {
		res, text, err := ann.do("POST", "/api/v4/posts", c.body)
		require.NoError(t, err)
		require.Equal(t, c.code, res.StatusCode, "%s: %s", name, text)
		require.Contains(t, string(text), `"message":`, name)
	}
	ann.must(http.StatusCreated, "POST", "/api/v4/posts", post("lobby", "i", strings.Repeat("ä", 4000)), nil)
}

func TestAccounts(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{})
	ann := signUp(t, s.url, "Ann")
	var me struct{ Username, Password string }
	ann.must(http.StatusOK, "GET", "/api/v4/users/me", nil, &me)
	require.Equal(t, "ann", me.Username)
	require.Empty(t, me.Password)

	other := newPerson(t, s.url)
	for _, path := range []string{"/api/v4/users/me", "/api/v4/rooms", "/api/v4/rooms/lobby/messages", "/api/v4/search?q=x", "/api/v4/files/uploads/x", "/ws"} {
		res, _, err := other.do("GET", path, nil)
		require.NoError(t, err)
		require.Contains(t, []int{401, 426}, res.StatusCode, path)
	}
	login := func(name, password string) map[string]string {
		return map[string]string{"username": name, "password": password}
	}
	other.must(http.StatusConflict, "POST", "/api/v4/users", login("ann", "another password"), nil)
	other.must(http.StatusBadRequest, "POST", "/api/v4/users", login("ben", "short"), nil)
	other.must(http.StatusBadRequest, "POST", "/api/v4/users", login("ben", strings.Repeat("x", 73)), nil)
	other.must(http.StatusBadRequest, "POST", "/api/v4/users", login("ben jamin", "long enough"), nil)
	other.must(http.StatusUnauthorized, "POST", "/api/v4/users/login", login("ann", "wrong horse"), nil)
	other.must(http.StatusUnauthorized, "POST", "/api/v4/users/login", login("nobody", "correct horse"), nil)
	other.must(http.StatusNotFound, "POST", "/api/v4/demo/login", login("ann", ""), nil) // only in the demo
	other.must(http.StatusNotFound, "GET", "/demo/state", nil, nil)
	other.must(http.StatusOK, "POST", "/api/v4/users/login", login("ANN ", "correct horse"), nil)
	other.must(http.StatusOK, "GET", "/api/v4/users/me", nil, nil)

	// Signing out ends the session and its sockets, and no other.
	socket := other.connect("room:lobby")
	kept := ann.connect("room:lobby")
	other.must(http.StatusNoContent, "POST", "/api/v4/users/logout", nil, nil)
	require.Eventually(t, func() bool { return socket.Err() != nil }, long, 10*time.Millisecond)
	other.must(http.StatusUnauthorized, "GET", "/api/v4/users/me", nil, nil)
	ann.must(http.StatusOK, "GET", "/api/v4/users/me", nil, nil)
	require.NoError(t, kept.Err())

	// Guessing is slowed down: ten wrong ones a minute. A minute may turn once meanwhile.
	limited := func() bool {
		res, _, err := other.do("POST", "/api/v4/users/login", login("ann", "wrong horse"))
		require.NoError(t, err)
		return res.StatusCode == http.StatusTooManyRequests
	}
	tries := 0
	for ; tries < 40 && !limited(); tries++ {
	}
	require.Less(t, tries, 40)
}

func TestFiles(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.FileSettings.MaxFileSize = 1 << 20
	s := start(t, cfg, server.Options{})
	ann := signUp(t, s.url, "ann")
	put := func(name, kind string, body io.Reader) (code int, key string) {
		req, err := http.NewRequest("POST", s.url+"/api/v4/files?name="+name, body)
		require.NoError(t, err)
		req.Header.Set("Content-Type", kind)
		res, err := ann.http.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(text), `"key":"`)
		key, _, _ = strings.Cut(rest, `"`)
		return res.StatusCode, key
	}
	content := bytes.Repeat([]byte("abc\x00"), 1000)
	code, key := put("..%2Fa+b%3Cc%3E.PNG", "image/png", bytes.NewReader(content))
	require.Equal(t, 201, code)
	require.Regexp(t, `^uploads/\d{4}-\d{2}/[0-9a-f-]{36}/a-b-c-.PNG$`, key)
	res, text, err := ann.do("GET", "/api/v4/files/"+key, nil)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, content, text)
	require.Equal(t, "image/png", res.Header.Get("Content-Type"))
	require.Contains(t, res.Header.Get("Content-Security-Policy"), "sandbox")

	// Whatever a browser could run is saved, not shown; a stream of unknown size is taken.
	code, key = put("page.html", "text/html", io.MultiReader(strings.NewReader("<script>"), strings.NewReader("alert(1)</script>")))
	require.Equal(t, 201, code)
	res, text, err = ann.do("GET", "/api/v4/files/"+key, nil)
	require.NoError(t, err)
	require.Equal(t, "<script>alert(1)</script>", string(text))
	require.Equal(t, "application/octet-stream", res.Header.Get("Content-Type"))
	disposition, params, err := mime.ParseMediaType(res.Header.Get("Content-Disposition"))
	require.NoError(t, err)
	require.Equal(t, "attachment", disposition)
	require.Equal(t, "page.html", params["filename"])

	code, _ = put("big", "text/plain", bytes.NewReader(make([]byte, 1<<20+1)))
	require.Equal(t, 413, code)
	code, _ = put("big", "text/plain", io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), strings.NewReader("x")))
	require.Equal(t, 413, code)
	for _, bad := range []string{"uploads/2026-01/00000000-0000-0000-0000-000000000000/x", ".nines/store-id", "uploads/%2e%2e/chat.db", "chat.db"} {
		ann.must(http.StatusNotFound, "GET", "/api/v4/files/"+bad, nil, nil)
	}
	ann.must(http.StatusCreated, "POST", "/api/v4/posts", map[string]any{"room": "lobby", "id": "f", "file": key}, nil)
}

func TestHealthAndHeaders(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{})
	p := newPerson(t, s.url)
	for _, path := range []string{"/api/v4/system/ping", "/livez", "/readyz", "/healthz", "/", "/app.js", "/style.css", "/ws.js", "/admin/ha/", "/admin/ha/status.json"} {
		res, text, err := p.do("GET", path, nil)
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode, "%s: %s", path, text)
		require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"), path)
		require.Contains(t, res.Header.Get("Content-Security-Policy"), "default-src", path)
		require.NotContains(t, res.Header.Get("Content-Security-Policy"), "unsafe", path)
		if path == "/" {
			require.NotContains(t, string(text), "<script>")
			require.NotContains(t, string(text), "style=")
		}
	}
	// Another site cannot post with the user's cookie.
	ann := signUp(t, s.url, "ann")
	req, err := http.NewRequest("POST", s.url+"/api/v4/rooms", strings.NewReader(`{"name":"theirs"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", "https://evil.example")
	res, err := ann.http.Do(req)
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusForbidden, res.StatusCode)
}

func TestCookieIsSecureBehindATrustedProxyOnly(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		cfg := config(t.TempDir())
		if trusted {
			cfg.ServiceSettings.TrustedProxies = []string{"127.0.0.0/8"}
		}
		s := start(t, cfg, server.Options{})
		req, err := http.NewRequest("POST", s.url+"/api/v4/users", strings.NewReader(`{"username":"ann","password":"correct horse"}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Forwarded-Proto", "https")
		res, err := newPerson(t, s.url).http.Do(req)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, 201, res.StatusCode)
		require.Len(t, res.Cookies(), 2)
		for _, c := range res.Cookies() {
			require.Equal(t, trusted, c.Secure)
			require.True(t, c.HttpOnly)
			require.Equal(t, http.SameSiteLaxMode, c.SameSite)
		}
	}
}

func TestAboveItsBoundsTheServerSaysComeLater(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.ServiceSettings.MaxRequests = 1
	s := start(t, cfg, server.Options{})
	ann := signUp(t, s.url, "ann")
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(context.Background(), "POST", s.url+"/api/v4/files?name=slow", body)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := ann.http.Do(req); err == nil {
			res.Body.Close()
		}
	}()
	_, err = feed.Write([]byte("first part"))
	require.NoError(t, err)
	other := newPerson(t, s.url)
	require.Eventually(t, func() bool {
		res, _, err := other.do("GET", "/api/v4/config", nil)
		return err == nil && res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != ""
	}, long, 10*time.Millisecond)
	other.must(http.StatusOK, "GET", "/api/v4/system/ping", nil, nil) // full is not unready
	require.NoError(t, feed.Close())
	<-done
	other.must(http.StatusOK, "GET", "/api/v4/config", nil, nil)
}

func TestDemo(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{Demo: true})
	p := newPerson(t, s.url)
	p.must(http.StatusOK, "POST", "/api/v4/demo/login", map[string]string{"username": "ann"}, nil)
	p.must(http.StatusOK, "POST", "/api/v4/demo/login", map[string]string{"username": "ann"}, nil)
	p.must(http.StatusUnauthorized, "POST", "/api/v4/users/login", map[string]string{"username": "ann", "password": ""}, nil)
	var state struct {
		ID, Name, Leader string
		Term             uint64
		Leading, Settled bool
		Alive            []string
		Home             map[string]string
	}
	require.Eventually(t, func() bool {
		p.must(http.StatusOK, "GET", "/demo/state?topic=room:lobby", nil, &state)
		return state.Leading && state.Settled
	}, long, 10*time.Millisecond)
	require.Equal(t, state.ID, state.Leader)
	require.Equal(t, []string{state.ID}, state.Alive)
	require.NotEmpty(t, state.Home["room:lobby"])
}
