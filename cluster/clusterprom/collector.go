package clusterprom

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/cluster"
)

// Source is what a collector reads at each scrape. *cluster.Node satisfies it.
type Source interface {
	// Stats returns the figures since the beginning, or now.
	Stats() cluster.Stats
	// Members returns every process that the node knows of.
	Members() []cluster.Member
	// Status returns how well the cluster is, as the node sees it.
	Status() cluster.Status
	// Check returns nil, a *cluster.CheckError, or cluster.ErrClosed.
	Check(ctx context.Context) error
}

// fates are all values of the label fate, so that a series does not vanish when its last member goes.
var fates = []string{cluster.FateAlive, cluster.FateSuspect, cluster.FateDraining, cluster.FateLeft, cluster.FateDead, cluster.FateFailed}

// kinds are all values of the label kind.
var kinds = []string{cluster.EventJoined, cluster.EventBack, cluster.EventUpdated, cluster.EventLeft, cluster.EventDead, cluster.EventFailed}

var levels = []cluster.Level{cluster.Green, cluster.Amber, cluster.Red}

// figure is one number of cluster.Stats.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	value      func(s *cluster.Stats) float64
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var figures = []figure{
	{"links", "Connections to peers that work now.", gauge, func(s *cluster.Stats) float64 { return float64(s.Links) }},
	{"gossip_health_score", "How much this process misses its own deadlines in gossip: 0 is well, 8 is the worst.", gauge, func(s *cluster.Stats) float64 { return float64(s.HealthScore) }},
	{"pauses_total", "Pauses of this process (stopped, or the machine slept) longer than the suspicion time.", counter, func(s *cluster.Stats) float64 { return float64(s.Pauses) }},
	{"messages_sent_total", "Messages and answers given to links.", counter, func(s *cluster.Stats) float64 { return float64(s.Sent) }},
	{"messages_received_total", "Messages and answers that links brought.", counter, func(s *cluster.Stats) float64 { return float64(s.Received) }},
	{"messages_handled_total", "Messages of peers given to a handler.", counter, func(s *cluster.Stats) float64 { return float64(s.Handled) }},
	{"messages_unhandled_total", "Messages of peers dropped because their topic has no handler here.", counter, func(s *cluster.Stats) float64 { return float64(s.Unhandled) }},
	{"messages_waiting", "Messages of peers that wait for a handler.", gauge, func(s *cluster.Stats) float64 { return float64(s.Waiting) }},
	{"link_sent_bytes_total", "Bytes of frames sent over links, repeats not counted.", counter, func(s *cluster.Stats) float64 { return float64(s.SentBytes) }},
	{"link_received_bytes_total", "Bytes of frames received over links, repeats not counted.", counter, func(s *cluster.Stats) float64 { return float64(s.ReceivedBytes) }},
	{"link_repeated_bytes_total", "Bytes of frames sent again after a reconnection.", counter, func(s *cluster.Stats) float64 { return float64(s.RepeatedBytes) }},
	{"link_retained_bytes", "Bytes that peers have not acknowledged yet: the queue to them.", gauge, func(s *cluster.Stats) float64 { return float64(s.Retained) }},
	{"link_backpressure_total", "Messages that were refused or had to wait because a peer's credit was used up.", counter, func(s *cluster.Stats) float64 { return float64(s.Backpressure) }},
	{"link_reconnections_total", "Connections to peers made again after one was lost.", counter, func(s *cluster.Stats) float64 { return float64(s.Reconnections) }},
	{"refused_total", "Connections and datagrams refused: forged, replayed, of another cluster or a foreign protocol.", counter, func(s *cluster.Stats) float64 { return float64(s.Refused) }},
	{"forged_datagrams_total", "Of refused_total, datagrams: forged, replayed, of another cluster, or noise.", counter, func(s *cluster.Stats) float64 { return float64(s.Forged) }},
	{"turned_away_total", "Connections dropped before they proved the key because there were too many.", counter, func(s *cluster.Stats) float64 { return float64(s.TurnedAway) }},
}

type collector struct {
	source  Source
	figures []*prometheus.Desc // beside figures
	members, events, level, findings, info, started, ready,
	peerUp, peerOffset, peerSince, peerRTT, peerSent, peerReceived, peerQueue *prometheus.Desc
}

// NewCollector returns a collector of n's figures. labels are put on every metric; they tell two Nodes of one process apart, and may be nil.
// Nothing is read before the first scrape. It panics when n is nil.
func NewCollector(n Source, labels prometheus.Labels) prometheus.Collector {
	if n == nil {
		panic("clusterprom: NewCollector of a nil Source")
	}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("nines", "cluster", name), help, variable, labels)
	}
	c := &collector{
		source:     n,
		members:    desc("members", "Processes known to this node, by their fate as it sees it; those that ended are kept 24 h.", "fate"),
		events:     desc("events_total", "What happened to other members, by kind.", "kind"),
		level:      desc("level", "1 for the level that this node gives the cluster, 0 for the others.", "level"),
		findings:   desc("findings", "What this node finds wrong now, by stable code and level.", "code", "level"),
		info:       desc("node_info", "1; what this node is.", "id", "name", "address", "version", "schema"),
		started:    desc("node_start_time_seconds", "When this process started, in seconds since the epoch."),
		ready:      desc("node_ready", "1 while nothing of what this node finds forbids it to serve."),
		peerUp:     desc("peer_up", "1 while the peer is a member (alive, suspect or draining) and linked to this node.", "peer", "address"),
		peerOffset: desc("peer_clock_offset_seconds", "The peer's clock minus this node's, measured over the link.", "peer", "address"),
		peerSince:  desc("peer_fate_since_timestamp_seconds", "When the peer came into its present fate, in seconds since the epoch.", "peer", "address", "fate"),

		peerRTT:      desc("peer_rtt_seconds", "Round trip of the link to the peer, the best of late.", "peer", "address"),
		peerSent:     desc("peer_sent_bytes_total", "Bytes of frames sent to the peer's present process, repeats not counted.", "peer", "address"),
		peerReceived: desc("peer_received_bytes_total", "Bytes of frames received from the peer's present process.", "peer", "address"),
		peerQueue:    desc("peer_retained_bytes", "Bytes that the peer has not acknowledged yet: the queue to it.", "peer", "address"),
	}
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
	for _, d := range []*prometheus.Desc{
		c.members, c.events, c.level, c.findings, c.info, c.started, c.ready,
		c.peerUp, c.peerOffset, c.peerSince, c.peerRTT, c.peerSent, c.peerReceived, c.peerQueue,
	} {
		out <- d
	}
}

// Collect reads the source once.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	stats := c.source.Stats()
	for i, f := range figures {
		out <- prometheus.MustNewConstMetric(c.figures[i], f.kind, f.value(&stats))
	}
	members := c.source.Members()
	c.collectMembers(out, &stats, members)
	for _, kind := range kinds {
		out <- prometheus.MustNewConstMetric(c.events, counter, float64(stats.Events[kind]), kind)
	}
	c.collectStatus(out, c.source.Status())
}

func (c *collector) collectMembers(out chan<- prometheus.Metric, stats *cluster.Stats, members []cluster.Member) {
	self := stats.ID
	links := map[string]cluster.PeerStats{}
	for _, p := range stats.Peers {
		links[p.ID] = p
	}
	send := func(d *prometheus.Desc, v float64, values ...string) {
		out <- prometheus.MustNewConstMetric(d, gauge, v, values...)
	}
	count := map[string]float64{}
	peers := map[[2]string]cluster.Member{} // a name and address comes again with each start: the youngest process of it counts
	for _, m := range members {
		count[string(m.State)]++
		if m.ID == self {
			send(c.info, 1, m.ID, m.Name, m.Addr, m.Version, strconv.Itoa(m.Schema))
			send(c.started, seconds(m.Started))
			continue
		}
		key := [2]string{cmp.Or(m.Name, "unknown"), m.Addr}
		if m.State != cluster.FateLeft && m.ID >= peers[key].ID {
			peers[key] = m
		}
	}
	for _, fate := range fates {
		send(c.members, count[fate], fate)
	}
	for key, m := range peers {
		here := m.State == cluster.FateAlive || m.State == cluster.FateSuspect || m.State == cluster.FateDraining
		send(c.peerUp, truth(here && m.Linked), key[0], key[1])
		send(c.peerSince, seconds(m.Since), key[0], key[1], string(m.State))
		if here {
			send(c.peerOffset, m.ClockOffset.Seconds(), key[0], key[1])
		}
		if p, ok := links[m.ID]; ok {
			send(c.peerRTT, p.RTT.Seconds(), key[0], key[1])
			send(c.peerQueue, float64(p.Retained), key[0], key[1])
			out <- prometheus.MustNewConstMetric(c.peerSent, counter, float64(p.SentBytes), key[0], key[1])
			out <- prometheus.MustNewConstMetric(c.peerReceived, counter, float64(p.ReceivedBytes), key[0], key[1])
		}
	}
}

func (c *collector) collectStatus(out chan<- prometheus.Metric, s cluster.Status) {
	send := func(d *prometheus.Desc, v float64, values ...string) {
		out <- prometheus.MustNewConstMetric(d, gauge, v, values...)
	}
	for _, l := range levels {
		send(c.level, truth(s.Level == l), l.String())
	}
	findings := map[[2]string]float64{}
	for _, r := range s.Reasons {
		findings[[2]string{r.Code, r.Level.String()}]++
	}
	for key, n := range findings {
		send(c.findings, n, key[0], key[1])
	}
	err := c.source.Check(context.Background())
	var w interface{ Warning() bool }
	send(c.ready, truth(err == nil || errors.As(err, &w) && w.Warning()))
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
