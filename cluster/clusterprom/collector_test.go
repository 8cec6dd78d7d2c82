package clusterprom_test

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
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clusterprom"
	"github.com/nines-go/nines/internal/lab"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// start runs a node; stop ends it.
func start(t *testing.T, name string, seeds ...string) (n *cluster.Node, stop func()) {
	n, err := cluster.New(cluster.Config{
		ClusterName: "test", NodeName: name, Version: "1.2.3", Schema: 7, InsecureNoKeys: true, BindAddr: "127.0.0.1:0", Profile: cluster.Local,
		Discovery: cluster.StaticDiscovery(seeds...), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, n.Run(context.Background())) })
	stop = sync.OnceFunc(func() {
		require.NoError(t, n.Shutdown(within(t)))
		wg.Wait()
	})
	t.Cleanup(stop)
	require.NoError(t, n.WaitReady(within(t)))
	return n, stop
}

// text is a scrape, as Prometheus reads it.
func text(t require.TestingT, r prometheus.Gatherer) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func registry(t testing.TB, n clusterprom.Source, labels prometheus.Labels) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(clusterprom.NewCollector(n, labels)))
	return r
}

func TestNamesAndUnitsPassTheLinters(t *testing.T) {
	a, _ := start(t, "a")
	b, _ := start(t, "b", a.Addr())
	require.Eventually(t, func() bool { return len(a.Alive()) == 2 && len(b.Alive()) == 2 }, 20*time.Second, 10*time.Millisecond)
	r := registry(t, a, nil)
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
	stats   cluster.Stats
	members []cluster.Member
	status  cluster.Status
	err     error
}

func (f fixed) Stats() cluster.Stats        { return f.stats }
func (f fixed) Members() []cluster.Member   { return f.members }
func (f fixed) Status() cluster.Status      { return f.status }
func (f fixed) Check(context.Context) error { return f.err }

func TestFiguresOfAMoment(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_500)
	source := fixed{
		stats: cluster.Stats{ID: "2", Links: 1, HealthScore: 3, SentBytes: 10, ReceivedBytes: 11, Reconnections: 4, Refused: 5, TurnedAway: 6, Retained: 7,
			Events: map[string]uint64{cluster.EventFailed: 2}, Peers: []cluster.PeerStats{{ID: "3", Up: true, SentBytes: 8, ReceivedBytes: 9, Retained: 7, RTT: time.Millisecond}}},
		members: []cluster.Member{
			{ID: "1", Name: "a", Addr: "h:1", State: cluster.FateDead, Since: at},
			{ID: "2", Name: "b", Addr: "h:2", State: cluster.FateAlive, Version: "1.2.3", Schema: 7, Started: at, Linked: true},
			{ID: "3", Name: "a", Addr: "h:1", State: cluster.FateAlive, Since: at, Linked: true, ClockOffset: 1500 * time.Millisecond},
			{ID: "4", Name: "c", Addr: "h:3", State: cluster.FateFailed, Since: at},
			{ID: "5", Name: "d", Addr: "h:4", State: cluster.FateLeft, Since: at},
		},
		status: cluster.Status{Level: cluster.Red, Reasons: []cluster.Reason{{Code: cluster.CodeDown, Level: cluster.Red}, {Code: cluster.CodeDown, Level: cluster.Red}}},
		err:    cluster.ErrClosed,
	}
	const want = `
# HELP nines_cluster_events_total What happened to other members, by kind.
# TYPE nines_cluster_events_total counter
nines_cluster_events_total{kind="back",of="x"} 0
nines_cluster_events_total{kind="dead",of="x"} 0
nines_cluster_events_total{kind="failed",of="x"} 2
nines_cluster_events_total{kind="joined",of="x"} 0
nines_cluster_events_total{kind="left",of="x"} 0
nines_cluster_events_total{kind="updated",of="x"} 0
# HELP nines_cluster_findings What this node finds wrong now, by stable code and level.
# TYPE nines_cluster_findings gauge
nines_cluster_findings{code="down",level="red",of="x"} 2
# HELP nines_cluster_level 1 for the level that this node gives the cluster, 0 for the others.
# TYPE nines_cluster_level gauge
nines_cluster_level{level="amber",of="x"} 0
nines_cluster_level{level="green",of="x"} 0
nines_cluster_level{level="red",of="x"} 1
# HELP nines_cluster_link_reconnections_total Connections to peers made again after one was lost.
# TYPE nines_cluster_link_reconnections_total counter
nines_cluster_link_reconnections_total{of="x"} 4
# HELP nines_cluster_members Processes known to this node, by their fate as it sees it; those that ended are kept 24 h.
# TYPE nines_cluster_members gauge
nines_cluster_members{fate="alive",of="x"} 2
nines_cluster_members{fate="dead",of="x"} 1
nines_cluster_members{fate="draining",of="x"} 0
nines_cluster_members{fate="failed",of="x"} 1
nines_cluster_members{fate="left",of="x"} 1
nines_cluster_members{fate="suspect",of="x"} 0
# HELP nines_cluster_node_info 1; what this node is.
# TYPE nines_cluster_node_info gauge
nines_cluster_node_info{address="h:2",id="2",name="b",of="x",schema="7",version="1.2.3"} 1
# HELP nines_cluster_node_ready 1 while nothing of what this node finds forbids it to serve.
# TYPE nines_cluster_node_ready gauge
nines_cluster_node_ready{of="x"} 0
# HELP nines_cluster_node_start_time_seconds When this process started, in seconds since the epoch.
# TYPE nines_cluster_node_start_time_seconds gauge
nines_cluster_node_start_time_seconds{of="x"} 1.7000000005e+09
# HELP nines_cluster_peer_clock_offset_seconds The peer's clock minus this node's, measured over the link.
# TYPE nines_cluster_peer_clock_offset_seconds gauge
nines_cluster_peer_clock_offset_seconds{address="h:1",of="x",peer="a"} 1.5
# HELP nines_cluster_peer_retained_bytes Bytes that the peer has not acknowledged yet: the queue to it.
# TYPE nines_cluster_peer_retained_bytes gauge
nines_cluster_peer_retained_bytes{address="h:1",of="x",peer="a"} 7
# HELP nines_cluster_peer_rtt_seconds Round trip of the link to the peer, the best of late.
# TYPE nines_cluster_peer_rtt_seconds gauge
nines_cluster_peer_rtt_seconds{address="h:1",of="x",peer="a"} 0.001
# HELP nines_cluster_peer_up 1 while the peer is a member (alive, suspect or draining) and linked to this node.
# TYPE nines_cluster_peer_up gauge
nines_cluster_peer_up{address="h:1",of="x",peer="a"} 1
nines_cluster_peer_up{address="h:3",of="x",peer="c"} 0
`
	require.NoError(t, testutil.GatherAndCompare(registry(t, source, prometheus.Labels{"of": "x"}), strings.NewReader(want),
		"nines_cluster_events_total", "nines_cluster_peer_retained_bytes", "nines_cluster_peer_rtt_seconds", "nines_cluster_findings", "nines_cluster_level", "nines_cluster_link_reconnections_total", "nines_cluster_members", "nines_cluster_node_info",
		"nines_cluster_node_ready", "nines_cluster_node_start_time_seconds", "nines_cluster_peer_clock_offset_seconds", "nines_cluster_peer_up"))
}

func TestAMemberThatDiesIsSeen(t *testing.T) {
	a, _ := start(t, "a")
	b, stop := start(t, "b", a.Addr())
	a.Handle("topic", func(context.Context, string, []byte) ([]byte, error) { return nil, nil })
	_, err := b.Request(within(t), a.ID(), "topic", []byte("x"))
	require.NoError(t, err)
	r := registry(t, a, nil)
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		out := text(t, r)
		require.Contains(t, out, `nines_cluster_members{fate="alive"} 2`)
		require.Contains(t, out, `peer_up{address="`+b.Addr()+`",peer="b"} 1`)
		require.Contains(t, out, "nines_cluster_messages_handled_total 1\n")
		require.Contains(t, out, "nines_cluster_node_ready 1\n")
		require.NotContains(t, out, "nines_cluster_link_received_bytes_total 0\n")
	}, 20*time.Second, 20*time.Millisecond)
	stop()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		out := text(t, r)
		require.Contains(t, out, `nines_cluster_members{fate="alive"} 1`)
		require.Contains(t, out, `nines_cluster_members{fate="left"} 1`)
		require.Contains(t, out, `nines_cluster_events_total{kind="left"} 1`)
		require.NotContains(t, out, "peer_up{", "who said goodbye is no peer any more")
	}, 20*time.Second, 20*time.Millisecond)
}

// Scrapes go on beside Run and Shutdown, and after them.
func TestScrapesAtAnyTime(t *testing.T) {
	n, err := cluster.New(cluster.Config{ClusterName: "test", Single: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	r := registry(t, n, nil)
	require.Contains(t, text(t, r), "nines_cluster_node_ready 0\n")
	ctx, cancel := context.WithCancel(t.Context())
	var scrapes, run sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			for ctx.Err() == nil {
				_, err := r.Gather()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	run.Go(func() { _ = n.Run(context.Background()) })
	require.NoError(t, n.WaitReady(within(t)))
	require.NoError(t, n.Shutdown(within(t)))
	run.Wait()
	cancel()
	scrapes.Wait()
	require.Contains(t, text(t, r), "nines_cluster_node_ready 0\n")
	require.Panics(t, func() { clusterprom.NewCollector(nil, nil) })
}
