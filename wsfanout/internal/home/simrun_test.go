package home_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/home"
)

// simulate runs one configuration with one seed to its end and returns what went wrong.
func simulate(seed uint64, cfg simConfig) (*sim, error) {
	s := newSim(seed, cfg)
	for range cfg.nodes {
		s.start(100 * time.Millisecond)
	}
	for _, p := range s.living() {
		for _, o := range s.living() {
			if p != o {
				s.sees(p, o.id, home.Alive)
			}
		}
	}
	for s.err == nil && !s.calm() && s.now < 30*time.Second {
		s.run(s.now + 100*time.Millisecond)
	}
	if s.err == nil && !s.calm() {
		s.fail("not settled at the start")
	}
	for i := range cfg.clients {
		c := &subscriber{
			name: fmt.Sprintf("c%d", i), topic: s.topics[i%len(s.topics)], shown: map[string]int{}, since: -1,
		}
		s.clients = append(s.clients, c)
		s.after(s.between(0, 2*time.Second), func() { s.connect(c) })
	}
	span := s.span()
	at := time.Duration(0)
	for i := range cfg.messages {
		if s.rng.IntN(3) == 0 {
			at = s.between(0, span) // else in the same burst
		} else {
			at += s.between(0, 300*time.Millisecond)
		}
		m := &message{id: fmt.Sprintf("m%d", i), topic: s.topics[s.rng.IntN(len(s.topics))]}
		s.after(at, func() {
			m.began = s.now
			s.messages = append(s.messages, m)
			s.publish(m)
		})
	}
	s.hops()
	if cfg.faults != nil {
		cfg.faults(s)
	}
	s.run(s.now + span + 5*time.Second)
	s.heal()
	s.run(s.now + 100*time.Second)
	s.rest()
	return s, s.err
}

// span is how long messages are published and faults happen.
func (s *sim) span() time.Duration {
	if s.cfg.span == 0 {
		return 30 * time.Second
	}
	return s.cfg.span
}

// rest checks what must be true when nothing more happens.
func (s *sim) rest() {
	if s.err != nil {
		return
	}
	ps := s.living()
	if !slices.ContainsFunc(ps, func(p *process) bool { return !s.leaving[p.id] }) {
		return // all that are left want to leave; clients find no place to rest
	}
	for _, id := range slices.Sorted(maps.Keys(s.leaving)) {
		if s.nodes[id] != nil {
			s.fail("%s has not left", id)
			return
		}
	}
	for i := range s.cfg.partitions {
		s.restPartition(i, ps)
	}
	for _, p := range ps {
		if !p.n.Settled() {
			s.fail("%s is not settled", p.id)
		}
	}
	if s.cfg.oneEpoch && s.epochs() != s.cfg.partitions {
		s.fail("%d epochs", s.epochs())
	}
	for _, m := range s.messages {
		if !m.acked {
			s.fail("%s was never acknowledged", m.id)
		}
	}
	for _, c := range s.clients {
		s.restClient(c)
	}
}

func (s *sim) restPartition(i int, ps []*process) {
	var homes []*process
	for _, p := range ps {
		st := p.n.State(i)
		if st.Role == "home" {
			homes = append(homes, p)
		} else if st.Role != "idle" {
			s.fail("%s is %s in partition %d", p.id, st.Role, i)
		}
	}
	if len(homes) != 1 {
		s.fail("partition %d has %d homes", i, len(homes))
		return
	}
	h := homes[0].n.State(i)
	if h.First != homes[0].id || h.MyReplica != h.Second {
		s.fail("partition %d: home %s replica %s, should be %s and %s", i, homes[0].id, h.MyReplica, h.First, h.Second)
	}
	for _, p := range ps {
		st := p.n.State(i)
		if st.Active != h.G || st.Replica != h.MyReplica || st.Promised != h.G {
			s.fail("%s: partition %d active %v promised %v, the home has %v", p.id, i, st.Active, st.Promised, h.G)
		}
		if st.Orphans > 0 {
			s.fail("%s: partition %d has orphans", p.id, i)
		}
		switch p.id {
		case homes[0].id:
		case h.MyReplica:
			if !st.HasCopy || st.Acc != h.G {
				s.fail("%s: partition %d is no replica", p.id, i)
				return
			}
			for name, l := range h.Topics {
				if len(l.Records) == 0 {
					continue
				}
				if l.Committed != l.Base.Offset+uint64(len(l.Records)) {
					s.fail("%s: %s is not committed", homes[0].id, name)
				}
				r := st.Topics[name]
				k := min(len(l.Records), len(r.Records)) // each has trimmed for itself
				if s.cfg.node.RingBytes == 0 && (s.cfg.node.HotBytes == 0 || s.cfg.noGap) {
					k = max(len(l.Records), len(r.Records))
				}
				if k > len(l.Records) || k > len(r.Records) || !slices.EqualFunc(l.Records[len(l.Records)-k:], r.Records[len(r.Records)-k:], func(a, b *home.Record) bool { return a.Position == b.Position && a.ID == b.ID }) {
					s.fail("%s: the replica %s differs in %s", homes[0].id, p.id, name)
				}
			}
		default:
			if st.HasCopy {
				s.fail("%s has a copy of partition %d outside the pair", p.id, i)
			}
		}
	}
	for _, c := range s.clients {
		if home.PartitionOf(c.topic, s.cfg.partitions) != i || c.node == "" {
			continue
		}
		l := h.Topics[c.topic]
		at := l.Base
		if k := len(l.Records); k > 0 {
			at = l.Records[k-1].Position
		}
		if at.Epoch.IsZero() {
			continue // no record yet
		}
		if c.cur.Pos != at {
			s.fail("client %s stands at %v, the log ends at %v", c.name, c.cur.Pos, at)
		}
	}
}

// restClient checks that every acknowledged message was seen, or a gap was reported after it was published.
func (s *sim) restClient(c *subscriber) {
	if c.node == "" || c.answers == 0 {
		s.fail("client %s was never answered", c.name)
		return
	}
	for _, m := range s.messages {
		if !m.acked || m.topic != c.topic || c.since < 0 || m.began <= c.since {
			continue
		}
		if _, ok := c.shown[m.id]; ok {
			continue
		}
		if c.reports > 0 && c.gapAt >= m.began {
			continue
		}
		if s.cfg.oneCopyMay && m.copies == 1 && len(s.crashed) > 0 {
			continue
		}
		_, h := s.crashed[m.home]
		_, r := s.crashed[m.replica]
		if s.cfg.pairMay && h && (r || m.replica == "") {
			continue
		}
		s.fail("client %s never saw %s, acknowledged at %v with %d copies, and was told no gap", c.name, m.id, m.at, m.copies)
	}
}

// epochs counts the epochs of all partitions' homes.
func (s *sim) epochs() int {
	n := 0
	for _, p := range s.living() {
		for i := range s.cfg.partitions {
			if st := p.n.State(i); st.Role == "home" {
				n += len(st.Lineage)
			}
		}
	}
	return n
}

func (s *sim) story() string { return strings.Join(s.trace, "\n") }
