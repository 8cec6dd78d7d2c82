package backoff_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/backoff"
)

func TestDelay(t *testing.T) {
	for n := range 100 {
		want := 3 * time.Second
		if n < 5 {
			want = 100 * time.Millisecond << n
		}
		for range 50 {
			d := backoff.Delay(n, 100*time.Millisecond, 3*time.Second)
			require.GreaterOrEqual(t, d, want/2)
			require.LessOrEqual(t, d, want)
		}
	}
	require.Zero(t, backoff.Delay(3, 0, 0))
}
