package demo_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/demo"
)

// The environment of the chaos test: NINES_CHAOS is how long it goes on with new seeds (1 is ten minutes), NINES_CHAOS_SEED replays one.
const (
	chaosLong = "NINES_CHAOS"
	chaosSeed = "NINES_CHAOS_SEED"
)

// disturbance is one fault: it begins, and is over some time later.
type disturbance struct {
	begin, last time.Duration
	key         string // k kill, z pause, p cut, t stop
	node        int    // from 1
}

func (d disturbance) String() string {
	return fmt.Sprintf("%s%d at %s for %s", d.key, d.node, d.begin.Round(time.Millisecond), d.last.Round(time.Millisecond))
}

// plan is what a seed stands for.
type plan struct {
	nodes  int
	faults []disturbance
	single bool // the next fault waits until nothing is left of the one before, and no gap may be reported
}

// draw makes the plan of a seed. Every third is of single faults. Two faults overlap at most, as the third copy of everything is nowhere.
func draw(seed uint64, faults int) plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := plan{nodes: 3 + 2*int(seed%2), single: seed%3 == 0}
	between := func(low, high float64) time.Duration {
		return time.Duration((low + rng.Float64()*(high-low)) * float64(time.Second))
	}
	now, overlapped := between(0.5, 1.5), false
	for range faults {
		d := disturbance{begin: now, node: 1 + rng.IntN(p.nodes), key: []string{"k", "z", "p", "t"}[rng.IntN(4)]}
		if p.single && d.key == "p" {
			d.key = "z"
		}
		switch d.key {
		case "z":
			d.last = between(0.3, 8)
		case "p":
			d.last = between(0.3, 10)
		default:
			d.last = between(0, 3)
		}
		p.faults = append(p.faults, d)
		if overlapped = !overlapped && rng.Float64() < 0.5; overlapped {
			now += time.Duration(rng.Float64() * float64(d.last))
			continue
		}
		end := time.Duration(0)
		for _, f := range p.faults {
			end = max(end, f.begin+f.last)
		}
		now = end + between(0.2, 3)
	}
	return p
}

// Processes are killed, paused, cut off and stopped at random, sometimes two at once, while people publish and read: nothing happens silently.
func TestChaos(t *testing.T) {
	if text := os.Getenv(chaosSeed); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, chaosSeed)
		chaos(t, seed, cmp.Or(os.Getenv(chaosLong), "") != "")
		return
	}
	begun := time.Now()
	if text := os.Getenv(chaosLong); text != "" {
		long, err := time.ParseDuration(text)
		if err != nil {
			long = 10 * time.Minute
		}
		for time.Since(begun) < long && !t.Failed() {
			chaos(t, rand.Uint64N(1e9), true)
		}
		return
	}
	seed := rand.Uint64N(1e9)
	chaos(t, seed-seed%6+1, false) // five nodes, faults overlap
	chaos(t, seed-seed%6+2, false) // three
}

// chaos is one round.
func chaos(t *testing.T, seed uint64, long bool) {
	t.Run(fmt.Sprint(seed), func(t *testing.T) {
		faults := 3
		if long {
			faults = 8
		}
		p := draw(seed, faults)
		t.Logf("%s=%d: %d nodes, single faults: %t, %v", chaosSeed, seed, p.nodes, p.single, p.faults)
		c, err := demo.Launch(t.Context(), p.nodes)
		require.NoError(t, err)
		s := &storm{t: t, c: c}
		defer s.end()
		s.load = startChaosLoad(t, c.URL(), 100, rand.New(rand.NewPCG(seed, 1)))
		defer s.load.close()
		begun := time.Now()
		if p.single {
			for _, d := range p.faults {
				s.strike(d)
				s.mend()
				s.settle()
			}
		} else {
			var wg sync.WaitGroup
			for _, d := range p.faults {
				wg.Go(func() {
					s.sleep(d.begin - time.Since(begun))
					s.strike(d)
				})
			}
			wg.Wait()
			s.mend()
			s.settle()
		}
		calm := time.Now()
		s.load.finish()
		faulty := append(s.load.faults, s.load.judge.verdict()...)
		if p.single && s.load.judge.gaps() > 0 {
			faulty = append(faulty, fmt.Sprintf("gap: %d reports although one process failed at a time", s.load.judge.gaps()))
		}
		faulty = append(faulty, s.logs()...)
		t.Logf("%d published, %d gaps, %d repeats %v, faults for %s, all seen %s later", len(s.load.judge.sent), s.load.judge.gaps(), s.load.retry, s.load.last,
			calm.Sub(begun).Round(time.Millisecond), time.Since(calm).Round(time.Millisecond))
		if len(faulty) > 0 {
			s.keep(faulty)
		}
		require.Empty(t, faulty, "%s=%d replays it", chaosSeed, seed)
	})
}

// storm is a round that goes on.
type storm struct {
	t    *testing.T
	c    *demo.Cluster
	load *chaosLoad

	mu    sync.Mutex
	notes []string
}

func (s *storm) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.t.Context().Done():
	}
}

func (s *storm) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// strike does one fault and, at its end, the opposite. What cannot be, as the node has another fault, is left out.
func (s *storm) strike(d disturbance) {
	line := fmt.Sprintf("%s %d", d.key, d.node)
	state, process := s.c.State(d.node)
	switch {
	case state == "running", d.key == "k" && (state == "paused" || state == "cut"), d.key == "t" && (state == "cut" || state == "paused"), d.key == "z" && state == "cut":
	default:
		s.note("%s left out: it is %s", line, state)
		return
	}
	if (d.key == "k" || d.key == "t") && process != "" {
		s.load.judge.died(process) // a node that stops while it is cut off takes with it what it had alone
	}
	s.note("%s (%s, %s)", line, process, state)
	if err := s.key(line); err != nil {
		s.note("%s: %v", line, err)
	}
	s.note("%s done", line)
	s.sleep(d.last)
	back := map[string]string{"k": "r", "z": "z", "p": "p", "t": "r"}[d.key]
	want := map[string]string{"k": "killed", "z": "paused", "p": "cut", "t": "ended"}[d.key]
	if state, _ := s.c.State(d.node); state == want {
		s.note("%s %d", back, d.node)
		if err := s.key(fmt.Sprintf("%s %d", back, d.node)); err != nil {
			s.note("%s %d: %v", back, d.node, err)
		}
		s.note("%s %d done", back, d.node)
	}
}

func (s *storm) key(line string) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	return s.c.Key(ctx, line)
}

// mend ends what is left of all faults.
func (s *storm) mend() {
	for end := time.Now().Add(chaosPatience); time.Now().Before(end); s.sleep(20 * time.Millisecond) {
		whole := true
		for i, state := range s.c.States() {
			back := map[string]string{"paused": "z", "cut": "p", "killed": "r", "ended": "r"}[state]
			if back != "" {
				s.note("%s %d", back, i+1)
				if err := s.key(fmt.Sprintf("%s %d", back, i+1)); err != nil {
					s.note("%s %d: %v", back, i+1, err)
				}
			}
			whole = whole && state == "running"
		}
		if whole {
			return
		}
	}
	s.load.fault("mend: %v", s.c.States())
}

// settle waits until everybody agrees again.
func (s *storm) settle() {
	why, begun := "not asked", time.Now()
	for end := time.Now().Add(chaosPatience); why != "" && time.Now().Before(end); s.sleep(20 * time.Millisecond) {
		if why = s.c.Settled(s.t.Context()); why != "" {
			s.mend() // an evicted process is started again
		}
	}
	s.note("settled after %s: %q", time.Since(begun).Round(time.Millisecond), why)
	if why != "" {
		s.load.fault("settle: %s, %s after the last fault", why, chaosPatience)
	}
}

// logs looks for what no node may say, and for processes that ended by themselves.
func (s *storm) logs() (faults []string) {
	files, err := filepath.Glob(filepath.Join(s.c.Dir(), "*.log"))
	require.NoError(s.t, err)
	require.NotEmpty(s.t, files)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(s.t, err)
		for _, bad := range []string{"panic", "DATA RACE", "fatal error", "level=ERROR"} {
			if i := bytes.Index(text, []byte(bad)); i >= 0 {
				faults = append(faults, fmt.Sprintf("log: %s: %s", f, text[i:min(len(text), i+600)]))
			}
		}
	}
	for _, reason := range s.c.Deaths() {
		if !strings.Contains(reason, "given up by its peers") {
			faults = append(faults, "exit: "+reason)
		}
	}
	return faults
}

// keep leaves the logs, and what was seen, for a person.
func (s *storm) keep(faults []string) {
	s.c.Keep()
	var b strings.Builder
	for _, n := range s.notes {
		fmt.Fprintln(&b, n)
	}
	for _, f := range faults {
		fmt.Fprintln(&b, f)
	}
	j := s.load.judge
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]*sent, 0, len(j.sent))
	for _, m := range j.sent {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *sent) int { return a.first.Compare(b.first) })
	for _, m := range all {
		fmt.Fprintf(&b, "sent %s %s room %s acked %t %s:%d copies %d home %s\n", m.first.Format("15:04:05.000"), m.id, m.room, m.acked, m.epoch, m.offset, m.copies, m.home)
	}
	for _, w := range j.watchers {
		for _, e := range w.events {
			fmt.Fprintf(&b, "%s %s room %s %q %s:%d filled %t\n", w.name, e.at.Format("15:04:05.000"), w.room, e.id, e.epoch, e.offset, e.filled)
		}
	}
	path := filepath.Join(s.c.Dir(), "chaos.txt")
	require.NoError(s.t, os.WriteFile(path, []byte(b.String()), 0o600))
	s.t.Log("logs and events are kept in ", s.c.Dir())
}

func (s *storm) end() { require.NoError(s.t, s.c.Close()) }
