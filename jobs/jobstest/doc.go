// Package jobstest tests programs that use package jobs: their workers and their schedules, in simulated time; and databases, with the
// conformance suite that every one passes that jobs is said to run on.
//
// # Simulated time
//
// New makes a Sim: a real jobs.Runner on a real database, whose clock the test sets and whose work is done step by step in the test's own
// goroutine. Register workers and schedules on Sim.Runner as the program does, then
//
//   - Do enqueues one job, runs it and says what became of it: the test of a worker;
//   - Advance lets time pass, and stops at each slot, retry and RunAt on the way: the test of a schedule. A year takes seconds;
//   - Tick does what is due now.
//
// See the Example. SQLite in memory is enough of a database; jobstest links no driver.
//
// # Guarantees
//
// What is due, and the order in which jobs run, is as it would be on one node: the Runner is the real one. Nothing runs but in Tick, Advance
// and Do. All times that jobs records are the simulated ones.
//
// # Not guaranteed
//
// Contexts of workers end by the real clock: WorkerOptions.Timeout is not simulated. Jobs run one after the other, so that a worker that waits
// for another job waits for ever. Pauses before retries have jitter.
//
// # The suite
//
// Run is the conformance suite: all states, options and promises of package jobs that one process can see. Give it a database handle of
// your own kind (a proxy, a driver, a version) to know whether jobs may be used on it.
//
// # Failures
//
//   - The database refuses something: the test fails at once, with its error.
//   - A worker fails: that is the job's state, as in production; Do and Tick return it.
//
// # Lifecycle and concurrency
//
// A Sim is of one test and one goroutine; there is nothing to stop. Clock may be read by workers.
//
// # Limits
//
// One Step runs one job at a time, about 1,000 a second on SQLite.
package jobstest
