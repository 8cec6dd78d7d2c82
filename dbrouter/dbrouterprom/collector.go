package dbrouterprom

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/dbrouter"
)

// Source is what a collector reads at each scrape. *dbrouter.Router satisfies it.
type Source interface {
	// Stats returns the figures since the beginning, or now.
	Stats() dbrouter.Stats
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// figure is one number of T.
type figure[T any] struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*T) float64
}

var figures = []figure[dbrouter.Stats]{
	{"ready", "1 while the master answered its last probe and accepts writes.", gauge, func(s *dbrouter.Stats) float64 {
		return truth(len(s.Sources) > 0 && s.Sources[0].Healthy && !s.Sources[0].Standby && s.MasterSought.IsZero())
	}},
	{"replacements_total", "Times that pools were replaced: by Reconfigure, by Recycle, or because the master moved.", counter, func(s *dbrouter.Stats) float64 { return float64(s.Generation) }},
	{"reads_moved_total", "Attempts of reads that were made again on another source; it should stand still while nothing is wrong.", counter, func(s *dbrouter.Stats) float64 { return float64(s.ReadsMoved) }},
	{"reads_to_master_total", "Statements given to a Reader that write or lock, and ran on the master.", counter, func(s *dbrouter.Stats) float64 { return float64(s.ReadsToMaster) }},
	{"extra_reads", "Reads under way on the master because every replica trails too far.", gauge, func(s *dbrouter.Stats) float64 { return float64(s.ReadsExtra) }},
	{"own_reads_waited_total", "Reads of sessions for which a replica had to be asked or waited for.", counter, func(s *dbrouter.Stats) float64 { return float64(s.OwnWaited) }},
	{"own_reads_on_master_total", "Reads of sessions that the master served because no replica had come so far; it grows with lag.", counter, func(s *dbrouter.Stats) float64 { return float64(s.OwnOnMaster) }},
	{"master_sought_timestamp_seconds", "Since when a master that accepts writes is being looked for, in seconds since the epoch; 0 while there is one.", gauge, func(s *dbrouter.Stats) float64 { return seconds(s.MasterSought) }},
	{"draining_pools", "Pools that were replaced and still have users.", gauge, func(s *dbrouter.Stats) float64 { return float64(s.DrainingPools) }},
	{"draining_connections", "Connections in use of pools that were replaced; one that stays is pinned.", gauge, func(s *dbrouter.Stats) float64 { return float64(s.DrainingConns) }},
}

var sourceFigures = []figure[dbrouter.SourceStats]{
	{"source_up", "1 while the data source is in use; for the master, while it answers.", gauge, func(s *dbrouter.SourceStats) float64 { return truth(s.Healthy) }},
	{"source_standby", "1 while the server follows another one or is read only; of the master it means that no write succeeds.", gauge, func(s *dbrouter.SourceStats) float64 { return truth(s.Standby) }},
	{"source_lagging", "1 while the replica is out of use for its lag alone.", gauge, func(s *dbrouter.SourceStats) float64 { return truth(s.Lagging) }},
	{"source_share_ratio", "The part of its reads that the data source gets while it comes back, from 0 to 1.", gauge, func(s *dbrouter.SourceStats) float64 {
		if !s.Healthy {
			return 0
		}
		return float64(s.Share) / 8
	}},
	{"source_probe_seconds", "How long the last probe took.", gauge, func(s *dbrouter.SourceStats) float64 { return s.Latency.Seconds() }},
	{"source_failed_total", "Calls that met the data source away.", counter, func(s *dbrouter.SourceStats) float64 { return float64(s.Failed) }},
	{"source_moved_here_total", "Reads that it took over from data sources that were away.", counter, func(s *dbrouter.SourceStats) float64 { return float64(s.MovedHere) }},
	{"source_slow_statements_total", "Statements that took longer than SlowQuery.", counter, func(s *dbrouter.SourceStats) float64 { return float64(s.Slow) }},
	{"source_frozen_connections", "Connections left behind in calls that the server does not answer.", gauge, func(s *dbrouter.SourceStats) float64 { return float64(s.Frozen) }},
	{"pool_max_connections", "Connections that the pool may have; times the processes, the server must allow as many.", gauge, func(s *dbrouter.SourceStats) float64 { return float64(s.Pool.MaxOpenConnections) }},
	{"pool_waits_total", "Calls that had to wait for a connection; when it grows steadily the pool is too small, or somebody keeps connections.", counter, func(s *dbrouter.SourceStats) float64 { return float64(s.Pool.WaitCount) }},
	{"pool_wait_seconds_total", "Time that calls waited for a connection.", counter, func(s *dbrouter.SourceStats) float64 { return s.Pool.WaitDuration.Seconds() }},
}

type collector struct {
	source                 Source
	figures, sourceFigures []*prometheus.Desc // beside figures and sourceFigures
	lagBytes, lagSeconds   *prometheus.Desc
	connections            *prometheus.Desc
}

// NewCollector returns a collector of r's figures. labels are put on every metric; they tell two Routers of one process apart, and may be nil.
// Nothing is read before the first scrape. It panics when r is nil.
func NewCollector(r Source, labels prometheus.Labels) prometheus.Collector {
	if r == nil {
		panic("dbrouterprom: NewCollector of a nil Source")
	}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("nines", "dbrouter", name), help, variable, labels)
	}
	c := &collector{
		source:      r,
		lagBytes:    desc("source_lag_bytes", "Bytes of the write-ahead log by which a PostgreSQL replica trails the master.", "role", "source"),
		lagSeconds:  desc("source_lag_seconds", "Since when the master has what the replica has not; 0 while it has everything.", "role", "source"),
		connections: desc("pool_connections", "Connections of the pool, by state.", "role", "source", "state"),
	}
	for _, f := range figures {
		c.figures = append(c.figures, desc(f.name, f.help))
	}
	for _, f := range sourceFigures {
		c.sourceFigures = append(c.sourceFigures, desc(f.name, f.help, "role", "source"))
	}
	return c
}

// Describe sends what Collect may send.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, list := range [][]*prometheus.Desc{c.figures, c.sourceFigures, {c.lagBytes, c.lagSeconds, c.connections}} {
		for _, d := range list {
			out <- d
		}
	}
}

// Collect reads the source once.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	stats := c.source.Stats()
	for i, f := range figures {
		out <- prometheus.MustNewConstMetric(c.figures[i], f.kind, f.value(&stats))
	}
	seen := map[[2]string]bool{}
	for _, s := range stats.Sources {
		key := [2]string{s.Role, s.Server}
		if seen[key] {
			continue // two data sources that cannot be told apart
		}
		seen[key] = true
		for i, f := range sourceFigures {
			out <- prometheus.MustNewConstMetric(c.sourceFigures[i], f.kind, f.value(&s), s.Role, s.Server)
		}
		if s.Lag >= 0 {
			out <- prometheus.MustNewConstMetric(c.lagBytes, gauge, float64(s.Lag), s.Role, s.Server)
		}
		if s.LagTime >= 0 {
			out <- prometheus.MustNewConstMetric(c.lagSeconds, gauge, s.LagTime.Seconds(), s.Role, s.Server)
		}
		out <- prometheus.MustNewConstMetric(c.connections, gauge, float64(s.Pool.InUse), s.Role, s.Server, "in use")
		out <- prometheus.MustNewConstMetric(c.connections, gauge, float64(s.Pool.Idle), s.Role, s.Server, "idle")
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is a moment since the epoch, 0 when there is none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
