package wsfanoutprom

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/wsfanout"
)

// Source is what a collector reads at each scrape. *wsfanout.Hub satisfies it.
type Source interface {
	// Stats returns the figures since the beginning, or now.
	Stats() wsfanout.Stats
	// Check returns nil while the hub serves; an error that is a Warning counts as serving.
	Check(ctx context.Context) error
}

// figure is one number of wsfanout.Stats.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	value      func(s *wsfanout.Stats) float64
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var figures = []figure{
	{"settled", "1 while take-over and copies are complete, as far as this node is concerned: the next failure may come.", gauge, func(s *wsfanout.Stats) float64 { return truth(s.Settled) }},
	{"homes", "Partitions, of 1,024, that this node sequences.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Homes) }},
	{"homes_without_copy", "Of the partitions that this node sequences, those without a second copy; above 0 for more than a moment with several nodes is a risk.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Solo) }},
	{"partitions_without_home", "Partitions that nobody sequences, as far as this node knows; above 0 for more than some seconds nobody can publish to them.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Orphans) }},
	{"connections", "Open sockets.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Conns) }},
	{"topics", "Topics with subscribers on this node.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Topics) }},
	{"users", "Users with sockets on this node.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Users) }},
	{"publishing", "Publishes that wait for their acknowledgement; one that grows says that a home is slow or out of reach.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.Publishing) }},
	{"ring_bytes", "Bytes of messages held for clients that come back.", gauge, func(s *wsfanout.Stats) float64 { return float64(s.RingBytes) }},
	{"published_total", "Publishes on this node.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Published) }},
	{"acknowledged_total", "Publishes on this node that were acknowledged.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Acked) }},
	{"delivered_total", "Messages queued for sockets.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Delivered) }},
	{"gaps_total", "Reports to a client that messages are missing; more than after a partition or for slow clients deserves a look.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Gaps) }},
	{"behind_total", "Sockets closed with 4008 because they read too slowly.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Behind) }},
	{"conflated_total", "Messages left out for slow sockets because a newer one with their key waited as well.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Conflated) }},
	{"ephemeral_dropped_total", "Ephemeral messages that a socket had no room for.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Dropped) }},
	{"compressed_frames_total", "Frames compressed, each once for all sockets.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Compressed) }},
	{"refused_total", "Sockets refused because of a limit, or because the hub did not serve.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Refused) }},
	{"takeovers_total", "Partitions that this node has taken over.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Terms) }},
	{"epochs_total", "Take-overs that began a new epoch.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Epochs) }},
	{"repairs_total", "Subscriptions renewed because a message of a peer did not follow; clients notice nothing.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Repairs) }},
	{"home_requests_total", "Subscriptions and questions of this node to the homes of topics.", counter, func(s *wsfanout.Stats) float64 { return float64(s.Asked) }},
}

type collector struct {
	source         Source
	figures        []*prometheus.Desc
	answers, ready *prometheus.Desc
}

// NewCollector returns a collector of the hub's figures. labels are put on every metric; they tell two Hubs of one process apart, and may be nil.
// Nothing is read before the first scrape. It panics when h is nil.
func NewCollector(h Source, labels prometheus.Labels) prometheus.Collector {
	if h == nil {
		panic("wsfanoutprom: NewCollector of a nil Source")
	}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("nines", "wsfanout", name), help, variable, labels)
	}
	c := &collector{
		source:  h,
		answers: desc("subscriptions_total", "Answers to subscriptions: begun anew, or gone on without a hole. Those with a hole are in gaps_total.", "answer"),
		ready:   desc("ready", "1 while the hub serves its part."),
	}
	for _, f := range figures {
		c.figures = append(c.figures, desc(f.name, f.help))
	}
	return c
}

// Describe sends what Collect may send.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{c.answers, c.ready}, c.figures...) {
		out <- d
	}
}

// Collect reads the source once.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	stats := c.source.Stats()
	for i, f := range figures {
		out <- prometheus.MustNewConstMetric(c.figures[i], f.kind, f.value(&stats))
	}
	out <- prometheus.MustNewConstMetric(c.answers, counter, float64(stats.Fresh), "fresh")
	out <- prometheus.MustNewConstMetric(c.answers, counter, float64(stats.Resumed), "resumed")
	err := c.source.Check(context.Background())
	var w interface{ Warning() bool }
	out <- prometheus.MustNewConstMetric(c.ready, gauge, truth(err == nil || errors.As(err, &w) && w.Warning()))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
