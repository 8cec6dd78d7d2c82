package lease_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Statements that are cut off at any moment leave no lock behind: another process can write at once. A BEGIN that answers with the
// context's error may have taken the write lock.
func TestCancelledStatementsLeaveNoLock(t *testing.T) {
	p := sqliteAt(t)
	s, other := p.store(time.Second), p.open()
	_, err := other.Exec(`CREATE TABLE z (n int)`)
	require.NoError(t, err)
	term := take(t, s, "a/1")
	for i := range 500 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(2*time.Millisecond))))
		if i%3 == 0 {
			row, err := s.Look(t.Context())
			require.NoError(t, err)
			_, _ = s.Acquire(ctx, row, "a/1", still)
			row, err = s.Look(t.Context())
			require.NoError(t, err)
			term = row.Term
		} else {
			_, _, _ = s.Renew(ctx, term, "a/1", "")
		}
		cancel()
		_, err := other.Exec(`INSERT INTO z VALUES (1)`) // waits for 5 s
		require.NoError(t, err, i)
	}
}
