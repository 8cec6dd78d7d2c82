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

func (c *Cluster) URL() string { return c.c.url }

// NodeURLs are those of the nodes themselves, past the proxy.
func (c *Cluster) NodeURLs() (urls []string) {
	for _, p := range c.c.nodes {
		urls = append(urls, "http://"+p.addr)
	}
	return urls
}

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

// State returns the state of node i, counted from 1, and the ID of its process where it answers.
func (c *Cluster) State(i int) (state, id string) {
	p := c.c.nodes[i-1]
	state, _ = p.current()
	if state == "running" || state == "cut" {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if v, err := p.ask(ctx); err == nil {
			id = v.ID
		}
	}
	return state, id
}

// Keep leaves the folder when the cluster is closed.
func (c *Cluster) Keep() { c.c.temp = false }

// Deaths says why processes ended that nobody had asked to end.
func (c *Cluster) Deaths() (reasons []string) {
	for _, p := range c.c.nodes {
		p.mu.Lock()
		reasons = append(reasons, p.deaths...)
		p.mu.Unlock()
	}
	return reasons
}
