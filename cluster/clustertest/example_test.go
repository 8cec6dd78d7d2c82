package clustertest_test

import (
	"context"
	"fmt"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// partition is a test in simulated time: call it TestPartition in a file of your own.
func partition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := clustertest.New(1)
		ctx, stop := context.WithCancel(t.Context())
		var nodes []*cluster.Node
		ended := make(chan error, 3)
		for _, host := range []string{"a", "b", "c"} {
			n, err := cluster.New(net.Config(host))
			require.NoError(t, err)
			go func() { ended <- n.Run(ctx) }()
			require.NoError(t, n.WaitReady(ctx))
			nodes = append(nodes, n)
		}
		time.Sleep(5 * time.Second)
		require.Len(t, nodes[0].Alive(), 3)

		net.Partition([]string{"a"})
		time.Sleep(time.Minute)
		require.Equal(t, cluster.FateFailed, nodes[0].Fate(nodes[1].ID()))
		require.Len(t, nodes[1].Alive(), 2)

		net.Heal()
		time.Sleep(2 * time.Second)
		require.Len(t, nodes[0].Alive(), 3)

		stop()
		for range nodes {
			require.NoError(t, <-ended)
		}
		time.Sleep(5 * time.Second) // the gossip library's timers
	})
}

// In real time, outside of a bubble, it works too.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	net := clustertest.New(1)
	ended := make(chan error, 2)
	run := func(host string) *cluster.Node {
		n, err := cluster.New(net.Config(host))
		if err != nil {
			log.Fatal(err)
		}
		go func() { ended <- n.Run(ctx) }()
		if err := n.WaitReady(ctx); err != nil {
			log.Fatal(err)
		}
		return n
	}
	a, b := run("a"), run("b")
	changed := make(chan struct{}, 1)
	defer a.Notify(changed)()
	for len(a.Alive()) < 2 {
		<-changed
	}
	if err := a.Send(ctx, b.ID(), "hello", nil); err != nil { // taken: the two are connected
		log.Fatal(err)
	}
	net.Kill("b")
	for a.Fate(b.ID()) != cluster.FateDead {
		<-changed
	}
	fmt.Println("b is", a.Fate(b.ID()), "and", len(a.Alive()), "is left")
	stop()
	fmt.Println(<-ended, <-ended)
	// Output:
	// b is dead and 1 is left
	// <nil> <nil>
}
