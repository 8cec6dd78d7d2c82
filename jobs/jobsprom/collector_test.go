package jobsprom_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/jobs/jobsprom"
)

type mail struct{ Fail bool }

func (mail) Kind() string { return "mail" }

func runner(t *testing.T) *jobs.Runner {
	driver, dsn := lab.SQLite(t)
	db, err := sqlx.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	r, err := jobs.New(jobs.Config{DB: db})
	require.NoError(t, err)
	require.NoError(t, jobs.AddWorker(r, func(_ context.Context, job *jobs.Job[mail]) error {
		if job.Args.Fail {
			return jobs.Discard(errors.New("no such address"))
		}
		return nil
	}, nil))
	require.NoError(t, r.Schedule("nightly", jobs.Daily("03:00"), mail{}, nil))
	return r
}

func text(t require.TestingT, r prometheus.Gatherer) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func registry(t testing.TB, s jobsprom.Source, labels prometheus.Labels) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(jobsprom.NewCollector(s, labels)))
	return r
}

// A real runner's events move its metrics, and names and units pass the linters.
func TestRunner(t *testing.T) {
	r := runner(t)
	reg := registry(t, r, nil)
	require.Contains(t, text(t, reg), `nines_jobs_attempts_total{outcome="failed"} 0`, "from the first scrape on")
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, r.Run(context.Background())) })
	for _, fail := range []bool{true, false, false} {
		_, err := r.Enqueue(t.Context(), mail{Fail: fail}, nil)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		now := text(t, reg)
		for _, line := range []string{
			`nines_jobs_attempts_total{outcome="succeeded"} 2`, `nines_jobs_attempts_total{outcome="discarded"} 1`, `nines_jobs_kind_attempts_total{kind="mail"} 3`,
			`nines_jobs_kind_failures_total{kind="mail"} 1`, `nines_jobs_backlog_jobs{queue="default"} 0`, `nines_jobs_room_jobs{queue="default"} 100`, `nines_jobs_schedulers 1`,
			`nines_jobs_schedule_paused{schedule="nightly"} 0`,
		} {
			if !strings.Contains(now, line+"\n") {
				return false
			}
		}
		return true
	}, 30*time.Second, 10*time.Millisecond)

	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	path, err := exec.LookPath("promtool")
	lab.Need(t, "promtool", err)
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, reg))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))

	// Scrapes beside Shutdown, and after.
	for range 4 {
		wg.Go(func() {
			for range 20 {
				text(t, reg)
			}
		})
	}
	require.NoError(t, r.Shutdown(t.Context()))
	wg.Wait()
	text(t, reg)
}

type fixed jobs.Stats

func (f fixed) Stats() jobs.Stats { return jobs.Stats(f) }

func TestFiguresOfAMoment(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_500)
	s := fixed{
		Live: map[string]int64{"pending": 7}, Backlog: map[string]int64{"a": 5, "b/c": 1}, Unserved: map[string]int64{"export/a": 5}, OldestWait: 1500 * time.Millisecond, AsOf: at,
		Schedules: []jobs.ScheduleInfo{{Name: "n", Next: at, Paused: true}}, Nodes: []jobs.NodeInfo{{Working: true}, {Working: true, Scheduling: true}},
		Running: []jobs.RunningInfo{{Kind: "k"}, {Kind: "k"}}, Room: map[string]int64{"a": 98, "z": 1}, Succeeded: 3, Taken: 1, Faults: 4,
		Kinds: map[string]jobs.KindStats{"k": {Attempts: 4, Failed: 2, RunTime: time.Second, StartDelay: 250 * time.Millisecond}},
	}
	const want = `
# HELP nines_jobs_backlog_jobs Jobs of the whole cluster that could run at once if there were room, by queue, counted to 10,000 in all.
# TYPE nines_jobs_backlog_jobs gauge
nines_jobs_backlog_jobs{of="x",queue="a"} 5
nines_jobs_backlog_jobs{of="x",queue="b/c"} 1
nines_jobs_backlog_jobs{of="x",queue="z"} 0
# HELP nines_jobs_kind_start_delay_seconds_total Time for which jobs of the kind could have run before this process started them; over its attempts, the mean delay.
# TYPE nines_jobs_kind_start_delay_seconds_total counter
nines_jobs_kind_start_delay_seconds_total{kind="k",of="x"} 0.25
# HELP nines_jobs_live_jobs Jobs of the whole cluster that have not finished, by state, counted to 10,000 of each.
# TYPE nines_jobs_live_jobs gauge
nines_jobs_live_jobs{of="x",state="pending"} 7
nines_jobs_live_jobs{of="x",state="retryable"} 0
nines_jobs_live_jobs{of="x",state="running"} 0
# HELP nines_jobs_oldest_wait_seconds How long the oldest job that could run at once has waited for a worker; grows when there is too little room.
# TYPE nines_jobs_oldest_wait_seconds gauge
nines_jobs_oldest_wait_seconds{of="x"} 1.5
# HELP nines_jobs_running_jobs Jobs that run in this process, by kind.
# TYPE nines_jobs_running_jobs gauge
nines_jobs_running_jobs{kind="k",of="x"} 2
# HELP nines_jobs_schedule_last_timestamp_seconds The newest slot that was inserted, in seconds since the epoch; 0 for none.
# TYPE nines_jobs_schedule_last_timestamp_seconds gauge
nines_jobs_schedule_last_timestamp_seconds{of="x",schedule="n"} 0
# HELP nines_jobs_schedule_next_timestamp_seconds When the next slot is due, in seconds since the epoch; long in the past means that it is not scheduled, 0 never again.
# TYPE nines_jobs_schedule_next_timestamp_seconds gauge
nines_jobs_schedule_next_timestamp_seconds{of="x",schedule="n"} 1.7000000005e+09
# HELP nines_jobs_schedule_paused 1 while the schedule is paused.
# TYPE nines_jobs_schedule_paused gauge
nines_jobs_schedule_paused{of="x",schedule="n"} 1
# HELP nines_jobs_schedulers Processes that insert the slots of schedules now; 0 means that no recurring job starts.
# TYPE nines_jobs_schedulers gauge
nines_jobs_schedulers{of="x"} 1
# HELP nines_jobs_unserved_jobs Jobs that could run at once and that no node takes: a worker is missing, or nobody serves the queue.
# TYPE nines_jobs_unserved_jobs gauge
nines_jobs_unserved_jobs{kind="export",of="x",queue="a"} 5
`
	require.NoError(t, testutil.GatherAndCompare(registry(t, s, prometheus.Labels{"of": "x"}), strings.NewReader(want),
		"nines_jobs_backlog_jobs", "nines_jobs_kind_start_delay_seconds_total", "nines_jobs_live_jobs", "nines_jobs_oldest_wait_seconds", "nines_jobs_running_jobs",
		"nines_jobs_schedule_last_timestamp_seconds", "nines_jobs_schedule_next_timestamp_seconds", "nines_jobs_schedule_paused", "nines_jobs_schedulers", "nines_jobs_unserved_jobs"))
	require.PanicsWithValue(t, "jobsprom: NewCollector of a nil Source", func() { jobsprom.NewCollector(nil, nil) })
}
