package wsfanout_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
	"github.com/nines-go/nines/wsfanout/internal/wire"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

// meter counts what messages of topics cost on the way between nodes; that hubs tell each other who leads is not counted.
type meter struct{ frames, bytes atomic.Int64 }

type metered struct {
	*wsfanouttest.Transport
	meter *meter
}

func (m metered) Post(ctx context.Context, to, topic string, payload []byte) error {
	if ms, err := wire.Decode(payload[1:]); err == nil && payload[0] == 1 {
		counted := false
		for _, x := range ms {
			switch x.(type) {
			case *wire.Pub, *wire.PubAck, *wire.Rep, *wire.RepAck, *wire.Live:
				m.meter.bytes.Add(int64(len(wire.Encode([]wire.Message{x})[0])))
				counted = true
			}
		}
		if counted {
			m.meter.frames.Add(1)
		}
	}
	return m.Transport.Post(ctx, to, topic, payload)
}

// What a message costs follows the nodes that have subscribers, not the nodes that there are.
func TestCostFollowsInterest(t *testing.T) {
	messages, many := int64(longRun(200, 2000)), longRun(12, 30)
	cost := func(nodes, interested int) (bytes, frames int64, cpu time.Duration) {
		t.Helper()
		net := wsfanouttest.NewNetwork()
		t.Cleanup(net.Close)
		var m meter
		var all []*server
		var at []*wsfanouttest.Transport
		for i := range nodes {
			at = append(at, net.Join(fmt.Sprintf("n%02d", i)))
		}
		for _, tr := range at {
			all = append(all, start(t, wsfanout.Config{Transport: metered{tr, &m}}))
		}
		settled(t, all...)
		g := &group{net: net, at: at, all: all}
		// The home, its replica and the origin take part in any case: neither of them has subscribers, so that all runs have the same roles.
		topic := "room"
		home := g.homeOf(t, topic)
		origin := (home + 1) % nodes
		var ls []*listener
		for i := 0; len(ls) < interested; i++ {
			require.Less(t, i, nodes)
			if i != home && i != origin {
				ls = append(ls, listen(t, client.Config{URLs: []string{all[i].url("u")}, Topics: []string{topic}}))
			}
		}
		for _, l := range ls {
			l.subscribed(t, 1)
		}
		m.bytes.Store(0)
		m.frames.Store(0)
		before := spent()
		var want []string
		for i := range messages {
			id := fmt.Sprintf("m%04d", i)
			publish(t, all[origin], topic, id)
			want = append(want, id)
		}
		for _, l := range ls {
			l.sees(t, topic, want)
		}
		cpu = spent() - before
		for _, s := range all {
			s.stop()
		}
		for _, s := range all {
			<-s.done
		}
		return m.bytes.Load(), m.frames.Load(), cpu
	}
	few, fewFrames, fewCPU := cost(4, 1)
	one, oneFrames, oneCPU := cost(many, 1)
	ten, tenFrames, tenCPU := cost(many, many/3)
	t.Logf("per message, 1 interested of 4 nodes: %d bytes, %d frames, %v CPU; 1 of %d: %d, %d, %v; %d of %d: %d, %d, %v",
		few/messages, fewFrames/messages, fewCPU/time.Duration(messages), many, one/messages, oneFrames/messages, oneCPU/time.Duration(messages),
		many/3, many, ten/messages, tenFrames/messages, tenCPU/time.Duration(messages))
	require.InEpsilon(t, few, one, 0.35, "bytes at 4 and at %d nodes", many) // origin and replica, or replica and subscriber, may be one node
	require.Less(t, oneFrames, 2*fewFrames)
	require.Greater(t, ten, one)
	require.Less(t, ten, one*int64(many/3))
}

// spent is the CPU time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
