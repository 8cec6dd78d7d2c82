package cache_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/cache"
)

// A hit on a node that runs.
func BenchmarkGet(b *testing.B) {
	n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	require.NoError(b, err)
	c, err := cache.New(cache.Config[int]{Node: n, Name: "n", Load: func(context.Context, string) (int, error) { return 1, nil }})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	require.NoError(b, n.WaitReady(within(b)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = c.Get(ctx, "k")
		}
	})
	cancel()
	<-done
}
