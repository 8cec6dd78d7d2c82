// Package jobsprom makes the figures of a jobs.Runner metrics for Prometheus.
//
//	prometheus.MustRegister(jobsprom.NewCollector(runner, nil))
//
// All names begin with nines_jobs_. What to watch: nines_jobs_schedulers is 0 (no recurring job starts), nines_jobs_unserved_jobs is not 0 (no
// node takes them), nines_jobs_oldest_wait_seconds grows (too little room), nines_jobs_kind_failures_total rises, and
// nines_jobs_schedule_next_timestamp_seconds is in the past by more than a minute while the schedule is not paused.
//
// # Guarantees
//
// A scrape reads Stats once: no query, no wait for the database. What is of the whole cluster is some seconds old;
// nines_jobs_read_timestamp_seconds says since when, and stands still while the database does not answer. Each value of an enumerated
// label is there from the first scrape on.
//
// # Not guaranteed
//
// Figures of the whole cluster are told by every node: take their maximum over nodes, not their sum. Counters are of one process and begin
// anew with it.
//
// # Failures
//
//   - The Runner does not run yet, or no longer: the figures stay what they were last, or 0.
//   - The database does not answer: nines_jobs_faults_total rises and nines_jobs_read_timestamp_seconds stands still.
//
// # Lifecycle and concurrency
//
// The collector has no goroutine and nothing to close. It is safe for concurrent use.
//
// # Limits
//
// Labels are queues, kinds, schedules, states and outcomes: as many series as the program has names for.
package jobsprom
