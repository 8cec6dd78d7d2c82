package electiontest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nines-go/nines/election"
)

// patience bounds every wait of the suites.
const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func until(t *testing.T, what string, fn func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !fn() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("in vain for %v: %s", patience, what)
		}
	}
}

// TestMembership checks an implementation of election.Membership. join starts one more member of one and the same cluster, as another
// process would, and returns a function that ends it in good order.
func TestMembership(t *testing.T, join func(t *testing.T) (m election.Membership, leave func())) {
	t.Helper()
	a, leaveA := join(t)
	defer leaveA()
	until(t, "the first member is alive", func() bool { return slices.Equal(a.Alive(), []string{a.ID()}) })
	changes := make(chan struct{}, 1)
	stop := a.Notify(changes)
	silent := make(chan struct{}) // nobody reads it: a notification must not wait
	defer a.Notify(silent)()
	b, leave := join(t)
	left := false
	defer func() {
		if !left {
			leave()
		}
	}()
	both := []string{a.ID(), b.ID()}
	slices.Sort(both)
	if both[0] == both[1] {
		t.Fatalf("two members have one ID: %s", both[0])
	}
	if len(b.ID()) > 150 {
		t.Fatalf("ID %q has %d bytes, want at most 150", b.ID(), len(b.ID()))
	}
	until(t, "both see both, in order", func() bool { return slices.Equal(a.Alive(), both) && slices.Equal(b.Alive(), both) })
	select {
	case <-changes:
	case <-time.After(patience):
		t.Fatal("a member joined and Notify said nothing")
	}
	if fate := a.Fate(b.ID()); fate != "alive" && fate != "suspect" {
		t.Fatalf("Fate of a member that is alive is %q", fate)
	}

	tags(t, a, b, changes)
	requests(t, a, b)

	leave()
	left = true
	until(t, "who left is not alive", func() bool { return slices.Equal(a.Alive(), []string{a.ID()}) })
	if fate := a.Fate(b.ID()); fate != "left" && fate != "dead" && fate != "failed" {
		t.Fatalf("Fate of a member that left is %q", fate)
	}
	if _, err := a.Request(within(t), b.ID(), "echo", nil); err == nil {
		t.Fatal("a request to a member that left was answered")
	}
	stop()
}

func tags(t *testing.T, a, b election.Membership, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	default:
	}
	if err := b.SetTag("conformance.tag", "x"); err != nil {
		t.Fatal(err)
	}
	if got := b.Tag(b.ID(), "conformance.tag"); got != "x" {
		t.Fatalf("a member's own tag is %q", got)
	}
	until(t, "the other sees the tag", func() bool { return a.Tag(b.ID(), "conformance.tag") == "x" })
	select {
	case <-changes:
	case <-time.After(patience):
		t.Fatal("a tag changed and Notify said nothing")
	}
	if err := b.SetTag("conformance.tag", ""); err != nil {
		t.Fatal(err)
	}
	until(t, "the other sees that it is gone", func() bool { return a.Tag(b.ID(), "conformance.tag") == "" })
	if got := a.Tag("nobody", "conformance.tag"); got != "" {
		t.Fatalf("the tag of nobody is %q", got)
	}
}

func requests(t *testing.T, a, b election.Membership) {
	t.Helper()
	refused := errors.New("refused by the handler")
	stop := b.Handle("echo", func(_ context.Context, from string, payload []byte) ([]byte, error) {
		if len(payload) == 0 {
			return nil, refused
		}
		return append([]byte(from+":"), payload...), nil
	})
	payload := bytes.Repeat([]byte("x"), 10_000)
	got, err := a.Request(within(t), b.ID(), "echo", payload)
	if want := a.ID() + ":" + string(payload); err != nil || string(got) != want {
		t.Fatalf("Request answered %d bytes, %v; want the sender's ID and what was sent", len(got), err)
	}
	if _, err := a.Request(within(t), b.ID(), "echo", nil); err == nil {
		t.Fatal("the handler failed, and the request did not")
	}
	gate := make(chan struct{})
	defer b.Handle("slow", func(context.Context, string, []byte) ([]byte, error) { <-gate; return nil, nil })()
	defer close(gate)
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Request(short, b.ID(), "slow", nil); err == nil {
		t.Fatal("a request outlived its context")
	}
	if got, err := a.Request(within(t), b.ID(), "echo", []byte("y")); err != nil || string(got) != a.ID()+":y" {
		t.Fatalf("beside a handler that hangs: %q, %v", got, err)
	}
	if _, err := a.Request(within(t), "nobody", "echo", nil); err == nil {
		t.Fatal("a request to nobody was answered")
	}
	stop()
	if _, err := a.Request(within(t), b.ID(), "echo", payload); err == nil {
		t.Fatal("a request to a topic without handler was answered")
	}
}

// TestDB checks a database, its driver, and the handle that a program has on it: whether an election and its fence work there. open returns
// a handle of its own, as another process would have, to one and the same database, which is empty at first. It makes the tables of the election
// and one called nines_conformance.
func TestDB(t *testing.T, open func(t *testing.T) election.DB) {
	t.Helper()
	c := New()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	start := func(id string) (*election.Elector, context.CancelFunc) {
		e, err := election.New(election.Config{Members: c.Join(id), DB: open(t), StableFor: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, kill := context.WithCancel(context.Background())
		t.Cleanup(kill)
		wg.Go(func() { _ = e.Run(ctx) })
		return e, kill
	}
	a, _ := start("a")
	until(t, "the first leads", a.IsLeader)
	b, kill := start("b")
	until(t, "the second knows", func() bool { return b.State().LeaderID == "a" })
	db := open(t)
	first := a.State().Term
	exec(t, db, `CREATE TABLE nines_conformance (term bigint)`)

	if err := write(t, db, a, first); err != nil {
		t.Fatalf("a fenced commit of the leader: %v", err)
	}
	if err := write(t, db, b, first); !errors.Is(err, election.ErrDeposed) {
		t.Fatalf("a fenced commit of a node that does not lead: %v", err)
	}
	until(t, "the lease is renewed", func() bool { return a.Stats().Renewals > 2 })
	if s := a.State(); !a.IsLeader() || s.Term != first {
		t.Fatalf("after some renewals: %+v", s)
	}
	if err := a.TransferTo(within(t), "b"); err != nil {
		t.Fatalf("handover: %v", err)
	}
	until(t, "the second leads", b.IsLeader)
	second := b.State().Term
	if second <= first {
		t.Fatalf("term %d after %d", second, first)
	}
	if err := write(t, db, a, first); !errors.Is(err, election.ErrDeposed) {
		t.Fatalf("a fenced commit of the leader before: %v", err)
	}
	if err := write(t, db, b, second); err != nil {
		t.Fatalf("a fenced commit of the next leader: %v", err)
	}
	kill()
	c.Remove("b", "failed")
	until(t, "the first leads again, after the lease of the second was silent", a.IsLeader)
	if third := a.State().Term; third <= second {
		t.Fatalf("term %d after %d", third, second)
	}
	mutex(t, open)
	if n := count(t, db); n != 2 {
		t.Fatalf("%d rows, want those of the two commits that were accepted", n)
	}
	if err := a.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
}

func mutex(t *testing.T, open func(t *testing.T) election.DB) {
	t.Helper()
	m, err := election.NewMutex(open(t), "conformance")
	if err != nil {
		t.Fatal(err)
	}
	one, err := m.Lock(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.TryLock(within(t)); !errors.Is(err, election.ErrLocked) {
		t.Fatalf("TryLock of a mutex that is held: %v", err)
	}
	if err := one.Unlock(within(t)); err != nil {
		t.Fatal(err)
	}
	two, err := m.Lock(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if two.Token() <= one.Token() {
		t.Fatalf("token %d after %d", two.Token(), one.Token())
	}
	if err := two.Unlock(within(t)); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, db election.DB, query string) {
	t.Helper()
	conn, err := db.Conn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(within(t), query); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db election.DB) (n int) {
	t.Helper()
	conn, err := db.Conn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.QueryRowContext(within(t), `SELECT count(*) FROM nines_conformance`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// write commits one fenced row.
func write(t *testing.T, db election.DB, e *election.Elector, term uint64) error {
	t.Helper()
	conn, err := db.Conn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tx, err := conn.BeginTx(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(within(t), `INSERT INTO nines_conformance VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	return e.Commit(within(t), tx, term)
}
