package wsfanout_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

// group is some hubs on one network.
type group struct {
	net *wsfanouttest.Network
	at  []*wsfanouttest.Transport
	all []*server
}

func startGroup(t testing.TB, n int, cfg wsfanout.Config) *group {
	t.Helper()
	g := &group{net: wsfanouttest.NewNetwork()}
	t.Cleanup(g.net.Close)
	for i := range n {
		g.at = append(g.at, g.net.Join(string(rune('A'+i))))
	}
	for _, tr := range g.at {
		cfg.Transport = tr
		g.all = append(g.all, start(t, cfg))
	}
	settled(t, g.all...)
	return g
}

// homeOf returns the index of the node that sequences the topic.
func (g *group) homeOf(t testing.TB, topic string) int {
	t.Helper()
	for i, tr := range g.at {
		if tr.ID() == g.all[0].hub.Home(topic) {
			return i
		}
	}
	t.Fatalf("no home of %q", topic)
	return -1
}

// topicOf returns a topic that a node sequences.
func (g *group) topicOf(t testing.TB, i int) string {
	t.Helper()
	for n := range 1000 {
		if topic := fmt.Sprint("room", n); g.homeOf(t, topic) == i {
			return topic
		}
	}
	t.Fatal("no topic")
	return ""
}

// kill ends node i as kill -9 does: no word to anyone.
func (g *group) kill(i int) {
	g.net.Kill(g.at[i])
	g.all[i].stop()
	g.all[i].http.CloseClientConnections()
	<-g.all[i].done
}

func TestThreeNodes(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{})
	var ls []*listener
	for i, s := range g.all {
		ls = append(ls, listen(t, client.Config{URLs: []string{s.url(fmt.Sprint("user", i))}, Topics: []string{"room"}}))
	}
	for _, l := range ls {
		l.subscribed(t, 1)
	}
	var want []string
	for i := range 30 {
		id := fmt.Sprint("m", i)
		p := publish(t, g.all[i%3], "room", id)
		require.Equal(t, 2, p.Copies)
		want = append(want, id)
	}
	for _, l := range ls {
		l.sees(t, "room", want)
		require.Zero(t, l.gapCount())
	}
}

// A home dies in the middle of a stream, while publishers and subscribers are at every node: every acknowledged message is seen once, in one order,
// by those that stay and by those that come back, and nobody is told of a gap.
func TestKillHome(t *testing.T) {
	g := startGroup(t, 3, wsfanout.Config{})
	home := g.homeOf(t, "room")
	var urls [3]string
	for i, s := range g.all {
		urls[i] = s.url(fmt.Sprint("user", i))
	}
	var ls []*listener
	on := map[string]bool{}
	for len(on) < 3 { // a client begins at any of its URLs
		l := listen(t, client.Config{URLs: urls[:], Topics: []string{"room"}})
		l.subscribed(t, 1)
		on[l.hello().Node] = true
		ls = append(ls, l)
	}
	var mu sync.Mutex
	acked := map[string]bool{}
	ackedCount := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for p := range 3 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("p%d-%d", p, n)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				for i := p; ; i++ { // until somebody has it, as a caller of a dead node would
					_, err := g.all[i%3].hub.Publish(ctx, "room", []byte(`"x"`), &wsfanout.PublishOptions{ID: id})
					if err == nil || ctx.Err() != nil {
						if err == nil {
							mu.Lock()
							acked[id] = true
							mu.Unlock()
						}
						break
					}
				}
				cancel()
			}
		})
	}
	require.Eventually(t, func() bool { return ackedCount() > 200 }, patience, time.Millisecond)
	g.kill(home)
	before := ackedCount()
	require.Eventually(t, func() bool { return ackedCount() > before+200 }, patience, time.Millisecond)
	close(stop)
	wg.Wait()

	resumed := 0
	for i, l := range ls {
		require.Eventually(t, func() bool { return len(unique(l.ids("room"))) >= ackedCount() }, patience, 10*time.Millisecond, "client %d: %d of %d", i, len(l.ids("room")), ackedCount())
	}
	for i, l := range ls {
		ids := l.ids("room")
		seen := unique(ids)
		require.Len(t, ids, len(seen), "client %d: no message twice", i)
		for id := range acked {
			require.True(t, seen[id], "client %d: message %s", i, id)
		}
		require.Zero(t, l.gapCount(), "client %d", i)
		require.Equal(t, ls[0].ids("room"), ids, "client %d: one order", i)
		resumed += int(l.Stats().Resumed)
	}
	require.Positive(t, resumed, "the clients of the dead node have resumed elsewhere")
}

func unique(ids []string) map[string]bool {
	m := map[string]bool{}
	for _, id := range ids {
		m[id] = true
	}
	return m
}
