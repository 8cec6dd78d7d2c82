package link_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
)

const benchSize = 200

// cpu is what the process has used of the processors: steadier than the clock where other programs run.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPost is the throughput of a link in one process, sending and receiving side together.
func BenchmarkPost(b *testing.B) {
	var got atomic.Uint64
	count := uint64(0)
	addr := make(chan string, 1)
	mesh := func(id string, on func(string, link.Lane, []byte), to string) *link.Mesh {
		m, err := link.New(link.Config{Self: id, Cluster: "bench", OnFrame: on, Logger: slog.New(slog.DiscardHandler),
			Dial: func(ctx context.Context, id string) (net.Conn, error) { return net.Dial("tcp", to) }})
		require.NoError(b, err)
		return m
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	addr <- l.Addr().String()
	all := make(chan struct{})
	to := mesh("b", func(_ string, _ link.Lane, p []byte) {
		if count++; binary.BigEndian.Uint64(p) == 1 {
			close(all)
		}
	}, "")
	from := mesh("a", func(string, link.Lane, []byte) {}, <-addr)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { to.Run(ctx) })
	wg.Go(func() { from.Run(ctx) })
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			to.Accept(c)
		}
	})
	from.Connect("b")
	msg := make([]byte, benchSize)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		if err := from.Post(ctx, "b", link.Live, msg); err != nil {
			b.Fatal(err)
		}
	}
	binary.BigEndian.PutUint64(msg, 1)
	require.NoError(b, from.Post(ctx, "b", link.Live, msg))
	<-all
	got.Add(count)
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkBare is what a connection does without us: length and payload through two buffers.
func BenchmarkBare(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	all := make(chan struct{})
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r := bufio.NewReaderSize(c, 128<<10)
		for {
			head, err := r.Peek(4)
			if err != nil {
				close(all)
				return
			}
			n := 4 + int(binary.BigEndian.Uint32(head))
			if _, err := r.Peek(n); err != nil {
				return
			}
			r.Discard(n)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(b, err)
	var mu sync.Mutex
	cond := sync.NewCond(&mu)
	var buf []byte
	closed := false
	go func() {
		var spare []byte
		for {
			mu.Lock()
			for len(buf) == 0 && !closed {
				cond.Wait()
			}
			full := buf
			buf = spare[:0]
			cond.Broadcast()
			mu.Unlock()
			if len(full) == 0 {
				c.Close()
				return
			}
			c.Write(full)
			spare = full
		}
	}()
	msg := make([]byte, benchSize)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		mu.Lock()
		for len(buf) >= 256<<10 {
			cond.Wait()
		}
		if len(buf) == 0 {
			cond.Broadcast()
		}
		buf = binary.BigEndian.AppendUint32(buf, benchSize)
		buf = append(buf, msg...)
		mu.Unlock()
	}
	mu.Lock()
	closed = true
	cond.Broadcast()
	mu.Unlock()
	<-all
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
