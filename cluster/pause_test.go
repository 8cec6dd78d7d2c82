package cluster_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/faultnet"
)

// jumpy is a network whose time jumps.
type jumpy struct {
	cluster.Network
	begin time.Time
	by    atomic.Int64
}

func (j *jumpy) Boottime() time.Duration {
	return time.Since(j.begin) + time.Duration(j.by.Load())
}

func TestPausesAreTakenFromTheNetworksClock(t *testing.T) {
	j := &jumpy{Network: faultnet.New(nil), begin: time.Now()}
	n := start(t, newBoard(), func(c *cluster.Config) { c.Network = j })
	require.NoError(t, n.WaitReady(within(t)))
	require.Zero(t, n.Stats().Pauses)
	j.by.Store(int64(time.Hour))
	eventually(t, func() bool { return n.Stats().Pauses == 1 }, nil)
}
