package electionprom_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electionprom"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newElector(t testing.TB, c *electiontest.Cluster, id string) *election.Elector {
	e, err := election.New(election.Config{Members: c.Join(id), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return e
}

func start(t testing.TB, c *electiontest.Cluster, id string) *election.Elector {
	e := newElector(t, c, id)
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(context.Background()) })
	t.Cleanup(func() {
		require.NoError(t, e.Shutdown(within(t)))
		wg.Wait()
	})
	return e
}

// text is a scrape, as Prometheus reads it.
func text(t require.TestingT, r prometheus.Gatherer) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func registry(t testing.TB, e electionprom.Source, labels prometheus.Labels) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(electionprom.NewCollector(e, labels)))
	return r
}

func TestNamesAndUnitsPassTheLinters(t *testing.T) {
	r := registry(t, start(t, electiontest.New(), "a"), nil)
	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	require.Empty(t, problems)

	path, err := exec.LookPath("promtool")
	lab.Need(t, "promtool", err)
	cmd := exec.CommandContext(within(t), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, r))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

// fixed is a Source that does not move.
type fixed struct {
	stats election.Stats
	err   error
}

func (f fixed) Stats() election.Stats       { return f.stats }
func (f fixed) Check(context.Context) error { return f.err }

type warning struct{ error }

func (warning) Warning() bool { return true }

func TestFiguresOfAMoment(t *testing.T) {
	source := fixed{stats: election.Stats{
		State:  election.State{LeaderID: "a", Known: true, Term: 77, Since: time.UnixMilli(1_700_000_000_500)},
		Fenced: true, Running: 2, Fault: "away", Pooler: true, TermsWon: 3, TermsLost: 2, Blocked: 5, Faults: 9,
	}, err: errors.New("red")}
	const want = `
# HELP nines_election_acquires_blocked_total Attempts to take the lease that a fenced transaction held off: long ones slow fail-over down.
# TYPE nines_election_acquires_blocked_total counter
nines_election_acquires_blocked_total{of="x"} 5
# HELP nines_election_callbacks Functions under Lead and requests to the leader that run now.
# TYPE nines_election_callbacks gauge
nines_election_callbacks{of="x"} 2
# HELP nines_election_database_failing 1 while the last statement on the database failed.
# TYPE nines_election_database_failing gauge
nines_election_database_failing{of="x"} 1
# HELP nines_election_fenced 1 while this node holds a term: what LeadFenced runs under.
# TYPE nines_election_fenced gauge
nines_election_fenced{of="x"} 1
# HELP nines_election_leader_known 1 while this node knows of a leader, itself or another.
# TYPE nines_election_leader_known gauge
nines_election_leader_known{of="x"} 1
# HELP nines_election_leading 1 while this node leads and nobody else can still be acting: what Lead runs under.
# TYPE nines_election_leading gauge
nines_election_leading{of="x"} 0
# HELP nines_election_ready 1 while this node knows who leads, or will in a moment.
# TYPE nines_election_ready gauge
nines_election_ready{of="x"} 0
# HELP nines_election_since_timestamp_seconds When the present leader, or that there is none, was learned, in seconds since the epoch.
# TYPE nines_election_since_timestamp_seconds gauge
nines_election_since_timestamp_seconds{of="x"} 1.7000000005e+09
# HELP nines_election_term Number of the last leadership that this node knows; it rises with each.
# TYPE nines_election_term gauge
nines_election_term{of="x"} 77
# HELP nines_election_terms_won_total Leaderships of this node that began.
# TYPE nines_election_terms_won_total counter
nines_election_terms_won_total{of="x"} 3
`
	require.NoError(t, testutil.GatherAndCompare(registry(t, source, prometheus.Labels{"of": "x"}), strings.NewReader(want),
		"nines_election_acquires_blocked_total", "nines_election_callbacks", "nines_election_database_failing", "nines_election_fenced",
		"nines_election_leader_known", "nines_election_leading", "nines_election_ready", "nines_election_since_timestamp_seconds",
		"nines_election_term", "nines_election_terms_won_total"))
	source.err = warning{source.err}
	require.Contains(t, text(t, registry(t, source, nil)), "nines_election_ready 1\n")
}

func TestAHandoverIsSeen(t *testing.T) {
	c := electiontest.New()
	a := start(t, c, "a")
	r := registry(t, a, nil)
	shows := func(lines ...string) {
		t.Helper()
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			out := text(t, r)
			for _, l := range lines {
				require.Contains(t, out, "nines_election_"+l+"\n")
			}
		}, 20*time.Second, 5*time.Millisecond)
	}
	shows("leading 1", "fenced 1", "leader_known 1", "terms_won_total 1", "terms_lost_total 0", "ready 1")
	start(t, c, "b")
	require.Eventually(t, func() bool { return a.TransferTo(within(t), "b") == nil }, 20*time.Second, 5*time.Millisecond) // it has to be there first
	shows("leading 0", "fenced 0", "leader_known 1", "terms_won_total 1", "terms_lost_total 1", "ready 1")
}

// Scrapes go on beside Run and Shutdown, and after them.
func TestScrapesAtAnyTime(t *testing.T) {
	e := newElector(t, electiontest.New(), "a")
	r := registry(t, e, nil)
	require.Contains(t, text(t, r), "nines_election_leading 0\n")
	ctx, cancel := context.WithCancel(t.Context())
	var scrapes, run sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	run.Go(func() { _ = e.Run(context.Background()) })
	require.Eventually(t, e.IsLeader, 20*time.Second, time.Millisecond)
	require.NoError(t, e.Shutdown(within(t)))
	run.Wait()
	cancel()
	scrapes.Wait()
	require.Contains(t, text(t, r), "nines_election_ready 0\n")
	require.Panics(t, func() { electionprom.NewCollector(nil, nil) })
}
