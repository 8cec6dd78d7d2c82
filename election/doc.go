// Package election chooses one leader among the nodes of a cluster, and gives its leadership a number, the term, that a database can check.
//
// # What it is and is not
//
// The eligible member with the lowest ID is the one to try. With a database (Config.DB) a row there, the lease, decides: who tries and
// who leads are two things, and members that see different clusters still get one leader. Without a database leadership is advisory.
// It is no consensus protocol and keeps no data: whatever must be true for ever belongs into the database, in a transaction that is
// fenced by the term.
//
// A member is eligible when it is alive, not suspect, not draining, its tag election.candidate is not "no" (Config.NonCandidate sets it,
// for the whole node), and its tag nines.paused is not set.
//
// # Use
//
// New, then Run beside the rest of the program. Work that only one node may do goes into Lead, which calls a function while this node
// leads and ends its context with the leadership; work whose every effect is a transaction on the same database goes into LeadFenced
// and ends its transactions with Commit: it goes on elsewhere within milliseconds of a crash. See the example. Watch and State tell
// who leads; HandleLeader and Forward send a request to whoever does. Mutex is the same lease for a critical section, without a cluster.
// Package electiontest has clusters in memory, a stand-in and conformance suites for tests; electionprom metrics.
//
// # Guarantees
//
// With a database:
//
//   - Commits that are fenced by one term all come before the commits that are fenced by a later one, in the history of the database that
//     survives. This depends on no clock, no network and no opinion about the cluster.
//   - At most one node acts unfenced, that is inside Lead, between IsLeader and its next check, or in a handler of HandleLeader,
//     provided that the rates of the nodes' clocks agree within 16 %, that one master takes writes, and that Config.EarlyLead is not
//     Proven. A node that stops acting only when its context tells it has half a second (a sixth of the TTL) before another can begin.
//   - Terms rise with each leadership. Across a fail-over of the database that lost the newest one too, when the clocks of the two
//     masters agree within the TTL.
//   - Before the cluster's view is settled nobody is said to lead, least of all this node.
//
// How they come about, by rules that the comments cite:
//
//	Trust  A holder trusts its lease from before the statement that wrote it was sent until TTL minus margin. Time is the larger of the
//	       monotonic and the wall clock: the former stands still while a machine sleeps.
//	T1     Who has seen the lease unchanged for a TTL, on one run of one server and by its own monotonic clock counted from the first
//	       answer, may take it by compare and set. The clock of the database is not asked.
//	T2     A lease that its holder gave back, on the server that is asked, may be taken at once.
//	T3     Who has proof that the holder's process or its database session is gone revokes the lease and takes it at once. Such a term can
//	       fence at once; unfenced work starts when the term is quiet: the trust of whoever was before must have ended, and a write of
//	       the new holder was accepted after that. Without the latter, a database that fails over to a copy without the revoke would let
//	       the former holder renew there, beside a new one that does not know yet that its term is lost. A proof that a process is dead
//	       holds for the term that it held then: who acquires later was not dead. With EarlyLead Proven a term is quiet at once when all
//	       of it is there: the session has ended, this member and another one have proof of the death, and the dead one's own term had
//	       been seen for a TTL, so that nobody before it can still act either.
//	Lapsed A holder whose trust ended is not renewed: it needs a new term. Otherwise one that was paused, followed by another and then
//	       saw the database fail over to a copy with its old row would lead beside the other.
//	Number A new term is at least the last plus one, and at least the database's clock in milliseconds.
//	Fence  Inside the transaction: the term's row is locked against the next acquire, and read. The row of renewals is another one, so
//	       that open transactions do not keep the leader from renewing. On SQLite, which has one writer, the fence is a renewal.
//
// # Not guaranteed
//
//   - Effects outside the database that do not check the term: a request that was already sent can arrive late. Pass the term along.
//   - Code in Lead that goes on after its context has ended.
//   - Statements in autocommit after Fence; a fence inside a savepoint that is rolled back (Commit fences again, and finds out);
//     prepared transactions of two-phase commit.
//   - Two masters that both take writes; a machine that is suspended, or set back to a snapshot, such that both its clocks stand still.
//   - SQLite over a network file system, and a leader on SQLite while a process is stopped in the middle of a write.
//   - With EarlyLead Proven: that no two act unfenced when the network forges the death of a process.
//
// Without a database, leadership follows each member's view, announced by a tag. Both sides of a partition have a leader, or with Quorum
// only the larger side, once it has noticed; while a claim is on its way, or while a stopped process has not noticed that it was
// replaced, two nodes can believe to lead. Use it to spare double work, not to prevent it. Terms rise on each side of a partition; when it ends,
// the leader that goes on takes one above those of both, as soon as it has seen them.
//
// # Failures
//
// What happens, and until when nobody works, with the default TTL of 3 s:
//
//	the leader's process dies          fenced work elsewhere in some 10 ms: PostgreSQL and MariaDB free its session lock, or the cluster
//	                                   has proof of the death. With neither, and for Lead: when the TTL has passed. With EarlyLead
//	                                   Proven Lead too in some 10 ms
//	it is stopped, or its host cut off its contexts end a sixth of the TTL before the TTL has passed, and then another leads. What it
//	                                   sends when it goes on is refused
//	the same between Fence and COMMIT  up to 3 s more on PostgreSQL, where the fence bounds how long its transaction stands still, and
//	                                   on MariaDB with idle_transaction_timeout=3 in the data source name: the log says when it is
//	                                   missing. Its COMMIT fails
//	the leader loses its session lock  Lead ends, until the next renewal says that there is none; LeadFenced goes on
//	it is cut off from the cluster     it goes on leading. The lease decides
//	the database is away               the leader lapses, nobody leads, Check says why. All go on trying
//	it fails over, or restarts         when the leader can renew in time its term goes on, else there is a new one when the TTL has
//	                                   passed; also when the fail-over lost the newest term
//	Shutdown, Resign, TransferTo,      callbacks end, the lease is given back, the successor is told and leads at once: some 10 ms. When
//	draining                           callbacks of Lead do not return within a third of the TTL, the successor fences at once and does the
//	                                   rest a TTL later
//	a lower ID comes to a leader       it takes over by handover after StableFor, if it is willing; one that was there when the leader
//	                                   began changes nothing. IDs that sort by age never cause this
//	a node's clock is set              nothing, but that a holder whose wall clock jumps ahead by a TTL takes its lease for ended
//	the database's clock is set        nothing: it decides nothing, and terms rise all the same
//	the network forges resets          as if the leader had died: fenced work elsewhere; Lead waits. With Proven, two are in Lead until the
//	                                   old one finds its session lost: 0.4 s
//	code of the user hangs             a function of Lead, a handler or a consumer of Watch that never returns delays nothing but itself
//
// # Lifecycle and concurrency
//
// New does no I/O. Run applies the schema (Migrations) when it has reached the database; cluster and database may come later. Its
// context is the hard stop: pass one that SIGTERM does not cancel, and call Shutdown, before that of the cluster node. All methods are
// safe for concurrent use; after Shutdown they return ErrClosed. User functions run on the caller's goroutine (Lead, LeadFenced) or the
// cluster's (HandleLeader), never on the protocol's.
//
// On PostgreSQL and MariaDB an Elector keeps two connections of the pool: one for the lease, so that an exhausted pool does not cost the
// leadership, and one for the session lock. They are replaced when they fail, and when the DB has a Generation that changed. On SQLite it
// keeps none; open the database with one write connection and _txlock=immediate, for SQLite's own waiting is not fair.
//
// The role needs UPDATE on nines_lease_terms. A transaction pooler costs the early takeover (T3), not safety: it is found out, Stats says so,
// and session locks are not used. Behind one, lib/pq needs binary_parameters=yes, and pgx default_query_exec_mode=exec.
//
// MariaDB does not tell one run of a server from the next. So what was seen there is void with its connection, and on a server that has run for
// less than a TTL and a second a lease that looks free is waited for like a silent one: the first leader on a server that has just been
// started comes that much later.
//
// A context of Lead, LeadFenced and HandleLeader looks at the clock when it is asked: a process that was stopped finds it ended at the first
// look, and it ends in time also when the protocol loop hangs in a Membership.
//
// # Limits
//
// Tested with three to five electors, TTL from 150 ms (inside) to 3 s, on PostgreSQL 15, MariaDB 10.11 and SQLite; in 10,000 simulated
// histories, and 200 rounds of kills, stops and cuts of real processes on each. Each follower looks about four times per TTL/3; renewals take
// one statement per TTL/3, two on MariaDB. A member with a lower ID that is eligible, but has no elector of this name, delays each takeover by a
// fifth of the TTL: the next in line gives it that time. Above about 1,000 fenced transactions a second on PostgreSQL, batch them: locks that
// are shared by several transactions use up multixact IDs. Config.Name and a topic of HandleLeader have 240 bytes together.
//
// # Not yet
//
// MySQL 8 is written for and has not been run. The holder finds out that its session lock is lost by polling alone, each 100 ms. The pause of a
// machine is noticed by its clocks, not by CLOCK_BOOTTIME. Transactions that hold a takeover off are ended by the candidate on PostgreSQL, and
// on MariaDB only with the privilege PROCESS.
package election
