package wsfanoutprom_test

import (
	"context"
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
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/wsfanoutprom"
	"github.com/nines-go/nines/wsfanout/wsfanouttest"
)

// text is a scrape, as Prometheus reads it.
func text(t require.TestingT, r prometheus.Gatherer) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func registry(t testing.TB, h wsfanoutprom.Source, labels prometheus.Labels) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(wsfanoutprom.NewCollector(h, labels)))
	return r
}

func TestNamesAndUnitsPassTheLinters(t *testing.T) {
	s := wsfanouttest.Start(t, wsfanout.Config{})
	r := registry(t, s.Hub, nil)
	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	require.Empty(t, problems)
	path, err := exec.LookPath("promtool")
	lab.Need(t, "promtool", err)
	cmd := exec.CommandContext(t.Context(), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text(t, r))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out))
}

// fixed is a Source that does not move.
type fixed struct {
	stats wsfanout.Stats
	err   error
}

func (f fixed) Stats() wsfanout.Stats       { return f.stats }
func (f fixed) Check(context.Context) error { return f.err }

func TestFiguresOfAMoment(t *testing.T) {
	const want = `
# HELP nines_wsfanout_connections Open sockets.
# TYPE nines_wsfanout_connections gauge
nines_wsfanout_connections{of="x"} 7
# HELP nines_wsfanout_ready 1 while the hub serves its part.
# TYPE nines_wsfanout_ready gauge
nines_wsfanout_ready{of="x"} 0
# HELP nines_wsfanout_settled 1 while take-over and copies are complete, as far as this node is concerned: the next failure may come.
# TYPE nines_wsfanout_settled gauge
nines_wsfanout_settled{of="x"} 1
# HELP nines_wsfanout_subscriptions_total Answers to subscriptions: begun anew, or gone on without a hole. Those with a hole are in gaps_total.
# TYPE nines_wsfanout_subscriptions_total counter
nines_wsfanout_subscriptions_total{answer="fresh",of="x"} 2
nines_wsfanout_subscriptions_total{answer="resumed",of="x"} 0
`
	r := registry(t, fixed{stats: wsfanout.Stats{Settled: true, Conns: 7, Fresh: 2}, err: wsfanout.ErrClosed}, prometheus.Labels{"of": "x"})
	require.NoError(t, testutil.GatherAndCompare(r, strings.NewReader(want),
		"nines_wsfanout_connections", "nines_wsfanout_ready", "nines_wsfanout_settled", "nines_wsfanout_subscriptions_total"))
}

func TestAMessageIsCounted(t *testing.T) {
	s := wsfanouttest.Start(t, wsfanout.Config{})
	r := registry(t, s.Hub, nil)
	l := wsfanouttest.Listen(t, s, "ann", "room")
	_, err := s.Hub.Publish(t.Context(), "room", []byte(`1`), nil)
	require.NoError(t, err)
	l.Wait(t, 1)
	out := text(t, r)
	for _, line := range []string{"published_total 1", "acknowledged_total 1", "delivered_total 1", "connections 1", "topics 1", `subscriptions_total{answer="fresh"} 1`, "ready 1"} {
		require.Contains(t, out, "nines_wsfanout_"+line+"\n")
	}
}

// Scrapes go on beside Run and Shutdown, and after them.
func TestScrapesAtAnyTime(t *testing.T) {
	h, err := wsfanout.New(wsfanout.Config{Authenticate: wsfanouttest.ByUser, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	r := registry(t, h, nil)
	require.Contains(t, text(t, r), "nines_wsfanout_ready 0\n")
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
	run.Go(func() { _ = h.Run(context.Background()) })
	require.Eventually(t, func() bool { return h.Check(ctx) == nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, h.Shutdown(ctx))
	run.Wait()
	cancel()
	scrapes.Wait()
	require.Contains(t, text(t, r), "nines_wsfanout_ready 0\n")
	require.Panics(t, func() { wsfanoutprom.NewCollector(nil, nil) })
}
