package filestoreprom

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/mirror"
)

// Source is what NewCollector reads at each scrape. *filestore.Store satisfies it.
type Source interface {
	// Stats returns the figures since the store was opened.
	Stats() filestore.Stats
}

// ProofSource is what NewProofCollector reads at each scrape. *filestore.Proof satisfies it.
type ProofSource interface {
	// Stats returns the figures.
	Stats() filestore.ProofStats
	// Check returns nil, a finding, or filestore.ErrClosed.
	Check(ctx context.Context) error
}

// MirrorSource is what NewMirrorCollector reads at each scrape. *mirror.Mirror satisfies it.
type MirrorSource interface {
	// Stats returns the figures.
	Stats() mirror.Stats
	// Check returns nil, a warning, or mirror.ErrClosed.
	Check(ctx context.Context) error
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// figure is one number of S, with at most one label.
type figure[S any] struct {
	name, help   string
	label, value string
	kind         prometheus.ValueType
	of           func(s *S) float64
}

func operation(name string, of func(s *filestore.Stats) int64) figure[filestore.Stats] {
	return figure[filestore.Stats]{
		"operations_total", "Calls of the store, by operation.", "operation", name, counter, func(s *filestore.Stats) float64 { return float64(of(s)) },
	}
}

func capability(name string, of func(c *filestore.Capabilities) bool) figure[filestore.Stats] {
	return figure[filestore.Stats]{
		"capability", "1 for what the storage can do beside the rest, 0 for what it cannot.", "capability", name, gauge,
		func(s *filestore.Stats) float64 { return truth(of(&s.Capabilities)) },
	}
}

var storeFigures = []figure[filestore.Stats]{
	operation("put", func(s *filestore.Stats) int64 { return s.Puts }),
	operation("get", func(s *filestore.Stats) int64 { return s.Gets }),
	operation("stat", func(s *filestore.Stats) int64 { return s.Stats }),
	operation("delete", func(s *filestore.Stats) int64 { return s.Deletes }),
	operation("list", func(s *filestore.Stats) int64 { return s.Lists }),
	operation("append", func(s *filestore.Stats) int64 { return s.Appends }),
	operation("copy", func(s *filestore.Stats) int64 { return s.Copies }),
	capability("if_absent", func(c *filestore.Capabilities) bool { return c.IfAbsent }),
	capability("if_match", func(c *filestore.Capabilities) bool { return c.IfMatch }),
	capability("signed_url", func(c *filestore.Capabilities) bool { return c.SignedURL }),
	capability("copy", func(c *filestore.Capabilities) bool { return c.Copy }),
	capability("append", func(c *filestore.Capabilities) bool { return c.Append }),
	capability("flat_keys", func(c *filestore.Capabilities) bool { return c.FlatKeys }),
	{"failures_total", "Calls that failed; an object that is absent, or present already, is no failure. Any steady rate is worth a look.", "", "", counter, func(s *filestore.Stats) float64 { return float64(s.Failures) }},
	{"written_bytes_total", "Bytes of contents stored.", "", "", counter, func(s *filestore.Stats) float64 { return float64(s.BytesIn) }},
	{"read_bytes_total", "Bytes of contents read.", "", "", counter, func(s *filestore.Stats) float64 { return float64(s.BytesOut) }},
	{"put_duration_seconds_total", "Time spent in puts, waiting for their sources included.", "", "", counter, func(s *filestore.Stats) float64 { return s.PutTime.Seconds() }},
	{"get_duration_seconds_total", "Time spent in gets up to the first byte.", "", "", counter, func(s *filestore.Stats) float64 { return s.GetTime.Seconds() }},
}

var proofFigures = []figure[filestore.ProofStats]{
	{"proof_established", "1 once this member agreed with all others about the store.", "", "", gauge, func(s *filestore.ProofStats) float64 { return truth(s.Established) }},
	{"proof_members", "Other members that are alive.", "", "", gauge, func(s *filestore.ProofStats) float64 { return float64(s.Members) }},
	{"proof_members_shared", "Other members that were last found to see the same store.", "", "", gauge, func(s *filestore.ProofStats) float64 { return float64(s.Shared) }},
	{"proof_members_wrong", "Other members that were last found to see another store; anything but 0 means lost files.", "", "", gauge, func(s *filestore.ProofStats) float64 { return float64(s.Wrong) }},
	{"proof_rounds_total", "Rounds of looking at the store since the start.", "", "", counter, func(s *filestore.ProofStats) float64 { return float64(s.Rounds) }},
	{"proof_probes_total", "Questions asked of other members.", "", "", counter, func(s *filestore.ProofStats) float64 { return float64(s.Probes) }},
	{"proof_probe_failures_total", "Questions with a wrong answer or none.", "", "", counter, func(s *filestore.ProofStats) float64 { return float64(s.Failures) }},
	{"proof_visible_seconds", "From the beginning of the last write of a probe to the last answer of a member that had read it.", "", "", gauge, func(s *filestore.ProofStats) float64 { return s.Visible.Seconds() }},
}

var mirrorFigures = []figure[mirror.Stats]{
	{"mirror_extensions", "Extensions that this node has.", "", "", gauge, func(s *mirror.Stats) float64 { return float64(s.Extensions) }},
	{"mirror_extensions_enabled", "Extensions that are enabled.", "", "", gauge, func(s *mirror.Stats) float64 { return float64(s.Enabled) }},
	{"mirror_extensions_failed", "Extensions that this node should have and has not, or not in their version.", "", "", gauge, func(s *mirror.Stats) float64 { return float64(s.Failed) }},
	{"mirror_syncs_total", "Looks into the store.", "", "", counter, func(s *mirror.Stats) float64 { return float64(s.Syncs) }},
	{"mirror_fetches_total", "Bundles brought to this node.", "", "", counter, func(s *mirror.Stats) float64 { return float64(s.Fetches) }},
	{"mirror_failures_total", "Looks and fetches that failed.", "", "", counter, func(s *mirror.Stats) float64 { return float64(s.Failures) }},
	{"mirror_last_sync_timestamp_seconds", "When the last look found the store, in seconds since the epoch; 0 for never.", "", "", gauge, func(s *mirror.Stats) float64 { return seconds(s.LastSync) }},
}

// collector reads one source.
type collector[S any] struct {
	stats   func() S
	check   func(context.Context) error // nil: has none
	figures []figure[S]
	descs   []*prometheus.Desc // beside figures; the same one for figures of one name
	ready   *prometheus.Desc
}

func newCollector[S any](stats func() S, figures []figure[S], labels prometheus.Labels) *collector[S] {
	c := &collector[S]{stats: stats, figures: figures}
	byName := map[string]*prometheus.Desc{}
	for _, f := range figures {
		if byName[f.name] == nil {
			byName[f.name] = desc(f.name, f.help, labels, f.label)
		}
		c.descs = append(c.descs, byName[f.name])
	}
	return c
}

func desc(name, help string, labels prometheus.Labels, label string) *prometheus.Desc {
	var variable []string
	if label != "" {
		variable = []string{label}
	}
	return prometheus.NewDesc(prometheus.BuildFQName("nines", "filestore", name), help, variable, labels)
}

// NewCollector returns a collector of a store's figures. labels are put on every metric; they tell two stores of one process apart, and may be
// nil. Nothing is read before the first scrape. It panics when s is nil.
func NewCollector(s Source, labels prometheus.Labels) prometheus.Collector {
	if s == nil {
		panic("filestoreprom: NewCollector of a nil Source")
	}
	return newCollector(s.Stats, storeFigures, labels)
}

// NewProofCollector is NewCollector for a proof.
func NewProofCollector(p ProofSource, labels prometheus.Labels) prometheus.Collector {
	if p == nil {
		panic("filestoreprom: NewProofCollector of a nil ProofSource")
	}
	c := newCollector(p.Stats, proofFigures, labels)
	c.check, c.ready = p.Check, desc("proof_ready", "1 while nothing that was found of the store forbids this member to serve.", labels, "")
	return c
}

// NewMirrorCollector is NewCollector for a mirror.
func NewMirrorCollector(m MirrorSource, labels prometheus.Labels) prometheus.Collector {
	if m == nil {
		panic("filestoreprom: NewMirrorCollector of a nil MirrorSource")
	}
	c := newCollector(m.Stats, mirrorFigures, labels)
	c.check, c.ready = m.Check, desc("mirror_ready", "1 while the mirror runs; what it has may be old, see mirror_last_sync_timestamp_seconds.", labels, "")
	return c
}

// Describe sends what Collect may send.
func (c *collector[S]) Describe(out chan<- *prometheus.Desc) {
	for i, d := range c.descs {
		if i == 0 || d != c.descs[i-1] {
			out <- d
		}
	}
	if c.ready != nil {
		out <- c.ready
	}
}

// Collect reads the source once.
func (c *collector[S]) Collect(out chan<- prometheus.Metric) {
	stats := c.stats()
	for i, f := range c.figures {
		var values []string
		if f.label != "" {
			values = []string{f.value}
		}
		out <- prometheus.MustNewConstMetric(c.descs[i], f.kind, f.of(&stats), values...)
	}
	if c.ready != nil {
		err := c.check(context.Background())
		var w interface{ Warning() bool }
		out <- prometheus.MustNewConstMetric(c.ready, gauge, truth(err == nil || errors.As(err, &w) && w.Warning()))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1e3
}
