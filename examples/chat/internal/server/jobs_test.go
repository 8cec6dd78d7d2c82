package server_test

import (
	"bufio"
	"database/sql"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/server"
)

// card reads figures of a card of the console.
func (p *person) card(name string, figures any) {
	p.t.Helper()
	var doc struct {
		Nodes []struct {
			Self  bool
			Cards []struct {
				Name  string
				Stats jsonText
			}
		}
	}
	p.must(http.StatusOK, "GET", "/admin/ha/status.json", nil, &doc)
	for _, n := range doc.Nodes {
		for _, c := range n.Cards {
			if n.Self && c.Name == name {
				c.Stats.into(p.t, figures)
				return
			}
		}
	}
	require.FailNow(p.t, "no card", name)
}

// TestRetentionDeletesWhatIsTooOld has the job run from the console's button.
func TestRetentionDeletesWhatIsTooOld(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.DataRetentionSettings.EnableMessageDeletion, cfg.DataRetentionSettings.MessageRetentionDays = true, 30
	s := start(t, cfg, server.Options{Demo: true})
	ann := signUp(t, s.url, "ann")
	for _, id := range []string{"old", "new"} {
		ann.must(http.StatusCreated, "POST", "/api/v4/posts", post("lobby", id, id+" message"), nil)
	}
	db, err := sql.Open("sqlite", cfg.SqlSettings.DataSource+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec(`UPDATE chat_messages SET created_at=? WHERE id='old'`, time.Now().AddDate(0, 0, -31).UnixMilli())
	require.NoError(t, err)
	_, err = db.Exec(`UPDATE chat_sessions SET expires_at=0`)
	require.NoError(t, err)
	ann.must(http.StatusUnauthorized, "GET", "/api/v4/users/me", nil, nil)
	ann.must(http.StatusOK, "POST", "/api/v4/demo/login", map[string]string{"username": "ann"}, nil)

	ann.must(http.StatusOK, "POST", "/admin/ha/action", map[string]string{"card": "jobs", "action": "run retention now"}, nil)
	var list []message
	require.Eventually(t, func() bool {
		ann.must(http.StatusOK, "GET", "/api/v4/rooms/lobby/messages", nil, &list)
		return len(list) == 1
	}, long, 20*time.Millisecond)
	require.Equal(t, "new", list[0].ID)
	ann.must(http.StatusOK, "GET", "/api/v4/search?q=old", nil, &list)
	require.Empty(t, list, "it is found no more")
	var sessions int
	require.NoError(t, db.QueryRow(`SELECT count(*) FROM chat_sessions`).Scan(&sessions))
	require.Equal(t, 1, sessions, "the expired one is gone")
	var figures struct{ Deleted int }
	require.Eventually(t, func() bool { ann.card("chat", &figures); return figures.Deleted == 1 }, long, 20*time.Millisecond)
}

// TestHeartbeatIsOnTheConsole waits for the first slot of the demo's heartbeat, at most ten seconds away.
func TestHeartbeatIsOnTheConsole(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{Demo: true})
	p := newPerson(t, s.url)
	require.Eventually(t, func() bool {
		var figures struct {
			Heartbeats    int
			HeartbeatNode string `json:"heartbeat_node"`
		}
		p.card("chat", &figures)
		return figures.Heartbeats == 1 && figures.HeartbeatNode != ""
	}, long, 100*time.Millisecond)
}

func TestActionsNeedTheDemo(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{})
	p := newPerson(t, s.url)
	p.must(http.StatusForbidden, "POST", "/admin/ha/action", map[string]string{"card": "jobs", "action": "run retention now"}, nil)
}

// TestAnOpenConsoleDoesNotHoldTheServer leaves a stream open while the server is asked to stop.
func TestAnOpenConsoleDoesNotHoldTheServer(t *testing.T) {
	s := start(t, config(t.TempDir()), server.Options{})
	res, err := newPerson(t, s.url).http.Get(s.url + "/admin/ha/events")
	require.NoError(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	require.True(t, lines.Scan() && strings.Contains(res.Header.Get("Content-Type"), "event-stream"))
	begun := time.Now()
	s.stop()
	select {
	case err := <-s.done:
		s.done <- err
		require.NoError(t, err)
	case <-time.After(long):
		require.FailNow(t, "the server did not end")
	}
	require.Less(t, time.Since(begun), 20*time.Second) // of 30 s that it would wait for requests
}
