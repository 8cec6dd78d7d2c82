package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	minHomes     = 3               // homes of a busy topic that the script kills at least
	minLeaders   = 1               // leaders that it kills at least
	takeOver     = 5 * time.Second // a take-over with its re-replication may last this long
	between      = time.Second     // of undisturbed load between two kills
	overtime     = 60 * time.Second
	startTimeout = 20 * time.Second
)

// verdict is the last line of output. Its field order is part of the contract.
type verdict struct {
	Published     int  `json:"published"`
	Acknowledged  int  `json:"acknowledged"`
	Delivered     int  `json:"delivered"`
	Lost          int  `json:"lost"`
	Duplicates    int  `json:"duplicates"`
	Disordered    int  `json:"disordered"`
	GapsReported  int  `json:"gaps_reported"`
	HomesKilled   int  `json:"homes_killed"`
	LeadersKilled int  `json:"leaders_killed"`
	LeaderChanges int  `json:"leader_changes"`
	Failover      p50m `json:"failover_ms"`
	Reconnect     p5p9 `json:"reconnect_ms"`
	OK            bool `json:"ok"`
}

type p50m struct {
	P50 float64 `json:"p50"`
	Max float64 `json:"max"`
}

type p5p9 struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// script kills nodes under load.
type script struct {
	c         *demoCluster
	load      *load
	v         verdict
	leader    string
	failovers []time.Duration
	victims   int
}

// scripted runs the demo without a person: a load, kills, a verdict.
func scripted(ctx context.Context, o options, l loadOptions) (err error) {
	c, err := launch(ctx, o)
	if err != nil {
		return err
	}
	s := &script{c: c}
	err = s.run(ctx, l)
	if err != nil || !s.v.OK {
		c.temp = false // the logs are worth reading
		fmt.Println("logs and database are kept in", c.dir)
	}
	err = errors.Join(err, c.close())
	line, jsonErr := json.Marshal(s.v)
	if jsonErr != nil {
		return errors.Join(err, jsonErr)
	}
	fmt.Println(string(line))
	if err == nil && !s.v.OK {
		err = errors.New("the verdict is not ok")
	}
	return err
}

func (s *script) run(ctx context.Context, l loadOptions) error {
	if err := s.c.waitSettled(ctx, startTimeout); err != nil {
		return err
	}
	s.noteLeader(ctx)
	load, err := startLoad(ctx, s.c.url, l)
	if err != nil {
		return err
	}
	defer load.close()
	s.load = load
	fmt.Printf("%d nodes, %d rooms, %d sockets, %d messages/s for %s\n", len(s.c.nodes), l.rooms, l.sockets, l.rate, l.duration)
	end := time.Now().Add(l.duration)
	for time.Now().Before(end) || s.v.HomesKilled < minHomes || s.v.LeadersKilled < minLeaders {
		if time.Now().After(end.Add(overtime)) {
			return fmt.Errorf("only %d homes and %d leaders were killed within %s", s.v.HomesKilled, s.v.LeadersKilled, l.duration+overtime)
		}
		if err := s.round(ctx); err != nil {
			return err
		}
	}
	err = load.finish(ctx)
	s.judge()
	return err
}

// round kills one node and brings the cluster back to full strength.
func (s *script) round(ctx context.Context) error {
	if err := wait(ctx, between); err != nil {
		return err
	}
	topics := s.load.topics()
	victim, id, homes, leads, err := s.choose(ctx, topics)
	if err != nil {
		return err
	}
	killed := time.Now()
	if err := victim.kill(); err != nil {
		return err
	}
	first := s.load.firstAck(homes, time.Now())
	if len(homes) > 0 {
		s.v.HomesKilled++
	}
	if leads {
		s.v.LeadersKilled++
	}
	if len(homes) > 0 {
		select {
		case at := <-first:
			s.failovers = append(s.failovers, at.Sub(killed))
		case <-time.After(takeOver):
			return fmt.Errorf("no publish to a topic of %s (%s) was acknowledged within %s after its death", victim.name, id, takeOver)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.c.waitSettled(ctx, takeOver-time.Since(killed)); err != nil {
		return fmt.Errorf("after the death of %s: %w", victim.name, err)
	}
	settled := time.Since(killed)
	s.noteLeader(ctx)
	what := fmt.Sprintf("home of %d of %d rooms", len(homes), len(topics))
	if leads {
		what += " and leader"
	}
	fmt.Printf("killed %s, %s: topics taken over and copied again after %s\n", victim.name, what, settled.Round(time.Millisecond))
	if err := victim.start(ctx); err != nil {
		return err
	}
	if err := s.c.waitSettled(ctx, startTimeout); err != nil {
		return fmt.Errorf("after the restart of %s: %w", victim.name, err)
	}
	s.noteLeader(ctx)
	return nil
}

// choose picks the next victim: the leader in every second round until one was killed, else the home of one room after the other.
func (s *script) choose(ctx context.Context, topics []string) (victim *process, id string, homes []string, leads bool, err error) {
	views := s.c.views(ctx, topics...)
	topic := topics[s.victims%len(topics)]
	leader := s.v.LeadersKilled < minLeaders && s.victims%2 == 1
	s.victims++
	for p, v := range views {
		if leader && v.Leader == v.ID || !leader && v.Home[topic] == v.ID {
			victim, id, leads = p, v.ID, v.Leader == v.ID
			for _, t := range topics {
				if v.Home[t] == v.ID {
					homes = append(homes, t)
				}
			}
			slices.Sort(homes)
			return victim, id, homes, leads, nil
		}
	}
	return nil, "", nil, false, fmt.Errorf("no running node says that it is the home of %s, or that it leads", topic)
}

// noteLeader counts a change of the leader since the last call. The nodes are settled: they agree on one.
func (s *script) noteLeader(ctx context.Context) {
	for _, v := range s.c.views(ctx) {
		if v.Leader == "" || v.Leader == s.leader {
			continue
		}
		if s.leader != "" {
			s.v.LeaderChanges++
		}
		s.leader = v.Leader
		return
	}
}

func (s *script) judge() {
	counts := s.load.tally.Count()
	for _, e := range counts.Examples {
		fmt.Println("fault:", e)
	}
	v := &s.v
	v.Published, v.Acknowledged, v.Delivered = counts.Published, counts.Acknowledged, counts.Delivered
	v.Lost, v.Duplicates, v.Disordered = counts.Lost, counts.Duplicates, counts.Disordered
	v.GapsReported = s.load.gaps()
	v.Failover = p50m{P50: quantile(s.failovers, 0.5), Max: quantile(s.failovers, 1)}
	reconnects := s.load.reconnects()
	v.Reconnect = p5p9{P50: quantile(reconnects, 0.5), P99: quantile(reconnects, 0.99)}
	v.OK = v.Published > 0 && v.Acknowledged == v.Published && v.Delivered > 0 &&
		v.Lost == 0 && v.Duplicates == 0 && v.Disordered == 0 && v.GapsReported == 0 &&
		v.HomesKilled >= minHomes && v.LeadersKilled >= minLeaders
}

// quantile is in milliseconds, by the nearest rank.
func quantile(ds []time.Duration, q float64) float64 {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	i := min(int(q*float64(len(ds))), len(ds)-1)
	return float64(ds[i].Microseconds()) / 1000
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
