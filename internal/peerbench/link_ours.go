package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nines-go/nines/cluster"
)

// Ours is a message of cluster.Node, posted to a topic: once without keys, like the limit and the peers, once with them.

const linkTopic = "bench"

func init() {
	for kind, keys := range map[string][][]byte{"ours": nil, "ours-keys": {bytes.Repeat([]byte{7}, 32)}} {
		linkRole("link.receiver."+kind, func(job linkJob, say func(any)) error {
			n, err := linkNode(keys, "")
			if err != nil {
				return err
			}
			m := newLinkMeter(job)
			n.Handle(linkTopic, func(_ context.Context, _ string, payload []byte) ([]byte, error) {
				m.take(payload)
				return nil, nil
			})
			say(n.Addr())
			say(m.result())
			rest()
			return nil
		})
		linkRole("link.sender."+kind, func(job linkJob, say func(any)) error {
			n, err := linkNode(keys, job.Addr)
			if err != nil {
				return err
			}
			var to string
			for began := time.Now(); to == ""; time.Sleep(5 * time.Millisecond) {
				for _, id := range n.Alive() {
					if id != n.ID() {
						to = id
					}
				}
				if time.Since(began) > 20*time.Second {
					return errors.New("the two nodes do not meet")
				}
			}
			ctx := context.Background()
			if err := n.Send(ctx, to, linkTopic+".warm", make([]byte, 1)); err != nil {
				return fmt.Errorf("first message: %w", err)
			}
			time.Sleep(200 * time.Millisecond) // let joining come to rest
			if err := linkSend(job, func(b []byte) error { return n.Post(ctx, to, linkTopic, b) }); err != nil {
				return err
			}
			rest()
			return nil
		})
	}
}

// linkNode runs a node that joins the one at seed.
func linkNode(keys [][]byte, seed string) (*cluster.Node, error) {
	var seeds []string
	if seed != "" {
		seeds = []string{seed}
	}
	n, err := cluster.New(cluster.Config{
		ClusterName: "peerbench", Keys: keys, InsecureNoKeys: keys == nil, BindAddr: "127.0.0.1:0", Discovery: cluster.StaticDiscovery(seeds...),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	go n.Run(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		return nil, err
	}
	return n, nil
}
