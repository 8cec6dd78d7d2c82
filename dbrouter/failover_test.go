package dbrouter_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
)

// writers write numbers without a pause, half of them by Exec, half by RunTx.
type writers struct {
	s       *setup
	stop    atomic.Bool
	wg      sync.WaitGroup
	mu      sync.Mutex
	written map[[2]int]bool      // that was said to be
	unknown map[[2]int]bool      // that may be
	failed  map[string]int       // other errors of Exec, by text
	txs     map[string]int       // errors of RunTx
	why     map[string]int       // of those with an unknown outcome
	ends    [workers][]time.Time // when writes succeeded
}

func keepWriting(ctx context.Context, s *setup, r *dbrouter.Router, base int) *writers {
	w := &writers{s: s, written: map[[2]int]bool{}, unknown: map[[2]int]bool{}, failed: map[string]int{}, txs: map[string]int{}, why: map[string]int{}}
	for i := range workers {
		w.wg.Go(func() {
			for n := base; !w.stop.Load(); n++ {
				var err error
				tx := i%2 == 1
				if tx {
					err = r.RunTx(ctx, nil, func(tx *sqlx.Tx) error { _, err := tx.ExecContext(ctx, insert(i, n)); return err })
				} else {
					_, err = r.Master().ExecContext(ctx, insert(i, n))
				}
				w.mu.Lock()
				switch {
				case err == nil:
					w.written[[2]int{i, n}] = true
					w.ends[i] = append(w.ends[i], time.Now())
				case errors.Is(err, dbrouter.ErrUnknownOutcome):
					w.unknown[[2]int{i, n}] = true
					w.why[err.Error()]++
					if tx {
						w.txs["unknown outcome"]++
					}
				case tx:
					w.txs[err.Error()]++
				default:
					w.failed[err.Error()]++
				}
				w.mu.Unlock()
				<-time.After(2 * time.Millisecond)
			}
		})
	}
	return w
}

// some waits for another write of every worker.
func (w *writers) some(t *testing.T) {
	t.Helper()
	for i := range workers {
		since := time.Now()
		eventually(t, "writes go on", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			e := w.ends[i]
			return len(e) > 0 && e[len(e)-1].After(since)
		})
	}
}

// first is when the first write after a moment succeeded.
func (w *writers) first(after time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first time.Time
	for _, ends := range w.ends {
		for _, at := range ends {
			if at.After(after) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}

// check compares what the writers were told with what a server has.
func (w *writers) check(t *testing.T, server, base int) {
	t.Helper()
	w.stop.Store(true)
	w.wg.Wait()
	rows, err := w.s.direct(t, server).Query(fmt.Sprintf("SELECT w, n FROM own WHERE n >= %d", base))
	require.NoError(t, err)
	defer rows.Close()
	has := map[[2]int]bool{}
	for rows.Next() {
		var k [2]int
		require.NoError(t, rows.Scan(&k[0], &k[1]))
		has[k] = true
	}
	require.NoError(t, rows.Err())
	lost, extra := 0, 0
	for k := range w.written {
		if !has[k] {
			lost++
		}
	}
	for k := range has {
		if !w.written[k] && !w.unknown[k] {
			extra++
		}
	}
	require.Zero(t, extra, "rows that nobody was told of")
	t.Logf("%s: %d writes, %d with an unknown outcome, errors of Exec %v, of RunTx %v, %d lost with the old master; unknown: %v", w.s.name, len(w.written), len(w.unknown), w.failed, w.txs, lost, w.why)
}

type span time.Duration

func (s span) String() string {
	return "writes resumed " + time.Duration(s).Round(100*time.Microsecond).String() + " after the new master accepted one"
}

// The old master becomes read only and a standby takes over, told by Reconfigure; then that one is killed, and the router finds the next one by
// itself; then it comes back.
func TestFailOver(t *testing.T) {
	t.Parallel()
	setups(t, 2, func(t *testing.T, s *setup) {
		s.book(t)
		cfg := s.config()
		r := open(t, cfg)
		ctx := t.Context()
		w := keepWriting(ctx, s, r, 1_000_000)
		w.some(t)
		s.SetReadOnly(0, true)
		s.Replayed()
		s.Promote(1)
		s.Follow(2, 1)
		cfg.DataSource, cfg.DataSourceReplicas = s.dsn(1), []string{s.dsn(2)}
		began := time.Now()
		require.NoError(t, r.Reconfigure(ctx, cfg))
		done := time.Now()
		w.some(t)
		w.check(t, 1, 1_000_000)
		t.Logf("%s: Reconfigure took %v; %v", s.name, done.Sub(began).Round(time.Millisecond), span(max(w.first(began).Sub(done), 0)))
		require.Empty(t, w.txs, "RunTx")
		require.LessOrEqual(t, count(w.failed), workers)
		var n int
		require.NoError(t, s.direct(t, 0).QueryRow("SELECT count(*) FROM own WHERE n >= 1000000").Scan(&n))
		require.Less(t, n, len(w.written), "the old master has no more")

		// Now by itself.
		cfg.FollowMaster = true
		cfg.FenceOldMaster = 200 * time.Millisecond
		require.NoError(t, r.Reconfigure(ctx, cfg))
		eventually(t, "the standby is known", func() bool { return source(r, 1).Standby && source(r, 1).Healthy })
		w = keepWriting(ctx, s, r, 2_000_000)
		w.some(t)
		next := s.direct(t, 2)
		require.NoError(t, next.Ping())
		s.Kill(1)
		accepted := make(chan time.Time, 1)
		go func() {
			for {
				if _, err := next.Exec(insert(1000, 2_000_000)); err == nil {
					accepted <- time.Now()
					return
				}
				<-time.After(time.Millisecond)
			}
		}()
		w.mu.Lock()
		w.unknown[[2]int{1000, 2_000_000}] = true
		w.mu.Unlock()
		s.Promote(2)
		at := <-accepted
		w.some(t)
		took := span(max(w.first(at).Sub(at), 0))
		t.Logf("%s: found by itself: %v", s.name, took)
		if !s.pooler {
			require.Contains(t, r.Stats().Master, s.Addr(2)[strings.Index(s.Addr(2), ":")+1:])
		}
		s.Start(1)
		<-time.After(time.Second) // it accepts writes, too, and is not asked for any
		require.NoError(t, r.RunTx(ctx, nil, func(tx *sqlx.Tx) error { _, err := tx.ExecContext(ctx, insert(1001, 2_000_001)); return err }))
		w.mu.Lock()
		w.unknown[[2]int{1001, 2_000_001}] = true
		w.mu.Unlock()
		w.some(t)
		w.check(t, 2, 2_000_000)
		require.LessOrEqual(t, count(w.failed), workers, "at most the statements in flight")
		require.LessOrEqual(t, len(w.unknown), workers+2, "at most the statements in flight")
		for text := range w.txs {
			require.Equal(t, "unknown outcome", text, "RunTx fails only where COMMIT was under way")
		}
		var after int
		require.NoError(t, s.direct(t, 1).QueryRow("SELECT count(*) FROM own WHERE w = 1001").Scan(&after))
		require.Zero(t, after, "no commit on the old master")

		// Who starts with the old master as the one to use, is told.
		cfg.DataSource, cfg.DataSourceReplicas = s.dsn(1), []string{s.dsn(2)}
		_, err := dbrouter.Open(ctx, cfg)
		require.ErrorIs(t, err, dbrouter.ErrTwoMasters)
		require.NotContains(t, err.Error(), "hunter2")
	})
}

func count(m map[string]int) (n int) {
	for _, k := range m {
		n += k
	}
	return n
}

// Writes resume at once when a master is found, by promotion or behind a name that has moved. Not beside other tests, since it is about time;
// where the machine is slow, its own pace counts.
func TestMasterFoundQuickly(t *testing.T) {
	for _, name := range []string{"postgres", "pgx", "mariadb"} {
		for _, way := range []string{"promotion", "name"} {
			t.Run(name+" "+way, func(t *testing.T) {
				best(t, name+", "+way, func() (fmt.Stringer, bool) {
					s := (&setup{name: name}).fresh(t, 1)
					took := foundQuickly(t, s, way)
					pace := s.pace(t, 1)
					t.Logf("a new connection and a write take %v here", pace.Round(100*time.Microsecond))
					return span(took), took <= max(50*time.Millisecond, 10*pace)
				})
			})
		}
	}
}

// pace is how long a new connection to a server and a write take.
func (s *setup) pace(t *testing.T, server int) time.Duration {
	var took []time.Duration
	for n := range 5 {
		began := time.Now()
		db := s.direct(t, server)
		_, err := db.Exec(insert(2000, n))
		require.NoError(t, err)
		took = append(took, time.Since(began))
		require.NoError(t, db.Close())
	}
	slices.Sort(took)
	return took[2]
}

// foundQuickly returns how long after the new master was there the first write went to it.
func foundQuickly(t *testing.T, s *setup, way string) time.Duration {
	s.book(t)
	cfg := s.config()
	cfg.FollowMaster = way == "promotion"
	var move func()
	if way == "name" {
		// Two addresses with the same port, before the two servers, and a name that is one of them.
		old := newProxy(t, "127.0.1.1:0", s.Addr(0))
		_, port, _ := net.SplitHostPort(old.addr)
		newProxy(t, "127.0.1.2:"+port, s.Addr(1))
		name := "writer-" + s.name + port + ".test"
		names.set(name, [4]byte{127, 0, 1, 1})
		cfg.DataSource, cfg.DataSourceReplicas = s.through(0, name+":"+port), nil
		move = func() { names.set(name, [4]byte{127, 0, 1, 2}) }
	}
	r := open(t, cfg)
	var mu sync.Mutex
	var ends []time.Time // of writes
	after := func(at time.Time) (time.Duration, bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range ends {
			if e.After(at) {
				return e.Sub(at), true
			}
		}
		return 0, false
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range 4 {
		wg.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				if _, err := r.Master().ExecContext(ctx, insert(i, n)); err == nil {
					mu.Lock()
					ends = append(ends, time.Now())
					mu.Unlock()
				} else if ctx.Err() == nil {
					assert.NoError(t, err)
				}
				<-time.After(time.Millisecond)
			}
		})
	}
	eventually(t, "writes", func() bool { _, ok := after(time.Time{}); return ok })
	next := s.direct(t, 1)
	require.NoError(t, next.Ping())
	s.SetReadOnly(0, true)
	s.Replayed()
	accepted := make(chan time.Time, 1)
	go func() {
		for {
			if _, err := next.Exec(insert(1000, 1)); err == nil {
				accepted <- time.Now()
				return
			}
			<-time.After(time.Millisecond)
		}
	}()
	s.Promote(1)
	at := <-accepted
	if move != nil {
		<-time.After(300 * time.Millisecond)
		at = time.Now()
		move()
	}
	eventually(t, "writes resume", func() bool { _, ok := after(at); return ok })
	took, _ := after(at)
	return took
}

// Two that accept writes are one too many: nothing is written until that is settled.
func TestTwoMasters(t *testing.T) {
	t.Parallel()
	setups(t, 1, func(t *testing.T, s *setup) {
		s.book(t)
		cfg := s.config()
		cfg.FollowMaster, cfg.MonitorInterval = true, 50*time.Millisecond
		r := open(t, cfg)
		ctx := t.Context()
		eventually(t, "the standby is known", func() bool { return source(r, 1).Standby })
		_, err := r.Master().ExecContext(ctx, insert(1, 1))
		require.NoError(t, err)
		s.Replayed()
		s.Promote(1)
		eventually(t, "writes are refused", func() bool {
			_, err = r.Master().ExecContext(ctx, insert(1, int(time.Now().UnixNano()%1e9)))
			return errors.Is(err, dbrouter.ErrTwoMasters)
		})
		require.ErrorContains(t, err, "make all but one read only")
		require.ErrorIs(t, r.RunTx(ctx, nil, func(*sqlx.Tx) error { return nil }), dbrouter.ErrTwoMasters)
		require.ErrorIs(t, r.Master().QueryRowContext(ctx, "SELECT 1").Scan(new(int)), dbrouter.ErrTwoMasters)
		require.ErrorIs(t, r.Check(ctx), dbrouter.ErrTwoMasters)
		_, err = s.serves(ctx, r.Replica())
		require.NoError(t, err, "reads go on")
		s.SetReadOnly(0, true)
		eventually(t, "the other one is the master", func() bool {
			_, err := r.Master().ExecContext(ctx, insert(2, int(time.Now().UnixNano()%1e9)))
			return err == nil
		})
		var n int
		require.NoError(t, s.direct(t, 0).QueryRow("SELECT count(*) FROM own WHERE w = 2").Scan(&n))
		require.Zero(t, n)
	}, "postgres", "mariadb")
}
