package filestoreprom_test

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

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoreprom"
	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/filestore/mirror"
	"github.com/nines-go/nines/internal/lab"
)

// alone is a cluster of one.
type alone struct{}

func (alone) ID() string                    { return "a" }
func (alone) Alive() []string               { return []string{"a"} }
func (alone) Notify(chan<- struct{}) func() { return func() {} }
func (alone) Tag(string, string) string     { return "" }
func (alone) SetTag(string, string) error   { return nil }
func (alone) Handle(string, func(context.Context, string, []byte) ([]byte, error)) func() {
	return func() {}
}
func (alone) Request(context.Context, string, string, []byte) ([]byte, error) { return nil, nil }

func text(t require.TestingT, r prometheus.Gatherer) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	return w.Body.String()
}

func real(t *testing.T) (*prometheus.Registry, *filestore.Store, *filestore.Proof, *mirror.Mirror) {
	store := memstore.Open()
	quiet := slog.New(slog.DiscardHandler)
	proof, err := filestore.NewProof(filestore.ProofConfig{Store: store, Cluster: alone{}, Logger: quiet})
	require.NoError(t, err)
	m, err := mirror.New(mirror.Config{Store: store, Dir: t.TempDir(), Logger: quiet})
	require.NoError(t, err)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(filestoreprom.NewCollector(store, nil), filestoreprom.NewProofCollector(proof, nil), filestoreprom.NewMirrorCollector(m, nil))
	return r, store, proof, m
}

func TestNamesAndUnitsPassTheLinters(t *testing.T) {
	r, _, _, _ := real(t)
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

type fixed struct{ stats filestore.Stats }

func (f fixed) Stats() filestore.Stats { return f.stats }

type fixedProof struct {
	stats filestore.ProofStats
	err   error
}

func (f fixedProof) Stats() filestore.ProofStats { return f.stats }
func (f fixedProof) Check(context.Context) error { return f.err }

func TestFiguresOfAMoment(t *testing.T) {
	labels := prometheus.Labels{"store": "x"}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(filestoreprom.NewCollector(fixed{filestore.Stats{
		Puts: 1, Gets: 2, Lists: 3, Failures: 4, BytesIn: 5, BytesOut: 6, PutTime: 1500 * time.Millisecond, Capabilities: filestore.Capabilities{IfAbsent: true},
	}}, labels), filestoreprom.NewProofCollector(fixedProof{filestore.ProofStats{Established: true, Wrong: 7}, filestore.ErrNotShared}, labels))
	const want = `
# HELP nines_filestore_capability 1 for what the storage can do beside the rest, 0 for what it cannot.
# TYPE nines_filestore_capability gauge
nines_filestore_capability{capability="append",store="x"} 0
nines_filestore_capability{capability="copy",store="x"} 0
nines_filestore_capability{capability="flat_keys",store="x"} 0
nines_filestore_capability{capability="if_absent",store="x"} 1
nines_filestore_capability{capability="if_match",store="x"} 0
nines_filestore_capability{capability="signed_url",store="x"} 0
# HELP nines_filestore_operations_total Calls of the store, by operation.
# TYPE nines_filestore_operations_total counter
nines_filestore_operations_total{operation="append",store="x"} 0
nines_filestore_operations_total{operation="copy",store="x"} 0
nines_filestore_operations_total{operation="delete",store="x"} 0
nines_filestore_operations_total{operation="get",store="x"} 2
nines_filestore_operations_total{operation="list",store="x"} 3
nines_filestore_operations_total{operation="put",store="x"} 1
nines_filestore_operations_total{operation="stat",store="x"} 0
# HELP nines_filestore_proof_members_wrong Other members that were last found to see another store; anything but 0 means lost files.
# TYPE nines_filestore_proof_members_wrong gauge
nines_filestore_proof_members_wrong{store="x"} 7
# HELP nines_filestore_proof_ready 1 while nothing that was found of the store forbids this member to serve.
# TYPE nines_filestore_proof_ready gauge
nines_filestore_proof_ready{store="x"} 0
# HELP nines_filestore_put_duration_seconds_total Time spent in puts, waiting for their sources included.
# TYPE nines_filestore_put_duration_seconds_total counter
nines_filestore_put_duration_seconds_total{store="x"} 1.5
`
	require.NoError(t, testutil.GatherAndCompare(r, strings.NewReader(want), "nines_filestore_capability", "nines_filestore_operations_total",
		"nines_filestore_proof_members_wrong", "nines_filestore_proof_ready", "nines_filestore_put_duration_seconds_total"))
}

// Scrapes go on beside Run, Shutdown and Close, and what happens is seen.
func TestScrapesAtAnyTime(t *testing.T) {
	r, store, proof, m := real(t)
	require.Contains(t, text(t, r), "nines_filestore_proof_ready 0\n")
	ctx, cancel := context.WithCancel(t.Context())
	var scrapes, run sync.WaitGroup
	for range 2 {
		scrapes.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	run.Go(func() { _ = proof.Run(context.Background()) })
	run.Go(func() { _ = m.Run(context.Background()) })
	_, err := store.WriteFile(t.Context(), "k", []byte("four"), nil)
	require.NoError(t, err)
	for _, line := range []string{
		"nines_filestore_proof_ready 1\n", "nines_filestore_mirror_ready 1\n", `nines_filestore_operations_total{operation="put"} 1`, "nines_filestore_written_bytes_total 4\n",
	} {
		require.Eventually(t, func() bool { return strings.Contains(text(t, r), line) }, 20*time.Second, 10*time.Millisecond, line)
	}
	require.NoError(t, proof.Shutdown(t.Context()))
	require.NoError(t, m.Shutdown(t.Context()))
	run.Wait()
	require.NoError(t, store.Close())
	cancel()
	scrapes.Wait()
	require.Contains(t, text(t, r), "nines_filestore_proof_ready 0\n")
	require.Panics(t, func() { filestoreprom.NewCollector(nil, nil) })
	require.Panics(t, func() { filestoreprom.NewProofCollector(nil, nil) })
	require.Panics(t, func() { filestoreprom.NewMirrorCollector(nil, nil) })
}
