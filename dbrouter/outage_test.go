package dbrouter_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
)

// pace is what readers without a pause have seen.
type pace struct {
	done    chan struct{}
	wg      sync.WaitGroup
	mu      sync.Mutex
	reads   []timed
	failure atomic.Pointer[error]
	count   [workers]atomic.Int64
}

type timed struct {
	worker int
	at     time.Time // its beginning
	took   time.Duration
}

// keepReading starts the workers. Each kind of read is among what they do.
func keepReading(ctx context.Context, s *setup, r *dbrouter.Router) *pace {
	p := &pace{done: make(chan struct{})}
	for w := range workers {
		p.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-p.done:
					return
				default:
				}
				began := time.Now()
				var v int
				var err error
				rd := r.Replica()
				if w%4 == 3 {
					rd = r.Search()
				}
				switch (w + n) % 4 {
				case 0, 1:
					err = rd.GetContext(ctx, &v, "SELECT "+s.port)
				case 2:
					var vs []int
					err = rd.SelectContext(ctx, &vs, "SELECT "+s.port)
				case 3:
					sctx, _ := dbrouter.WithSession(ctx)
					err = rd.GetContext(sctx, &v, "SELECT "+s.port)
				}
				took := time.Since(began)
				if err != nil {
					p.failure.CompareAndSwap(nil, &err)
				}
				p.count[w].Add(1)
				p.mu.Lock()
				p.reads = append(p.reads, timed{w, began, took})
				p.mu.Unlock()
				if took < time.Millisecond {
					<-time.After(time.Millisecond) // other tests run beside this one
				}
			}
		})
	}
	return p
}

// more waits until every worker has had more answers.
func (p *pace) more(t *testing.T) {
	t.Helper()
	for w := range p.count {
		was := p.count[w].Load()
		require.Eventually(t, func() bool { return p.count[w].Load() > was+5 }, patience, 5*time.Millisecond, "a reader hangs")
	}
}

func (p *pace) stop() (n int, err error) {
	close(p.done)
	p.wg.Wait()
	if e := p.failure.Load(); e != nil {
		err = *e
	}
	return len(p.reads), err
}

// usual is the p99 of half a second without a fault: machines are busy.
func (p *pace) usual() time.Duration {
	from := time.Now()
	<-time.After(500 * time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	var took []time.Duration
	for _, r := range p.reads {
		if r.at.After(from) {
			took = append(took, r.took)
		}
	}
	return p99(took)
}

// outage is how reads fared from a moment on.
type outage struct {
	slow int // the most slow reads of one worker
	back time.Duration
	p99  time.Duration // of the reads that began two seconds later
	n    int
}

func (o outage) String() string {
	return fmt.Sprintf("%d reads, at most %d slow ones a worker, the last slow one began %v after the fault; p99 after 2 s: %v", o.n, o.slow, o.back.Round(time.Millisecond), o.p99.Round(time.Millisecond))
}

func (o outage) ok(usual time.Duration) bool {
	return o.slow <= 1 && o.back <= 2*time.Second+5*usual && o.p99 <= max(5*usual, 150*time.Millisecond)
}

// since judges the reads that began at or shortly before from.
func (p *pace) since(from time.Time, usual time.Duration) (o outage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slow := max(250*time.Millisecond, 5*usual)
	var count [workers]int
	var late []time.Duration
	for _, r := range p.reads {
		if r.at.Add(r.took).Before(from) {
			continue
		}
		o.n++
		if r.took > slow {
			count[r.worker]++
			o.back = max(o.back, r.at.Sub(from))
		}
		if r.at.Sub(from) > 2*time.Second {
			late = append(late, r.took)
		}
	}
	o.slow = slices.Max(count[:])
	o.p99 = p99(late)
	return o
}

func p99(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return time.Hour
	}
	slices.Sort(d)
	return d[len(d)*99/100]
}

// No read fails while a replica dies, freezes, is cut off, and comes back; nor when all of them are gone.
func testOutages(t *testing.T, s *setup) {
	network := newProxy(t, "127.0.0.1:0", s.Addr(1))
	cfg := s.config()
	cfg.MonitorInterval = 0 // the default is what is promised
	if !s.pooler {
		cfg.DataSourceReplicas[0] = s.through(1, network.addr)
	}
	r := open(t, cfg)
	reads := keepReading(t.Context(), s, r)
	reads.more(t)
	faults := []struct {
		name        string
		begin, stop func()
	}{
		{"killed", func() { s.Kill(1) }, func() { s.Start(1) }},
		{"frozen", func() { s.Pause(1) }, func() { s.Resume(1) }},
		{"cut off", network.Cut, network.Heal},
	}
	if s.pooler {
		faults = faults[:1] // the pooler itself answers for a server that does not
	}
	for _, f := range faults {
		best(t, s.name+": a replica is "+f.name, func() (fmt.Stringer, bool) {
			usual := reads.usual()
			from := time.Now()
			f.begin()
			eventually(t, "it is out", func() bool { return !source(r, 1).Healthy })
			<-time.After(time.Until(from.Add(2500 * time.Millisecond)))
			reads.more(t)
			o := reads.since(from, usual)
			f.stop()
			eventually(t, "it is back", func() bool { return source(r, 1).Healthy })
			require.Less(t, source(r, 1).Share, 8, "with a small share at first")
			return o, o.ok(usual)
		})
	}
	s.Kill(1)
	s.Kill(2)
	eventually(t, "no replica is left", func() bool { return !source(r, 1).Healthy && !source(r, 2).Healthy })
	i, err := s.serves(t.Context(), r.Replica())
	require.NoError(t, err)
	require.Zero(t, i, "the master serves")
	reads.more(t)
	s.Start(1)
	s.Start(2)
	eventually(t, "replicas are back", func() bool { return source(r, 1).Healthy && source(r, 2).Healthy })
	i, err = s.serves(t.Context(), r.Replica())
	require.NoError(t, err)
	require.NotZero(t, i, "replicas serve")
	reads.more(t)
	n, err := reads.stop()
	require.NoError(t, err)
	t.Logf("%s: %d reads, 0 failed, %d attempts moved", s.name, n, r.Stats().ReadsMoved)
}
