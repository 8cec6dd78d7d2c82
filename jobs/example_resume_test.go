package jobs_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/jobs"
)

// Export copies messages to a file store, in pieces.
type Export struct{ Channel string }

// Kind names the jobs that have this input.
func (Export) Kind() string { return "export" }

// A long job saves where it is, and goes on from there in the next attempt, on whichever node: after a crash, a deploy or an error.
func ExampleJob_Resume() {
	dir, _ := os.MkdirTemp("", "jobs")
	defer os.RemoveAll(dir)
	db := sqlx.MustOpen("sqlite", "file:"+dir+"/jobs.db?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	db.SetMaxOpenConns(1)
	defer db.Close()
	runner, err := jobs.New(jobs.Config{DB: db})
	if err != nil {
		panic(err)
	}
	type position struct{ After int }
	err = jobs.AddWorker(runner, func(ctx context.Context, job *jobs.Job[Export]) error {
		var at position
		if _, err := job.Resume(&at); err != nil {
			return err
		}
		for ; at.After < 300; at.After += 100 {
			if at.After == 200 && job.Attempt == 1 {
				return fmt.Errorf("the store is full")
			}
			fmt.Println("messages after", at.After)
			// Beside the work, or with SaveTx in its transaction.
			if err := job.Save(ctx, position{at.After + 100}); err != nil {
				return err
			}
			if err := job.Progress(ctx, at.After/3, "copying"); err != nil {
				return err
			}
		}
		return job.SetOutput(map[string]int{"messages": at.After})
	}, &jobs.WorkerOptions{Backoff: time.Millisecond})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	id, err := runner.Enqueue(ctx, Export{Channel: "town-square"}, nil)
	if err != nil {
		panic(err)
	}
	for { // instead of Run, for the example
		if _, err := runner.Step(ctx); err != nil {
			panic(err)
		}
		info, err := runner.Get(ctx, id)
		if err != nil {
			panic(err)
		}
		if info.State == "succeeded" {
			fmt.Println("attempt", info.Attempt, info.Output, "after:", info.Errors[0].Error)
			return
		}
	}
	// Output:
	// messages after 0
	// messages after 100
	// messages after 200
	// attempt 2 {"messages":300} after: the store is full
}
