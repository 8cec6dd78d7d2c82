package cluster_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nines-go/nines/cluster"
)

func pair(b *testing.B, keys bool) (from *cluster.Node, to *cluster.Node) {
	board := newBoard()
	var nodes []*cluster.Node
	for range 2 {
		cfg := cluster.Config{ClusterName: "bench", Discovery: board, Keys: [][]byte{testKey}, BindAddr: "127.0.0.1:0", Logger: quiet}
		if !keys {
			cfg.Keys, cfg.InsecureNoKeys = nil, true
		}
		n, err := cluster.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		b.Cleanup(func() { cancel(); <-done })
		nodes = append(nodes, n)
	}
	for end := time.Now().Add(patience); len(nodes[0].Alive()) < 2 || nodes[0].Stats().Links < 1 || nodes[1].Stats().Links < 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal("the nodes do not meet")
		}
	}
	return nodes[0], nodes[1]
}

// cpu is what the process has used of the processors: steadier than the clock where other programs run.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPost is a message from one Node to another, both in this process.
func BenchmarkPost(b *testing.B) {
	for _, keys := range []bool{false, true} {
		for _, size := range []int{200, 16 << 10} {
			b.Run(fmt.Sprintf("keys=%v/%d", keys, size), func(b *testing.B) {
				from, to := pair(b, keys)
				var got atomic.Int64
				to.Handle("t", func(context.Context, string, []byte) ([]byte, error) { got.Add(1); return nil, nil })
				payload, id := make([]byte, size), to.ID()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				sent := int64(0)
				began := cpu()
				for b.Loop() {
					if err := from.Post(context.Background(), id, "t", payload); err != nil {
						b.Fatal(err)
					}
					sent++
				}
				for got.Load() < sent {
					time.Sleep(100 * time.Microsecond)
				}
				b.ReportMetric(float64(cpu()-began)/float64(sent), "cpu-ns/op")
			})
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	from, to := pair(b, true)
	to.Handle("t", func(_ context.Context, _ string, p []byte) ([]byte, error) { return p, nil })
	id := to.ID()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := from.Request(context.Background(), id, "t", []byte("question")); err != nil {
			b.Fatal(err)
		}
	}
}
