package electionprom

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/election"
)

// Source is what a collector reads at each scrape. *election.Elector satisfies it.
type Source interface {
	// Stats returns the figures since the beginning, or now.
	Stats() election.Stats
	// Check returns nil while the node knows who leads.
	Check(ctx context.Context) error
}

// figure is one number of election.Stats.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	value      func(s *election.Stats) float64
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var figures = []figure{
	{"leading", "1 while this node leads and nobody else can still be acting: what Lead runs under.", gauge, func(s *election.Stats) float64 { return truth(s.Unfenced) }},
	{"fenced", "1 while this node holds a term: what LeadFenced runs under.", gauge, func(s *election.Stats) float64 { return truth(s.Fenced) }},
	{"leader_known", "1 while this node knows of a leader, itself or another.", gauge, func(s *election.Stats) float64 { return truth(s.State.Known && s.State.LeaderID != "") }},
	{"term", "Number of the last leadership that this node knows; it rises with each.", gauge, func(s *election.Stats) float64 { return float64(s.State.Term) }},
	{"since_timestamp_seconds", "When the present leader, or that there is none, was learned, in seconds since the epoch.", gauge, since},
	{"callbacks", "Functions under Lead and requests to the leader that run now.", gauge, func(s *election.Stats) float64 { return float64(s.Running) }},
	{"database_failing", "1 while the last statement on the database failed.", gauge, func(s *election.Stats) float64 { return truth(s.Fault != "") }},
	{"pooler", "1 when a transaction pooler was found before the database: fail-over waits for the lease.", gauge, func(s *election.Stats) float64 { return truth(s.Pooler) }},
	{"terms_won_total", "Leaderships of this node that began.", counter, func(s *election.Stats) float64 { return float64(s.TermsWon) }},
	{"terms_lost_total", "Leaderships of this node that ended, by handover or otherwise.", counter, func(s *election.Stats) float64 { return float64(s.TermsLost) }},
	{"looks_total", "Reads of the lease.", counter, func(s *election.Stats) float64 { return float64(s.Looks) }},
	{"acquires_total", "Attempts to take the lease.", counter, func(s *election.Stats) float64 { return float64(s.Acquires) }},
	{"acquires_lost_total", "Attempts to take the lease that came second.", counter, func(s *election.Stats) float64 { return float64(s.LostRaces) }},
	{"acquires_blocked_total", "Attempts to take the lease that a fenced transaction held off: long ones slow fail-over down.", counter, func(s *election.Stats) float64 { return float64(s.Blocked) }},
	{"renewals_total", "Renewals of the lease that were accepted; a leader makes one each third of the TTL.", counter, func(s *election.Stats) float64 { return float64(s.Renewals) }},
	{"revokes_total", "Leases taken from a leader that was thought to be gone.", counter, func(s *election.Stats) float64 { return float64(s.Revokes) }},
	{"lock_losses_total", "Session locks of this node that were lost, or might have been.", counter, func(s *election.Stats) float64 { return float64(s.LockLosses) }},
	{"evidences_total", "Times that a leader's database session was found to have ended.", counter, func(s *election.Stats) float64 { return float64(s.Evidences) }},
	{"faults_total", "Statements on the database that failed.", counter, func(s *election.Stats) float64 { return float64(s.Faults) }},
}

func since(s *election.Stats) float64 {
	if s.State.Since.IsZero() {
		return 0
	}
	return float64(s.State.Since.UnixMilli()) / 1e3
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

type collector struct {
	source  Source
	figures []*prometheus.Desc // beside figures
	ready   *prometheus.Desc
}

// NewCollector returns a collector of e's figures. labels are put on every metric; they tell two Electors of one process apart, and may be
// nil. Nothing is read before the first scrape. It panics when e is nil.
func NewCollector(e Source, labels prometheus.Labels) prometheus.Collector {
	if e == nil {
		panic("electionprom: NewCollector of a nil Source")
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("nines", "election", name), help, nil, labels)
	}
	c := &collector{source: e, ready: desc("ready", "1 while this node knows who leads, or will in a moment.")}
	for _, f := range figures {
		c.figures = append(c.figures, desc(f.name, f.help))
	}
	return c
}

// Describe sends what Collect may send.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.figures {
		out <- d
	}
	out <- c.ready
}

// Collect reads the source once.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	stats := c.source.Stats()
	for i, f := range figures {
		out <- prometheus.MustNewConstMetric(c.figures[i], f.kind, f.value(&stats))
	}
	err := c.source.Check(context.Background())
	var w interface{ Warning() bool }
	out <- prometheus.MustNewConstMetric(c.ready, gauge, truth(err == nil || errors.As(err, &w) && w.Warning()))
}
