package cluster_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nines-go/nines/cluster"
)

func Example() {
	node, err := cluster.New(cluster.Config{
		ClusterName: "example",
		Discovery:   cluster.StaticDiscovery(),  // or cluster.SQLDiscovery(db): the others are found in the database
		Keys:        [][]byte{cluster.NewKey()}, // or cluster.ParseKey(os.Getenv("CLUSTER_KEY")): the same on all nodes
		BindAddr:    "127.0.0.1:0",
		Logger:      quiet,
	})
	if err != nil {
		log.Fatal(err)
	}
	node.Handle("greet", func(ctx context.Context, from string, payload []byte) ([]byte, error) {
		return append([]byte("hello "), payload...), nil
	})
	ended := make(chan error, 1)
	go func() { ended <- node.Run(context.Background()) }() // not the context of signal.NotifyContext: it would cut, not drain

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := node.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	for id, reply := range node.Gather(ctx, "greet", []byte("world")) {
		fmt.Println(id == node.ID(), string(reply.Payload), reply.Err)
	}
	if err := node.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-ended)
	// Output:
	// true hello world <nil>
	// <nil>
}
