package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jmoiron/sqlx"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

type riverNop struct {
	At int64 `json:"at"`
}

func (riverNop) Kind() string { return "nop" }

type riverWorker struct {
	river.WorkerDefaults[riverNop]
	started func(delay time.Duration)
}

func (w *riverWorker) Work(_ context.Context, job *river.Job[riverNop]) error {
	if w.started != nil {
		w.started(time.Since(time.Unix(0, job.Args.At)))
	}
	return nil
}

// riverBench is a River client on one driver.
type riverBench[TTx any] struct {
	driver riverdriver.Driver[TTx]
}

func (b riverBench[TTx]) migrate() {
	m, err := rivermigrate.New(b.driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = m.Migrate(context.Background(), rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		panic(err)
	}
}

// client is one process: with River's defaults and 100 workers, as its documentation begins, or with the settings of its own benchmark.
func (b riverBench[TTx]) client(tuned bool, started func(delay time.Duration)) *river.Client[TTx] {
	w := river.NewWorkers()
	river.AddWorker(w, &riverWorker{started: started})
	cfg := &river.Config{Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}}, Workers: w, Logger: slog.New(slog.DiscardHandler)}
	if tuned {
		cfg.FetchCooldown, cfg.FetchPollInterval = 2*time.Millisecond, 20*time.Millisecond
		cfg.Queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: 2000}
	}
	c, err := river.NewClient(b.driver, cfg)
	if err != nil {
		panic(err)
	}
	return c
}

func (b riverBench[TTx]) fill(c *river.Client[TTx], n int) (perSecond float64) {
	began := time.Now()
	batch := make([]river.InsertManyParams, 1000)
	for i := range batch {
		batch[i] = river.InsertManyParams{Args: riverNop{}}
	}
	for range n / 1000 {
		if _, err := c.InsertManyFast(context.Background(), batch); err != nil {
			panic(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

func (b riverBench[TTx]) work(tuned bool, n int) float64 {
	c := b.client(tuned, nil)
	b.fill(c, n)
	events, unsubscribe := c.SubscribeConfig(&river.SubscribeConfig{ChanSize: n + 1000, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	defer unsubscribe()
	began := time.Now()
	if err := c.Start(context.Background()); err != nil {
		panic(err)
	}
	defer c.Stop(context.Background())
	for range n {
		<-events
	}
	return float64(n) / time.Since(began).Seconds()
}

func (b riverBench[TTx]) latency(tuned bool, rate, n int) []float64 {
	delays := make(chan time.Duration, 2*n)
	c := b.client(tuned, func(d time.Duration) { delays <- d })
	if err := c.Start(context.Background()); err != nil {
		panic(err)
	}
	defer c.Stop(context.Background())
	return paced(rate, n, delays, func() error {
		_, err := c.Insert(context.Background(), riverNop{At: time.Now().UnixNano()}, nil)
		return err
	})
}

// riverPostgres runs fn with River on a fresh database of the same server.
func riverPostgres[T any](t *jobsTB, fn func(b riverBench[pgxTx]) T) T {
	_, dsn := jobsDatabase(t, "postgres")
	pool, err := pgxpool.New(context.Background(), dsn)
	if err != nil {
		panic(err)
	}
	t.Cleanup(pool.Close)
	b := riverBench[pgxTx]{riverpgxv5.New(pool)}
	b.migrate()
	return fn(b)
}

func riverSQLite[T any](db *sqlx.DB, fn func(b riverBench[sqlTx]) T) T {
	b := riverBench[sqlTx]{riversqlite.New(db.DB)}
	b.migrate()
	return fn(b)
}
