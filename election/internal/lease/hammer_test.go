package lease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
	"github.com/stretchr/testify/require"
)

// contender drives the machine of one holder by hand, so that it can be stopped anywhere.
type contender struct {
	t     *testing.T
	s     *lease.Store
	m     *core.Lease
	db    *sqlx.DB
	rng   *rand.Rand
	start time.Time
	book  *book
}

// book is what all contenders did, in the order of one clock.
type book struct {
	start time.Time
	mu    sync.Mutex
	terms map[uint64]string
	marks []mark
	late  int // renewals that were sent after a later term was granted, and accepted
	top   uint64
	topAt time.Duration
}

type mark struct {
	term          uint64
	before, after time.Duration
}

const hammerTTL = 150 * time.Millisecond

// grants and halts are how many terms the hammer goes on for, and how many holders of the history are stopped.
var grants, halts = 12, int64(6)

func init() {
	if os.Getenv("NINES_CHAOS") != "" {
		grants, halts = 150, 60
	}
}

func newContender(t *testing.T, p place, b *book, i int, seed uint64) *contender {
	id := fmt.Sprintf("n%d", i)
	c := &contender{t: t, s: lease.New(p.open(), p.d, "x", hammerTTL), db: p.open(), rng: rand.New(rand.NewPCG(seed, uint64(i))), start: b.start, book: b}
	c.m = core.NewLease(core.Config{TTL: hammerTTL, Margin: hammerTTL / 6, Renew: hammerTTL / 3, Look: hammerTTL / 15, Stagger: time.Millisecond, Nonce: "1"})
	c.turn(t.Context(), core.Saw{View: core.View{Me: id, Members: []core.Member{{ID: id, Eligible: true}}}}) // each thinks that it is the one
	return c
}

func (c *contender) now() core.Now { d := time.Since(c.start); return core.Now{Mono: d, Wall: d} }

// turn lets the machine do what it wants to, once.
func (c *contender) turn(ctx context.Context, ev core.Event) {
	actions := c.m.Step(c.now(), ev)
	for len(actions) > 0 {
		actions = append(actions[1:], c.m.Step(c.now(), c.do(ctx, actions[0]))...)
	}
	before := c.now()
	s := c.m.Status(before)
	if s.Mine != 0 && s.Unfenced {
		c.book.mu.Lock()
		c.book.marks = append(c.book.marks, mark{s.Mine, before.Mono, c.now().Mono})
		c.book.mu.Unlock()
	}
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func (c *contender) do(ctx context.Context, a core.Action) core.Event {
	switch a := a.(type) {
	case core.Look:
		row, err := c.s.Look(ctx)
		return core.Looked{Row: row, At: c.now(), Err: text(err)}
	case core.Acquire:
		got, err := c.s.Acquire(ctx, a.Row, a.Holder, c.now)
		if got.Outcome == core.Granted {
			c.book.granted(c.t, got.Term, a.Holder, c.now().Mono)
		}
		return core.Acquired{Outcome: got.Outcome, Term: got.Term, Identity: got.Identity, Sent: got.Sent, Err: text(err)}
	case core.Renew:
		sent := c.now()
		id, ok, err := c.s.Renew(ctx, a.Term, a.Holder, a.Lock)
		ev := core.Renewed{Outcome: core.Granted, Term: a.Term, Identity: id, Sent: sent, Err: text(err)}
		if err != nil {
			ev.Outcome = core.Failed
		} else if !ok {
			ev.Outcome = core.Lost
		} else {
			c.book.renewed(a.Term, sent.Mono)
		}
		return ev
	case core.Release:
		return core.Released{Err: text(c.s.Release(ctx, a.Term, a.Holder, a.Mark))}
	case core.Revoke:
		done, err := c.s.Revoke(ctx, a.Row)
		return core.Took{Done: done, Err: text(err)}
	}
	return core.Tick{}
}

func (b *book) granted(t *testing.T, term uint64, holder string, at time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other, ok := b.terms[term]; ok {
		t.Errorf("term %d was granted to %s and to %s", term, other, holder)
	}
	b.terms[term] = holder
	if term > b.top {
		b.top, b.topAt = term, at
	}
}

func (b *book) renewed(term uint64, sent time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if term < b.top && sent > b.topAt {
		b.late++
	}
}

// overlap counts the moments of unfenced leadership that came after one of a later term.
func (b *book) overlap() (bad int) {
	slices.SortFunc(b.marks, func(x, y mark) int { return int(x.after - y.after) })
	var top uint64
	for _, m := range b.marks {
		if m.after-m.before > hammerTTL/20 {
			continue // stopped between the clock and the note
		}
		if m.term < top {
			bad++
		}
		top = max(top, m.term)
	}
	return bad
}

func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// Golden scenario 1: contenders that stop at random take the lease from each other. No term has two holders, no renewal is accepted
// after the lease was lost, and no two trust it at once.
func TestHammer(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		t.Parallel()
		seed := uint64(time.Now().UnixNano())
		b := &book{start: time.Now(), terms: map[uint64]string{}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(grants)*5*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 5 {
			c := newContender(t, p, b, i, seed)
			wg.Go(func() {
				defer c.s.Close()
				for ctx.Err() == nil && b.count() < grants {
					c.turn(ctx, core.Tick{})
					wait := min(c.m.Next(c.now()), 5*time.Millisecond)
					switch s := c.m.Status(c.now()); {
					case s.Mine != 0 && c.rng.IntN(25) == 0:
						wait = hammerTTL/2 + time.Duration(c.rng.Int64N(int64(2*hammerTTL)))
					case s.Mine != 0 && c.rng.IntN(40) == 0:
						c.turn(ctx, core.Asked{})
						c.turn(ctx, core.Idle{})
					}
					pause(max(wait, time.Millisecond))
				}
			})
		}
		wg.Wait()
		require.GreaterOrEqual(t, len(b.terms), grants, "seed %d", seed)
		t.Logf("seed %d: %d terms, %d moments of unfenced leadership in %v", seed, len(b.terms), len(b.marks), time.Since(b.start).Round(time.Millisecond))
		require.Zero(t, b.late, "renewals were accepted after the lease was lost")
		require.Zero(t, b.overlap(), "two trusted the lease at once")
		require.NotEmpty(t, b.marks)
	})
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.terms)
}

// Golden scenario 2: holders ignore their deadline and are stopped before they commit. With the fence no commit is out of the order of
// terms; with a plain read of the term some are, which shows that the test can tell.
func TestHistory(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		t.Parallel()
		for _, fenced := range []bool{true, false} {
			db := p.open()
			_, _ = db.Exec(`DROP TABLE IF EXISTS counter`)
			_, _ = db.Exec(`DROP TABLE IF EXISTS effects`)
			for _, q := range []string{`CREATE TABLE counter (n bigint)`, `INSERT INTO counter VALUES (0)`, `CREATE TABLE effects (n bigint, term bigint)`} {
				_, err := db.Exec(q)
				require.NoError(t, err)
			}
			seed := uint64(time.Now().UnixNano())
			b := &book{start: time.Now(), terms: map[uint64]string{}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(grants)*5*time.Second)
			var wg sync.WaitGroup
			var stops atomic.Int64
			for i := range 3 {
				c := newContender(t, p, b, i, seed)
				wg.Go(func() {
					defer c.s.Close()
					for ctx.Err() == nil && stops.Load() < halts {
						c.turn(ctx, core.Tick{})
						s := c.m.Status(c.now())
						if s.Mine == 0 {
							pause(max(min(c.m.Next(c.now()), 5*time.Millisecond), time.Millisecond))
							continue
						}
						if c.rng.IntN(30) != 0 {
							c.commit(ctx, s, fenced, 0)
							pause(time.Millisecond)
							continue
						}
						stops.Add(1)
						c.commit(ctx, s, fenced, hammerTTL+time.Duration(c.rng.Int64N(int64(2*hammerTTL))))
					}
				})
			}
			wg.Wait()
			cancel()
			var terms []uint64
			require.NoError(t, db.Select(&terms, `SELECT term FROM effects ORDER BY n`))
			bad := 0
			var top uint64
			for _, n := range terms {
				if n < top {
					bad++
				}
				top = max(top, n)
			}
			t.Logf("seed %d: fenced=%v: %d commits in %d terms, %d stops, %d out of order", seed, fenced, len(terms), len(b.terms), stops.Load(), bad)
			if fenced {
				require.Zero(t, bad)
			} else {
				require.Positive(t, bad, "the control found nothing: the test cannot tell")
			}
		}
	})
}

// commit writes one row under a term that may have ended long ago.
func (c *contender) commit(ctx context.Context, s core.Status, fenced bool, stop time.Duration) {
	if !fenced {
		var term uint64
		if err := c.db.GetContext(ctx, &term, `SELECT term FROM nines_lease_terms`); err != nil || term != s.Mine {
			return
		}
		pause(stop)
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return
	}
	defer tx.Rollback()
	if fenced {
		if ok, err := c.s.Fence(ctx, tx, s.Mine, s.Holder); err != nil || !ok {
			return
		}
		pause(stop)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE counter SET n=n+1`); err != nil {
		return
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`INSERT INTO effects SELECT n, %d FROM counter`, s.Mine)); err != nil {
		return
	}
	_ = tx.Commit()
}
