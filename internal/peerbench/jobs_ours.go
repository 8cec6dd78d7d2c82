package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/jobs"
)

// nop is a job of ours that does nothing but say when it was enqueued.
type nop struct {
	At int64
}

func (nop) Kind() string { return "nop" }

// oursRunner is one process with its defaults, but for queues.
func oursRunner(db *sqlx.DB, queues map[string]int, started func(delay time.Duration)) *jobs.Runner {
	r, err := jobs.New(jobs.Config{DB: db, Queues: queues, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = jobs.AddWorker(r, func(_ context.Context, job *jobs.Job[nop]) error {
			if started != nil {
				started(time.Since(time.Unix(0, job.Args.At)))
			}
			return nil
		}, nil)
	}
	if err != nil {
		panic(err)
	}
	return r
}

func oursFill(r *jobs.Runner, n int) (perSecond float64) {
	began := time.Now()
	batch := make([]jobs.Args, 1000)
	for i := range batch {
		batch[i] = nop{}
	}
	for range n / 1000 {
		if _, err := r.EnqueueMany(context.Background(), batch, nil); err != nil {
			panic(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// oursWork fills the queue with n jobs and returns how many a second were done, recorded ones.
func oursWork(db *sqlx.DB, queues map[string]int, n int) float64 {
	r := oursRunner(db, queues, nil)
	oursFill(r, n)
	began := time.Now()
	stop := oursRun(r)
	defer stop()
	for r.Stats().Succeeded < int64(n) {
		time.Sleep(2 * time.Millisecond)
	}
	return float64(n) / time.Since(began).Seconds()
}

func oursRun(r *jobs.Runner) (stop func()) {
	done := make(chan error, 1)
	go func() { done <- r.Run(context.Background()) }()
	return func() {
		if err := r.Shutdown(context.Background()); err != nil {
			panic(err)
		}
		if err := <-done; err != nil {
			panic(err)
		}
	}
}

// oursLatency enqueues jobs one by one at a rate and returns how long each took to start, in milliseconds.
func oursLatency(db *sqlx.DB, rate, n int) []float64 {
	delays := make(chan time.Duration, n)
	r := oursRunner(db, nil, func(d time.Duration) { delays <- d })
	stop := oursRun(r)
	defer stop()
	return paced(rate, n, delays, func() error {
		_, err := r.Enqueue(context.Background(), nop{At: time.Now().UnixNano()}, nil)
		return err
	})
}

// paced calls enqueue at a rate, some times to warm up first, and collects n delays.
func paced(rate, n int, delays chan time.Duration, enqueue func() error) (ms []float64) {
	var warm atomic.Int64
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	warming := rate // a second
	go func() {
		for i := 0; i < warming+n; i++ {
			<-tick.C
			if err := enqueue(); err != nil {
				panic(err)
			}
		}
	}()
	for len(ms) < n {
		d := <-delays
		if warm.Add(1) > int64(warming) {
			ms = append(ms, d.Seconds()*1e3)
		}
	}
	return ms
}
