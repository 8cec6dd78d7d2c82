package election_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

// herd is the parent's side: processes, each on a machine of its own where that can be had.
type herd struct {
	t       *testing.T
	spec    childSpec
	db      *sqlx.DB
	dir     string
	lan     *lan
	binds   map[string]string
	proxies map[string]*proxy // without namespaces: the way of each process to the database
	procs   map[string]*exec.Cmd
	noted   []moment         // read from the logs so far
	read    map[string]int64 // how far, for each
}

var address = regexp.MustCompile(`host=(\S+) port=(\d+)|tcp\(([^)]+)\)`)

// newHerd prepares three processes on a database. alone: without a cluster that tells of deaths, and without a network to cut.
func newHerd(t *testing.T, driver, dsn string, alone bool, edit func(s *childSpec)) *herd {
	h := &herd{t: t, dir: t.TempDir(), procs: map[string]*exec.Cmd{}, read: map[string]int64{}, binds: map[string]string{}, proxies: map[string]*proxy{}}
	h.spec = childSpec{Driver: driver, DSN: dsn, Members: []string{"a", "b", "c"}, TTL: 1200 * time.Millisecond}
	if edit != nil {
		edit(&h.spec)
	}
	if h.db = openPostgres(t, driver, dsn); driver == "sqlite" {
		h.db.SetMaxOpenConns(1)
	}
	for _, q := range effects {
		_, err := h.db.Exec(q)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		for id := range h.procs {
			h.kill(id)
		}
	})
	if alone {
		return h
	}
	h.lan = newLAN(t, len(h.spec.Members))
	for i, name := range h.spec.Members {
		if h.lan != nil {
			h.binds[name] = h.lan.addr(i) + ":8074"
		} else {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			h.binds[name] = ln.Addr().String()
			ln.Close()
		}
		h.spec.Seeds = append(h.spec.Seeds, h.binds[name])
	}
	if server := h.server(); server != "" {
		for _, name := range h.spec.Members {
			h.proxies[name] = proxyOn(t, h.lan.listen(t), server)
		}
	}
	return h
}

// server is the address in the data source, "" for a file.
func (h *herd) server() string {
	m := address.FindStringSubmatch(h.spec.DSN)
	switch {
	case m == nil:
		return ""
	case m[3] != "":
		return m[3]
	}
	return net.JoinHostPort(m[1], m[2])
}

func (h *herd) index(name string) int { return slices.Index(h.spec.Members, name) }

func (h *herd) start(name string) {
	spec := h.spec
	spec.Name, spec.Log, spec.Bind = name, filepath.Join(h.dir, "log."+name), h.binds[name]
	if p := h.proxies[name]; p != nil {
		spec.DSN = p.dsn(h.t, spec.DSN)
	}
	text, err := json.Marshal(spec)
	require.NoError(h.t, err)
	cmd := exec.Command(os.Args[0])
	if h.lan != nil {
		cmd = h.lan.command(h.index(name), os.Args[0])
	}
	cmd.Env = append(os.Environ(), "ELECTION_CHILD="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(h.t, cmd.Start())
	h.procs[name] = cmd
}

func (h *herd) startAll() (leader string, term uint64) {
	for _, name := range h.spec.Members {
		h.start(name)
	}
	leader, term = h.leader(0)
	h.led(term)
	return leader, term
}

func (h *herd) signal(name string, sig syscall.Signal) { _ = h.procs[name].Process.Signal(sig) }

func (h *herd) kill(name string) {
	if p := h.procs[name]; p != nil {
		_ = p.Process.Kill()
		_ = p.Wait()
		delete(h.procs, name)
	}
}

// cut separates a process from the database and, with namespaces, from the other processes.
func (h *herd) cut(name string, cut bool) {
	if h.lan != nil {
		require.NoError(h.t, h.lan.cut(h.index(name), cut))
		return
	}
	if p := h.proxies[name]; p != nil {
		p.hold(cut)
	}
}

// revive starts those again that have left by themselves.
func (h *herd) revive() {
	for name, p := range h.procs {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			h.kill(name)
			h.start(name)
		}
	}
}

// eventually looks seldom: this process is not to keep the others from their work.
func (h *herd) eventually(what string, fn func() bool) {
	h.t.Helper()
	require.Eventually(h.t, fn, 2*patience, 25*time.Millisecond, what)
}

// leader waits for a row of a term above the one given.
func (h *herd) leader(above uint64) (name string, term uint64) {
	h.t.Helper()
	h.eventually("a leader", func() bool {
		h.revive()
		var row struct {
			Name string
			Term uint64
		}
		err := h.db.Get(&row, `SELECT name, term FROM effects WHERE term>`+fmt.Sprint(above)+` ORDER BY n DESC LIMIT 1`)
		name, term = row.Name, row.Term
		return err == nil
	})
	return name, term
}

// first is when the first row of a term above the one given was written.
func (h *herd) first(above uint64) (at time.Time) {
	var ns int64
	require.NoError(h.t, h.db.Get(&ns, `SELECT min(at) FROM effects WHERE term>`+fmt.Sprint(above)))
	return time.Unix(0, ns)
}

// busy waits until a term has gone on for a while.
func (h *herd) busy(term uint64) {
	h.eventually("rows of the term", func() bool {
		h.revive()
		var n int
		err := h.db.Get(&n, `SELECT count(*) FROM effects WHERE term>=`+fmt.Sprint(term))
		return err == nil && n >= 15
	})
}

// led waits until somebody acts unfenced in that term or a later one, and returns when that began.
func (h *herd) led(from uint64) (at time.Time) {
	h.t.Helper()
	h.eventually("somebody leads unfenced", func() bool {
		h.revive()
		at = time.Time{}
		for _, m := range h.moments() {
			if begin := time.Unix(0, m.before); m.term >= from && (at.IsZero() || begin.Before(at)) {
				at = begin
			}
		}
		return !at.IsZero()
	})
	return at
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

type moment struct {
	term          uint64
	before, after int64
}

// moments are those at which a process could act unfenced.
func (h *herd) moments() []moment {
	files, err := filepath.Glob(filepath.Join(h.dir, "log.*"))
	require.NoError(h.t, err)
	for _, f := range files {
		r, err := os.Open(f)
		require.NoError(h.t, err)
		_, err = r.Seek(h.read[f], 0)
		require.NoError(h.t, err)
		text, err := io.ReadAll(r)
		require.NoError(h.t, err)
		r.Close()
		text = text[:bytes.LastIndexByte(text, '\n')+1]
		h.read[f] += int64(len(text))
		for line := range strings.Lines(string(text)) {
			var m moment
			if n, _ := fmt.Sscan(line, &m.term, &m.before, &m.after); n == 3 && m.after-m.before < int64(20*time.Millisecond) {
				h.noted = append(h.noted, m)
			}
		}
	}
	return h.noted
}

// overlap counts the moments at which a process could act unfenced although one with a later term could before.
func (h *herd) overlap() (moments, bad int) {
	var highest uint64
	all := slices.Clone(h.moments())
	slices.SortFunc(all, func(x, y moment) int { return int(x.after - y.after) })
	for _, m := range all {
		if m.term < highest {
			bad++
		}
		highest = max(highest, m.term)
	}
	return len(all), bad
}

// herds runs fn with a herd on each kind of database.
func herds(t *testing.T, edit func(s *childSpec), fn func(t *testing.T, h *herd)) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) (driver, dsn string){
		"sqlite": lab.SQLite, "postgres": lab.Database, "mariadb": mariadbOf,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			driver, dsn := open(t)
			switch driver {
			case "sqlite":
				dsn += noSync
			case "mysql":
				dsn += "?idle_transaction_timeout=3"
			}
			fn(t, newHerd(t, driver, dsn, false, edit))
		})
	}
}

// rounds is how many rounds of faults there are.
func rounds(few, all int) int {
	if os.Getenv("NINES_CHAOS") != "" {
		return all
	}
	return few
}

func wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// A process that was stopped for longer than its lease and goes on finds the context of Lead ended at its first look, before anything else
// of it has run.
func TestStoppedProcessSeesItAtOnce(t *testing.T) {
	t.Parallel()
	driver, dsn := lab.SQLite(t)
	h := newHerd(t, driver, dsn+noSync, true, func(s *childSpec) { s.Spin, s.Members, s.TTL = true, []string{"a"}, time.Second })
	h.start("a")
	said := func(what string) int {
		text, _ := os.ReadFile(filepath.Join(h.dir, "log.a"))
		return strings.Count(string(text), what+"\n")
	}
	for round := 0; said("seen")+said("late") < 2; round++ {
		require.Less(t, round, 20)
		h.eventually("it leads", func() bool { return said("leads") > 0 })
		wait(50 * time.Millisecond)
		h.signal("a", syscall.SIGSTOP)
		wait(1200 * time.Millisecond)
		h.signal("a", syscall.SIGCONT)
		leads := said("leads")
		h.eventually("it leads again", func() bool { return said("leads") > leads })
	}
	t.Logf("%d times the context had ended, %d times not", said("seen"), said("late"))
	require.Zero(t, said("late"))
}

// Real processes with a real cluster are killed, stopped and cut off from the network at random moments: no fenced row of an earlier
// term is committed after one of a later term, and no two can act unfenced at once. What counts is what is in the table.
func TestProcesses(t *testing.T) {
	patiently := func(s *childSpec) {
		if os.Getenv("NINES_CHAOS") == "" {
			s.TTL = 3 * time.Second // beside the other tests
		}
	}
	herds(t, patiently, func(t *testing.T, h *herd) {
		seed := uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(seed, 1))
		t.Logf("seed %d", seed)
		name, term := h.startAll()
		kinds := []string{"kill", "stop", "cut"}
		begin := rng.IntN(3)
		for round := range rounds(3, 200) {
			h.busy(term)
			began := time.Now()
			kind := kinds[(begin+round)%3]
			pause := h.spec.TTL/2 + time.Duration(rng.Int64N(int64(h.spec.TTL*3/2)))
			above := term - 1 // it may still lead, after a fault that was short enough
			switch kind {
			case "kill":
				h.kill(name)
				above, pause = term, 0
			case "stop":
				h.signal(name, syscall.SIGSTOP)
				wait(pause)
				h.signal(name, syscall.SIGCONT)
			case "cut":
				h.cut(name, true)
				wait(pause)
				h.cut(name, false)
			}
			next, now := h.leader(above)
			took := "-"
			if now > term {
				took = h.first(term).Sub(began).Round(time.Millisecond).String()
			}
			t.Logf("round %d: %s %s %v: %s committed, after %s", round, kind, name, pause.Round(time.Millisecond), next, took)
			if h.procs[name] == nil {
				h.start(name)
			}
			name, term = next, now
		}
		for name := range h.procs {
			h.kill(name)
		}
		rows, terms, bad := h.disorder()
		moments, over := h.overlap()
		t.Logf("%d rows in %d terms, %d out of order; %d moments of unfenced leadership, %d overlap", rows, terms, bad, moments, over)
		require.Zero(t, bad)
		require.Zero(t, over)
		require.Greater(t, terms, 1)
		require.Positive(t, moments)
	})
}
