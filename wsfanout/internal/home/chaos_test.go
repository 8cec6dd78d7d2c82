package home_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/home"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed alone and print its story when it fails")
	simSeeds = flag.Int("sim.seeds", 0, "seeds for each configuration")
)

// configs are the stories that the simulator tells.
var configs = map[string]simConfig{
	"steady": {nodes: 3, partitions: 2, topics: 3, messages: 20, clients: 6, noGap: true, slowLinks: 0.05},
	"crashes": {
		nodes: 4, partitions: 1, topics: 2, messages: 30, clients: 5, noGap: true, slowLinks: 0.05,
		faults: func(s *sim) { s.sequence(3, func() { s.crashOrRestart() }) },
	},
	"pauses": {
		nodes: 4, partitions: 1, topics: 2, messages: 30, clients: 5, noGap: true, slowLinks: 0.05, span: 60 * time.Second,
		faults: func(s *sim) {
			s.sequence(3, func() { s.pause(s.pick(), s.between(2*time.Second, 8*time.Second)) })
		},
	},
	"moves": {
		nodes: 3, partitions: 2, topics: 3, messages: 30, clients: 5, noGap: true, slowLinks: 0.05,
		faults: func(s *sim) { s.anytime(4, func() { s.joinOrLeave() }) },
	},
	"observer": {
		nodes: 5, partitions: 1, topics: 2, messages: 30, clients: 5, noGap: true, slowLinks: 0.05,
		faults: func(s *sim) {
			liar := s.pick()
			s.anytime(6, func() {
				if o := s.pick(liar.id); o != nil && len(liar.alive) > 2 {
					s.falsely(liar, o, s.between(0, 8*time.Second))
				}
			})
		},
	},
	"removals": {
		nodes: 4, partitions: 1, topics: 2, messages: 30, clients: 6, slowLinks: 0.1, oneCopyMay: true, pairMay: true,
		faults: func(s *sim) {
			s.anytime(8, func() {
				o := s.pick()
				s.falsely(o, s.pick(o.id), s.between(0, 10*time.Second))
			})
			s.anytime(1, func() { s.crashOrRestart() })
		},
	},
	"splits": {
		nodes: 5, partitions: 1, topics: 2, messages: 40, clients: 6, slowLinks: 0.1, oneCopyMay: true, pairMay: true, span: 60 * time.Second,
		faults: func(s *sim) {
			s.anytime(4, func() { s.splitSome() })
		},
	},
	"chaos": {
		nodes: 4, partitions: 2, topics: 3, messages: 40, clients: 6, slowLinks: 0.15, oneCopyMay: true, pairMay: true, span: 60 * time.Second,
		faults: func(s *sim) {
			s.anytime(10, func() { s.anything() })
		},
	},
	"trim": {
		nodes: 4, partitions: 1, topics: 4, messages: 80, clients: 8, slowLinks: 0.1, oneCopyMay: true, pairMay: true, span: 120 * time.Second,
		// IdleAge is longer than any split lasts: what both sides have forgotten cannot be reported.
		node: home.Config{RingBytes: 500, RingAge: 5 * time.Second, IdleAge: 20 * time.Second, Linger: time.Second},
		faults: func(s *sim) {
			s.anytime(10, func() { s.anything() })
			s.hops()
		},
	},
	"majority": { // MinMembers: whatever was acknowledged is seen or reported, without exception
		nodes: 5, partitions: 1, topics: 2, messages: 40, clients: 6, slowLinks: 0.1, span: 40 * time.Second,
		node: home.Config{MinMembers: 3},
		faults: func(s *sim) {
			s.anytime(4, func() { s.splitSome() })
			s.anytime(4, func() {
				o := s.pick()
				s.falsely(o, s.pick(o.id), s.between(0, 10*time.Second))
			})
			s.anytime(2, func() { s.crash(s.pick()) })
		},
	},
	"twocopies": { // MinCopies, and one crash
		nodes: 4, partitions: 1, topics: 2, messages: 40, clients: 6, slowLinks: 0.1, span: 40 * time.Second,
		node: home.Config{MinCopies: 2},
		faults: func(s *sim) {
			s.anytime(4, func() { s.splitSome() })
			s.anytime(4, func() {
				o := s.pick()
				s.falsely(o, s.pick(o.id), s.between(0, 10*time.Second))
			})
			s.anytime(1, func() { s.crash(s.pick()) })
		},
	},
	"seven": {
		nodes: 7, partitions: 2, topics: 3, messages: 40, clients: 8, slowLinks: 0.1, oneCopyMay: true, pairMay: true, span: 40 * time.Second,
		faults: func(s *sim) {
			s.anytime(12, func() { s.anything() })
		},
	},
	"storm": {
		nodes: 4, partitions: 1, topics: 1, messages: 25, clients: 4, slowLinks: 0.5, oneCopyMay: true, pairMay: true, span: 15 * time.Second,
		faults: func(s *sim) {
			s.anytime(14, func() {
				o := s.pick()
				s.falsely(o, s.pick(o.id), s.between(0, 3*time.Second))
			})
			s.hops()
			s.hops()
		},
	},
	"flap": {
		nodes: 3, partitions: 1, topics: 1, messages: 30, clients: 4, slowLinks: 0.3, oneCopyMay: true, pairMay: true, noGap: true, span: 25 * time.Second,
		faults: func(s *sim) {
			s.anytime(5, func() { s.removeHome() })
			s.hops()
			s.hops()
		},
	},
	"joincrash": {
		nodes: 4, partitions: 1, topics: 2, messages: 20, clients: 5, noGap: true, slowLinks: 0.2, span: 12 * time.Second,
		faults: func(s *sim) {
			s.after(s.between(0, 4*time.Second), func() { s.join() })
			s.after(s.between(0, 6*time.Second), func() { s.crash(s.pick()) })
		},
	},
	"leavejoin": {
		nodes: 3, partitions: 1, topics: 2, messages: 20, clients: 5, noGap: true, slowLinks: 0.2, span: 12 * time.Second,
		faults: func(s *sim) {
			var j *process
			s.after(s.between(0, 2*time.Second), func() { j = s.join() })
			s.after(s.between(0, 3*time.Second), func() { s.leave(s.oldest()) })
			s.after(s.between(3*time.Second, 9*time.Second), func() {
				if !j.stopped && len(s.leaving) == 0 || s.nodes["A"] == nil {
					s.crash(j)
				}
			})
		},
	},
	"oneepoch": {
		nodes: 3, partitions: 1, topics: 2, messages: 20, clients: 5, noGap: true, oneEpoch: true, slowLinks: 0.2, span: 40 * time.Second,
		faults: func(s *sim) { s.sequence(4, func() { s.joinOrLeave() }) },
	},
	"backfill": { // a move takes two or three records along; the others are fetched
		nodes: 4, partitions: 3, topics: 3, messages: 60, clients: 9, noGap: true, slowLinks: 0.05, span: 40 * time.Second,
		node: home.Config{HotBytes: 250, Moves: 1, Hold: time.Minute},
		faults: func(s *sim) {
			s.sequence(5, func() {
				switch s.rng.IntN(3) {
				case 0:
					s.crashOrRestart()
				case 1:
					s.joinOrLeave()
				default:
					s.pause(s.pick(), s.between(2*time.Second, 8*time.Second))
				}
			})
			s.hops()
		},
	},
	"backfillchaos": {
		nodes: 4, partitions: 2, topics: 3, messages: 60, clients: 6, slowLinks: 0.15, oneCopyMay: true, pairMay: true, span: 60 * time.Second,
		node: home.Config{HotBytes: 250, Moves: 1},
		faults: func(s *sim) {
			s.anytime(10, func() { s.anything() })
			s.hops()
		},
	},
	"pair": {
		nodes: 2, partitions: 1, topics: 2, messages: 25, clients: 4, slowLinks: 0.1, oneCopyMay: true, pairMay: true,
		faults: func(s *sim) {
			s.anytime(2, func() { s.splitSome() })
			s.anytime(1, func() { s.joinOrLeave() })
		},
	},
}

// sequence runs a fault several times, each when the one before has been dealt with.
func (s *sim) sequence(n int, f func()) {
	if n == 0 {
		return
	}
	s.after(s.between(0, 4*time.Second), func() {
		s.whenCalm(func() {
			if s.quiet {
				return
			}
			f()
			s.after(s.between(0, time.Second), func() { s.sequence(n-1, f) })
		})
	})
}

// anytime runs a fault several times, whenever.
func (s *sim) anytime(n int, f func()) {
	for range n {
		s.after(s.between(0, s.span()), func() {
			if !s.quiet {
				f()
			}
		})
	}
}

// hops lets clients move about.
func (s *sim) hops() {
	for _, c := range s.clients {
		for range s.rng.IntN(3) {
			s.after(s.between(0, s.span()), func() {
				if c.node != "" {
					s.hop(c)
				}
			})
		}
	}
}

func (s *sim) crashOrRestart() {
	if len(s.living()) > 2 {
		s.crash(s.pick())
	}
	if s.rng.IntN(2) == 0 {
		s.after(s.between(0, 4*time.Second), func() { s.join() })
	}
}

func (s *sim) joinOrLeave() {
	if s.rng.IntN(2) == 0 || len(s.living())-len(s.leaving) < 2 {
		s.join()
		return
	}
	if p := s.pick(); p != nil {
		s.leave(p)
	}
}

// removeHome lets all others take the home of the first partition for failed for a while: that is a pause of it.
func (s *sim) removeHome() {
	if !s.calm() {
		return
	}
	for _, p := range s.living() {
		if p.n.State(0).Role != "home" {
			continue
		}
		back := s.between(0, 4*time.Second)
		for _, o := range s.living() {
			if o != p {
				s.after(s.between(0, time.Second), func() { s.falsely(o, p, back+s.between(0, time.Second)) })
			}
		}
		return
	}
}

func (s *sim) oldest() *process { return s.living()[0] }

func (s *sim) splitSome() {
	side := map[string]bool{}
	for _, p := range s.living() {
		side[p.id] = s.rng.IntN(2) == 0
	}
	s.split(func(id string) bool { return side[id] }, s.rng.IntN(3) == 0, s.between(time.Second, 12*time.Second))
}

func (s *sim) anything() {
	switch s.rng.IntN(7) {
	case 0:
		s.crashOrRestart()
	case 1:
		s.join()
	case 2:
		if len(s.living()) > 2 {
			s.leave(s.pick())
		}
	case 3:
		s.pause(s.pick(), s.between(0, 8*time.Second))
	case 4:
		s.splitSome()
	default:
		o := s.pick()
		if p := s.pick(o.id); p != nil {
			s.falsely(o, p, s.between(0, 10*time.Second))
		}
	}
}

func seeds(def int) int {
	if *simSeeds > 0 {
		return *simSeeds
	}
	if os.Getenv("NINES_CHAOS") != "" {
		return def * 30
	}
	return def
}

func TestSimulation(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := uint64(1), uint64(seeds(10))
			if *simSeed > 0 {
				from, to, cfg.verbose = *simSeed, *simSeed, true
			}
			for seed := from; seed <= to; seed++ {
				s, err := simulate(seed, cfg)
				if err != nil && cfg.verbose {
					t.Log("\n" + s.story())
				}
				require.NoError(t, err, "replay with -run TestSimulation/%s -sim.seed=%d", name, seed)
			}
		})
	}
}

func TestSameSeedSameStory(t *testing.T) {
	cfg := configs["chaos"]
	cfg.verbose = true
	a, _ := simulate(7, cfg)
	b, _ := simulate(7, cfg)
	require.Equal(t, a.story(), b.story())
}
