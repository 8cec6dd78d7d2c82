// Package jobs runs recurring and one-off jobs on the nodes of a cluster, with the SQL database that they have already: PostgreSQL or
// SQLite, and MySQL or MariaDB (not yet tested).
//
// It is for work that must happen although processes die: what runs nightly, what a request leaves to be done, what has to be tried
// again. It is not a message queue: each job is a row that people can look at, and is written several times. It is not a workflow
// engine: a job that needs another enqueues it.
//
// # Use
//
// Make a Runner with New, give it workers with AddWorker and rules with Schedule, then Run it; see the Example. Every node of a cluster
// makes the same calls. Config.Leader lets one of them do the scheduling, Config.Cluster carries wake-ups, cancels and the news of a
// node's end; both may be nil.
//
// Enqueue keeps a job; EnqueueTx keeps it in the caller's transaction, so that it exists exactly if the rest does. Job.CompleteTx ends a
// job in the caller's transaction.
//
// # Guarantees
//
// Exactly one row per slot: each due time of a schedule becomes one row, however many processes schedule, die, are replaced or see their
// clocks stepped. The next due time is kept in the database and is computed from the slot before it, never from the present; what is due
// is judged by the database's clock; (schedule, due time) is unique; and the next due time moves by compare-and-set in the transaction
// that inserts the slot. The Leader only keeps schedulers from colliding: no fence is needed. Slots that nobody was there for are run
// or recorded as skipped, as CatchUp says; of a long absence the newest hundred skipped ones of a tick get rows, older ones a line in
// the log.
//
// At-least-once execution: a job that was enqueued is attempted until it succeeds, its attempts are used up, or somebody cancels it. An attempt
// may be repeated: after a crash, or when a node was cut off. Of several attempts one result is recorded, by compare-and-set on the
// job's owner and the number of the attempt; what a zombie reports is refused.
//
// Effectively once with CompleteTx: the effect and the end of the job commit together, or neither does.
//
// Daylight saving: a clock time that does not exist on its day is due at the first instant that does; one that occurs twice is due once,
// the first time. A rule of every hour ("*/10 * * * *", "7 * * * *") names no clock time: it follows the hours that pass, through the
// hour that comes twice and past the one that is left out.
//
// # Not guaranteed
//
// Order: priority and age say what is claimed first, not what ends first. One execution at a time: see at-least-once. Punctuality: a slot
// is inserted within milliseconds while a scheduler lives, after that of the next one; with CatchUp Skip a slot more than a minute late
// is not run. That a worker stops: its context ends, the rest is the worker's. OverlapSkip and OverlapQueue keep slots of one schedule apart
// as rows, so that a zombie may still be at work on an older one.
//
// # Failures
//
//   - A worker returns an error or panics: the job is retryable and is tried again after a pause that doubles, with jitter; after
//     MaxAttempts it has failed. The error, or the panic with its stack, is kept.
//   - A process dies: each node has one row that it writes every 3 s. Others that see it unchanged for 15 s, by their own clocks, delete
//     it and make its jobs available; when Config.Cluster says that the node has left, they do so at once. The attempt counts, so
//     that a job that takes its process down does not do so for ever.
//   - A node is cut off from the database or stopped: 2 s before the others may take its jobs, counted from its last accepted heartbeat, its workers' contexts
//     end with ErrStale. A process that was stopped (SIGSTOP) goes on with a stale job until its next heartbeat; its results are refused.
//   - A partition of the cluster with the database in reach: each side gives the jobs of the other away once, and then waits for leases.
//   - The database does not answer: nothing is claimed; results wait and are tried again; Check says so. Run waits for a database that is
//     not there yet.
//   - The database's clock is stepped: forward, slots are early, once; back, the next ones wait. No lease and no retry of a running job
//     depends on it.
//   - No node schedules (all have NoScheduler, or the leader has): Check returns a warning.
//
// # Lifecycle and concurrency
//
// New touches nothing. Run applies the migrations and owns every goroutine until Shutdown, which stops claiming and scheduling, lets
// running jobs end, ends their contexts with ErrShutdown shortly before its own deadline, and returns what did not finish to its queue
// without counting the attempt. The end of Run's context is the hard stop: use one of its own, not that of signal.NotifyContext, or
// SIGTERM cuts where it should drain. All methods are safe for concurrent use and return ErrClosed after Shutdown. AddWorker comes before Run.
//
// Each worker call has a goroutine of its own. On SQLite the pool should have one connection, as dbrouter's has: a worker that holds a
// transaction must not call Progress or Enqueue beside it, which would wait for that connection; CompleteTx and EnqueueTx use the
// transaction itself.
//
// A job is a kind and JSON: during a rolling update old workers meet new args and the other way round. A kind that a node has no worker
// for is left to the nodes that have one. Schedules are rows too: a name that is no longer registered goes on until it is paused or its
// row is deleted; of two versions that register different rules the one that started last wins.
//
// # Limits
//
// Names, kinds and queues have 1 to 128 bytes of printable ASCII; args 1 MiB of JSON; a queue runs up to 10,000 jobs at once on a node.
// Intervals are at least 1 s, cron rules at least a minute. Messages use the topics nines.jobs.*: one Runner a cluster node.
//
// # Not yet
//
// MySQL and MariaDB are written along and not tested. There are no outputs of jobs, no list of the errors of earlier attempts, no resumable
// position, no limit of a kind or key over the whole cluster, no Enabled predicate of a schedule, no removal of a schedule, no Get (use
// List with IDs), no snooze, no Prometheus collector and no jobstest. Failed attempts are recorded one by one, only successes in batches.
package jobs
