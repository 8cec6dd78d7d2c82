package election_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

// childSpec is what a child process does: it takes part, commits fenced rows while it holds a term, and notes each moment at which it
// may act unfenced.
type childSpec struct {
	Driver, DSN, ID, Log string
	Members              []string
	TTL                  time.Duration
}

func child(text string) {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		panic(err)
	}
	db, err := sqlx.Open(spec.Driver, spec.DSN)
	if err != nil {
		panic(err)
	}
	if spec.Driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	c := electiontest.New()
	for _, id := range spec.Members {
		if id != spec.ID {
			c.Join(id)
		}
	}
	e, err := election.New(election.Config{Members: c.Join(spec.ID), DB: db, TTL: spec.TTL, Logger: quiet()})
	if err != nil {
		panic(err)
	}
	log, err := os.OpenFile(spec.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	go func() { panic(e.Run(ctx)) }()
	go func() {
		for range time.Tick(2 * time.Millisecond) {
			before := time.Now()
			if !e.IsLeader() {
				continue
			}
			after := time.Now()
			if s := e.State(); s.Leading {
				fmt.Fprintln(log, s.Term, before.UnixNano(), after.UnixNano())
			}
		}
	}()
	for {
		_ = e.LeadFenced(ctx, func(ctx context.Context, term uint64) error {
			for ctx.Err() == nil {
				_ = commitRow(ctx, e, db, term)
				select {
				case <-ctx.Done():
				case <-time.After(3 * time.Millisecond):
				}
			}
			return nil
		})
	}
}

// commitRow writes one row with the place that it has in the order of commits. The fence comes first too, so that a transaction of a
// process that is stopped in the middle of it does not keep the counter's row from the next leader for ever.
func commitRow(ctx context.Context, e *election.Elector, db *sqlx.DB, term uint64) error {
	tx, err := db.BeginTxx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := e.Fence(ctx, tx, term); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE counter SET n=n+1`); err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO effects SELECT n, ` + fmt.Sprint(term) + ` FROM counter`); err != nil {
		return err
	}
	return e.Commit(ctx, tx, term)
}

// herd is the parent's side.
type herd struct {
	t     *testing.T
	spec  childSpec
	db    *sqlx.DB
	dir   string
	procs map[string]*exec.Cmd
}

func newHerd(t *testing.T, driver, dsn string, edit func(s *childSpec)) *herd {
	h := &herd{t: t, dir: t.TempDir(), procs: map[string]*exec.Cmd{}}
	h.spec = childSpec{Driver: driver, DSN: dsn, Members: []string{"a", "b", "c"}, TTL: 1200 * time.Millisecond}
	if edit != nil {
		edit(&h.spec)
	}
	if h.db = openPostgres(t, driver, dsn); driver == "sqlite" {
		h.db.SetMaxOpenConns(1)
	}
	for _, q := range []string{`CREATE TABLE counter (n bigint)`, `INSERT INTO counter VALUES (0)`, `CREATE TABLE effects (n bigint, term bigint)`} {
		_, err := h.db.Exec(q)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		for id := range h.procs {
			h.kill(id)
		}
	})
	return h
}

func (h *herd) start(id string) {
	spec := h.spec
	spec.ID, spec.Log = id, filepath.Join(h.dir, "log."+id)
	text, err := json.Marshal(spec)
	require.NoError(h.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ELECTION_CHILD="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(h.t, cmd.Start())
	h.procs[id] = cmd
}

func (h *herd) signal(id string, sig syscall.Signal) {
	require.NoError(h.t, h.procs[id].Process.Signal(sig))
}

func (h *herd) kill(id string) {
	if p := h.procs[id]; p != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
		delete(h.procs, id)
	}
}

// leader waits for a term above the one given whose holder has committed a row.
func (h *herd) leader(above uint64) (id string, term uint64) {
	eventually(h.t, "a leader", func() bool {
		var row struct {
			Holder string
			Term   uint64
		}
		if err := h.db.Get(&row, `SELECT holder, term FROM nines_lease_beats WHERE term>`+fmt.Sprint(above)+` AND EXISTS (SELECT 1 FROM effects e WHERE e.term=nines_lease_beats.term)`); err != nil {
			return false
		}
		var ok bool
		id, _, ok = strings.Cut(row.Holder, "/")
		term = row.Term
		return ok
	})
	return id, term
}

// busy waits until a term has gone on for a while.
func (h *herd) busy(term uint64) {
	eventually(h.t, "rows of the term", func() bool {
		var n int
		err := h.db.Get(&n, `SELECT count(*) FROM effects WHERE term>=`+fmt.Sprint(term))
		return err == nil && n >= 40
	})
}

// disorder counts the rows whose term is below that of a row that was committed before.
func (h *herd) disorder() (rows, terms, bad int) {
	var list []struct{ N, Term uint64 }
	require.NoError(h.t, h.db.Select(&list, `SELECT n, term FROM effects ORDER BY n`))
	seen := map[uint64]bool{}
	var highest uint64
	for i, r := range list {
		require.EqualValues(h.t, i+1, r.N)
		if seen[r.Term] = true; r.Term < highest {
			bad++
		}
		highest = max(highest, r.Term)
	}
	return len(list), len(seen), bad
}

// overlap counts the moments at which a process could act unfenced although one with a later term could before.
func (h *herd) overlap() (moments, bad int) {
	type moment struct{ term, before, after uint64 }
	var all []moment
	files, err := filepath.Glob(filepath.Join(h.dir, "log.*"))
	require.NoError(h.t, err)
	for _, f := range files {
		r, err := os.Open(f)
		require.NoError(h.t, err)
		for s := bufio.NewScanner(r); s.Scan(); {
			var m moment
			if n, _ := fmt.Sscan(s.Text(), &m.term, &m.before, &m.after); n == 3 && m.after-m.before < uint64(20*time.Millisecond) {
				all = append(all, m)
			}
		}
		r.Close()
	}
	slices.SortFunc(all, func(x, y moment) int { return int(int64(x.after) - int64(y.after)) })
	var highest uint64
	for _, m := range all {
		if m.term < highest {
			bad++
		}
		highest = max(highest, m.term)
	}
	return len(all), bad
}

// Real processes are killed and stopped at random moments: terms rise, no fenced row of an earlier term is committed after one of a
// later term, and no two can act unfenced at once.
func TestProcesses(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) (driver, dsn string){"sqlite": lab.SQLite, "postgres": lab.Database} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			driver, dsn := open(t)
			if driver == "sqlite" {
				dsn += noSync
			}
			h := newHerd(t, driver, dsn, nil)
			for _, id := range h.spec.Members {
				h.start(id)
			}
			seed := uint64(time.Now().UnixNano())
			rng := rand.New(rand.NewPCG(seed, 1))
			t.Logf("seed %d", seed)
			id, term := h.leader(0)
			for round := range 5 {
				h.busy(term)
				began := time.Now()
				if kill := round%2 == 0; kill {
					h.kill(id)
					was := term
					var next string
					next, term = h.leader(was)
					t.Logf("killed %s: %s committed after %v", id, next, time.Since(began).Round(time.Millisecond))
					h.start(id)
					id = next
					continue
				}
				h.signal(id, syscall.SIGSTOP)
				pause := h.spec.TTL/2 + time.Duration(rng.Int64N(int64(h.spec.TTL*3/2)))
				timer := time.NewTimer(pause)
				<-timer.C
				h.signal(id, syscall.SIGCONT)
				// it may still lead, after a pause that was short enough
				next, now := h.leader(term - 1)
				t.Logf("stopped %s for %v: %s leads after %v", id, pause.Round(time.Millisecond), next, time.Since(began).Round(time.Millisecond))
				id, term = next, now
			}
			for id := range h.procs {
				h.kill(id)
			}
			rows, terms, bad := h.disorder()
			moments, over := h.overlap()
			t.Logf("%d rows in %d terms, %d out of order; %d moments of unfenced leadership, %d overlap", rows, terms, bad, moments, over)
			require.Zero(t, bad)
			require.Zero(t, over)
			require.Greater(t, terms, 2)
			require.Positive(t, moments)
		})
	}
}
