package jobs_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jmoiron/sqlx"
	_ "modernc.org/sqlite"

	"github.com/nines-go/nines/jobs"
)

// Greeting is the input of a job: it is kept as JSON.
type Greeting struct{ Name string }

// Kind names the jobs that have this input.
func (Greeting) Kind() string { return "greeting" }

func Example() {
	dir, _ := os.MkdirTemp("", "jobs")
	defer os.RemoveAll(dir)
	db := sqlx.MustOpen("sqlite", "file:"+dir+"/jobs.db?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)")
	db.SetMaxOpenConns(1)
	defer db.Close()

	// With a Leader and a Cluster beside DB, this is one of any number of nodes.
	runner, err := jobs.New(jobs.Config{DB: db, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	done := make(chan struct{})
	err = jobs.AddWorker(runner, func(ctx context.Context, job *jobs.Job[Greeting]) error {
		defer close(done)
		fmt.Println("hello,", job.Args.Name)
		return nil
	}, &jobs.WorkerOptions{Timeout: time.Minute})
	if err != nil {
		panic(err)
	}
	// Every night, however often the program is deployed; a night that was missed is caught up.
	err = runner.Schedule("nightly", jobs.Daily("03:00"), Greeting{Name: "night"}, &jobs.ScheduleOptions{TimeZone: "Europe/Berlin"})
	if err != nil {
		panic(err)
	}

	ended := make(chan error, 1)
	go func() { ended <- runner.Run(context.Background()) }()
	if _, err := runner.Enqueue(context.Background(), Greeting{Name: "world"}, nil); err != nil {
		panic(err)
	}
	<-done
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = runner.Shutdown(ctx)
	fmt.Println("ended:", <-ended)
	// Output:
	// hello, world
	// ended: <nil>
}

func ExampleJob_CompleteTx() {
	var db *sql.DB
	_ = func(ctx context.Context, job *jobs.Job[Greeting]) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, `INSERT INTO greetings (name) VALUES (?)`, job.Args.Name); err != nil {
			return err
		}
		if err := job.CompleteTx(ctx, tx); err != nil {
			return err // someone else has the job now: nothing of this is kept
		}
		return tx.Commit()
	}
}
