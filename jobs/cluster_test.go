package jobs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/jobs"
)

// A child process of the tests is a node that can be killed.
const childRole, childDriver, childDSN = "NINES_JOBS_ROLE", "NINES_JOBS_DRIVER", "NINES_JOBS_DSN"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		if err := child(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func child(role string) error {
	db, err := sqlx.Open(os.Getenv(childDriver), os.Getenv(childDSN))
	if err != nil {
		return err
	}
	if role == "member" {
		if db.DriverName() == "sqlite" {
			db.SetMaxOpenConns(1)
		}
		return childMember(db)
	}
	db.SetMaxOpenConns(1)
	r, err := jobs.New(jobs.Config{DB: db, Poll: 50 * time.Millisecond, NoScheduler: role != "schedule"})
	if err != nil {
		return err
	}
	if role == "work" {
		err = jobs.AddWorker(r, func(ctx context.Context, job *jobs.Job[note]) error { return until(ctx) }, nil)
	} else {
		err = r.Schedule("seconds", jobs.Every(time.Second), note{}, everySlot)
	}
	if err != nil {
		return err
	}
	return r.Run(context.Background())
}

var everySlot = &jobs.ScheduleOptions{CatchUp: jobs.All(1000), Overlap: jobs.OverlapAllow}

// child starts a process and returns what kills it with SIGKILL.
func (b *bench) child(role string) (kill func()) {
	b.db()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childDriver+"="+b.driver, childDSN+"="+b.dsn)
	cmd.Stderr = os.Stderr
	require.NoError(b.t, cmd.Start())
	kill = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	b.t.Cleanup(kill)
	return kill
}

// TestKilledWorker: a job of a process that was killed runs elsewhere when its lease ends.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(nil)
		r.Hasten(3 * time.Second)
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error {
			if job.Attempt != 2 {
				t.Errorf("attempt %d", job.Attempt)
			}
			return nil
		}, nil)
		kill := b.child("work")
		id, err := r.Enqueue(t.Context(), note{}, nil)
		require.NoError(t, err)
		b.becomes(r, id, "running")
		owner := b.number(`SELECT count(*) FROM nines_job_nodes`)
		require.EqualValues(t, 1, owner)
		kill()
		killed := time.Now()
		b.run(r)
		b.becomes(r, id, "succeeded")
		t.Logf("ran elsewhere %v after the kill, lease 3s", time.Since(killed).Round(time.Millisecond))
		require.EqualValues(t, 1, r.Stats().Rescued)
	})
}

// TestKilledScheduler: one process schedules, is killed, another goes on; each second has one row.
func TestKilledScheduler(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		rows := func() int64 { return b.number(`SELECT count(*) FROM nines_jobs`) }
		kill := b.child("schedule")
		eventually(t, func() bool { return rows() >= 2 }, "the child schedules")
		kill()
		r := b.runner(func(cfg *jobs.Config) { cfg.NoWorkers = true })
		require.NoError(t, r.Schedule("seconds", jobs.Every(time.Second), note{}, everySlot))
		before := rows()
		stop := b.run(r)
		eventually(t, func() bool { return rows() >= before+2 }, "another goes on")
		stop()
		require.Equal(t, rows(), b.number(`SELECT count(DISTINCT due_us) FROM nines_jobs`))
		require.Equal(t, rows(), (b.number(`SELECT max(due_us) FROM nines_jobs`)-b.number(`SELECT min(due_us) FROM nines_jobs`))/1e6+1, "no hole")
	})
}

// town is a cluster in one process: every message arrives, at once.
type town struct {
	mu    sync.Mutex
	nodes map[string]*citizen
}

type citizen struct {
	town     *town
	id       string
	gone     bool
	handlers map[string]func(ctx context.Context, from string, payload []byte) ([]byte, error)
	notify   []chan<- struct{}
}

func (w *town) join(id string) *citizen {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes == nil {
		w.nodes = map[string]*citizen{}
	}
	c := &citizen{town: w, id: id, handlers: map[string]func(context.Context, string, []byte) ([]byte, error){}}
	w.nodes[id] = c
	return c
}

// lose takes a node out of everyone's view.
func (w *town) lose(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[id].gone = true
	for _, c := range w.nodes {
		for _, n := range c.notify {
			select {
			case n <- struct{}{}:
			default:
			}
		}
	}
}

func (c *citizen) ID() string { return c.id }

func (c *citizen) Alive() []string {
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	var ids []string
	for id, n := range c.town.nodes {
		if !n.gone {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (c *citizen) Notify(n chan<- struct{}) (stop func()) {
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	c.notify = append(c.notify, n)
	return func() {}
}

func (c *citizen) Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func()) {
	c.town.mu.Lock()
	defer c.town.mu.Unlock()
	c.handlers[topic] = fn
	return func() {
		c.town.mu.Lock()
		defer c.town.mu.Unlock()
		delete(c.handlers, topic)
	}
}

func (c *citizen) TryBroadcast(topic string, payload []byte) {
	c.town.mu.Lock()
	var fns []func(ctx context.Context, from string, payload []byte) ([]byte, error)
	for _, n := range c.town.nodes {
		if fn := n.handlers[topic]; fn != nil && n != c && !n.gone && !c.gone {
			fns = append(fns, fn)
		}
	}
	c.town.mu.Unlock()
	for _, fn := range fns {
		_, _ = fn(context.Background(), c.id, payload)
	}
}

// TestZombie: a node that the cluster takes for dead loses its jobs at once, and nothing that it says about them counts.
func TestZombie(t *testing.T) {
	t.Parallel()
	for _, completing := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "CompleteTx"}[completing], func(t *testing.T) {
			forEach(t, func(t *testing.T, b *bench) { testZombie(t, b, completing) })
		})
	}
}

func testZombie(t *testing.T, b *bench, completing bool) {
	w := &town{}
	a := b.runner(func(cfg *jobs.Config) { cfg.Cluster = w.join("a") })
	c := b.runner(func(cfg *jobs.Config) { cfg.Cluster = w.join("c") })
	work := open(t, b.driver, b.dsn)
	stuck, release := make(chan struct{}), make(chan struct{})
	var stale, noted error
	addNote(t, a, func(ctx context.Context, job *jobs.Job[note]) error {
		close(stuck)
		<-release // a process that was stopped, or does not heed its context
		noted = job.Progress(context.Background(), 99, "I live")
		if !completing {
			return nil
		}
		tx, err := work.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		stale = job.CompleteTx(context.Background(), tx)
		return nil
	}, nil)
	b.run(a)
	id, err := a.Enqueue(t.Context(), note{}, nil)
	require.NoError(t, err)
	<-stuck
	eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_job_nodes WHERE node='a'`) == 1 }, "a is registered")
	second := make(chan int, 1)
	gate := make(chan struct{})
	addNote(t, c, func(ctx context.Context, job *jobs.Job[note]) error {
		second <- job.Attempt
		<-gate
		return nil
	}, nil)
	b.run(c)
	eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_job_nodes`) == 2 }, "c is registered")
	eventually(t, func() bool { return len(c.Stats().Nodes) == 2 }, "c has seen a")
	w.lose("a")
	lost := time.Now()
	select {
	case n := <-second:
		require.Equal(t, 2, n)
		t.Logf("runs elsewhere %v after the membership ended", time.Since(lost).Round(time.Millisecond))
		require.Less(t, time.Since(lost), 10*time.Second, "not by lease")
	case <-time.After(patience):
		t.Fatal("the job does not run elsewhere")
	}
	close(release)
	eventually(t, func() bool { return a.Stats().Taken == 1 }, "the zombie's result is refused")
	if completing {
		require.ErrorIs(t, stale, jobs.ErrStale)
	}
	require.ErrorIs(t, noted, jobs.ErrStale)
	i := b.info(c, id)
	require.Equal(t, "running", i.State)
	require.Equal(t, "c", i.Node)
	close(gate)
	b.becomes(c, id, "succeeded")
}

// TestMessages: work, cancels and changes reach other nodes by message, long before they would look.
func TestMessages(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		w := &town{}
		rare := func(id string) *jobs.Runner {
			return b.runner(func(cfg *jobs.Config) {
				cfg.Cluster, cfg.Poll, cfg.NoWorkers, cfg.NoScheduler = w.join(id), time.Hour, id == "office", true
			})
		}
		office, plant := rare("office"), rare("plant")
		addNote(t, plant, func(ctx context.Context, job *jobs.Job[note]) error {
			if job.Args.Text == "slow" {
				return until(ctx)
			}
			return nil
		}, nil)
		b.run(office)
		b.run(plant)
		eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_job_nodes`) == 2 }, "both are there")
		id, err := office.Enqueue(t.Context(), note{}, nil)
		require.NoError(t, err)
		b.becomes(office, id, "succeeded")
		id, err = office.Enqueue(t.Context(), note{}, &jobs.EnqueueOptions{RunAt: time.Now().Add(200 * time.Millisecond)})
		require.NoError(t, err)
		b.becomes(office, id, "succeeded")
		tx, err := b.db().Begin()
		require.NoError(t, err)
		id, err = office.EnqueueTx(t.Context(), tx, note{}, nil)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		b.becomes(office, id, "succeeded")
		id, err = office.Enqueue(t.Context(), note{Text: "slow"}, nil)
		require.NoError(t, err)
		b.becomes(office, id, "running")
		require.NoError(t, office.Cancel(t.Context(), id))
		b.becomes(office, id, "cancelled")
	})
}

// TestCancelWithoutMessage: the flag in the database is enough.
func TestCancelWithoutMessage(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		r, other := b.runner(nil), b.runner(nil)
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error { return until(ctx) }, nil)
		b.run(r)
		id, err := r.Enqueue(t.Context(), note{}, nil)
		require.NoError(t, err)
		b.becomes(r, id, "running")
		require.NoError(t, other.Cancel(t.Context(), id))
		b.becomes(r, id, "cancelled")
	})
}

// throne is a Leader whose leadership the test moves.
type throne struct {
	mu     sync.Mutex
	leader int
	turn   chan struct{}
}

type heir struct {
	*throne
	n int
}

func (h heir) LeadFenced(ctx context.Context, fn func(ctx context.Context, term uint64) error) error {
	for ctx.Err() == nil {
		h.mu.Lock()
		mine, turn := h.leader == h.n, h.turn
		h.mu.Unlock()
		leading, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		if mine {
			wg.Go(func() { _ = fn(leading, 1) })
		}
		select {
		case <-turn:
		case <-ctx.Done():
		}
		stop()
		wg.Wait()
	}
	return ctx.Err()
}

func TestLeaderSchedules(t *testing.T) {
	t.Parallel()
	forEach(t, func(t *testing.T, b *bench) {
		seat := &throne{turn: make(chan struct{}), leader: -1}
		var runners []*jobs.Runner
		worker := b.runner(func(cfg *jobs.Config) { cfg.NoScheduler = true })
		addNote(t, worker, func(context.Context, *jobs.Job[note]) error { return nil }, nil)
		b.run(worker)
		for n := range 3 {
			r := b.runner(func(cfg *jobs.Config) { cfg.Leader, cfg.NoWorkers = heir{seat, n}, true })
			r.Hasten(15 * time.Second)
			require.NoError(t, r.Schedule("seconds", jobs.Every(time.Second), note{}, everySlot))
			b.run(r)
			runners = append(runners, r)
		}
		eventually(t, func() bool {
			return runners[0].Check(t.Context()) != nil && contains(runners[0].Check(t.Context()), "no node schedules")
		}, "nobody leads")
		for n, r := range runners {
			seat.mu.Lock()
			seat.leader = n
			close(seat.turn)
			seat.turn = make(chan struct{})
			seat.mu.Unlock()
			before := r.Stats().Slots
			eventually(t, func() bool { return r.Stats().Slots > before }, "node %d schedules", n)
			for m, other := range runners {
				require.Equal(t, m == n, other.Stats().Scheduling, "only the leader")
			}
			eventually(t, func() bool { return r.Check(t.Context()) == nil }, "all is well")
		}
		rows := b.number(`SELECT count(*) FROM nines_jobs`)
		require.Equal(t, rows, b.number(`SELECT count(DISTINCT due_us) FROM nines_jobs`))
	})
}

func contains(err error, part string) bool {
	w, ok := err.(interface {
		Warning() bool
		Remedy() string
	})
	return ok && w.Warning() && w.Remedy() != "" && err.Error() == "jobs: "+part+": recurring jobs do not start"
}

// TestPoison: a job that takes its process down each time ends as failed.
func TestPoison(t *testing.T) {
	forEach(t, func(t *testing.T, b *bench) {
		r := b.runner(nil)
		id, err := r.Enqueue(t.Context(), note{}, &jobs.EnqueueOptions{MaxAttempts: 2})
		require.NoError(t, err)
		b.exec(`UPDATE nines_jobs SET state=2, attempt=2, owner='long gone' WHERE id=?`, id)
		var runs atomic.Int64
		addNote(t, r, func(ctx context.Context, job *jobs.Job[note]) error { runs.Add(1); return nil }, nil)
		b.run(r)
		i := b.becomes(r, id, "failed")
		require.Contains(t, i.Error, "gone")
		require.False(t, i.Finished.IsZero())
		require.EqualValues(t, 3, b.number(`SELECT state FROM nines_jobs WHERE id=?`, id))
		require.Zero(t, runs.Load())
	})
}
