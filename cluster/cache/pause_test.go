package cache_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
)

// stopped is a network whose clock jumps, as it does for a process that did not run for a while.
type stopped struct {
	cluster.Network
	began time.Time
	jump  atomic.Int64
}

func (s *stopped) Boottime() time.Duration { return time.Since(s.began) + time.Duration(s.jump.Load()) }

// After a pause the first Get shows nothing old, before any timer has run, and until a peer has answered nothing is kept.
func TestAfterAPauseNothingOldIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := clustertest.New(1)
		defer linger()
		db := newTruth()
		other := serve(t, net.Config("a"), db.load, 0)
		defer other.end()
		cfg := net.Config("b")
		clock := &stopped{Network: cfg.Network, began: time.Now()}
		cfg.Network = clock
		s := serve(t, cfg, db.load, 0)
		defer s.end()
		require.NoError(t, s.WaitReady(t.Context()))
		time.Sleep(5 * time.Second)
		require.Zero(t, get(t, s, "k"))
		db.set("k", 1) // and an invalidation that it did not hear of
		require.Zero(t, get(t, s, "k"), "it is kept")

		clock.jump.Add(int64(time.Minute))
		require.Equal(t, 1, get(t, s, "k"))
		db.set("k", 2)
		require.Equal(t, 2, get(t, s, "k"), "nobody has acknowledged it yet")
		require.True(t, s.Cache.Stats().Bypassed)

		time.Sleep(5 * time.Second)
		require.False(t, s.Cache.Stats().Bypassed)
		require.Equal(t, 2, get(t, s, "k"))
		db.set("k", 3)
		require.Equal(t, 2, get(t, s, "k"), "kept again")
	})
}
