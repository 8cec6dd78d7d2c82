package dbrouterprom_test

import (
	"context"
	"database/sql"
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

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/dbrouter/dbrouterprom"
	"github.com/nines-go/nines/dbrouter/dbroutertest"
	"github.com/nines-go/nines/internal/lab"
)

func start(t *testing.T, replicas int) (*dbroutertest.Cluster, *dbrouter.Router) {
	c := dbroutertest.New(replicas)
	cfg := c.Config()
	cfg.Logger, cfg.MonitorInterval = slog.New(slog.DiscardHandler), 20*time.Millisecond
	r, err := dbrouter.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return c, r
}

// text is a scrape, as Prometheus reads it.
func text(t require.TestingT, r prometheus.Gatherer) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func registry(t testing.TB, s dbrouterprom.Source, labels prometheus.Labels) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(dbrouterprom.NewCollector(s, labels)))
	return r
}

func TestNamesAndUnitsPassTheLinters(t *testing.T) {
	_, router := start(t, 2)
	r := registry(t, router, nil)
	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	require.Empty(t, problems)
	path, err := exec.LookPath("promtool")
	lab.Need(t, "promtool", err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, r))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

type fixed dbrouter.Stats

func (f fixed) Stats() dbrouter.Stats { return dbrouter.Stats(f) }

func TestFigures(t *testing.T) {
	r := registry(t, fixed{Generation: 3, ReadsMoved: 5, MasterSought: time.Unix(1000, 5e8), Sources: []dbrouter.SourceStats{
		{Role: "master", Server: "db0:5432/app", Healthy: true, Lag: -1, LagTime: -1, Share: 8, Pool: sql.DBStats{InUse: 2, Idle: 1}},
		{Role: "replica", Server: "db1:5432/app", Healthy: true, Lag: 64, LagTime: 1500 * time.Millisecond, Share: 2, Failed: 7},
		{Role: "replica", Server: "db1:5432/app"},
	}}, prometheus.Labels{"database": "main"})
	require.NoError(t, testutil.GatherAndCompare(r, strings.NewReader(`
# HELP nines_dbrouter_master_sought_timestamp_seconds Since when a master that accepts writes is being looked for, in seconds since the epoch; 0 while there is one.
# TYPE nines_dbrouter_master_sought_timestamp_seconds gauge
nines_dbrouter_master_sought_timestamp_seconds{database="main"} 1000.5
# HELP nines_dbrouter_ready 1 while the master answered its last probe and accepts writes.
# TYPE nines_dbrouter_ready gauge
nines_dbrouter_ready{database="main"} 0
# HELP nines_dbrouter_replacements_total Times that pools were replaced: by Reconfigure, by Recycle, or because the master moved.
# TYPE nines_dbrouter_replacements_total counter
nines_dbrouter_replacements_total{database="main"} 3
# HELP nines_dbrouter_source_lag_seconds Since when the master has what the replica has not; 0 while it has everything.
# TYPE nines_dbrouter_source_lag_seconds gauge
nines_dbrouter_source_lag_seconds{database="main",role="replica",source="db1:5432/app"} 1.5
# HELP nines_dbrouter_source_share_ratio The part of its reads that the data source gets while it comes back, from 0 to 1.
# TYPE nines_dbrouter_source_share_ratio gauge
nines_dbrouter_source_share_ratio{database="main",role="master",source="db0:5432/app"} 1
nines_dbrouter_source_share_ratio{database="main",role="replica",source="db1:5432/app"} 0.25
# HELP nines_dbrouter_pool_connections Connections of the pool, by state.
# TYPE nines_dbrouter_pool_connections gauge
nines_dbrouter_pool_connections{database="main",role="master",source="db0:5432/app",state="idle"} 1
nines_dbrouter_pool_connections{database="main",role="master",source="db0:5432/app",state="in use"} 2
nines_dbrouter_pool_connections{database="main",role="replica",source="db1:5432/app",state="idle"} 0
nines_dbrouter_pool_connections{database="main",role="replica",source="db1:5432/app",state="in use"} 0
`), "nines_dbrouter_master_sought_timestamp_seconds", "nines_dbrouter_ready", "nines_dbrouter_replacements_total", "nines_dbrouter_source_lag_seconds",
		"nines_dbrouter_source_share_ratio", "nines_dbrouter_pool_connections"))
	require.PanicsWithValue(t, "dbrouterprom: NewCollector of a nil Source", func() { dbrouterprom.NewCollector(nil, nil) })
}

func TestEventsMoveTheFigures(t *testing.T) {
	c, router := start(t, 1)
	r := registry(t, router, nil)
	first := text(t, r)
	require.Contains(t, first, "nines_dbrouter_ready 1\n")
	require.Contains(t, first, `nines_dbrouter_source_up{role="replica",source="server1:5432/test"} 1`)
	require.NotContains(t, first, "secret")
	c.Server(1).Kill()
	require.Eventually(t, func() bool {
		_ = router.Replica().GetContext(t.Context(), &struct{ Server, Writes int }{}, "SELECT 1")
		return strings.Contains(text(t, r), `nines_dbrouter_source_up{role="replica",source="server1:5432/test"} 0`)
	}, 20*time.Second, 5*time.Millisecond)
	c.Server(0).Kill()
	require.Eventually(t, func() bool { return strings.Contains(text(t, r), "nines_dbrouter_ready 0\n") }, 20*time.Second, 5*time.Millisecond)
	c.Server(0).Start()
	require.Eventually(t, func() bool { return strings.Contains(text(t, r), "nines_dbrouter_ready 1\n") }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, router.Recycle(t.Context()))
	require.NotContains(t, text(t, r), `nines_dbrouter_source_failed_total{role="replica",source="server1:5432/test"} 0`+"\n", "counts outlive the pools")
}

func TestScrapesBesideEverything(t *testing.T) {
	_, router := start(t, 2)
	r := registry(t, router, nil)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, err := r.Gather()
					assert.NoError(t, err)
				}
			}
		})
	}
	for range 10 {
		require.NoError(t, router.Recycle(t.Context()))
	}
	require.NoError(t, router.Close())
	close(stop)
	wg.Wait()
	require.True(t, errors.Is(router.Check(t.Context()), dbrouter.ErrClosed))
	text(t, r)
}
