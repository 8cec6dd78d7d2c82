package clusterprom_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/clusterprom"
	"github.com/nines-go/nines/cluster/config"
	"github.com/nines-go/nines/internal/lab"
)

type settings struct {
	Service struct {
		Title   string
		Workers int `nines:"restart"`
	}
}

func TestConfiguration(t *testing.T) {
	store, err := config.Open(t.Context(), config.Config[settings]{Env: []string{"APP_SERVICE_TITLE=x"}, EnvPrefix: "APP_"})
	require.NoError(t, err)
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(clusterprom.NewConfigCollector(store, nil)))
	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	require.Empty(t, problems)
	out := text(t, r)
	require.Contains(t, out, `nines_cluster_config_info{hash="`+store.Hash()+`"} 1`)
	require.Contains(t, out, "nines_cluster_config_ok 1\n")
	require.Contains(t, out, "nines_cluster_config_overridden_settings 1\n")

	require.NoError(t, store.Save(t.Context(), func(c *settings) error { c.Service.Workers = 3; return nil }, nil))
	out = text(t, r)
	require.Contains(t, out, "nines_cluster_config_version 1\n")
	require.Contains(t, out, "nines_cluster_config_saves_total 1\n")
	require.Contains(t, out, "nines_cluster_config_pending_settings 1\n")
	require.Contains(t, out, "nines_cluster_config_ok 0\n")
	require.Panics(t, func() { clusterprom.NewConfigCollector(nil, nil) })

	path, err := exec.LookPath("promtool")
	lab.Need(t, "promtool", err)
	cmd := exec.CommandContext(within(t), path, "check", "metrics")
	cmd.Stdin = strings.NewReader(out)
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	require.Empty(t, string(said))
}
