package wsfanouttest

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nines-go/nines/wsfanout"
)

// RunTransport checks what hubs expect of a Transport. open returns n of them that see each other; it ends them with the test.
func RunTransport(t *testing.T, open func(t *testing.T, n int) []wsfanout.Transport) {
	ctx := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("Names", func(t *testing.T) {
		all := open(t, 3)
		var ids []string
		for _, a := range all {
			ids = append(ids, a.ID())
		}
		slices.Sort(ids)
		if len(slices.Compact(slices.Clone(ids))) != 3 || ids[0] == "" {
			t.Fatalf("IDs %q: each process has one of its own", ids)
		}
		for _, a := range all {
			wait(t, "all see each other", func() bool { return slices.Equal(a.Alive(), ids) })
			for _, id := range ids {
				if f := a.Fate(id); f != "alive" {
					t.Errorf("Fate(%q) is %q", id, f)
				}
			}
			if f := a.Fate("nobody"); f == "alive" {
				t.Error("an unknown process is alive")
			}
		}
	})
	// What one posts to another arrives in order and once, by whichever of the two ways, and one at a time.
	t.Run("Order", func(t *testing.T) {
		all := open(t, 2)
		a, b := all[0], all[1]
		const n = 2000
		var mu sync.Mutex
		var got []uint32
		var inside atomic.Int32
		defer b.Handle("order", func(_ context.Context, from string, p []byte) ([]byte, error) {
			if from != a.ID() || inside.Add(1) != 1 {
				t.Errorf("handler of %q runs twice at a time", from)
			}
			mu.Lock()
			got = append(got, binary.BigEndian.Uint32(p))
			mu.Unlock()
			inside.Add(-1)
			return nil, nil
		})()
		buf := make([]byte, 4)
		for i := range uint32(n) {
			binary.BigEndian.PutUint32(buf, i)
			if i%2 == 1 && a.TryPost(b.ID(), "order", buf) == nil { // buf is the caller's again at once
				continue
			}
			if err := a.Post(ctx(t), b.ID(), "order", buf); err != nil {
				t.Fatal(err)
			}
		}
		wait(t, "all arrive", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= n })
		for i, x := range got {
			if x != uint32(i) {
				t.Fatalf("number %d is %d", i, x)
			}
		}
	})
	t.Run("Bulk", func(t *testing.T) {
		all := open(t, 2)
		got := make(chan int, 1)
		defer all[1].Handle("bulk", func(_ context.Context, _ string, p []byte) ([]byte, error) {
			got <- len(p)
			return nil, nil
		})()
		if err := all[0].PostBulk(ctx(t), all[1].ID(), "bulk", make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
		select {
		case n := <-got:
			if n != 4<<20 {
				t.Errorf("%d bytes arrive", n)
			}
		case <-time.After(Patience):
			t.Error("nothing arrives")
		}
	})
	// To nobody there is no way, and that is told.
	t.Run("Nobody", func(t *testing.T) {
		a := open(t, 1)[0]
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if a.Post(ctx, "nobody", "x", nil) == nil || a.TryPost("nobody", "x", nil) == nil {
			t.Error("a message to nobody was taken")
		}
	})
	// A handler that was stopped gets nothing more; Notify can be stopped.
	t.Run("Stop", func(t *testing.T) {
		all := open(t, 2)
		var after atomic.Int32
		stop := all[1].Handle("stop", func(context.Context, string, []byte) ([]byte, error) { after.Add(1); return nil, nil })
		if err := all[0].Post(ctx(t), all[1].ID(), "stop", nil); err != nil {
			t.Fatal(err)
		}
		wait(t, "it arrives", func() bool { return after.Load() == 1 })
		stop()
		seen := make(chan struct{}, 1)
		defer all[1].Handle("next", func(context.Context, string, []byte) ([]byte, error) { seen <- struct{}{}; return nil, nil })()
		_ = all[0].Post(ctx(t), all[1].ID(), "stop", nil)
		if err := all[0].Post(ctx(t), all[1].ID(), "next", nil); err != nil {
			t.Fatal(err)
		}
		<-seen
		if after.Load() != 1 {
			t.Error("a stopped handler ran")
		}
		all[0].Notify(make(chan struct{}))() // nobody receives: must not block
	})
}
