package lifecycle_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lifecycle"
)

func run(l *lifecycle.Life, ctx context.Context) error {
	ok, err := l.Start()
	if !ok {
		return err
	}
	defer l.Finish()
	select {
	case <-ctx.Done():
	case <-l.Stopping():
	}
	return nil
}

func TestStopEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lifecycle.Life
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, run(&l, t.Context())) })
		synctest.Wait()
		require.False(t, l.Closed())
		for range 3 {
			wg.Go(func() { require.NoError(t, l.Stop(t.Context())) })
		}
		wg.Wait()
		require.True(t, l.Closed())
		require.NoError(t, l.Stop(t.Context()))
	})
}

func TestStopBeforeRun(t *testing.T) {
	var l lifecycle.Life
	require.NoError(t, l.Stop(t.Context()))
	require.NoError(t, run(&l, t.Context()))
}

func TestSecondRun(t *testing.T) {
	var l lifecycle.Life
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, run(&l, ctx))
	require.Error(t, run(&l, ctx))
}

func TestStopGivesUpWithItsContext(t *testing.T) {
	var l lifecycle.Life
	_, err := l.Start()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.Stop(ctx), context.Canceled)
	l.Finish()
	require.NoError(t, l.Stop(t.Context()))
}
