package jobstest

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

func states(t *testing.T, f *fixture) {
	s := f.sim(nil, &jobs.WorkerOptions{MaxAttempts: 1, Timeout: 10 * time.Millisecond})
	for do, want := range map[string]string{"": "succeeded", "warn": "warning", "discard": "discarded", "fail": "failed", "time out": "failed"} {
		i := s.Do(task{Do: do}, nil)
		require.Equal(t, want, i.State, do)
		require.Equal(t, 1, i.Attempt)
		require.Equal(t, start, i.Created)
		require.Equal(t, start, i.Started)
		require.Equal(t, start, i.Finished)
	}
	require.Contains(t, s.Do(task{Do: "warn"}, nil).Error, "half of it")
	require.Contains(t, s.Do(task{Do: "discard"}, nil).Error, "no such user")
	require.Contains(t, s.Do(task{Do: "time out"}, nil).Error, "timed out after 10ms")
	i := s.Do(task{Do: "progress"}, nil)
	require.Equal(t, 100, i.Progress)
	require.Equal(t, "almost half", i.Note)
	i = s.Do(task{N: 7}, nil)
	require.JSONEq(t, `{"Do":"","N":7}`, i.Args)
	require.Equal(t, "pending", s.Do(other{}, nil).State, "nobody has a worker for it")
	i = s.Do(task{Do: "fail"}, &jobs.EnqueueOptions{MaxAttempts: 2})
	require.Equal(t, "retryable", i.State)
	require.True(t, i.RunAt.After(start))
	require.True(t, i.Finished.IsZero())

	// While it runs it says so, and so does the request to end it.
	running := New(t, f.handle(), start, nil)
	require.NoError(t, jobs.AddWorker(running.Runner, func(ctx context.Context, job *jobs.Job[other]) error {
		i, err := running.Runner.Get(ctx, job.ID)
		require.NoError(t, err)
		require.Equal(t, "running", i.State)
		require.NoError(t, job.Progress(ctx, 130, strings.Repeat("ü", 600)+"\x00"))
		require.NoError(t, job.Progress(ctx, 130, strings.Repeat("ü", 600)+"\x00"), "again is no error")
		i, err = running.Runner.Get(ctx, job.ID)
		require.NoError(t, err)
		require.Equal(t, 100, i.Progress)
		require.Equal(t, strings.Repeat("ü", 500), i.Note)
		require.NoError(t, running.Runner.Cancel(ctx, job.ID))
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), jobs.ErrCancelled)
		i, err = running.Runner.Get(context.WithoutCancel(ctx), job.ID)
		require.NoError(t, err)
		require.Equal(t, "cancel requested", i.State)
		return ctx.Err()
	}, nil))
	require.Equal(t, "cancelled", running.Do(other{}, nil).State)
}

func attempts(t *testing.T, f *fixture) {
	s := f.sim(nil, &jobs.WorkerOptions{MaxAttempts: 15, Backoff: 10 * time.Second})
	id := f.enqueue(s, task{Do: "fail"}, nil)
	var last jobs.Info
	for n := 1; n <= 15; n++ {
		last = s.Tick()[0]
		require.Equal(t, n, last.Attempt)
		require.Len(t, last.Errors, min(n, 10))
		newest := last.Errors[len(last.Errors)-1]
		require.Equal(t, n, newest.Attempt)
		require.Equal(t, "again", newest.Error)
		require.True(t, newest.At.Equal(s.Clock.Now()))
		if n == 15 {
			break
		}
		require.Equal(t, "retryable", last.State)
		pause := min(10*time.Second<<(n-1), time.Hour)
		require.GreaterOrEqual(t, last.RunAt.Sub(s.Clock.Now()), pause/2)
		require.LessOrEqual(t, last.RunAt.Sub(s.Clock.Now()), pause)
		require.Empty(t, s.Tick(), "not before its time")
		s.Clock.Set(last.RunAt)
	}
	require.Equal(t, "failed", last.State)
	require.Equal(t, id, last.ID)
	require.Empty(t, s.Advance(time.Hour))

	f.enqueue(s, task{Do: "twice"}, &jobs.EnqueueOptions{MaxAttempts: 3})
	ran := s.Advance(time.Minute)
	require.Equal(t, []string{"retryable", "retryable", "succeeded"}, statesOf(ran))
	require.Empty(t, ran[2].Error)
	require.Len(t, ran[2].Errors, 2, "what went before is kept")
	require.Equal(t, 2, len(s.Jobs(jobs.Filter{})))
}

func panics(t *testing.T, f *fixture) {
	s := f.sim(nil, &jobs.WorkerOptions{MaxAttempts: 1})
	i := s.Do(task{Do: "panic"}, nil)
	require.Equal(t, "failed", i.State)
	for _, text := range []string{i.Error, i.Errors[0].Error} {
		require.Contains(t, text, "panic: kaboom")
		require.Contains(t, text, "jobstest.work", "with its stack")
	}
	require.Equal(t, "succeeded", s.Do(task{}, nil).State, "the runner lives")

	gone := New(t, f.handle(), start, nil)
	require.NoError(t, jobs.AddWorker(gone.Runner, func(context.Context, *jobs.Job[other]) error { return nil }, nil))
	i = gone.Do(other{V: 1}, nil)
	require.Equal(t, "succeeded", i.State)
	strict := New(t, f.handle(), start, nil)
	require.NoError(t, jobs.AddWorker(strict.Runner, func(context.Context, *jobs.Job[numbered]) error { return nil }, &jobs.WorkerOptions{MaxAttempts: 2}))
	f.enqueue(strict, other{V: "text"}, nil)
	ran := strict.Advance(time.Minute)
	require.Equal(t, []string{"retryable", "failed"}, statesOf(ran), "args that do not decode")
	require.Contains(t, ran[1].Error, "args do not decode")
	require.Contains(t, ran[1].Error, "cannot unmarshal string")
	require.Equal(t, "succeeded", strict.Do(other{V: 2}, nil).State)
}

// numbered is other as another version of the program knows it.
type numbered struct{ V int }

// Kind names the job.
func (numbered) Kind() string { return "other" }

func order(t *testing.T, f *fixture) {
	s := f.sim(&jobs.Config{Queues: map[string]int{"a": 1, "b": 2}}, nil)
	var want []int64
	late := f.enqueue(s, task{}, &jobs.EnqueueOptions{Queue: "a", Priority: 9})
	s.Clock.Add(time.Second)
	for n, p := range []int{-3, 0, 0, 2} {
		want = append(want, f.enqueue(s, task{N: n}, &jobs.EnqueueOptions{Queue: "a", Priority: p}))
	}
	unserved := f.enqueue(s, task{}, &jobs.EnqueueOptions{Queue: "c"})
	unknown := f.enqueue(s, other{}, &jobs.EnqueueOptions{Queue: "a", Priority: -9})
	b := f.enqueue(s, task{}, &jobs.EnqueueOptions{Queue: "b"})
	var inA []int64
	for _, i := range s.Tick() {
		if i.Queue == "a" {
			inA = append(inA, i.ID)
		} else {
			require.Equal(t, b, i.ID)
		}
	}
	require.Equal(t, append(want, late), inA, "by priority, then by age")
	for _, id := range []int64{unserved, unknown} {
		i, err := s.Runner.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "pending", i.State)
	}
}

func runAt(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	id := f.enqueue(s, task{}, &jobs.EnqueueOptions{RunAt: start.Add(time.Hour)})
	past := f.enqueue(s, task{}, &jobs.EnqueueOptions{RunAt: start.Add(-time.Hour)})
	ran := s.Tick()
	require.Len(t, ran, 1)
	require.Equal(t, past, ran[0].ID)
	require.Empty(t, s.Advance(time.Hour-time.Microsecond))
	ran = s.Advance(time.Microsecond)
	require.Len(t, ran, 1)
	require.Equal(t, id, ran[0].ID)
	require.Equal(t, start.Add(time.Hour), ran[0].Started)
}

func uniqueKey(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	opts := &jobs.EnqueueOptions{UniqueKey: "user/ü"}
	var mu sync.Mutex
	ids := map[int64]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			id, err := s.Runner.Enqueue(context.Background(), task{}, opts)
			if err != nil && !errors.Is(err, jobs.ErrDuplicate) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if ids[id] += 1; err == nil {
				ids[id] += 100
			}
		})
	}
	wg.Wait()
	require.Len(t, ids, 1)
	var first int64
	for id, n := range ids {
		require.Equal(t, 108, n, "one was first, all know its ID")
		first = id
	}
	_, err := s.Runner.Enqueue(t.Context(), other{}, opts)
	require.NoError(t, err, "of another kind")
	s.Tick()
	second := f.enqueue(s, task{}, &jobs.EnqueueOptions{UniqueKey: "user/ü", RunAt: start.Add(time.Hour)})
	require.NotEqual(t, first, second)
	require.ErrorIs(t, s.Runner.Retry(t.Context(), first), jobs.ErrDuplicate)
	require.NoError(t, s.Runner.Retry(t.Context(), second), "it may run now")
	require.Len(t, s.Tick(), 1)
	require.NoError(t, s.Runner.Retry(t.Context(), first))
	require.Len(t, s.Jobs(jobs.Filter{UniqueKey: "user/ü", Kind: "task"}), 2)
}

func begin(t *testing.T, db jobs.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	return tx
}

func enqueueTx(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	db := f.handle()
	s.Tick() // the tables are there
	tx := begin(t, db)
	_, err := s.Runner.EnqueueTx(t.Context(), tx, task{}, nil)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
	require.Empty(t, s.Jobs(jobs.Filter{}), "it rolls back with the caller")

	tx = begin(t, db)
	id, err := s.Runner.EnqueueTx(t.Context(), tx, task{}, &jobs.EnqueueOptions{UniqueKey: "x"})
	require.NoError(t, err)
	same, err := s.Runner.EnqueueTx(t.Context(), tx, task{}, &jobs.EnqueueOptions{UniqueKey: "x"})
	require.ErrorIs(t, err, jobs.ErrDuplicate)
	require.Equal(t, id, same)
	third, err := s.Runner.EnqueueTx(t.Context(), tx, task{}, &jobs.EnqueueOptions{RunAt: start.Add(time.Hour), LimitKey: "k"})
	require.NoError(t, err, "the transaction goes on")
	require.NoError(t, tx.Commit())
	require.Len(t, s.Tick(), 1)
	require.Equal(t, third, s.Advance(time.Hour)[0].ID)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	for _, none := range []jobs.Tx{conn, (*sql.Tx)(nil), nil} {
		_, err = s.Runner.EnqueueTx(t.Context(), none, task{}, nil)
		require.Error(t, err)
	}
}

func enqueueMany(t *testing.T, f *fixture) {
	s := f.sim(nil, nil)
	_, err := s.Runner.EnqueueMany(t.Context(), []jobs.Args{task{}, nil}, nil)
	require.ErrorContains(t, err, "number 1")
	many := make([]jobs.Args, 1201)
	for i := range many {
		many[i] = task{Do: `"\\ü{},`, N: i}
	}
	_, err = s.Runner.EnqueueMany(t.Context(), many, &jobs.EnqueueOptions{UniqueKey: "x"})
	require.Error(t, err)
	require.Empty(t, s.Jobs(jobs.Filter{}), "all or none")
	n, err := s.Runner.EnqueueMany(t.Context(), many, &jobs.EnqueueOptions{RunAt: start.Add(time.Hour), Priority: 3})
	require.NoError(t, err)
	require.Equal(t, 1201, n)
	all := s.Jobs(jobs.Filter{})
	require.Len(t, all, 1201)
	require.JSONEq(t, `{"Do":"\"\\\\ü{},","N":1200}`, all[1200].Args)
	n, err = s.Runner.EnqueueMany(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Zero(t, n)
}

func completeTx(t *testing.T, f *fixture) {
	db := f.handle()
	_, err := db.ExecContext(t.Context(), `CREATE TABLE effects (job bigint NOT NULL)`)
	require.NoError(t, err)
	s := New(t, f.handle(), start, nil)
	require.NoError(t, jobs.AddWorker(s.Runner, func(ctx context.Context, job *jobs.Job[task]) error {
		conn, err := db.Conn(ctx)
		require.NoError(t, err)
		require.Error(t, job.CompleteTx(ctx, conn), "a connection is no transaction")
		require.NoError(t, conn.Close())
		tx := begin(t, db)
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, `INSERT INTO effects VALUES (1)`); err != nil {
			return err
		}
		require.NoError(t, job.SetOutput([]int{1, 2}))
		if err := job.CompleteTx(ctx, tx); err != nil {
			return err
		}
		require.ErrorIs(t, job.CompleteTx(ctx, tx), jobs.ErrStale, "twice")
		switch {
		case job.Args.Do == "forget" && job.Attempt == 1:
			return nil // rolled back, and says that all is well
		case job.Args.Do == "late":
			require.NoError(t, tx.Commit())
			return errors.New("after the commit")
		case job.Args.Do == "early" && job.Attempt == 1:
			return errors.New("before the commit")
		}
		return tx.Commit()
	}, nil))
	for n, c := range []struct {
		do  string
		ran []string
	}{{"", []string{"succeeded"}}, {"forget", []string{"retryable", "succeeded"}}, {"late", []string{"succeeded"}}, {"early", []string{"retryable", "succeeded"}}} {
		f.enqueue(s, task{Do: c.do}, nil)
		ran := s.Advance(time.Minute)
		require.Equal(t, c.ran, statesOf(ran), c.do)
		require.Equal(t, `[1,2]`, ran[len(ran)-1].Output)
		rows, err := db.QueryContext(t.Context(), `SELECT count(*) FROM effects`)
		require.NoError(t, err)
		var effects int
		require.True(t, rows.Next())
		require.NoError(t, rows.Scan(&effects))
		require.NoError(t, rows.Close())
		require.Equal(t, n+1, effects, "the effect happens once: %q", c.do)
	}
}

func position(t *testing.T, f *fixture) {
	db := f.handle()
	s := New(t, f.handle(), start, nil)
	type place struct{ After int }
	var done []int
	require.NoError(t, jobs.AddWorker(s.Runner, func(ctx context.Context, job *jobs.Job[task]) error {
		var at place
		found, err := job.Resume(&at)
		require.NoError(t, err)
		require.Equal(t, at.After > 0, found)
		for at.After < 6 {
			done = append(done, at.After)
			at.After++
			if at.After%2 == 0 {
				require.NoError(t, job.Save(ctx, at))
				require.NoError(t, job.Save(ctx, at), "again is no error")
			} else {
				tx := begin(t, db)
				require.NoError(t, job.SaveTx(ctx, tx, at))
				if at.After == 5 && job.Attempt < 3 {
					require.NoError(t, tx.Rollback())
					return errors.New("before the commit")
				}
				require.NoError(t, tx.Commit())
			}
			if at.After == 3 && job.Attempt == 1 {
				panic("in the middle")
			}
		}
		return nil
	}, nil))
	id := f.enqueue(s, task{}, nil)
	ran := s.Advance(time.Minute)
	require.Equal(t, []string{"retryable", "retryable", "succeeded"}, statesOf(ran))
	require.Equal(t, []int{0, 1, 2, 3, 4, 4, 5}, done, "each piece once, but for the one that was rolled back")
	require.Equal(t, `{"After":6}`, ran[2].Position)
	require.NoError(t, s.Runner.Retry(t.Context(), id))
	done = nil
	s.Advance(time.Minute)
	require.Equal(t, []int{0, 1, 2}, done[:3], "what had succeeded begins anew")
}

func output(t *testing.T, f *fixture) {
	s := New(t, f.handle(), start, nil)
	require.NoError(t, jobs.AddWorker(s.Runner, func(ctx context.Context, job *jobs.Job[other]) error {
		require.Error(t, job.SetOutput(func() {}))
		require.ErrorContains(t, job.SetOutput(strings.Repeat("x", 1<<20)), "1048578 bytes")
		require.NoError(t, job.SetOutput("first"))
		require.NoError(t, job.SetOutput(map[string]any{"attempt": job.Attempt, "text": "\x00ü'\""}))
		switch {
		case job.Args.V == "warn":
			return jobs.Warn(errors.New("w"))
		case job.Args.V == "fail" && job.Attempt == 1:
			return errors.New("f")
		}
		return nil
	}, nil))
	i := s.Do(other{}, nil)
	require.JSONEq(t, `{"attempt":1,"text":"\u0000ü'\""}`, i.Output)
	require.Contains(t, s.Do(other{V: "warn"}, nil).Output, `"attempt":1`)
	i = s.Do(other{V: "fail"}, nil)
	require.Empty(t, i.Output, "what failed left nothing")
	require.Contains(t, s.Advance(time.Minute)[0].Output, `"attempt":2`)
	require.NoError(t, s.Runner.Retry(t.Context(), i.ID))
	i, err := s.Runner.Get(t.Context(), i.ID)
	require.NoError(t, err)
	require.Empty(t, i.Output)
}

func snooze(t *testing.T, f *fixture) {
	s := New(t, f.handle(), start, nil)
	require.NoError(t, jobs.AddWorker(s.Runner, func(ctx context.Context, job *jobs.Job[other]) error {
		n := 0
		if _, err := job.Resume(&n); err != nil {
			return err
		}
		if n == 3 {
			return nil
		}
		require.Equal(t, 1, job.Attempt)
		require.NoError(t, job.Save(ctx, n+1))
		return jobs.Snooze(time.Hour)
	}, &jobs.WorkerOptions{MaxAttempts: 1}))
	i := s.Do(other{}, nil)
	require.Equal(t, "pending", i.State)
	require.Equal(t, start.Add(time.Hour), i.RunAt)
	require.Zero(t, i.Attempt, "it does not count")
	ran := s.Advance(3 * time.Hour)
	require.Equal(t, []string{"pending", "pending", "succeeded"}, statesOf(ran))
	require.Equal(t, 1, ran[2].Attempt)
	require.EqualValues(t, 3, s.Runner.Stats().Snoozed)
}
