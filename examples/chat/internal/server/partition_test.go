package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/examples/chat/internal/server"
	"github.com/nines-go/nines/internal/faultnet"
)

// cluster3 starts three servers in this process, each behind a network that can be cut.
func cluster3(t *testing.T) (servers []*running, networks []*faultnet.Network) {
	t.Helper()
	dir := t.TempDir()
	key := cluster.FormatKey(cluster.NewKey())
	for i := range 3 {
		cfg := config(dir)
		c := &cfg.ClusterSettings
		c.Enable, c.ClusterName, c.NodeName = true, "test", fmt.Sprint("node", i+1)
		c.BindAddress, c.AdvertiseAddress, c.GossipPort, c.EncryptionKeys = "127.0.0.1", "127.0.0.1", 0, []string{key}
		network := faultnet.New(nil)
		networks = append(networks, network)
		servers = append(servers, start(t, cfg, server.Options{Demo: true, Network: network}))
	}
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(servers, func(s *running) bool { return !s.settled(3) })
	}, long, 20*time.Millisecond)
	return servers, networks
}

// settled reports whether s sees n servers and every topic has its place.
func (s *running) settled(n int) bool {
	var state struct {
		Alive   []string
		Settled bool
	}
	res, text, err := newPerson(s.t, s.url).do("GET", "/demo/state", nil)
	return err == nil && res.StatusCode == http.StatusOK && json.Unmarshal(text, &state) == nil && state.Settled && len(state.Alive) == n
}

// TestPartition cuts one of three servers off while people write on both sides. Each side goes on; after the healing the table fills for
// everybody what the other side had said.
func TestPartition(t *testing.T) {
	servers, networks := cluster3(t)
	ann := signUp(t, servers[0].url, "ann")
	sockets := []*inbox{ann.connect("room:lobby"), ann.at(servers[1].url).connect("room:lobby"), ann.at(servers[2].url).connect("room:lobby")}
	say := func(s *running, text string) {
		p := ann.at(s.url)
		require.Eventually(t, func() bool { // 503: again, with the same ID
			res, body, err := p.do("POST", "/api/v4/posts", post("lobby", text, text))
			require.NoError(t, err)
			require.Contains(t, []int{200, 201, 503}, res.StatusCode, "%s", body)
			return res.StatusCode != 503
		}, long, 20*time.Millisecond)
	}
	var want []string
	all := func() bool {
		return !slices.ContainsFunc(sockets, func(b *inbox) bool { return !sameSet(b.texts(), want) })
	}
	for i := range 3 {
		want = append(want, fmt.Sprint("before-", i))
		say(servers[i], want[i])
	}
	require.Eventually(t, all, long, 20*time.Millisecond)

	networks[2].Cut()
	require.Eventually(t, func() bool { return servers[0].settled(2) && servers[1].settled(2) && servers[2].settled(1) }, long, 20*time.Millisecond)
	for i := range 4 {
		for side, s := range []*running{servers[0], servers[2]} {
			text := fmt.Sprintf("side%d-%d", side, i)
			want = append(want, text)
			say(s, text)
		}
	}
	require.False(t, all(), "the cut did not cut")
	networks[2].Heal()
	require.Eventually(t, all, long, 20*time.Millisecond, "somebody is not shown what the other side said")

	// Apart from what the table filled in again, nothing came twice.
	for _, b := range sockets {
		seen := map[string]bool{}
		for _, m := range b.got() {
			require.False(t, !m.Filled && !m.Ephemeral && seen[m.ID], "%s came twice", m.ID)
			seen[m.ID] = true
		}
	}
}

func sameSet(got, want []string) bool {
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	return slices.Equal(slices.Compact(got), want)
}

// TestSessionsAndRoomsAreTheClusters signs in on one server and works on the others.
func TestSessionsAndRoomsAreTheClusters(t *testing.T) {
	servers, _ := cluster3(t)
	ann := signUp(t, servers[0].url, "ann")
	elsewhere := ann.at(servers[1].url)
	var made room
	elsewhere.must(http.StatusCreated, "POST", "/api/v4/rooms", map[string]string{"name": "Plans"}, &made)
	socket := ann.at(servers[2].url).connect("room:" + made.ID)
	ann.must(http.StatusCreated, "POST", "/api/v4/posts", post(made.ID, "p", "hello"), nil)
	require.Eventually(t, func() bool { return slices.Equal(socket.texts(), []string{"hello"}) }, long, 10*time.Millisecond)

	// Typing crosses over; presence is the cluster's; signing out closes the sockets on every server.
	typist := elsewhere.connect("room:" + made.ID)
	require.NoError(t, typist.Publish(context.Background(), "room:"+made.ID, []byte(`{"type":"typing"}`)))
	require.Eventually(t, func() bool { return len(socket.got()) == 2 && socket.got()[1].Ephemeral }, long, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		var here []string
		ann.must(http.StatusOK, "GET", "/api/v4/rooms/"+made.ID+"/presence", nil, &here)
		return slices.Equal(here, []string{"ann"})
	}, long, 10*time.Millisecond)
	ann.must(http.StatusNoContent, "POST", "/api/v4/users/logout", nil, nil)
	require.Eventually(t, func() bool { return socket.Err() != nil && typist.Err() != nil }, long, 10*time.Millisecond)

	// An upload to one server is read from another.
	ben := signUp(t, servers[1].url, "ben")
	var file struct{ Key string }
	ben.must(http.StatusCreated, "POST", "/api/v4/files?name=x.txt", "content", &file)
	res, text, err := ben.at(servers[2].url).do("GET", "/api/v4/files/"+file.Key, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, `"content"`, string(text))
}
