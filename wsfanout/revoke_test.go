package wsfanout_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

// A user's sockets end on all nodes within a second.
func TestRevokeEverywhere(t *testing.T) {
	var all []time.Duration
	for range 3 {
		g := startGroup(t, 10, wsfanout.Config{})
		var ends []chan struct{}
		for _, s := range g.all {
			r, done := connectRaw(t, s.url("ann")), make(chan struct{})
			ends = append(ends, done)
			go func() {
				defer close(done)
				for {
					if _, err := r.read(); err != nil {
						return
					}
				}
			}()
		}
		begun := time.Now()
		require.NoError(t, g.all[3].hub.Revoke(t.Context(), "ann", ""))
		for _, done := range ends {
			<-done
		}
		all = append(all, time.Since(begun))
		// Who comes back after that is not meant.
		r := connectRaw(t, g.all[7].url("ann"))
		r.send(`{"type":"subscribe","ref":1,"topics":{"room":""}}`)
		require.Equal(t, "fresh", r.next("subscribed")["kind"])
	}
	t.Log("10 nodes closed their sockets after ", all)
	require.Less(t, slices.Min(all), time.Second)
}

// cutOff parts one node from all others, and returns what joins them again.
func (g *group) cutOff(i int) (heal func()) {
	for k := range g.at {
		if k != i {
			g.net.Cut(g.at[k], g.at[i])
		}
	}
	return func() {
		for k := range g.at {
			if k != i {
				g.net.Heal(g.at[k], g.at[i])
			}
		}
	}
}

// A node that was cut off closes the sockets of whoever was revoked meanwhile before it shows anything more, whichever node that comes from.
func TestRevokeReachesACutNode(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{})
	topic := g.topicOf(t, 1)
	ann, bob := connectRaw(t, g.all[2].url("ann")), connectRaw(t, g.all[2].url("bob"))
	for _, r := range []*raw{ann, bob} {
		r.send(fmt.Sprintf(`{"type":"subscribe","ref":1,"topics":{%q:""}}`, topic))
		r.next("subscribed")
	}
	publish(t, g.all[0], topic, "before")
	heal := g.cutOff(2)
	require.Eventually(t, func() bool { return g.all[0].hub.Home(topic) == g.at[1].ID() && g.all[2].hub.Stats().Orphans == 0 }, patience, time.Millisecond)
	require.NoError(t, g.all[0].hub.Revoke(t.Context(), "ann", ""))
	for i := range 5 {
		publish(t, g.all[1], topic, fmt.Sprint("after", i))
	}
	heal()
	for {
		m, err := ann.read()
		if err != nil {
			require.EqualValues(t, 4003, websocket.CloseStatus(err))
			break
		}
		require.NotContains(t, fmt.Sprint(m["id"]), "after", "a revoked user is shown nothing more")
	}
	settled(t, g.all...) // before that, a side's message may be given up for the other's
	publish(t, g.all[1], topic, "healed")
	for bob.next("message")["id"] != "healed" { // what the sides did alone may be told as a gap
	}
}

// After having been out of reach a node asks the application about its sockets, and shows them nothing before it has the answer.
func TestReauthorize(t *testing.T) {
	var changed, broken atomic.Bool
	var mu sync.Mutex
	asked := map[string]int{}
	g := startGroup(t, 2, wsfanout.Config{
		Reauthorize: func(_ context.Context, id wsfanout.Identity) error {
			mu.Lock()
			asked[id.User]++
			n := asked[id.User]
			mu.Unlock()
			switch {
			case id.User == "eve":
				return wsfanout.ErrForbidden
			case id.User == "bob" && broken.Load() && n < 3:
				return errors.New("database is down")
			}
			return nil
		},
		Authorize: func(_ context.Context, id wsfanout.Identity, topic string) error {
			if changed.Load() && id.User == "dan" {
				return wsfanout.ErrForbidden
			}
			return nil
		},
	})
	topic := g.topicOf(t, 0)
	rs := map[string]*raw{}
	for _, user := range []string{"bob", "dan", "eve"} {
		r := connectRaw(t, g.all[1].url(user))
		r.send(fmt.Sprintf(`{"type":"subscribe","ref":1,"topics":{%q:""}}`, topic))
		r.next("subscribed")
		rs[user] = r
	}
	publish(t, g.all[0], topic, "before")
	for _, r := range rs {
		require.Equal(t, "before", r.next("message")["id"])
	}
	heal := g.cutOff(1)
	publish(t, g.all[0], topic, "meanwhile")
	changed.Store(true)
	broken.Store(true)
	heal()
	for {
		m, err := rs["eve"].read()
		if err != nil {
			require.EqualValues(t, 4003, websocket.CloseStatus(err))
			break
		}
		require.NotEqual(t, "message", m["type"], "%v", m)
	}
	for {
		m, err := rs["dan"].read()
		require.NoError(t, err)
		require.NotEqual(t, "message", m["type"], "%v", m)
		if m["type"] == "denied" {
			require.Equal(t, "forbidden", m["code"])
			break
		}
	}
	publish(t, g.all[0], topic, "after")
	for rs["bob"].next("message")["id"] != "after" { // "meanwhile" is on one side only, or told as a gap
	}
	mu.Lock()
	defer mu.Unlock()
	require.GreaterOrEqual(t, asked["bob"], 3, "until there is an answer")
}

// A revocation that comes between the authentication of a socket and its being known here ends it all the same.
func TestRevokeDuringHandshake(t *testing.T) {
	g := &group{net: wsfanouttest.NewNetwork()}
	t.Cleanup(g.net.Close)
	begun, hold := make(chan struct{}), make(chan struct{})
	s := start(t, wsfanout.Config{AuthenticateFrame: func(context.Context, []byte) (wsfanout.Identity, error) {
		close(begun)
		<-hold
		return wsfanout.Identity{User: "ann"}, nil
	}})
	settled(t, s)
	r, _, err := dial(t, s.http.URL, nil)
	require.NoError(t, err)
	r.send(`{}`)
	<-begun
	require.NoError(t, s.hub.Revoke(t.Context(), "ann", ""))
	close(hold)
	require.Equal(t, 4003, r.closed())
}
