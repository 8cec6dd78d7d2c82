// Package jobs runs recurring and one-off jobs on the nodes of a cluster, with the SQL database that they have already: PostgreSQL (lib/pq
// or pgx), MariaDB, SQLite; MySQL 8 is written for and not yet tested.
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
// job in the caller's transaction. A long job saves its position (Save, SaveTx), goes on from there after a crash or a deploy (Resume), and
// may do its work in pieces with pauses (Snooze): see the Example of Job.Resume.
//
// List, Get, Cancel, Retry, RunNow, Pause and Unschedule are for people, Actions is the same as buttons; Stats and Check make a card of
// cluster/console, package jobsprom metrics. Package jobstest tests workers and schedules in simulated time.
//
// # States
//
//	      ┌────────────── Snooze, Shutdown ◄─────┐
//	      ▼                                      │
//	   pending ──────────────► running ──────────┼──► succeeded, warning, discarded, failed
//	      ▲                    ▲     │           │
//	      │   its time has come│     │error      ├──► cancelled (cancel requested while it runs)
//	      │                    │     ▼           │
//	Retry from any end       retryable           └──► skipped (Enabled says no, StartDeadline has passed)
//
// A slot that is not run is skipped from the start; what waits can be cancelled at once.
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
// job's owner and the number of the attempt; what a zombie reports is refused, and so are its Progress, Save and CompleteTx.
//
// Effectively once with CompleteTx: the effect and the end of the job commit together, or neither does. With SaveTx the same holds for each piece of
// a long job.
//
// Limits over all nodes: of a queue with Config.ClusterLimits, and of the jobs of one kind with the same LimitKey, no more are running, as rows, than
// the limit says. What decides that takes turns on a row of the database.
//
// Daylight saving: a clock time that does not exist on its day is due at the first instant that does; one that occurs twice is due once,
// the first time. A rule of every hour ("*/10 * * * *", "7 * * * *") names no clock time: it follows the hours that pass, through the
// hour that comes twice and past the one that is left out.
//
// # Not guaranteed
//
// Order: priority and age say what is claimed first, not what ends first. One execution at a time: see at-least-once. Punctuality: a slot
// is inserted within milliseconds while a scheduler lives, after that of the next one; with CatchUp Skip a slot more than a minute late
// is not run. That a worker stops: its context ends, the rest is the worker's. OverlapSkip, OverlapQueue and limits keep jobs
// apart as rows, so that a zombie may still be at work on an older one.
//
// # Failures
//
//	a worker returns an error, panics  the job is retryable and is tried again after a pause that doubles, with jitter; after MaxAttempts it has
//	                                   failed. Get has the errors of the newest ten attempts, a panic's with its stack
//	args do not decode                 the same: a node with another version of the type may be able to
//	a process dies                     the cluster says that the node has left: its jobs start elsewhere in some 10 ms. Without a cluster: when its row
//	                                   has not changed for 15 s by the other nodes' own clocks, so within 20 s. The attempt counts, so that a job that takes
//	                                   its process down does not do so for ever. A process that comes back with the same cluster ID gives its
//	                                   predecessor's jobs back at once
//	the leader dies                    the slots that are due meanwhile are inserted by the next one, in the order of their times
//	a node cannot reach the database   2 s before others may take its jobs, counted from its last accepted heartbeat, its workers' contexts end with
//	                                   ErrStale. A process that was stopped (SIGSTOP) goes on with a stale job until its next heartbeat
//	a partition of the cluster, with   each side gives the jobs of the other away once, and then waits for leases
//	the database in reach
//	the database does not answer       nothing is claimed; results wait and are tried again; Check says so. When it answers again all goes on within a
//	                                   second or two. A claim whose answer was lost is found and given back, uncounted. lib/pq heeds no context while it
//	                                   connects: give it connect_timeout
//	it fails over to another server    the same. What the old one had confirmed and the new one does not have is lost with it: replicate synchronously
//	                                   where that matters
//	its clock is stepped               forward: slots are early, once; back: the next ones wait. None is lost or doubled. No lease depends on it
//	no node schedules                  all have NoScheduler, or the leader has: Check returns a warning
//	no node takes a job                no worker for its kind, or nobody serves its queue: it waits; Stats.Unserved counts it, Check returns a warning
//	Shutdown's patience ends           contexts end with ErrShutdown, and what does not finish goes back to its queue uncounted
//
// # Lifecycle and concurrency
//
// New touches nothing. Run applies the migrations and owns every goroutine until Shutdown, which stops claiming and scheduling, lets
// running jobs end, ends their contexts with ErrShutdown shortly before its own deadline, and returns what did not finish to its queue
// without counting the attempt. The end of Run's context is the hard stop: use one of its own, not that of signal.NotifyContext, or
// SIGTERM cuts where it should drain. All methods are safe for concurrent use and return ErrClosed after Shutdown. AddWorker comes before
// Run. Step does what Run does, once and in the caller's goroutine.
//
// Each worker call has a goroutine of its own. On SQLite the pool should have one connection, as dbrouter's has: a worker that holds a
// transaction must not call Progress, Save or Enqueue beside it, which would wait for that connection; CompleteTx, SaveTx and EnqueueTx use
// the transaction itself.
//
// A job is a kind and JSON: during a rolling update old workers meet new args and the other way round. A kind that a node has no worker
// for is left to the nodes that have one. Schedules are rows too: a name that is no longer registered goes on until it is paused or
// Unschedule removes it; of two versions that register different rules the one that started last wins.
//
// # Limits
//
// Names, kinds and queues have 1 to 128 bytes of printable ASCII; args and outputs 1 MiB of JSON, positions 64 KiB; a queue runs up to 10,000
// jobs at once on a node. Intervals are at least 1 s, cron rules at least a minute. Messages use the topics nines.jobs.*: one Runner a
// cluster node. A million finished rows cost a claim nothing. Tested with four schedulers at once on 2,000 slots, a hundred kills of the
// leader, and three processes.
//
// # Not yet
//
// Limits over time (so many a minute). Results other than plain successes are recorded one statement each, in one transaction for as many as
// there are.
package jobs
