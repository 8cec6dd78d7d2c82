// Package backoff computes pauses between attempts.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Delay returns the pause before attempt n (0 is the first retry): exponential from base to limit, with jitter over its upper half,
// so that many callers that failed together do not come back together.
func Delay(n int, base, limit time.Duration) time.Duration {
	d := limit
	if n < 32 && base<<n > 0 && base<<n < limit {
		d = base << n
	}
	if d < 2 {
		return d
	}
	return d/2 + rand.N(d/2+1)
}
