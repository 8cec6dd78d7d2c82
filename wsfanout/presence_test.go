package wsfanout_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

// crowd is a client that keeps the roster of a topic as it is told.
type crowd struct {
	*client.Client
	mu    sync.Mutex
	users map[string]bool
	count int
	fulls int
	log   []string
}

func attend(t *testing.T, topic string, urls ...string) *crowd {
	t.Helper()
	c := &crowd{users: map[string]bool{}}
	l := listenOn(t, client.Config{URLs: urls, Topics: []string{topic}, OnPresence: func(p client.Presence) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.count = p.Count; p.Full {
			c.users = map[string]bool{}
			c.fulls++
		}
		for _, u := range append(p.Users, p.Join...) {
			c.users[u] = true
		}
		for _, u := range p.Leave {
			delete(c.users, u)
		}
		if !p.Full {
			c.log = append(c.log, fmt.Sprint("+", p.Join, " -", p.Leave))
		}
	}})
	c.Client = l.Client
	return c
}

func (c *crowd) sees(t *testing.T, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.users) != len(want) || c.count != len(want) {
			return false
		}
		return !slices.ContainsFunc(want, func(u string) bool { return !c.users[u] })
	}, patience, 5*time.Millisecond, "want %v", want)
}

func told(string) wsfanout.TopicOptions { return wsfanout.TopicOptions{Presence: wsfanout.Told} }

// Subscribers are told who is there, who comes and who goes, on whichever nodes, also by a new home; coming back elsewhere is neither.
func TestPresenceIsTold(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{Topic: told})
	home := g.homeOf(t, "room")
	a, b := (home+1)%3, (home+2)%3
	ann := attend(t, "room", g.all[a].url("ann"))
	ann.sees(t, "ann")
	bob := attend(t, "room", g.all[b].url("bob"))
	cat := attend(t, "room", g.all[b].url("cat"))
	for _, c := range []*crowd{ann, bob, cat} {
		c.sees(t, "ann", "bob", "cat")
	}
	// The home dies, and its users with it.
	dan := attend(t, "room", g.all[home].url("dan"), g.all[a].url("dan"))
	ann.sees(t, "ann", "bob", "cat", "dan")
	ann.mu.Lock()
	ann.log = nil
	ann.mu.Unlock()
	g.kill(home)
	n, err := g.all[b].hub.PresenceCount(t.Context(), "room")
	require.NoError(t, err)
	require.LessOrEqual(t, n, 4)
	require.Eventually(t, func() bool { return dan.Stats().Connects >= 2 || dan.Stats().Connects == 1 && dan.Err() == nil }, patience, time.Millisecond)
	require.NoError(t, cat.Close())
	ann.sees(t, "ann", "bob", "dan")
	bob.sees(t, "ann", "bob", "dan")
	ann.mu.Lock()
	defer ann.mu.Unlock()
	require.Equal(t, []string{"+[] -[cat]"}, ann.log, "dan was not gone for long enough to be missed")
}

// Of a large room only the number is told.
func TestPresenceOfALargeRoom(t *testing.T) {
	g := startGroup(t, 2, wsfanout.Config{Topic: told, MaxPresence: 3})
	ann := attend(t, "room", g.all[0].url("u0"))
	for i := range 9 {
		attend(t, "room", g.all[i%2].url(fmt.Sprint("u", i+1)))
	}
	require.Eventually(t, func() bool { ann.mu.Lock(); defer ann.mu.Unlock(); return ann.count == 10 && len(ann.users) < 10 }, patience, 5*time.Millisecond)
	late := attend(t, "room", g.all[1].url("late"))
	require.Eventually(t, func() bool { late.mu.Lock(); defer late.mu.Unlock(); return late.count == 11 && len(late.users) == 0 }, patience, 5*time.Millisecond)
	for _, s := range g.all {
		n, err := s.hub.PresenceCount(t.Context(), "room")
		require.NoError(t, err)
		require.Equal(t, 11, n)
		all, err := s.hub.Presence(t.Context(), "room")
		require.NoError(t, err)
		require.Len(t, all, 11)
	}
}

func TestHiddenPresence(t *testing.T) {
	s := start(t, wsfanout.Config{Topic: func(string) wsfanout.TopicOptions { return wsfanout.TopicOptions{Presence: wsfanout.Hidden} }})
	settled(t, s)
	listen(t, client.Config{URLs: []string{s.url("ann")}, Topics: []string{"room"}}).subscribed(t, 1)
	all, err := s.hub.Presence(t.Context(), "room")
	require.NoError(t, err)
	require.Empty(t, all)
}
