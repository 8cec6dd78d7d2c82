package wsfanout_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
)

// drain is a subscriber that costs as little as can be: it reads and forgets.
func drain(b *testing.B, s *server, topic string, read *atomic.Int64) {
	b.Helper()
	conn, err := net.Dial("tcp", s.http.Listener.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /?user=u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	require.NoError(b, err)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(b, err)
	require.Equal(b, 101, resp.StatusCode)
	sub := []byte(`{"type":"subscribe","ref":1,"topics":{"` + topic + `":""}}`)
	_, err = conn.Write(append([]byte{0x81, 0x80 | byte(len(sub)), 0, 0, 0, 0}, sub...))
	require.NoError(b, err)
	go func() {
		n, _ := io.Copy(io.Discard, r)
		read.Add(n)
	}()
}

// One room, n subscribers, 32 publishes under way; on three nodes the publisher is not where the subscribers are.
func BenchmarkRoom(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, n := range []int{100, 1000} {
			b.Run(fmt.Sprintf("nodes=%d/subscribers=%d", nodes, n), func(b *testing.B) {
				var g *group
				cfg := wsfanout.Config{MaxPerUser: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
				if nodes == 1 {
					s := start(b, cfg)
					settled(b, s)
					g = &group{all: []*server{s}}
				} else {
					g = startGroup(b, nodes, cfg)
				}
				var read atomic.Int64
				for i := range n {
					drain(b, g.all[(nodes-1)*(1+i%2)/2], "room", &read)
				}
				delivered := func() (sum uint64) {
					for _, s := range g.all {
						sum += s.hub.Stats().Delivered
					}
					return sum
				}
				fresh := func() (sum uint64) {
					for _, s := range g.all {
						sum += s.hub.Stats().Fresh
					}
					return sum
				}
				require.Eventually(b, func() bool { return fresh() == uint64(n) }, patience, 10*time.Millisecond, "%d of %d subscribed", fresh(), n)
				data := fmt.Appendf(nil, `{"text":%q}`, make([]byte, 24))
				slots := make(chan struct{}, 32)
				var wg sync.WaitGroup
				b.ResetTimer()
				for b.Loop() {
					slots <- struct{}{}
					wg.Go(func() {
						_, err := g.all[0].hub.Publish(b.Context(), "room", data, nil)
						if err != nil {
							b.Error(err)
						}
						<-slots
					})
				}
				wg.Wait()
				b.ReportMetric(float64(delivered())/b.Elapsed().Seconds(), "deliveries/s")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
			})
		}
	}
}
