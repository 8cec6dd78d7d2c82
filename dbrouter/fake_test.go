package dbrouter_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/dbrouter/dbroutertest"
	"github.com/nines-go/nines/internal/dialect"
)

// fake runs fn in a bubble with a router on servers in memory.
func fake(t *testing.T, replicas int, change func(*dbrouter.Config), fn func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router)) {
	synctest.Test(t, func(t *testing.T) {
		c := dbroutertest.New(replicas)
		cfg := c.Config()
		cfg.Logger = quiet()
		if change != nil {
			change(&cfg)
		}
		r, err := dbrouter.Open(t.Context(), cfg)
		require.NoError(t, err)
		defer func() {
			for i := range c.Len() {
				c.Server(i).Resume()
			}
			require.NoError(t, r.Close())
			synctest.Wait()
		}()
		time.Sleep(2 * time.Second) // every source has been probed
		fn(t, c, r)
	})
}

type served struct{ Server, Writes int }

func read(ctx context.Context, rd *dbrouter.Reader) (s served, err error) {
	err = rd.GetContext(ctx, &s, "SELECT 1")
	return s, err
}

func write(ctx context.Context, r *dbrouter.Router) error {
	_, err := r.Master().ExecContext(ctx, "INSERT INTO a VALUES (1)")
	return err
}

// A replica that was out for its lag comes back below half of MaxLag, not just below it.
func TestLagHasHysteresis(t *testing.T) {
	const record = 64
	fake(t, 2, func(cfg *dbrouter.Config) { cfg.MaxLag = dbrouter.Lag{Bytes: 10 * record} }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		behind := func(n int) {
			c.Server(1).ResumeReplay()
			c.Server(1).PauseReplay()
			for range n {
				require.NoError(t, write(t.Context(), r))
			}
			time.Sleep(5 * time.Second)
		}
		in := func() bool { return source(r, 1).Healthy }
		behind(9)
		require.True(t, in())
		behind(11)
		require.False(t, in())
		require.EqualValues(t, 11*record, source(r, 1).Lag)
		behind(7)
		require.False(t, in(), "it has not clearly caught up")
		behind(4)
		require.True(t, in())
		behind(9)
		require.True(t, in())
	})
}

// Lag as a time grows while a replica does not apply, and not because the master is idle.
func TestLagAsATime(t *testing.T) {
	fake(t, 1, func(cfg *dbrouter.Config) { cfg.MaxLag = dbrouter.Lag{Time: 10 * time.Second} }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		time.Sleep(time.Hour)
		require.Zero(t, source(r, 1).LagTime, "nothing was written")
		c.Server(1).PauseReplay()
		time.Sleep(time.Hour)
		require.True(t, source(r, 1).Healthy, "still nothing")
		require.NoError(t, write(t.Context(), r))
		time.Sleep(8 * time.Second)
		require.True(t, source(r, 1).Healthy)
		require.InDelta(t, 7.5, source(r, 1).LagTime.Seconds(), 2)
		time.Sleep(6 * time.Second)
		require.False(t, source(r, 1).Healthy)
		c.Server(1).ResumeReplay()
		time.Sleep(3 * time.Second)
		require.True(t, source(r, 1).Healthy)
	})
}

// One good probe is luck; two bring a source back, with a small share at first.
func TestBackAfterTwoGoodProbesWithARamp(t *testing.T) {
	fake(t, 2, nil, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		s := c.Server(1)
		s.Kill()
		for source(r, 1).Healthy {
			_, err := read(t.Context(), r.Replica())
			require.NoError(t, err)
		}
		for range 10 {
			s.Start()
			for dials := s.Dials(); s.Dials() == dials; {
				require.False(t, source(r, 1).Healthy)
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Millisecond) // the probe has its answer
			s.Kill()
			require.False(t, source(r, 1).Healthy, "after one good probe")
			time.Sleep(2 * time.Second)
		}
		s.Start()
		for !source(r, 1).Healthy {
			time.Sleep(time.Millisecond)
		}
		share := func() float64 {
			before := s.Calls()
			for range 576 {
				_, err := read(t.Context(), r.Replica())
				require.NoError(t, err)
			}
			return float64(s.Calls()-before) / 576
		}
		require.InDelta(t, 1.0/9, share(), 0.02, "at first")
		time.Sleep(3500 * time.Millisecond)
		require.InDelta(t, 4.0/12, share(), 0.1, "half way")
		time.Sleep(20 * time.Second)
		require.InDelta(t, 0.5, share(), 0.01, "at last")
	})
}

// The idle connections of a source that was found hung are not kept for when it comes back.
func TestIdleConnectionsOfHungSourceAreDropped(t *testing.T) {
	fake(t, 1, nil, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		s := c.Server(1)
		s.Slow(100 * time.Millisecond)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _, err := read(t.Context(), r.Replica()); require.NoError(t, err) })
		}
		wg.Wait()
		require.GreaterOrEqual(t, s.Conns(), 10)
		s.Hang()
		began := time.Now()
		for source(r, 1).Healthy {
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
		require.LessOrEqual(t, s.Conns(), 3, "those of probes")
	})
}

// What a caller's patience ends, or a statement does wrong, takes no source out; what the source does, does.
func TestWhatTakesASourceOut(t *testing.T) {
	for _, x := range []struct {
		name  string
		state string
		out   bool // out of use
		fails bool // the read fails
	}{
		{"syntax error", "42601", false, true},
		{"statement timeout", "57014", false, true},
		{"too many connections", "53300", false, false},
		{"conflict with recovery", "40001", false, false},
		{"write refused", "25006", false, false},
		{"shutting down", "57P01", true, false},
		{"starting up", "57P03", true, false},
		{"connection failure", "08006", true, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			fake(t, 2, func(cfg *dbrouter.Config) { cfg.MonitorInterval = time.Hour }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
				c.Server(1).Fail(&dbroutertest.Error{State: x.state, Message: x.name})
				before := c.Server(1).Calls()
				for c.Server(1).Calls() == before {
					_, err := read(t.Context(), r.Replica())
					if c.Server(1).Calls() > before {
						require.Equal(t, x.fails, err != nil, "%v", err)
					}
				}
				require.Equal(t, x.out, !source(r, 1).Healthy)
			})
		})
	}
	fake(t, 1, nil, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		c.Server(1).Slow(time.Second)
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := read(ctx, r.Replica())
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			require.True(t, source(r, 1).Healthy)
		}
		s, err := read(t.Context(), r.Replica())
		require.NoError(t, err)
		require.Equal(t, 1, s.Server, "slow is not sick")
		require.Zero(t, r.Stats().ReadsMoved)
	})
}

// When something is wrong with every replica alike, not every read runs twice.
func TestRetriesHaveABudget(t *testing.T) {
	fake(t, 2, func(cfg *dbrouter.Config) { cfg.MaxOpenConns, cfg.MonitorInterval = 10, time.Hour }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		busy := &dbroutertest.Error{State: "53300", Message: "too many connections"}
		c.Server(1).Fail(busy)
		c.Server(2).Fail(busy)
		failed := 0
		for range 1000 {
			if _, err := read(t.Context(), r.Replica()); err != nil {
				failed++
			}
		}
		require.Positive(t, failed)
		require.LessOrEqual(t, r.Stats().ReadsMoved, uint64(20+100+1))
		c.Server(1).Fail(nil)
		c.Server(2).Fail(nil)
		for range 300 {
			_, err := read(t.Context(), r.Replica())
			require.NoError(t, err)
		}
		c.Server(1).Fail(busy)
		for range 20 {
			_, err := read(t.Context(), r.Replica())
			require.NoError(t, err, "it has been earned again")
		}
	})
}

// With FenceOldMaster nothing begins on the new master while a transaction is under way on the old one, and no transaction is waited for for ever.
func TestOldMasterIsFenced(t *testing.T) {
	fence := func(cfg *dbrouter.Config) { cfg.FenceOldMaster = 5 * time.Second }
	swap := func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		c.Server(1).Promote()
		cfg := c.Config()
		cfg.DataSource, cfg.DataSourceReplicas, cfg.Logger = c.DSN(1), nil, quiet()
		fence(&cfg)
		require.NoError(t, r.Reconfigure(t.Context(), cfg))
	}
	fake(t, 1, fence, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		tx, err := r.Master().BeginTxx(t.Context(), nil)
		require.NoError(t, err)
		swap(t, c, r)
		var done atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, write(t.Context(), r)); done.Store(true) })
		time.Sleep(time.Second)
		require.False(t, done.Load(), "it waits")
		_, err = tx.ExecContext(t.Context(), "INSERT INTO a VALUES (1)")
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		time.Sleep(100 * time.Millisecond)
		require.True(t, done.Load())
		wg.Wait()
		require.Equal(t, 1, c.Server(0).Writes())
		require.Equal(t, 1, c.Server(1).Writes())
	})
	fake(t, 1, fence, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		tx, err := r.Master().BeginTxx(t.Context(), nil)
		require.NoError(t, err)
		swap(t, c, r)
		began := time.Now()
		require.NoError(t, write(t.Context(), r))
		require.InDelta(t, 5, time.Since(began).Seconds(), 0.5)
		_, err = tx.ExecContext(t.Context(), "INSERT INTO a VALUES (1)")
		require.Error(t, err, "it was given up")
		require.Zero(t, c.Server(0).Writes())
	})
}

// Calls of a master that is away wait for MasterWait, all until the same moment, and then fail at once.
func TestMasterWait(t *testing.T) {
	fake(t, 1, func(cfg *dbrouter.Config) { cfg.MasterWait = 3 * time.Second }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		c.Server(0).Kill()
		began := time.Now()
		err := write(t.Context(), r)
		if errors.Is(err, dbrouter.ErrUnknownOutcome) {
			err = write(t.Context(), r) // the first one met a connection that was there
		}
		require.Error(t, err)
		require.NotErrorIs(t, err, dbrouter.ErrUnknownOutcome, "it was never sent")
		require.InDelta(t, 3, time.Since(began).Seconds(), 0.2)
		began = time.Now()
		require.Error(t, write(t.Context(), r))
		require.Less(t, time.Since(began), 100*time.Millisecond)
		require.False(t, r.Stats().MasterSought.IsZero())
		c.Server(0).Start()
		time.Sleep(time.Second)
		require.NoError(t, write(t.Context(), r))
		require.True(t, r.Stats().MasterSought.IsZero())

		// The whole transaction again, when it is lost before COMMIT.
		tries := 0
		require.NoError(t, r.RunTx(t.Context(), nil, func(tx *sqlx.Tx) error {
			if tries++; tries == 1 {
				c.Server(0).Kill()
				c.Server(0).Start()
			}
			_, err := tx.ExecContext(t.Context(), "INSERT INTO a VALUES (1)")
			return err
		}))
		require.Equal(t, 2, tries)
	})
	fake(t, 1, func(cfg *dbrouter.Config) { cfg.MasterWait = -1 }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		c.Server(0).Kill()
		began := time.Now()
		require.Error(t, write(t.Context(), r))
		require.Error(t, write(t.Context(), r))
		require.Less(t, time.Since(began), 100*time.Millisecond)
	})
}

// Who the master is, is decided by what the sources say alone.
func TestFollow(t *testing.T) {
	at, g := dbrouter.At, dbrouter.GTIDs
	type claims = []struct {
		writable bool
		at       dbrouter.Position
	}
	p, m := dialect.Postgres, dialect.MySQL
	for _, x := range []struct {
		name     string
		d        dialect.Dialect
		writable bool
		current  dbrouter.Position
		known    dbrouter.Position
		others   claims
		to       int
		two      bool
	}{
		{"all is well", p, true, at(1, 10), at(1, 10), claims{{false, at(1, 9)}}, -1, false},
		{"an old master is back", p, true, at(2, 10), at(2, 10), claims{{true, at(1, 99)}}, -1, false},
		{"a replica was promoted beside us", p, true, at(1, 10), at(1, 10), claims{{true, at(2, 9)}}, -1, true},
		{"another of the same age", p, true, at(1, 10), at(1, 10), claims{{true, at(1, 9)}}, -1, true},
		{"the master is gone", p, false, nil, at(1, 10), claims{{false, at(1, 9)}, {true, at(2, 9)}}, 1, false},
		{"the master is gone and only an older one is there", p, false, nil, at(2, 10), claims{{true, at(1, 99)}}, -1, false},
		{"the newest of two", p, false, nil, at(1, 10), claims{{true, at(2, 9)}, {true, at(3, 9)}}, 1, false},
		{"two of the same age", p, false, nil, at(1, 10), claims{{true, at(2, 9)}, {true, at(2, 10)}}, -1, true},
		{"nobody", p, false, nil, at(1, 10), claims{{false, at(1, 9)}}, -1, false},
		{"two on MariaDB", m, true, g("0-1-10"), g("0-1-10"), claims{{true, g("0-1-9")}}, -1, true},
		{"the master is gone on MariaDB", m, false, nil, g("0-1-10"), claims{{true, g("0-1-9")}}, 0, false},
		{"the further of two on MariaDB", m, false, nil, g("0-1-10"), claims{{true, g("0-1-9")}, {true, g("0-1-10")}}, 1, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			current := dbrouter.Claim(x.writable, x.current)
			others := dbrouter.Claims()
			for _, o := range x.others {
				others = append(others, dbrouter.Claim(o.writable, o.at))
			}
			to, two := dbrouter.Follow(x.d, current, x.known, others)
			require.Equal(t, x.to, to)
			require.Equal(t, x.two, two)
		})
	}
}

// Statements are logged when that is asked for, their arguments when that is asked for, too.
func TestTraceAndSlowQueries(t *testing.T) {
	for _, arguments := range []bool{false, true} {
		var out syncBuffer
		fake(t, 1, func(cfg *dbrouter.Config) {
			cfg.Trace, cfg.TraceArguments, cfg.SlowQuery = true, arguments, 100*time.Millisecond
			cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
		}, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
			require.NoError(t, r.Replica().GetContext(t.Context(), &served{}, "SELECT quick", "user-data"))
			c.Server(1).Slow(time.Second)
			require.NoError(t, r.Replica().GetContext(t.Context(), &served{}, "SELECT slowly", "user-data"))
			_, err := r.Master().ExecContext(t.Context(), "INSERT INTO a VALUES (?)", "user-data")
			require.NoError(t, err)
			require.EqualValues(t, 1, source(r, 1).Slow)
		})
		text := out.String()
		require.Contains(t, text, `level=INFO msg=sql query="SELECT quick"`)
		require.Contains(t, text, `level=WARN msg="slow query" query="SELECT slowly" took=1s role=replica source="host=server1 password=***`)
		require.Contains(t, text, `query="INSERT INTO a VALUES (?)"`)
		require.Equal(t, arguments, strings.Contains(text, "user-data"))
	}
}

// A session costs one question to the master for all sessions at once, not one for each.
func TestQuestionsAreShared(t *testing.T) {
	fake(t, 1, func(cfg *dbrouter.Config) { cfg.MonitorInterval = time.Hour }, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		for range 100 {
			ctx, s := dbrouter.WithSession(t.Context())
			require.False(t, s.Wrote())
			require.NoError(t, write(ctx, r))
			require.True(t, s.Wrote())
			got, err := read(ctx, r.Replica())
			require.NoError(t, err)
			require.Equal(t, served{1, c.Server(0).Writes()}, got)
		}
		// Far behind: it is waited for once, not by everybody.
		c.Server(1).PauseReplay()
		began := time.Now()
		for range 100 {
			ctx, _ := dbrouter.WithSession(t.Context())
			require.NoError(t, write(ctx, r))
			got, err := read(ctx, r.Replica())
			require.NoError(t, err)
			require.Equal(t, served{0, c.Server(0).Writes()}, got)
		}
		require.LessOrEqual(t, time.Since(began), 50*time.Millisecond)
	})
}

// A server that is slow to take connections comes back all the same: nobody waits for a probe of a source that is out.
func TestSlowDialsComeBack(t *testing.T) {
	fake(t, 1, nil, func(t *testing.T, c *dbroutertest.Cluster, r *dbrouter.Router) {
		c.Server(1).Hang()
		for source(r, 1).Healthy {
			time.Sleep(10 * time.Millisecond)
		}
		c.Server(1).SlowDials(400 * time.Millisecond)
		c.Server(1).Kill()
		c.Server(1).Start()
		c.Server(1).Resume()
		time.Sleep(5 * time.Second)
		require.True(t, source(r, 1).Healthy)
	})
}
