package election_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

// figures are durations of one kind of fail-over.
type figures []time.Duration

func (f figures) at(p float64) time.Duration {
	s := slices.Sorted(slices.Values(f))
	return s[min(int(p*float64(len(s))), len(s)-1)].Round(time.Millisecond)
}

func (f figures) log(t *testing.T, what string) {
	t.Helper()
	t.Logf("%s: %d rounds, p50 %v, p99 %v, max %v: %v", what, len(f), f.at(0.5), f.at(0.99), f.at(1), rounded(f))
}

func rounded(f figures) (out []time.Duration) {
	for _, d := range f[:min(len(f), 6)] {
		out = append(out, d.Round(time.Millisecond))
	}
	return out
}

// How long nobody works after a crash, with the default TTL of 3 s: measured and printed. The test holds the best round to the bound,
// because other programs share the machine.
func TestFailoverBounds(t *testing.T) {
	const ttl = 3 * time.Second
	edit := func(s *childSpec) { s.TTL = ttl }
	herds(t, edit, func(t *testing.T, h *herd) {
		var fenced, unfenced figures
		name, term := h.startAll()
		for range rounds(3, 60) {
			h.busy(term)
			began := time.Now()
			h.kill(name)
			next, now := h.leader(term)
			fenced = append(fenced, h.first(term).Sub(began))
			unfenced = append(unfenced, h.led(now).Sub(began))
			h.start(name)
			name, term = next, now
		}
		fenced.log(t, "killed, fenced work elsewhere")
		unfenced.log(t, "killed, Lead elsewhere")
		require.Less(t, fenced.at(0), time.Second)
		require.Less(t, unfenced.at(0), ttl+time.Second)
		if h.spec.Driver == "sqlite" {
			return
		}
		var stopped figures
		for range rounds(1, 20) {
			h.busy(term)
			began := time.Now()
			h.signal(name, syscall.SIGSTOP)
			next, now := h.leader(term)
			stopped = append(stopped, h.first(term).Sub(began))
			h.signal(name, syscall.SIGCONT)
			name, term = next, now
		}
		stopped.log(t, "stopped, fenced work elsewhere")
		require.Less(t, stopped.at(0), ttl+4*time.Second) // the three more when it was stopped between Fence and COMMIT
		_, _, bad := h.disorder()
		require.Zero(t, bad)
	})
}

// The lease alone, without session locks and without a cluster that knows who died.
func TestFailoverByLeaseAlone(t *testing.T) {
	t.Parallel()
	driver, dsn := lab.SQLite(t)
	h := newHerd(t, driver, dsn+noSync, true, func(s *childSpec) { s.TTL = 3 * time.Second })
	var took figures
	name, term := h.startAll()
	for range rounds(3, 60) {
		h.busy(term)
		began := time.Now()
		h.kill(name)
		next, now := h.leader(term)
		took = append(took, h.first(term).Sub(began))
		h.start(name)
		name, term = next, now
	}
	took.log(t, "killed, fenced work elsewhere by the lease alone")
	require.Less(t, took.at(0), 3500*time.Millisecond)
	require.Greater(t, took.at(0), 1900*time.Millisecond, "somebody did not wait for the lease")
}
