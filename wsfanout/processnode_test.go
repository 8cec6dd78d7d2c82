package wsfanout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/wsfanout"
)

// A node of the process tests is this test binary again, with processEnv set. It serves sockets on one address and calls on another.
const processEnv = "NINES_WSFANOUT_PROCESS"

type processConfig struct {
	Gossip, Sockets, Calls string   // addresses
	Seeds                  []string // of all nodes
	Database               string   // where OnGap asks
}

// Node is what a node answers calls with.
type Node struct {
	hub  *wsfanout.Hub
	node *cluster.Node
	stop func()
}

// Publication is a message, and Acknowledged what became of it.
type Publication struct{ Topic, ID string }

type Acknowledged struct{ Copies int }

// Condition is what the parent waits for.
type Condition struct {
	Settled bool
	Alive   int
	Stats   wsfanout.Stats
}

func (n *Node) Publish(p Publication, a *Acknowledged) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	data, _ := json.Marshal(p.ID)
	pos, err := n.hub.Publish(ctx, p.Topic, data, &wsfanout.PublishOptions{ID: p.ID})
	a.Copies = pos.Copies
	return err
}

func (n *Node) Condition(_ struct{}, c *Condition) error {
	c.Stats = n.hub.Stats()
	c.Settled, c.Alive = c.Stats.Settled, len(n.node.Alive())
	return nil
}

// Home answers with the ID of the process that sequences a topic, and Own with this one's.
func (n *Node) Home(topic string, id *string) error { *id = n.hub.Home(topic); return nil }

func (n *Node) Own(_ struct{}, id *string) error { *id = n.node.ID(); return nil }

// Stop leaves as a server does that is asked to: the node tells that it drains, the hub hands over and closes its sockets, the node leaves.
func (n *Node) Stop(_ struct{}, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := errors.Join(n.node.Drain(ctx), n.hub.Shutdown(ctx), n.node.Shutdown(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "stop:", err)
		os.Exit(3)
	}
	n.stop()
	return nil
}

// TestProcessNode is a node, when the environment says so.
func TestProcessNode(t *testing.T) {
	text := os.Getenv(processEnv)
	if text == "" {
		return
	}
	var cfg processConfig
	require.NoError(t, json.Unmarshal([]byte(text), &cfg))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, err := cluster.New(cluster.Config{
		ClusterName: "processes", Discovery: cluster.StaticDiscovery(cfg.Seeds...), InsecureNoKeys: true, BindAddr: cfg.Gossip,
		Profile: cluster.Local, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	require.NoError(t, err)
	database, err := rpc.Dial("tcp", cfg.Database)
	require.NoError(t, err)
	hub, err := wsfanout.New(wsfanout.Config{
		Transport: node, Authenticate: who, Authorize: anyone, Logger: log, DrainSpread: 100 * time.Millisecond,
		OnGap: func(_ context.Context, _ wsfanout.Identity, topic, after string) ([]wsfanout.Message, error) {
			var ids []string
			if err := database.Call("Database.After", Publication{topic, after}, &ids); err != nil {
				return nil, err
			}
			var ms []wsfanout.Message
			for _, id := range ids {
				data, _ := json.Marshal(id)
				ms = append(ms, wsfanout.Message{ID: id, Data: data})
			}
			return ms, nil
		},
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	calls := rpc.NewServer()
	require.NoError(t, calls.Register(&Node{hub, node, stop}))
	var wg sync.WaitGroup
	wg.Go(func() { _ = node.Run(ctx) })
	wg.Go(func() { _ = hub.Run(ctx) })
	sockets, err := net.Listen("tcp", cfg.Sockets)
	require.NoError(t, err)
	answers, err := net.Listen("tcp", cfg.Calls)
	require.NoError(t, err)
	go func() { _ = http.Serve(sockets, hub) }()
	go calls.Accept(answers)
	go func() { // the parent is gone when its end of the pipe is
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	wg.Wait()
}
