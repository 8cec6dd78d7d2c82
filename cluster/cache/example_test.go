package cache_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/cache"
)

func Example() {
	names := map[string]string{"7": "ann"} // the database
	node, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	users, err := cache.New(cache.Config[string]{
		Node: node,
		Name: "users", // the same on all nodes
		Load: func(ctx context.Context, id string) (string, error) { return strings.ToUpper(names[id]), nil },
		TTL:  time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- node.Run(context.Background()) }()
	if err := node.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}

	name, err := users.Get(ctx, "7")
	fmt.Println(name, err)

	names["7"] = "anne" // commit
	if err := users.Invalidate(ctx, "7"); err != nil {
		log.Fatal(err) // *cluster.PeersError: some member may still show the old name
	}
	name, err = users.Get(ctx, "7") // on any node; now tell others of the change
	fmt.Println(name, err)

	if err := node.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-ended)
	// Output:
	// ANN <nil>
	// ANNE <nil>
	// <nil>
}
