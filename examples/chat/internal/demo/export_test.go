package demo

import (
	"context"
	"fmt"
	"time"
)

// RunNode is the child process: the test binary re-executes itself as the command does.
var RunNode = runNode

// Cluster is a door to the demo's cluster.
type Cluster struct{ c *demoCluster }

// Launch starts n nodes behind a proxy and waits until they are settled.
func Launch(ctx context.Context, n int) (*Cluster, error) {
	c, err := launch(ctx, options{nodes: n, addr: host + ":0"})
	if err != nil {
		return nil, err
	}
	if err := c.waitSettled(ctx, 60*time.Second); err != nil {
		_ = c.close()
		return nil, err
	}
	return &Cluster{c}, nil
}

func (c *Cluster) URL() string  { return c.c.url }
func (c *Cluster) Dir() string  { return c.c.dir }
func (c *Cluster) Close() error { return c.c.close() }

// Key carries out one line of the keyboard.
func (c *Cluster) Key(ctx context.Context, line string) error {
	_, err := c.c.key(ctx, line)
	return err
}

// Kill kills the node of that name.
func (c *Cluster) Kill(name string) error {
	for _, p := range c.c.nodes {
		if p.name == name {
			return p.kill()
		}
	}
	return fmt.Errorf("there is no node %q", name)
}

// Settled says why the cluster is not settled, or nothing.
func (c *Cluster) Settled(ctx context.Context) string { return c.c.unsettled(ctx) }

// States returns the state of each node.
func (c *Cluster) States() (states []string) {
	for _, p := range c.c.nodes {
		s, _ := p.current()
		states = append(states, s)
	}
	return states
}
