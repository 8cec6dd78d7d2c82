package wsfanouttest_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

func TestTransport(t *testing.T) {
	wsfanouttest.RunTransport(t, func(t *testing.T, n int) []wsfanout.Transport {
		net := wsfanouttest.NewNetwork()
		t.Cleanup(net.Close)
		var all []wsfanout.Transport
		for i := range n {
			all = append(all, net.Join(fmt.Sprint("node", i)))
		}
		return all
	})
}

// What a user of the package writes: his program's messages survive the death of a node.
func TestADeadNode(t *testing.T) {
	net := wsfanouttest.NewNetwork()
	t.Cleanup(net.Close)
	at := []*wsfanouttest.Transport{net.Join("a"), net.Join("b"), net.Join("c")}
	var nodes []*wsfanouttest.Server
	for _, tr := range at {
		nodes = append(nodes, wsfanouttest.Start(t, wsfanout.Config{Transport: tr}))
	}
	wsfanouttest.Settled(t, nodes...)
	l := wsfanouttest.ListenWith(t, client.Config{
		URLs: []string{nodes[0].URL + "/?user=ann", nodes[1].URL + "/?user=ann", nodes[2].URL + "/?user=ann"}, Topics: []string{"room"},
	})
	for i := range 5 {
		_, err := nodes[2].Hub.Publish(t.Context(), "room", fmt.Append(nil, i), nil)
		require.NoError(t, err)
	}
	l.Wait(t, 5)
	net.Kill(at[0])
	nodes[0].Kill()
	for i := range 5 {
		_, err := nodes[2].Hub.Publish(t.Context(), "room", fmt.Append(nil, 5+i), nil)
		require.NoError(t, err)
	}
	for i, m := range l.Wait(t, 10) {
		require.Equal(t, fmt.Sprint(i), string(m.Data))
	}
	require.Empty(t, l.Gaps())
}
