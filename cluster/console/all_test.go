package console_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/config"
	"github.com/nines-go/nines/cluster/console"
)

func postTo(t *testing.T, s *httptest.Server, path, body string, header ...string) (int, []byte) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/ha/"+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, b
}

// pair is two nodes with everything.
func pair(t *testing.T, change func(i int, p *console.Config)) []*member {
	d, keys := newBoard(), [][]byte{cluster.NewKey()}
	var both []*member
	for i := range 2 {
		m := join(t, d, keys, fmt.Sprint("n", i), func(_ *cluster.Config, _ *settings, p *console.Config) {
			if change != nil {
				change(i, p)
			}
		})
		require.NoError(t, m.WaitReady(within(t)))
		both = append(both, m)
	}
	require.Eventually(t, func() bool {
		for _, m := range both {
			if len(m.Alive()) != 2 || m.Self().Name == "" {
				return false
			}
			for _, o := range m.Members() {
				if !o.Linked || o.Name == "" {
					return false
				}
			}
		}
		return true
	}, 30*time.Second, 10*time.Millisecond)
	return both
}

type logsAnswer struct {
	Nodes map[string]struct {
		Error string
		Value *struct {
			Level   string
			Until   *time.Time
			Usual   string
			Records []console.LogRecord
		}
	}
}

func logsOf(t *testing.T, m *member, query string) (a logsAnswer) {
	code, body := get(t, m.page.URL+"/ha/logs.json?"+query)
	require.Equal(t, http.StatusOK, code, body)
	require.NoError(t, json.Unmarshal([]byte(body), &a), body)
	return a
}

func TestLogsOfAllNodesAndTheirLevel(t *testing.T) {
	both := pair(t, nil)
	a, b := both[0], both[1]
	b.logger.Debug("not seen")
	b.logger.Info("seen", "n", 1)
	got := logsOf(t, a, "").Nodes[b.ID()].Value
	require.Equal(t, "INFO", got.Level)
	last := got.Records[len(got.Records)-1]
	require.Equal(t, "seen", last.Message)
	require.Contains(t, last.Attrs, [2]string{"n", "1"})

	code, body := postTo(t, a.page, "level", `{"level": "DEBUG", "minutes": 10}`)
	require.Equal(t, http.StatusOK, code, string(body))
	require.NotContains(t, string(body), "error")
	for _, m := range both {
		m.logger.Debug("now it is")
		got := logsOf(t, a, "node="+m.ID()+"&level=DEBUG&limit=2").Nodes[m.ID()].Value
		require.Equal(t, "DEBUG", got.Level)
		require.Equal(t, "INFO", got.Usual)
		require.WithinDuration(t, time.Now().Add(10*time.Minute), *got.Until, time.Minute)
		require.LessOrEqual(t, len(got.Records), 2)
	}
	seen := logsOf(t, a, "level=DEBUG").Nodes[b.ID()].Value.Records
	after := fmt.Sprintf("level=DEBUG&after=%s:%d", b.ID(), seen[len(seen)-1].Seq)
	b.logger.Info("the next")
	require.Equal(t, "the next", logsOf(t, a, after).Nodes[b.ID()].Value.Records[0].Message, "only what is new")

	code, _ = postTo(t, a.page, "level", fmt.Sprintf(`{"node": %q, "level": "ERROR"}`, b.ID()))
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ERROR", logsOf(t, a, "").Nodes[b.ID()].Value.Level)
	require.Equal(t, "DEBUG", logsOf(t, a, "").Nodes[a.ID()].Value.Level)
	for body, want := range map[string]string{`{"level": "LOUD"}`: "is no level", `{"level": "INFO", "minutes": -1}`: "out of range", `[`: "not what is expected"} {
		code, text := postTo(t, a.page, "level", body)
		require.Equal(t, http.StatusBadRequest, code)
		require.Contains(t, string(text), want)
	}
	code, _ = get(t, a.page.URL+"/ha/logs.json?level=LOUD")
	require.Equal(t, http.StatusBadRequest, code)
}

// What is more than looking is refused without AllowActions, here and for the page of another node, and to other sites.
func TestReadOnlyByDefault(t *testing.T) {
	both := pair(t, func(i int, p *console.Config) { p.AllowActions = i == 0 })
	allows, refuses := both[0], both[1]
	for _, path := range []string{"action", "level", "bundle"} {
		code, body := postTo(t, refuses.page, path, `{}`)
		require.Equal(t, http.StatusForbidden, code, path)
		require.Contains(t, string(body), "AllowActions")
		code, _ = get(t, allows.page.URL+"/ha/"+path)
		require.Equal(t, http.StatusMethodNotAllowed, code, path)
		for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "same-site"}, {"Content-Type", "text/plain"}} {
			code, _ = postTo(t, allows.page, path, `{"level": "INFO"}`, header...)
			require.Equal(t, http.StatusForbidden, code, "%s %v", path, header)
		}
	}
	for path, body := range map[string]string{
		"level": `{"level": "DEBUG"}`, "action": `{"card": "database", "action": "recycle connections"}`,
	} {
		code, answer := postTo(t, allows.page, path, body)
		require.Equal(t, http.StatusOK, code)
		var a struct{ Results map[string]string }
		require.NoError(t, json.Unmarshal(answer, &a))
		require.Empty(t, a.Results[allows.ID()])
		require.Contains(t, a.Results[refuses.ID()], "actions are off", path)
	}
	require.Equal(t, "INFO", logsOf(t, allows, "").Nodes[refuses.ID()].Value.Level)
	files := bundle(t, allows, `{}`)
	require.Contains(t, files["missing.txt"], "actions are off")
	for _, path := range []string{"status.json", "settings.json", "history.json", "logs.json", "events", ""} {
		code, _ := postTo(t, refuses.page, path, `{}`)
		require.Equal(t, http.StatusMethodNotAllowed, code, path)
	}
}

// bundle returns the files of a bundle, without the top folder.
func bundle(t *testing.T, m *member, order string) map[string]string {
	code, body := postTo(t, m.page, "bundle", order)
	require.Equal(t, http.StatusOK, code, string(body))
	z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	require.NoError(t, err)
	files := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		require.NoError(t, err)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		_, name, _ := strings.Cut(f.Name, "/")
		files[name] = string(b)
	}
	return files
}

func TestBundleOfAllNodesWithoutSecrets(t *testing.T) {
	both := pair(t, func(i int, p *console.Config) {
		p.BundleFiles = func(context.Context) map[string][]byte {
			return map[string][]byte{"../../proxy log.txt": []byte("GET /?token=" + canary + " as chat:" + canary + "@tcp(db)")}
		}
		p.Cards[1].Check = func(context.Context) error { return errors.New("dial postgres://chat:" + canary + "@db/chat: refused") }
	})
	for _, m := range both {
		m.logger.Info("password is "+canary, "dsn", "user="+canary, "err", errors.New("pq: postgres://chat:"+canary+"@db"), "header", "Authorization: Bearer "+canary,
			"json", map[string]string{"password": canary}, slog.Group("db", "Password", canary), "key", cluster.FormatKey(cluster.NewKey()))
	}
	files := bundle(t, both[0], `{}`)
	for name, text := range files {
		require.NotContains(t, text, canary, name)
		if strings.HasSuffix(name, ".json") {
			require.True(t, json.Valid([]byte(text)), "%s %s", name, text)
		}
	}
	for _, m := range both {
		folder := m.Self().Name + "-" + m.ID()[len(m.ID())-8:] + "/"
		for name, want := range map[string]string{
			"about.json": m.ID(), "status.json": "Members", "stats.json": "Links", "cards.json": "open_conns", "events.json": "joined",
			"settings.json": "APP_SERVICE_WORKERS", "logs.jsonl": "password is (secret)", "goroutines.txt": "goroutine profile", "extra/proxy_log.txt": "token=(secret)",
		} {
			require.Contains(t, files[folder+name], want, folder+name)
		}
	}
	require.Contains(t, files["status.json"], "dial (secret): refused")
	require.NotContains(t, files, "missing.txt")
	require.Len(t, bundle(t, both[0], fmt.Sprintf(`{"node": %q}`, both[1].ID())), 10)

	// Nor does any other answer show one.
	for _, path := range []string{"status.json", "logs.json?level=DEBUG&limit=5000", "settings.json", "history.json"} {
		_, body := get(t, both[0].page.URL+"/ha/"+path)
		require.NotContains(t, body, canary, path)
	}

	both[1].stop()
	require.Eventually(t, func() bool { return both[0].Fate(both[1].ID()) != cluster.FateAlive }, 30*time.Second, 10*time.Millisecond)
	require.Contains(t, bundle(t, both[0], `{}`)["missing.txt"], "n1 "+both[1].ID())
}

func TestSettingsAndHistoryOfAllNodes(t *testing.T) {
	both := pair(t, nil)
	code, body := get(t, both[1].page.URL+"/ha/settings.json")
	require.Equal(t, http.StatusOK, code)
	var a struct {
		Nodes map[string]struct{ Value []config.Setting }
	}
	require.NoError(t, json.Unmarshal([]byte(body), &a))
	for _, m := range both {
		list := a.Nodes[m.ID()].Value
		require.Len(t, list, 4)
		require.Equal(t, "Service.Workers", list[1].Name)
		require.Equal(t, config.SourceEnvironment, list[1].Source)
		require.Equal(t, "(secret)", list[2].Value)
	}
	require.Eventually(t, func() bool {
		_, body = get(t, both[1].page.URL+"/ha/history.json")
		var h struct {
			Nodes map[string]struct {
				Value []struct{ Kind, ID, Name string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(body), &h))
		return len(h.Nodes[both[0].ID()].Value) > 0 && h.Nodes[both[0].ID()].Value[0].ID == both[1].ID() && len(h.Nodes[both[1].ID()].Value) > 0
	}, 30*time.Second, 10*time.Millisecond)
}

// A panic of the program's own part is shown, here and on the other node, and ends nothing.
func TestAPanicIsShown(t *testing.T) {
	both := pair(t, func(i int, p *console.Config) {
		p.Cards = append(p.Cards, console.Of("mine", func() int { panic("oh no") }, nil, console.Action{
			Name: "break", Every: true, Run: func(context.Context, string) error { panic("oh dear") },
		}))
	})
	for range 2 {
		d := status(t, both[0].page)
		require.Len(t, d.Nodes, 2)
		for _, n := range d.Nodes {
			require.Equal(t, "panicked: oh no", n.Cards[2].Error)
			require.Equal(t, "red", n.Level)
		}
		code, body := postTo(t, both[0].page, "action", `{"card": "mine", "action": "break"}`)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, 2, strings.Count(string(body), "panicked: oh dear"), string(body))
	}
	require.Contains(t, fmt.Sprint(logsOf(t, both[0], "").Nodes[both[1].ID()].Value.Records), "all_test.go", "the log has the stack")
}

// What a node finds about itself stands on the page of every other: here that it drains.
func TestEachNodeTellsOfItself(t *testing.T) {
	both := pair(t, nil)
	require.NoError(t, both[1].Drain(within(t)))
	var d struct {
		Nodes []struct {
			ID      string
			Ready   *bool
			Reasons []struct{ Code, Level, Text, Remedy string }
		}
	}
	require.Eventually(t, func() bool {
		_, body := get(t, both[0].page.URL+"/ha/status.json")
		require.NoError(t, json.Unmarshal([]byte(body), &d))
		for _, n := range d.Nodes {
			if n.ID == both[1].ID() && len(n.Reasons) > 0 && n.Ready != nil {
				require.Equal(t, cluster.CodeDraining, n.Reasons[0].Code)
				require.NotEmpty(t, n.Reasons[0].Remedy)
				require.False(t, *n.Ready)
				return true
			}
		}
		return false
	}, 30*time.Second, 10*time.Millisecond)
}

func TestLogsAreBoundedAndOfSlog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		level := new(slog.LevelVar)
		logs := console.NewLogs(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}), &console.LogsOptions{Level: level, Records: 10, Bytes: 4000, Secrets: func() []string { return []string{"hunter2"} }})
		log := slog.New(logs)
		log.With("a", 1).WithGroup("g").With("b", "x").Info("hi", "c", time.Second, slog.Group("h", "d", true))
		r := logs.Records(0, slog.LevelDebug, 0)
		require.Len(t, r, 1)
		require.Equal(t, [][2]string{{"a", "1"}, {"g.b", "x"}, {"g.c", "1s"}, {"g.h.d", "true"}}, r[0].Attrs)
		require.Contains(t, out.String(), "a=1 g.b=x g.c=1s g.h.d=true", "and it was handed on")
		log.Info("it is hunter2", "url", "https://u:hunter2@h/?q=hunter2")
		r = logs.Records(1, slog.LevelDebug, 0)
		require.Equal(t, "it is (secret)", r[0].Message)
		require.Equal(t, "https://u:(secret)@h/?q=(secret)", r[0].Attrs[0][1])

		for i := range 100 {
			log.Info("m", "i", i)
		}
		require.Len(t, logs.Records(0, slog.LevelDebug, 0), 10)
		require.Equal(t, uint64(102), logs.Records(0, slog.LevelDebug, 1)[0].Seq)
		log.Info(strings.Repeat("x", 3900))
		log.Warn(strings.Repeat("y", 100_000))
		r = logs.Records(0, slog.LevelDebug, 0)
		require.Len(t, r, 1, "bytes are bounded too")
		require.Less(t, len(r[0].Message), 10_000)
		require.Empty(t, logs.Records(0, slog.LevelError, 0))

		out.Reset()
		logs.SetLevel(slog.LevelDebug, time.Minute)
		logs.SetLevel(slog.LevelWarn, 2*time.Minute)
		log.Debug("no")
		log.Info("no")
		time.Sleep(2*time.Minute + time.Second)
		synctest.Wait()
		require.Equal(t, slog.LevelInfo, logs.Level(), "back to the usual one, not to what was there in between")
		log.Info("yes")
		logs.SetLevel(slog.LevelDebug, time.Minute)
		logs.SetLevel(slog.LevelError, 0)
		time.Sleep(2 * time.Minute)
		require.Equal(t, slog.LevelError, logs.Level(), "a change for good stays")
		require.NotContains(t, out.String(), "no")
		require.Contains(t, out.String(), "yes")
	})
}

// What looks like a secret is taken out even if nobody named it, and what does not stays.
func TestWhatLooksLikeASecret(t *testing.T) {
	logs := console.NewLogs(nil, nil)
	log := slog.New(logs)
	key := cluster.FormatKey(cluster.NewKey())
	log.Info("x", "password", "p4ss", "session_token", "p4ss", "Cookie", "p4ss", "data_source", "p4ss", "db", "postgres://u:p4ss@h/d?x=1", "my", "u:p4ss@tcp(h:3306)/d",
		"pq", "host=h password=p4ss dbname=d", "q", "/?access_token=p4ss&page=2", "h", "Authorization: Bearer p4ssp4ss", "j", `{"api_key":"p4ss","n":1}`, "k", "the key is "+key,
		"err", errors.New("connect to mysql://u:p4ss@h"))
	log.Info("took 5ms: key users/7 of bucket tokens, at 10.0.0.1:8074", "key", "users/7", "url", "https://h/a?page=2", "hash", strings.Repeat("ab", 32), "tokens", 5)
	r := logs.Records(0, slog.LevelDebug, 0)
	shown := fmt.Sprint(r[0])
	require.NotContains(t, shown, "p4ss")
	require.NotContains(t, shown, key)
	for _, first := range []string{"/", "+", "A", "-"} { // whatever a key begins with
		key := first + strings.Repeat("b", 42) + "="
		log.Info("keys " + key + " " + key)
		require.Equal(t, "keys (secret) (secret)", logs.Records(0, slog.LevelDebug, 1)[0].Message)
	}
	for _, want := range []string{"postgres://u:(secret)@h/d?x=1", "u:(secret)@tcp(h:3306)/d", "host=h password=(secret) dbname=d", "access_token=(secret)&page=2", `{"api_key":"(secret)","n":1}`, "mysql://u:(secret)@h"} {
		require.Contains(t, shown, want)
	}
	require.Equal(t, "took 5ms: key users/7 of bucket tokens, at 10.0.0.1:8074", r[1].Message)
	require.Equal(t, [][2]string{{"key", "users/7"}, {"url", "https://h/a?page=2"}, {"hash", strings.Repeat("ab", 32)}}, r[1].Attrs[:3])
}
