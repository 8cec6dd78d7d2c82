package dbrouter_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
)

// grow writes a few megabytes.
func (s *setup) grow(t *testing.T, r *dbrouter.Router) {
	t.Helper()
	for range 4 {
		_, err := r.Master().ExecContext(t.Context(), "INSERT INTO bulk VALUES (repeat('x', 1000000))")
		if s.driver != "mysql" { // PostgreSQL would compress that away
			_, err = r.Master().ExecContext(t.Context(), "INSERT INTO bulk SELECT md5(i::text) FROM generate_series(1, 10000) AS i")
		}
		require.NoError(t, err)
	}
}

// A replica that does not apply what it receives is out of use, whatever the clock of the server says, and comes back when it has. When all
// trail, the policy decides.
func testLag(t *testing.T, s *setup) {
	s.Exec(0, "CREATE TABLE bulk (v text)")
	if s.driver == "mysql" {
		s.Exec(0, "ALTER TABLE bulk MODIFY v longtext")
	}
	s.Replayed()
	cfg := s.config()
	cfg.MonitorInterval = 50 * time.Millisecond
	cfg.MaxLag = dbrouter.Lag{Bytes: 1 << 20, Time: -1}
	if s.driver == "mysql" {
		cfg.MaxLag = dbrouter.Lag{Time: 300 * time.Millisecond}
	}
	cfg.MaxExtraReads = 2
	r := open(t, cfg)
	cfg.WhenLagging = dbrouter.LaggingLeast
	least := open(t, cfg)
	cfg.WhenLagging = dbrouter.LaggingError
	refusing := open(t, cfg)
	ctx := t.Context()
	lags := func(r *dbrouter.Router, i int) func() bool {
		return func() bool { st := source(r, i); return !st.Healthy && st.Lagging }
	}

	s.PauseReplay(1)
	s.grow(t, r)
	eventually(t, "the lagging replica is out", lags(r, 1))
	st := source(r, 1)
	require.Contains(t, st.LastError, "MaxLag")
	t.Logf("%s: out with %d bytes, %v", s.name, st.Lag, st.LagTime.Round(time.Millisecond))
	eventually(t, "the other one serves", func() bool { i, err := s.serves(ctx, r.Replica()); return err == nil && i == 2 })
	for range 20 {
		i, err := s.serves(ctx, r.Replica())
		require.NoError(t, err)
		require.NotEqual(t, 1, i)
	}
	if s.driver != "mysql" {
		require.Greater(t, st.Lag, int64(1<<20))
	}

	s.PauseReplay(2)
	s.grow(t, r)
	for _, r := range []*dbrouter.Router{r, least, refusing} {
		eventually(t, "both are out", func() bool { return lags(r, 1)() && lags(r, 2)() })
	}
	// The master takes as many as it should, and no read fails.
	var wg sync.WaitGroup
	var master, replica, most atomic.Int64
	slow := map[string]string{"mysql": ", SLEEP(0.05)"}[s.driver]
	if slow == "" {
		slow = ", pg_sleep(0.05)::text"
	}
	var done atomic.Bool
	wg.Go(func() {
		for !done.Load() {
			most.Store(max(most.Load(), int64(r.Stats().ReadsExtra)))
			<-time.After(time.Millisecond)
		}
	})
	var readers sync.WaitGroup
	for range workers {
		readers.Go(func() {
			for range 5 {
				var row struct {
					Port int
					S    *string
				}
				err := r.Replica().GetContext(ctx, &row, fmt.Sprintf("SELECT %s AS port%s AS s", s.port, slow))
				if !assert.NoError(t, err) {
					return
				}
				if s.at(row.Port) == 0 {
					master.Add(1)
				} else {
					replica.Add(1)
				}
			}
		})
	}
	readers.Wait()
	done.Store(true)
	wg.Wait()
	require.Positive(t, master.Load())
	require.Positive(t, replica.Load(), "what is beyond the cap is read where it trails least")
	require.LessOrEqual(t, most.Load(), int64(2))
	t.Logf("%s: all lagging: %d reads on the master, at most %d at once, %d on the least lagging replica", s.name, master.Load(), most.Load(), replica.Load())
	require.Zero(t, r.Stats().ReadsExtra)

	for range 10 {
		i, err := s.serves(ctx, least.Replica())
		require.NoError(t, err)
		require.Equal(t, 2, i, "the one that stopped later trails less")
	}
	_, err := s.serves(ctx, refusing.Replica())
	require.ErrorIs(t, err, dbrouter.ErrLagging)
	require.ErrorIs(t, refusing.Replica().QueryRowxContext(ctx, "SELECT 1").Err(), dbrouter.ErrLagging)
	_, err = refusing.Replica().QueryContext(ctx, "SELECT 1")
	require.ErrorIs(t, err, dbrouter.ErrLagging)
	_, err = s.serves(dbrouter.UseMaster(ctx), refusing.Replica())
	require.NoError(t, err)
	i, err := s.serves(dbrouter.Stale(ctx, time.Hour), refusing.Replica())
	require.NoError(t, err)
	require.Positive(t, i, "who takes old data gets it from a replica")
	i, err = s.serves(dbrouter.Stale(ctx, time.Millisecond), r.Replica())
	require.NoError(t, err)
	require.Zero(t, i, "who does not is served by the master")

	s.ResumeReplay(1)
	s.ResumeReplay(2)
	for _, r := range []*dbrouter.Router{r, least, refusing} {
		eventually(t, "they are back", func() bool { return source(r, 1).Healthy && source(r, 2).Healthy })
	}
}
