package clustertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nines-go/nines/cluster"
)

// TestDiscovery checks an implementation of cluster.Discovery that keeps what it is told, such as a table. open returns a new handle of one and the same
// storage, which is empty at first, as another process would have it.
func TestDiscovery(t *testing.T, open func(t *testing.T) cluster.Discovery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seeds := func(d cluster.Discovery, name string) map[string]cluster.Entry {
		t.Helper()
		entries, err := d.Seeds(ctx, name)
		must(err)
		by := map[string]cluster.Entry{}
		for _, e := range entries {
			if _, twice := by[e.ID]; twice {
				t.Fatalf("entry %s is there twice", e.ID)
			}
			by[e.ID] = e
		}
		return by
	}
	entry := func(n int, name string) cluster.Entry {
		return cluster.Entry{ID: fmt.Sprintf("%08d-0000-7000-8000-000000000000", n), Type: "nines", ClusterName: name, Hostname: "10.0.0.1", GossipPort: 8074, Port: 8065}
	}

	// All at the same time, each with a handle of its own: nothing was made before.
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 8 {
		d := open(t)
		wg.Go(func() {
			for { // it may fail, as the Node tries again
				err := d.Register(ctx, entry(i, "first"))
				if err == nil || ctx.Err() != nil {
					errs <- err
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	for range 8 {
		must(<-errs)
	}
	a, b := open(t), open(t)
	if got := seeds(a, "first"); len(got) != 8 {
		t.Fatalf("8 processes registered, %d are there: %v", len(got), got)
	}

	e := entry(100, "conformance")
	e.Hostname, e.GossipPort, e.Port = strings.Repeat("long.", 50)+"example", 65535, 0
	if err := a.Heartbeat(ctx, e.ID); err == nil {
		t.Fatal("Heartbeat of a process that is not registered must fail, so that it registers again")
	}
	must(a.Register(ctx, e))
	must(a.Register(ctx, e)) // again is the same
	got, ok := seeds(b, e.ClusterName)[e.ID]
	if !ok || len(seeds(b, e.ClusterName)) != 1 {
		t.Fatalf("another handle must see it alone: %v", seeds(b, e.ClusterName))
	}
	for what, at := range map[string]time.Time{"CreateAt": got.CreateAt, "LastPingAt": got.LastPingAt} {
		if since := time.Since(at); since < -time.Minute || since > time.Minute {
			t.Fatalf("%s is %v", what, at)
		}
	}
	first := got.LastPingAt
	got.CreateAt, got.LastPingAt = time.Time{}, time.Time{}
	if got != e {
		t.Fatalf("registered %+v, got %+v", e, got)
	}
	if len(seeds(b, "Conformance")) != 0 || len(seeds(b, "")) != 0 || len(seeds(b, "first")) != 8 {
		t.Fatal("names of clusters are compared as they are written")
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		must(b.Heartbeat(ctx, e.ID))
		if seeds(a, e.ClusterName)[e.ID].LastPingAt.After(first) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("LastPingAt does not follow Heartbeat")
		}
	}
	moved := e
	moved.Hostname, moved.GossipPort = "10.0.0.2", 1
	must(a.Register(ctx, moved))
	if now := seeds(b, e.ClusterName)[e.ID]; now.Hostname != moved.Hostname || now.GossipPort != moved.GossipPort {
		t.Fatalf("registered anew as %+v, got %+v", moved, now)
	}
	must(b.Deregister(ctx, e.ID))
	must(a.Deregister(ctx, e.ID)) // again is the same
	if len(seeds(a, e.ClusterName)) != 0 {
		t.Fatal("it is still there")
	}
	if err := b.Heartbeat(ctx, e.ID); err == nil {
		t.Fatal("Heartbeat after Deregister must fail")
	}
	odd := []string{"o'hare", `back\slash`, "sm\u00f6rg\u00e5s", "with space", "; DROP TABLE x"}
	for i, name := range odd {
		must(a.Register(ctx, entry(200+i, name)))
	}
	for i, name := range odd {
		if got := seeds(b, name); len(got) != 1 || got[entry(200+i, name).ID].ClusterName != name {
			t.Fatalf("cluster %q: %v", name, got)
		}
	}
	over, stop := context.WithCancel(ctx)
	stop()
	if _, err := a.Seeds(over, "first"); err == nil {
		t.Fatal("Seeds with a context that has ended must fail")
	}
}
