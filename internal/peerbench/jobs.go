package main

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"
)

type (
	pgxTx = pgx.Tx
	sqlTx = *sql.Tx
)

func init() { products["jobs"] = jobsRows }

// jobsRows measures no-op jobs: throughput of one process on a full queue, the time from Enqueue to the start, bulk inserts. Each round is on
// a fresh database of one server, and the parties take turns. River's default settings are so slow that they get fewer jobs.
func jobsRows(b *bench) (rows []row, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	n, few, finished := 50_000, 4_000, 1_000_000
	if b.quick {
		n, few, finished = 20_000, 2_000, 200_000
	}
	tuned := map[string]int{"default": 2000}
	figures := map[string][]float64{}
	add := func(name string, v float64) { figures[name] = append(figures[name], v) }
	round := func(fn func(t *jobsTB)) {
		t := &jobsTB{}
		defer t.end()
		fn(t)
	}
	ours := func(t *jobsTB, kind string, queues map[string]int, n int) float64 {
		db, _ := jobsDatabase(t, kind)
		return oursWork(db, queues, n)
	}
	for range b.rounds {
		round(func(t *jobsTB) { add("default.ours", ours(t, "postgres", nil, n)) })
		round(func(t *jobsTB) {
			add("default.river", riverPostgres(t, func(r riverBench[pgxTx]) float64 { return r.work(false, few) }))
		})
		round(func(t *jobsTB) { add("tuned.ours", ours(t, "postgres", tuned, n)) })
		round(func(t *jobsTB) {
			add("tuned.river", riverPostgres(t, func(r riverBench[pgxTx]) float64 { return r.work(true, n) }))
		})
		round(func(t *jobsTB) { add("mariadb.ours", ours(t, "mariadb", nil, n)) })
		round(func(t *jobsTB) { add("sqlite.ours", ours(t, "sqlite", nil, n)) })
		round(func(t *jobsTB) {
			db, _ := jobsDatabase(t, "sqlite")
			add("sqlite.river", riverSQLite(db, func(r riverBench[sqlTx]) float64 { return r.work(true, few*2) }))
		})
		round(func(t *jobsTB) {
			db, _ := jobsDatabase(t, "postgres")
			add("bulk.ours", oursFill(oursRunner(db, nil, nil), n))
		})
		round(func(t *jobsTB) {
			add("bulk.river", riverPostgres(t, func(r riverBench[pgxTx]) float64 { return r.fill(r.client(false, nil), n) }))
		})
		round(func(t *jobsTB) {
			db, _ := jobsDatabase(t, "postgres")
			oursFill(oursRunner(db, nil, nil), 1000) // the tables
			_, err := db.ExecContext(context.Background(), fmt.Sprintf(`INSERT INTO nines_jobs (kind, queue, state, outcome, priority, run_us, deadline_us, attempt, uncounted, max_attempts, node, held, cancel, args, progress, note, error, created_us, started_us, done_us)
				SELECT 'nop','default',3,'succeeded',0,i,0,1,0,0,'',0,0,'{"At":0}',100,'','',i,i,(extract(epoch from clock_timestamp())*1000000)::bigint FROM generate_series(1,%d) i`, finished))
			if err == nil {
				_, err = db.ExecContext(context.Background(), `VACUUM ANALYZE nines_jobs`)
			}
			if err != nil {
				panic(err)
			}
			add("history.ours", oursWork(db, nil, n))
		})
	}
	for range min(b.rounds, 3) {
		count := 250
		round(func(t *jobsTB) {
			db, _ := jobsDatabase(t, "postgres")
			ms := oursLatency(db, 50, count)
			add("p50.ours", quantile(ms, 0.5))
			add("p99.ours", quantile(ms, 0.99))
		})
		for name, tuned := range map[string]bool{"river": false, "river tuned": true} {
			round(func(t *jobsTB) {
				ms := riverPostgres(t, func(r riverBench[pgxTx]) []float64 { return r.latency(tuned, 50, count) })
				add("p50."+name, quantile(ms, 0.5))
				add("p99."+name, quantile(ms, 0.99))
			})
		}
	}
	of := func(name string) float64 { return median(figures[name]) }
	make := func(name, unit, key string) row {
		r := row{Name: "jobs." + name, Unit: unit, Ours: of(key + ".ours"), Peers: map[string]float64{}}
		for _, peer := range []string{"river", "river tuned"} {
			if xs := figures[key+"."+peer]; len(xs) > 0 {
				r.Peers[peer] = median(xs)
			}
		}
		return r
	}
	history := make("throughput.history", "jobs/s", "history")
	history.Limit = of("default.ours")
	return []row{
		make("throughput.default", "jobs/s", "default").atLeast(15, of("default.river"), "River's defaults"),
		make("throughput.tuned", "jobs/s", "tuned").atLeast(2, of("tuned.river"), "River tuned"),
		make("throughput.mariadb", "jobs/s", "mariadb").atLeast(1, 12_000, "12,000/s"),
		make("throughput.sqlite", "jobs/s", "sqlite").atLeast(5, of("sqlite.river"), "River on SQLite"),
		history.atLeast(0.9, of("default.ours"), fmt.Sprintf("an empty table, with %d finished rows", finished)),
		make("bulk", "jobs/s", "bulk").atLeast(1, of("bulk.river"), "River's InsertManyFast"),
		make("start.p50", "ms", "p50").atMost(1, 2, "2 ms, at 50/s by default"),
		make("start.p99", "ms", "p99").atMost(1, 15, "15 ms, at 50/s by default"),
	}, nil
}

func quantile(xs []float64, q float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	return xs[min(int(math.Ceil(q*float64(len(xs)))), len(xs))-1]
}
