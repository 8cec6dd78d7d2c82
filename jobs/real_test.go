package jobs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/jobs"
)

var (
	_ jobs.Leader  = (*election.Elector)(nil)
	_ jobs.Cluster = (*cluster.Node)(nil)
	_ jobs.DB      = (*sqlx.DB)(nil)
	_ jobs.DB      = (*dbrouter.Master)(nil)
	_ jobs.Tx      = (*sqlx.Tx)(nil)
)

var chaos = os.Getenv("NINES_CHAOS") != ""

// rounds is how often a fault is made: few times, or often with NINES_CHAOS=1.
func rounds(few, many int) int {
	if chaos {
		return many
	}
	return few
}

// member is a node with everything that is real: cluster, election, jobs, on its own pool.
type member struct {
	node   *cluster.Node
	leader *election.Elector
	runner *jobs.Runner
}

func newMember(db *sqlx.DB, log *slog.Logger, edit func(cfg *jobs.Config)) (m member, err error) {
	m.node, err = cluster.New(cluster.Config{ClusterName: "jobs", Discovery: cluster.SQLDiscovery(db), InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Logger: log})
	if err != nil {
		return m, err
	}
	if m.leader, err = election.New(election.Config{Members: m.node, DB: db, Logger: log}); err != nil {
		return m, err
	}
	cfg := jobs.Config{DB: db, Leader: m.leader, Cluster: m.node, Logger: log}
	if edit != nil {
		edit(&cfg)
	}
	m.runner, err = jobs.New(cfg)
	return m, err
}

func (m member) run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, run := range []func(context.Context) error{m.node.Run, m.leader.Run, m.runner.Run} {
		wg.Go(func() { errs[i] = run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// childMember is the main of a process of a fleet. It says the owner of its jobs, then works until it is killed.
func childMember(db *sqlx.DB) error {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("JOBS_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	m, err := newMember(db, log, nil)
	if err != nil {
		return err
	}
	err = jobs.AddWorker(m.runner, func(ctx context.Context, job *jobs.Job[note]) error {
		if job.Args.Text == "hold" {
			return until(ctx)
		}
		return nil
	}, nil)
	if err != nil {
		return err
	}
	if os.Getenv(childSeconds) != "" {
		if err := m.runner.Schedule("seconds", jobs.Every(time.Second), note{}, everySlot); err != nil {
			return err
		}
	}
	fmt.Println(m.runner.ID())
	return m.run(context.Background())
}

const childSeconds = "NINES_JOBS_SECONDS"

// fleet is a number of processes that can be killed.
type fleet struct {
	*bench
	env   []string
	procs map[string]*exec.Cmd // by the owner of their jobs
}

func (b *bench) fleet(env ...string) *fleet {
	b.db()
	f := &fleet{bench: b, env: env, procs: map[string]*exec.Cmd{}}
	b.t.Cleanup(func() {
		for id := range f.procs {
			f.kill(id)
		}
	})
	return f
}

func (f *fleet) start() (id string) {
	f.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(f.env, childRole+"=member", childDriver+"="+f.driver, childDSN+"="+f.dsn)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(f.t, err)
	id = strings.TrimSpace(line)
	f.procs[id] = cmd
	return id
}

func (f *fleet) kill(id string) {
	_ = f.procs[id].Process.Kill()
	_ = f.procs[id].Wait()
	delete(f.procs, id)
}

// scheduler waits for a process that schedules.
func (f *fleet) scheduler() (id string) {
	f.t.Helper()
	eventually(f.t, func() bool {
		var ids []string
		require.NoError(f.t, f.db().Select(&ids, `SELECT id FROM nines_job_nodes WHERE scheduling=1`))
		i := slices.IndexFunc(ids, func(id string) bool { return f.procs[id] != nil })
		if i >= 0 {
			id = ids[i]
		}
		return i >= 0
	}, "somebody schedules")
	return id
}

// TestLeaderKills: three processes with cluster and election; the one that schedules is killed again and again. Each second has exactly one
// row, and the rows are not late by more than the fail-over takes.
func TestLeaderKills(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, b *bench) {
		f := b.fleet(childSeconds + "=1")
		for range 3 {
			f.start()
		}
		slots := func() int64 { return b.number(`SELECT count(*) FROM nines_jobs`) }
		var gaps []time.Duration
		for range rounds(3, 100) {
			leader := f.scheduler()
			before := slots()
			eventually(t, func() bool { return slots() > before }, "it schedules")
			newest := b.number(`SELECT max(due_us) FROM nines_jobs`)
			<-time.After(rand.N(time.Second)) // at any moment between two slots
			newest = max(newest, b.number(`SELECT max(due_us) FROM nines_jobs`))
			killed := time.Now()
			f.kill(leader)
			eventually(t, func() bool { return b.number(`SELECT max(due_us) FROM nines_jobs`) > newest }, "another goes on")
			// How late was the first slot that was inserted after the kill?
			gaps = append(gaps, time.Duration(b.number(`SELECT max(created_us-due_us) FROM nines_jobs WHERE due_us>?`, newest))*time.Microsecond)
			if gap := gaps[len(gaps)-1]; gap > time.Second {
				t.Logf("%v: killed %s, late by %v", killed.Format(time.StampMilli), leader, gap.Round(time.Millisecond))
			}
			f.start()
		}
		n := b.number(`SELECT count(*) FROM nines_jobs`)
		first, last := b.number(`SELECT min(due_us) FROM nines_jobs`), b.number(`SELECT max(due_us) FROM nines_jobs`)
		distinct := b.number(`SELECT count(DISTINCT due_us) FROM nines_jobs`)
		for id := range f.procs {
			f.kill(id)
		}
		slices.Sort(gaps)
		t.Logf("%d kills, %d slots; the slot after a kill was late by %v to %v, p50 %v", len(gaps), n, gaps[0].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond), gaps[len(gaps)/2].Round(time.Millisecond))
		require.Equal(t, distinct, b.number(`SELECT count(*) FROM nines_jobs WHERE due_us<=?`, last), "none doubled")
		require.EqualValues(t, (last-first)/1e6+1, b.number(`SELECT count(*) FROM nines_jobs WHERE due_us<=?`, last), "none lost")
		bound := 3 * time.Second
		if b.driver == "sqlite" {
			bound = 5 * time.Second
		}
		require.LessOrEqual(t, gaps[len(gaps)/2*boolInt(chaos)], bound)
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// eachServer runs fn on each kind of server at once, through one driver.
func eachServer(t *testing.T, fn func(t *testing.T, b *bench)) {
	for _, d := range databases {
		if d.name == "pgx" {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			driver, dsn := d.open(t)
			fn(t, &bench{t: t, driver: driver, dsn: dsn})
		})
	}
}

// here is a member in the test's own process.
func (b *bench) here(room int, worker func(ctx context.Context, job *jobs.Job[note]) error) member {
	b.t.Helper()
	b.db()
	m, err := newMember(open(b.t, b.driver, b.dsn), logger(b.t), func(cfg *jobs.Config) { cfg.Queues = map[string]int{"default": room} })
	require.NoError(b.t, err)
	addNote(b.t, m.runner, worker, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.run(ctx) }()
	b.t.Cleanup(func() { cancel(); require.NoError(b.t, <-done) })
	return m
}

// TestCrashSeenByTheCluster: what a killed process was working on runs elsewhere within a second; and a process elsewhere ends a job within
// a second when it is told to. Times are the best of three.
func TestCrashSeenByTheCluster(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, b *bench) {
		f := b.fleet()
		started := make(chan time.Time, 1)
		blocked, release := make(chan struct{}), make(chan struct{})
		m := b.here(1, func(ctx context.Context, job *jobs.Job[note]) error {
			if job.Args.Text == "block" {
				blocked <- struct{}{}
				<-release
				return nil
			}
			started <- time.Now()
			return nil
		})
		eventually(t, func() bool { return m.node.Alive() != nil }, "the first node has a view")
		var moved, ended []time.Duration
		for range 3 {
			_, err := m.runner.Enqueue(t.Context(), note{Text: "block"}, nil)
			require.NoError(t, err)
			<-blocked // this process takes no other job, for now
			id := f.start()
			eventually(t, func() bool {
				return b.number(`SELECT count(*) FROM nines_job_nodes WHERE id=? AND node<>''`, id) == 1 && len(m.node.Alive()) == 2
			}, "both are there")
			eventually(t, func() bool { return len(m.runner.Stats().Nodes) == 2 }, "and known")
			held := func() int64 {
				job, err := m.runner.Enqueue(t.Context(), note{Text: "hold"}, nil)
				require.NoError(t, err)
				eventually(t, func() bool { return b.number(`SELECT count(*) FROM nines_jobs WHERE id=? AND owner=?`, job, id) == 1 }, "the other has it")
				return job
			}
			job := held()
			began := time.Now()
			require.NoError(t, m.runner.Cancel(t.Context(), job))
			b.becomes(m.runner, job, "cancelled")
			ended = append(ended, time.Since(began))
			job = held()
			release <- struct{}{}
			eventually(t, func() bool { return m.runner.Stats().Room["default"] == 1 }, "this process has room")
			began = time.Now()
			f.kill(id)
			select {
			case at := <-started:
				moved = append(moved, at.Sub(began))
			case <-time.After(patience):
				t.Fatal("the job does not run elsewhere")
			}
			i := b.becomes(m.runner, job, "succeeded")
			require.Equal(t, 2, i.Attempt)
			full, err := m.runner.Get(t.Context(), job)
			require.NoError(t, err)
			require.Len(t, full.Errors, 1)
			require.Contains(t, full.Errors[0].Error, "gone")
			require.NotEmpty(t, full.Errors[0].Node)
			eventually(t, func() bool { return len(m.node.Alive()) == 1 }, "the dead one is out of the view")
		}
		t.Logf("SIGKILL to running elsewhere: %v; cancel on another node: %v", moved, ended)
		require.LessOrEqual(t, slices.Min(moved), time.Second)
		require.LessOrEqual(t, slices.Min(ended), time.Second)
	})
}

// TestWithClusterAndElection: two whole members in one process. Schedules run, the leader resigns and the other schedules, and all of it is on the
// page's card.
func TestWithClusterAndElection(t *testing.T) {
	t.Parallel()
	driver, dsn := lab.Database(t)
	b := &bench{t: t, driver: driver, dsn: dsn}
	work := func(ctx context.Context, job *jobs.Job[note]) error { return nil }
	a, c := b.here(9, work), b.here(9, work)
	for _, m := range []member{a, c} {
		require.NoError(t, m.runner.Schedule("seconds", jobs.Every(time.Second), note{}, everySlot))
	}
	ran := func() int64 { return b.number(`SELECT count(*) FROM nines_jobs WHERE outcome='succeeded'`) }
	eventually(t, func() bool { return ran() >= 2 }, "slots run")
	eventually(t, func() bool { return a.leader.IsLeader() != c.leader.IsLeader() }, "one leads")
	first, second := a, c
	if c.leader.IsLeader() {
		first, second = c, a
	}
	eventually(t, func() bool { return first.runner.Stats().Scheduling && !second.runner.Stats().Scheduling }, "the leader schedules")
	require.NoError(t, first.leader.TransferTo(t.Context(), second.node.ID()))
	eventually(t, func() bool { return second.runner.Stats().Scheduling && !first.runner.Stats().Scheduling }, "the other one schedules")
	before := ran()
	eventually(t, func() bool { return ran() >= before+2 }, "slots run")
	for _, m := range []member{a, c} {
		eventually(t, func() bool { return m.runner.Check(t.Context()) == nil }, "all is well")
	}
	eventually(t, func() bool { return len(a.runner.Stats().Nodes) == 2 }, "they know each other")
	require.EqualValues(t, b.number(`SELECT count(*) FROM nines_jobs`), b.number(`SELECT count(DISTINCT due_us) FROM nines_jobs`))
}
