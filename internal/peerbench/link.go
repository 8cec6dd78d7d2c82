package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// The link: messages of 200 bytes from one process to another. Throughput is what arrives while the sender sends as fast as it is let;
// latency is from before the send to the handler, at 5,000 messages a second.
// The processor time of all processes beside it is steadier where other programs run.

const (
	linkSize = 200
	linkRate = 5000
)

// linkJob is the argument of the roles of this file.
type linkJob struct {
	Addr   string        // of the server or the receiver
	Paced  bool          // latency instead of throughput
	Length time.Duration // of sending
}

// linkResult is what a receiver says.
type linkResult struct {
	Messages  uint64
	Seconds   float64 // from the first to the last
	Reordered uint64
	Lost      uint64
	P50, P99  float64 // microseconds
	CPU       float64 // nanoseconds a message, of all processes
}

// linkKinds are the contestants. A server is optional, the receiver is started before the sender.
var linkKinds = []string{"limit", "ours", "ours-keys", "nats", "memberlist"}

func linkRows(b *bench) ([]row, error) {
	got := map[string][]linkResult{} // by kind and mode
	for range b.rounds {
		for _, paced := range []bool{false, true} {
			for _, kind := range linkKinds {
				r, err := linkMeasure(kind, linkJob{Paced: paced, Length: b.length})
				if err != nil {
					return nil, fmt.Errorf("%s: %w", kind, err)
				}
				if r.Lost > 0 || r.Reordered > 0 {
					fmt.Fprintf(os.Stderr, "peerbench: link: %s lost %d and re-ordered %d of %d\n", kind, r.Lost, r.Reordered, r.Messages)
				}
				key := fmt.Sprint(kind, paced)
				got[key] = append(got[key], r)
			}
		}
	}
	pick := func(kind string, paced bool, of func(linkResult) float64) float64 {
		var xs []float64
		for _, r := range got[fmt.Sprint(kind, paced)] {
			xs = append(xs, of(r))
		}
		return median(xs)
	}
	line := func(name, unit, kind string, paced bool, of func(linkResult) float64) row {
		return row{
			Name: name, Unit: unit, Ours: pick(kind, paced, of), Limit: pick("limit", paced, of),
			Peers: map[string]float64{"nats": pick("nats", paced, of), "memberlist": pick("memberlist", paced, of)},
		}
	}
	rate := func(r linkResult) float64 { return float64(r.Messages) / r.Seconds }
	cpu := func(r linkResult) float64 { return r.CPU }
	p50 := func(r linkResult) float64 { return r.P50 }
	p99 := func(r linkResult) float64 { return r.P99 }
	rows := []row{
		line("link.throughput", "msg/s", "ours", false, rate),
		line("link.throughput.keys", "msg/s", "ours-keys", false, rate),
		line("link.cpu", "ns/msg", "ours", false, cpu),
		line("link.cpu.keys", "ns/msg", "ours-keys", false, cpu),
		line("link.latency.p50", "µs", "ours", true, p50),
		line("link.latency.p99", "µs", "ours", true, p99),
		line("link.latency.keys.p50", "µs", "ours-keys", true, p50),
		line("link.latency.keys.p99", "µs", "ours-keys", true, p99),
	}
	rows[0] = rows[0].atLeast(0.8, rows[0].Limit, "limit")
	rows[1] = rows[1].atLeast(1, rows[1].Peers["nats"], "nats (plain)")
	rows[2] = rows[2].atMost(1/0.8, rows[2].Limit, "limit")
	rows[3] = rows[3].atMost(1, rows[3].Peers["nats"], "nats (plain)")
	rows[4] = rows[4].atMost(1, rows[4].Peers["nats"], "nats")
	rows[5] = rows[5].atMost(1, rows[5].Peers["nats"], "nats")
	rows[6] = rows[6].atMost(1, rows[6].Peers["nats"], "nats (plain)")
	rows[7] = rows[7].atMost(1, rows[7].Peers["nats"], "nats (plain)")
	return rows, nil
}

func linkMeasure(kind string, job linkJob) (r linkResult, err error) {
	var children []*child
	defer func() { // after they have ended
		for _, c := range children {
			r.CPU += float64(c.cpu().Nanoseconds()) / float64(max(1, r.Messages))
		}
	}()
	if roles["link.server."+kind] != nil {
		server, err := start("link.server."+kind, job)
		if err != nil {
			return r, err
		}
		defer server.end()
		children = append(children, server)
		if err := server.hear(&job.Addr); err != nil {
			return r, err
		}
	}
	receiver, err := start("link.receiver."+kind, job)
	if err != nil {
		return r, err
	}
	defer receiver.end()
	children = append(children, receiver)
	if err := receiver.hear(&job.Addr); err != nil {
		return r, err
	}
	sender, err := start("link.sender."+kind, job)
	if err != nil {
		return r, err
	}
	defer sender.end()
	children = append(children, sender)
	err = receiver.hear(&r)
	return r, err
}

// A message is u64 number | u64 time of sending | filling; the last one has the number that follows and a time of 0.

// linkSend sends messages for the length of the job and then the last one. send must not keep its argument.
func linkSend(job linkJob, send func(b []byte) error) error {
	b := make([]byte, linkSize)
	n := uint64(0)
	began := time.Now()
	for ; ; n++ {
		now := time.Now()
		if job.Paced {
			due := began.Add(time.Duration(n) * time.Second / linkRate)
			if wait := due.Sub(now); wait > 0 {
				time.Sleep(wait)
				now = time.Now()
			}
		}
		if now.Sub(began) > job.Length {
			break
		}
		binary.BigEndian.PutUint64(b, n)
		binary.BigEndian.PutUint64(b[8:], uint64(now.UnixNano()))
		if err := send(b); err != nil {
			return err
		}
	}
	binary.BigEndian.PutUint64(b, n)
	binary.BigEndian.PutUint64(b[8:], 0)
	return send(b)
}

// linkMeter counts what a receiver gets.
type linkMeter struct {
	paced bool
	done  chan struct{}

	mu          sync.Mutex // memberlist calls from many goroutines
	n, next     uint64
	total       uint64
	ended       bool
	first, last time.Time
	reordered   uint64
	latencies   []float64
}

func newLinkMeter(job linkJob) *linkMeter {
	m := &linkMeter{paced: job.Paced, done: make(chan struct{})}
	if job.Paced {
		m.latencies = make([]float64, 0, int(job.Length/time.Second+2)*linkRate)
	}
	return m
}

// take counts one message.
func (m *linkMeter) take(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	number, sent := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	switch {
	case sent == 0:
		m.total, m.ended = number, true
		m.last = time.Now()
		if m.n < m.total { // of a peer that re-orders: what comes later counts
			time.AfterFunc(time.Second, m.finish)
			return
		}
	default:
		if m.n == 0 {
			m.first = time.Now()
		}
		if number < m.next {
			m.reordered++
		} else {
			m.next = number + 1
		}
		if m.n++; m.paced {
			m.latencies = append(m.latencies, float64(time.Now().UnixNano()-int64(sent))/1e3)
		}
	}
	if m.ended && m.n == m.total {
		m.last = time.Now()
		m.finishLocked()
	}
}

func (m *linkMeter) finish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finishLocked()
}

func (m *linkMeter) finishLocked() {
	select {
	case <-m.done:
	default:
		close(m.done)
	}
}

// result waits for the end.
func (m *linkMeter) result() linkResult {
	<-m.done
	m.mu.Lock()
	defer m.mu.Unlock()
	r := linkResult{Messages: m.n, Seconds: m.last.Sub(m.first).Seconds(), Reordered: m.reordered, Lost: m.total - m.n}
	if len(m.latencies) > 0 {
		slices.Sort(m.latencies)
		r.P50 = m.latencies[len(m.latencies)/2]
		r.P99 = m.latencies[len(m.latencies)*99/100]
	}
	return r
}

// linkRole registers a role that takes a linkJob.
func linkRole(name string, fn func(job linkJob, say func(any)) error) {
	roles[name] = func(arg string, say func(any)) error {
		var job linkJob
		if err := json.Unmarshal([]byte(arg), &job); err != nil {
			return err
		}
		return fn(job, say)
	}
}

// rest keeps a child alive until its parent ends it.
func rest() { select {} }
