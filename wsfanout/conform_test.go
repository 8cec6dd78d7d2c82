package wsfanout_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

func TestClusterIsATransport(t *testing.T) {
	wsfanouttest.RunTransport(t, func(t *testing.T, n int) []wsfanout.Transport {
		b := &board{rows: map[string]cluster.Entry{}}
		var all []wsfanout.Transport
		for range n {
			node, err := cluster.New(cluster.Config{
				ClusterName: "chat", Discovery: b, InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Profile: cluster.Local,
				Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
			})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { _ = node.Run(ctx) })
			t.Cleanup(func() { cancel(); wg.Wait() })
			require.NoError(t, node.WaitReady(t.Context()))
			all = append(all, node)
		}
		return all
	})
}
