package election_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/stretchr/testify/require"
)

// One holder at a time, in the order of its tokens, and the fence refuses the one that was before.
func TestMutex(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		var inside, count atomic.Int64
		var last atomic.Uint64
		var wg sync.WaitGroup
		for range 3 {
			m, err := election.NewMutex(open(), "m")
			require.NoError(t, err)
			wg.Go(func() {
				for range 2 {
					l, err := m.Lock(within(t))
					if err != nil {
						t.Error(err)
						return
					}
					if inside.Add(1) != 1 {
						t.Error("two inside")
					}
					if before := last.Swap(l.Token()); before >= l.Token() {
						t.Errorf("token %d after %d", l.Token(), before)
					}
					count.Add(1)
					inside.Add(-1)
					if err := l.Unlock(within(t)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 6, count.Load())
	})
}

func TestMutexTryLockAndFence(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		db := open()
		m, err := election.NewMutex(open(), "m")
		require.NoError(t, err)
		first, err := m.TryLock(within(t))
		require.NoError(t, err)
		_, err = m.TryLock(within(t))
		require.ErrorIs(t, err, election.ErrLocked)
		short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err = m.Lock(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		require.ErrorContains(t, first.Fence(within(t), db), "BeginTx")
		tx, err := db.Beginx()
		require.NoError(t, err)
		require.NoError(t, first.Fence(within(t), tx))
		require.NoError(t, tx.Commit())
		require.NoError(t, first.Context().Err())
		// it stays held for longer than a TTL
		began := time.Now()
		eventually(t, "a TTL passes", func() bool { return time.Since(began) > 3200*time.Millisecond })
		require.NoError(t, first.Context().Err())
		require.NoError(t, first.Unlock(within(t)))
		require.NoError(t, first.Unlock(within(t)))
		require.Error(t, first.Context().Err())

		second, err := m.TryLock(within(t))
		require.NoError(t, err)
		require.Greater(t, second.Token(), first.Token())
		tx, err = db.Beginx()
		require.NoError(t, err)
		require.ErrorIs(t, first.Fence(within(t), tx), election.ErrDeposed)
		// taken away: the context ends
		_, err = db.Exec(`UPDATE nines_lease_beats SET holder='~', beat=beat+1`)
		require.NoError(t, err)
		<-second.Context().Done()
		require.ErrorIs(t, context.Cause(second.Context()), election.ErrDeposed)
		require.ErrorIs(t, second.Unlock(within(t)), election.ErrDeposed)
	})
}
