package election_test

import (
	"context"
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
	dir, err := os.MkdirTemp("", "election")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	db, err := sqlx.Open("sqlite", "file:"+filepath.Join(dir, "app.db")+"?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)")
	if err != nil {
		panic(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
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
