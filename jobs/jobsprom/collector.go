package jobsprom

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/jobs"
)

// Source is what a collector reads at each scrape. *jobs.Runner satisfies it.
type Source interface {
	// Stats returns the figures since the beginning, or now.
	Stats() jobs.Stats
}

// figure is one number of jobs.Stats.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	value      func(s *jobs.Stats) float64
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var figures = []figure{
	{"oldest_wait_seconds", "How long the oldest job that could run at once has waited for a worker; grows when there is too little room.", gauge, func(s *jobs.Stats) float64 { return s.OldestWait.Seconds() }},
	{"nodes", "Processes that run a Runner on this database.", gauge, func(s *jobs.Stats) float64 { return float64(len(s.Nodes)) }},
	{"schedulers", "Processes that insert the slots of schedules now; 0 means that no recurring job starts.", gauge, func(s *jobs.Stats) float64 {
		return float64(count(s.Nodes, func(n jobs.NodeInfo) bool { return n.Scheduling }))
	}},
	{"working_nodes", "Processes that have workers and take jobs.", gauge, func(s *jobs.Stats) float64 {
		return float64(count(s.Nodes, func(n jobs.NodeInfo) bool { return n.Working }))
	}},
	{"scheduling", "1 while this process inserts the slots of schedules.", gauge, func(s *jobs.Stats) float64 { return truth(s.Scheduling) }},
	{"read_timestamp_seconds", "When the figures of the whole cluster were read from the database, in seconds since the epoch; stands still while it does not answer.", gauge, func(s *jobs.Stats) float64 { return seconds(s.AsOf) }},
	{"slots_total", "Slots of schedules that this process inserted to be run.", counter, func(s *jobs.Stats) float64 { return float64(s.Slots) }},
	{"rescued_total", "Jobs that this process took from nodes that were gone; rises after a crash.", counter, func(s *jobs.Stats) float64 { return float64(s.Rescued) }},
	{"faults_total", "Statements that the database refused or did not answer.", counter, func(s *jobs.Stats) float64 { return float64(s.Faults) }},
}

// outcomes are all values of the label outcome.
var outcomes = []struct {
	name  string
	value func(s *jobs.Stats) int64
}{
	{"succeeded", func(s *jobs.Stats) int64 { return s.Succeeded }},
	{"warning", func(s *jobs.Stats) int64 { return s.Warned }},
	{"failed", func(s *jobs.Stats) int64 { return s.Failed }},
	{"retryable", func(s *jobs.Stats) int64 { return s.Retried }},
	{"cancelled", func(s *jobs.Stats) int64 { return s.Cancelled }},
	{"skipped", func(s *jobs.Stats) int64 { return s.Skipped }},
	{"discarded", func(s *jobs.Stats) int64 { return s.Discarded }},
	{"snoozed", func(s *jobs.Stats) int64 { return s.Snoozed }},
	{"given_back", func(s *jobs.Stats) int64 { return s.GivenBack }},
	{"taken", func(s *jobs.Stats) int64 { return s.Taken }},
}

var states = []string{"pending", "running", "retryable"}

type collector struct {
	source  Source
	figures []*prometheus.Desc // beside figures
	live, attempts, backlog, unserved, room, running,
	kindAttempts, kindFailures, kindRun, kindDelay,
	next, last, paused *prometheus.Desc
}

// NewCollector returns a collector of r's figures. labels are put on every metric; they tell two Runners of one process apart, and may be nil. Nothing is
// read before the first scrape. It panics when r is nil.
func NewCollector(r Source, labels prometheus.Labels) prometheus.Collector {
	if r == nil {
		panic("jobsprom: NewCollector of a nil Source")
	}
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("nines", "jobs", name), help, variable, labels)
	}
	c := &collector{
		source:       r,
		live:         desc("live_jobs", "Jobs of the whole cluster that have not finished, by state, counted to 10,000 of each.", "state"),
		attempts:     desc("attempts_total", "Attempts in this process that have ended, by what they came to; taken ones were another node's by then.", "outcome"),
		backlog:      desc("backlog_jobs", "Jobs of the whole cluster that could run at once if there were room, by queue, counted to 10,000 in all.", "queue"),
		unserved:     desc("unserved_jobs", "Jobs that could run at once and that no node takes: a worker is missing, or nobody serves the queue.", "kind", "queue"),
		room:         desc("room_jobs", "How many more jobs of the queue this process would take; 0 for long means that it is the bottleneck.", "queue"),
		running:      desc("running_jobs", "Jobs that run in this process, by kind.", "kind"),
		kindAttempts: desc("kind_attempts_total", "Attempts at jobs of the kind in this process that have ended, however.", "kind"),
		kindFailures: desc("kind_failures_total", "Jobs of the kind that failed for good in this process; each is one that people should look at.", "kind"),
		kindRun:      desc("kind_run_seconds_total", "Time that attempts at jobs of the kind took in this process; over its attempts, the mean duration.", "kind"),
		kindDelay:    desc("kind_start_delay_seconds_total", "Time for which jobs of the kind could have run before this process started them; over its attempts, the mean delay.", "kind"),
		next:         desc("schedule_next_timestamp_seconds", "When the next slot is due, in seconds since the epoch; long in the past means that it is not scheduled, 0 never again.", "schedule"),
		last:         desc("schedule_last_timestamp_seconds", "The newest slot that was inserted, in seconds since the epoch; 0 for none.", "schedule"),
		paused:       desc("schedule_paused", "1 while the schedule is paused.", "schedule"),
	}
	for _, f := range figures {
		c.figures = append(c.figures, desc(f.name, f.help))
	}
	return c
}

func (c *collector) descs() []*prometheus.Desc {
	return append([]*prometheus.Desc{
		c.live, c.attempts, c.backlog, c.unserved, c.room, c.running, c.kindAttempts, c.kindFailures, c.kindRun, c.kindDelay, c.next, c.last, c.paused,
	}, c.figures...)
}

// Describe sends what Collect may send.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs() {
		out <- d
	}
}

// Collect reads the source once.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Stats()
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for i, f := range figures {
		send(c.figures[i], f.kind, f.value(&s))
	}
	for _, state := range states {
		send(c.live, gauge, float64(s.Live[state]), state)
	}
	for _, o := range outcomes {
		send(c.attempts, counter, float64(o.value(&s)), o.name)
	}
	for queue, n := range s.Room { // every queue of this process has a backlog, of 0 too
		send(c.room, gauge, float64(n), queue)
		if _, ok := s.Backlog[queue]; !ok {
			send(c.backlog, gauge, 0, queue)
		}
	}
	for queue, n := range s.Backlog {
		send(c.backlog, gauge, float64(n), queue)
	}
	for key, n := range s.Unserved {
		kind, queue := split(key)
		send(c.unserved, gauge, float64(n), kind, queue)
	}
	running := map[string]float64{}
	for _, r := range s.Running {
		running[r.Kind]++
	}
	for kind, k := range s.Kinds {
		send(c.running, gauge, running[kind], kind)
		send(c.kindAttempts, counter, float64(k.Attempts), kind)
		send(c.kindFailures, counter, float64(k.Failed), kind)
		send(c.kindRun, counter, k.RunTime.Seconds(), kind)
		send(c.kindDelay, counter, k.StartDelay.Seconds(), kind)
	}
	for _, r := range s.Schedules {
		send(c.next, gauge, seconds(r.Next), r.Name)
		send(c.last, gauge, seconds(r.Last), r.Name)
		send(c.paused, gauge, truth(r.Paused), r.Name)
	}
}

// split takes a key of Stats.Unserved apart: a queue's name may have a slash, as a kind's; the last one is taken.
func split(key string) (kind, queue string) {
	i := strings.LastIndexByte(key, '/')
	return key[:max(i, 0)], key[i+1:]
}

func count[T any](all []T, is func(T) bool) (n int) {
	for _, v := range all {
		if is(v) {
			n++
		}
	}
	return n
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
