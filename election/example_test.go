package election_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
)

// One of two nodes does the work, in transactions that are fenced by its term.
func Example() {
	db, remove := open()
	defer remove()
	db.MustExec(`CREATE TABLE mails (sent int)`)

	ctx := context.Background()
	cluster := electiontest.New() // in a program: a *cluster.Node in each process
	var electors []*election.Elector
	for _, id := range []string{"node-1", "node-2"} {
		e, err := election.New(election.Config{Members: cluster.Join(id), DB: db, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			panic(err)
		}
		go e.Run(ctx)
		electors = append(electors, e)
	}
	for _, e := range electors {
		work := func(ctx context.Context, term uint64) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO mails VALUES (1)`); err != nil {
				return tx.Rollback()
			}
			return e.Commit(ctx, tx, term) // ErrDeposed when another leads by now: the row is not there then
		}
		if err := e.LeadFenced(ctx, work); err != nil {
			panic(err)
		}
		fmt.Println("led:", e.State().LeaderID)
		if err := e.Shutdown(ctx); err != nil { // the other takes over at once
			panic(err)
		}
	}
	// Output:
	// led: node-1
	// led: node-2
}

// open makes a database for an example.
func open() (db *sqlx.DB, remove func()) {
	dir, err := os.MkdirTemp("", "election")
	if err != nil {
		panic(err)
	}
	db, err = sqlx.Open("sqlite", "file:"+filepath.Join(dir, "app.db")+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)")
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(1)
	return db, func() {
		db.Close()
		os.RemoveAll(dir)
	}
}

// One process of all that use the database runs the critical section. What it writes there is fenced; what it sends elsewhere carries
// the token, so that the other side can refuse what comes late.
func ExampleMutex() {
	db, remove := open()
	defer remove()
	ctx := context.Background()
	m, err := election.NewMutex(db, "nightly-import")
	if err != nil {
		panic(err)
	}
	lock, err := m.TryLock(ctx)
	if errors.Is(err, election.ErrLocked) {
		fmt.Println("another process is at it")
		return
	} else if err != nil {
		panic(err)
	}
	defer lock.Unlock(ctx)

	tx, err := db.BeginTx(lock.Context(), nil) // ends when the lock is lost
	if err != nil {
		panic(err)
	}
	if _, err := tx.Exec(`CREATE TABLE imports (n int)`); err != nil {
		panic(err)
	}
	if err := lock.Fence(lock.Context(), tx); err != nil { // as the last statement
		panic(err)
	}
	fmt.Println(tx.Commit(), lock.Token() > 0)
	// Output: <nil> true
}

// Any node sends a request to the one that leads.
func ExampleElector_Forward() {
	ctx := context.Background()
	cluster := electiontest.New() // in a program: a *cluster.Node in each process
	var electors []*election.Elector
	for _, id := range []string{"node-1", "node-2"} {
		e, err := election.New(election.Config{Members: cluster.Join(id), Logger: slog.New(slog.DiscardHandler)}) // no DB: advisory
		if err != nil {
			panic(err)
		}
		e.HandleLeader("next-number", func(_ context.Context, term uint64, request []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s from %s", request, id), nil
		})
		go e.Run(ctx)
		defer e.Shutdown(ctx)
		electors = append(electors, e)
	}
	for s := range electors[1].Watch(ctx) {
		if s.LeaderID == "node-1" { // node-2 knows who leads
			break
		}
	}
	answer, err := electors[1].Forward(ctx, "next-number", []byte("7"))
	fmt.Println(string(answer), err)
	// Output: 7 from node-1 <nil>
}
