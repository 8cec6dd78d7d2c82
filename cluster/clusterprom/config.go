package clusterprom

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/cluster/config"
)

// ConfigSource is what a collector of a configuration reads at each scrape. Every *config.Store satisfies it.
type ConfigSource interface {
	// Stats returns the figures since the beginning, or now.
	Stats() config.Stats
	// Check returns nil, a warning, or config.ErrClosed.
	Check(ctx context.Context) error
}

var configFigures = []struct {
	name, help string
	kind       prometheus.ValueType
	value      func(s *config.Stats) float64
}{
	{"version", "Number of the version that holds; nodes with different ones for long are not in step.", gauge, func(s *config.Stats) float64 { return float64(s.Version) }},
	{"changed_timestamp_seconds", "Since when these values hold, in seconds since the epoch.", gauge, func(s *config.Stats) float64 { return seconds(s.Since) }},
	{"read_only", "1 while Save is refused.", gauge, func(s *config.Stats) float64 { return truth(s.ReadOnly) }},
	{"settings", "Settings that there are.", gauge, func(s *config.Stats) float64 { return float64(s.Settings) }},
	{"overridden_settings", "Settings that the environment sets.", gauge, func(s *config.Stats) float64 { return float64(s.Overrides) }},
	{"pending_settings", "Settings that were changed and hold after a restart of this process only.", gauge, func(s *config.Stats) float64 { return float64(len(s.Pending)) }},
	{"saves_total", "Saves of this node that came through.", counter, func(s *config.Stats) float64 { return float64(s.Saves) }},
	{"taken_total", "Versions taken from other nodes.", counter, func(s *config.Stats) float64 { return float64(s.Taken) }},
	{"reloads_total", "Reloads of the file.", counter, func(s *config.Stats) float64 { return float64(s.Reloads) }},
	{"failures_total", "Saves, reloads and versions of others that could not be made to hold here.", counter, func(s *config.Stats) float64 { return float64(s.Failures) }},
}

type configCollector struct {
	source   ConfigSource
	figures  []*prometheus.Desc
	info, ok *prometheus.Desc
}

// NewConfigCollector returns a collector of the figures of a configuration, as NewCollector does of a Node. It panics when s is nil.
func NewConfigCollector(s ConfigSource, labels prometheus.Labels) prometheus.Collector {
	if s == nil {
		panic("clusterprom: NewConfigCollector of a nil ConfigSource")
	}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("nines", "cluster_config", name), help, variable, labels)
	}
	c := &configCollector{
		source: s,
		info:   desc("info", "1; the hash of what holds here: the same on nodes with the same configuration.", "hash"),
		ok:     desc("ok", "1 while the last change holds, nothing waits for a restart and no newer version is missing."),
	}
	for _, f := range configFigures {
		c.figures = append(c.figures, desc(f.name, f.help))
	}
	return c
}

// Describe sends what Collect sends.
func (c *configCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.figures {
		out <- d
	}
	out <- c.info
	out <- c.ok
}

// Collect reads the source once.
func (c *configCollector) Collect(out chan<- prometheus.Metric) {
	stats := c.source.Stats()
	for i, f := range configFigures {
		out <- prometheus.MustNewConstMetric(c.figures[i], f.kind, f.value(&stats))
	}
	out <- prometheus.MustNewConstMetric(c.info, gauge, 1, stats.Hash)
	out <- prometheus.MustNewConstMetric(c.ok, gauge, truth(c.source.Check(context.Background()) == nil))
}
