// Package dbrouter sends writes to the master, reads to healthy replicas and searches to search replicas, on PostgreSQL, MySQL, MariaDB
// and SQLite, and lets nobody read an older state than the one he has written or seen.
//
// It is a set of connection pools (sqlx on database/sql) with a health model: replicas that are dead, frozen or far behind serve no reads, and
// the reads that meet them run elsewhere. It is not a proxy, does not rewrite statements, and promotes no databases: who is
// the master is decided by whoever runs them; with FollowMaster the router finds out.
//
// # Use
//
// Open a Router with the data sources, keep the three handles. Master has the methods of sqlx.DB; Replica and Search are Readers, which
// have only those that read. The handles are stable: they survive Reconfigure, Recycle and a master that moves. The caller says where
// a statement goes by the handle; UseMaster(ctx) sends the reads of a context to the master, Stale(ctx, d) takes old data.
//
// Begin a session for each request (WithSession, or Router.Middleware for all of them): its reads see its own writes, and never go back in time.
// Session.Token carries that on, to the next request, another node or a message; WithToken takes it up there. The examples show the whole
// of it. The program imports the driver (lib/pq, pgx's stdlib, go-sql-driver/mysql, modernc.org/sqlite or mattn/go-sqlite3) and names
// it in Config.DriverName. Package dbroutertest has servers for tests of programs, dbrouterprom a collector for Prometheus.
//
// # Guarantees
//
//   - Search goes to the search replicas in use, in turn; with none to the replicas; with none to the master. Replica goes to the
//     replicas, with none to the master.
//   - No statement writes on a replica: its sessions are read only on the server, whatever the user may do there. A statement that writes or locks
//     (SELECT … FOR UPDATE, INSERT … RETURNING, SET, several in one) runs once on the master: at once when its words say so, else
//     when a server has refused it, which is remembered. BeginReadx hands out the connection: what a program does
//     to the session in there (SET, COMMIT) is its own affair.
//   - Get and Select through a Reader do not fail because a replica died, froze, was cut off, shut down or cancelled them for the sake of
//     replication: they run once on each other source that may serve them, within a budget (as many at once as twice MaxOpenConns, then one
//     for ten reads). Query, Queryx, QueryRowx and BeginReadx do so until they return; rows and transactions that are under
//     way on a source found hung end with an error instead of waiting.
//   - In a session every read sees the writes that the same session has finished before, on whichever router, process and node it goes on:
//     it runs on a replica that has come so far, waits up to 20 ms until one has, or runs on the master. That holds for commits with
//     synchronous_commit=off, too. Its reads never go back in time while they move between replicas.
//   - A token that is forged, foreign or expired means the master, never an error.
//   - A call of Master that has certainly not begun (the dial failed, the server refuses writes, its pool was replaced) is made again, for up to
//     MasterWait, as soon as there is a master; nothing else is sent twice. When the connection is lost under a statement, the
//     error is ErrUnknownOutcome. RunTx repeats its whole callback on serialization failures, deadlocks and a master lost before
//     COMMIT; a connection lost during COMMIT is ErrUnknownOutcome.
//   - A master that is away, hung or read only is looked for every 20 ms: on its connections, by new ones, behind its name as soon as that has other
//     addresses, and with FollowMaster among the other data sources. Writes resume about 20 ms after it is there.
//   - FollowMaster never chooses between two that accept writes unless one of them is known to be the older: a master that it has left, or one on
//     an older timeline of PostgreSQL. Else calls of Master fail with ErrTwoMasters until that is settled, and reads go on.
//   - Reconfigure and Recycle open the new pools, and the new master must answer, before the old ones are retired: calls do not fail. Rows,
//     transactions and connections of a retired pool end on it; it is closed when none is left or after DrainTimeout. A
//     configuration that does not work leaves the old one serving.
//   - A context that ends ends the call, 100 ms later at most, also when the server is frozen and the driver (lib/pq) waits for it: the
//     connection is then left to a goroutine that closes it once the driver comes back. No more than MaxOpenConns are left so.
//   - A caller's own deadline, a slow query and a wrong statement take no source out of use; they make a probe run at most.
//   - Migrate runs each statement once, however many processes start at once; an error names the schema, the file and the statement, and leaves no lock.
//   - Errors about data sources, the log and Stats contain no passwords; arguments of statements are logged only with TraceArguments.
//
// # Not guaranteed
//
//   - Outside of a session a read through a Reader may not see what was just written through Master, and two reads may see different states, even the
//     older one second.
//   - A session that must leave its replica for the master because that replica died may, for the moment in which a commit is on its way, miss on the
//     master what the replica showed: servers send a commit before they show it.
//   - A write with ErrUnknownOutcome may have happened or not. Make it repeatable, or look. A fail-over to an asynchronous replica loses the
//     last writes of the old master; that is the database's affair.
//   - Two servers that both accept writes are not kept apart for other clients: fence the old master before a new one is promoted.
//   - Writes in a transaction that ends after the token was made are not part of the token, nor those made after Middleware's answer has begun.
//
// # Failures
//
//	replica dead or shutting down        out of use with the first call that meets it, which runs elsewhere
//	replica frozen or cut off            out of use after probes of 500 and 250 ms without an answer: within 2 s by default; reads under way move then
//	replica answers again                in use after two good probes, with an eighth of its share, all of it eight probes later
//	replica trails by more than MaxLag   out of use within MonitorInterval; back below half of it
//	all replicas trail too far           WhenLagging: the master up to MaxExtraReads, beyond that the one that trails least; or that one; or ErrLagging
//	replica promoted                     out of use; with FollowMaster it is the master when the old one is away or read only
//	master dead or read only             calls wait up to MasterWait, counted from when it was noticed; then they fail at once. Reads go on. Check fails
//	master frozen                        calls end with their deadline; new ones wait as above once four probes are missed
//	two accept writes                    FollowMaster: ErrTwoMasters from Master; reads go on
//	probe fails for another reason       the source is asked in simpler words (role and lag unknown), and in full again every 60th time
//	wrong data source                    Open says at once which and why; a master that does not answer is tried for 12 s
//	our process paused                   one missed probe is forgiven
//	clock steps                          no effect on routing; tokens expire earlier or later
//
// Every data source is probed on connections of its own, so that a full pool does not look like a dead server.
//
// # Sessions on the server
//
// Each connection gets QueryTimeout as the server's statement timeout, and on replicas becomes read only, by SET statements. Behind a
// transaction pooler these would reach other clients' sessions: say Config.Pooler. Then reads run in READ ONLY transactions (Query, Queryx and QueryRowx
// rely on the replica being one: a replica that accepts writes is not used), and every call has a deadline. Drivers must not
// prepare statements there: for pgx default_query_exec_mode=exec, for lib/pq binary_parameters=yes. Migrate has no statement timeout.
//
// SQLite: Master is one connection, whose transactions take the write lock at BEGIN (_txlock=immediate); reads have a second pool with
// query_only, which sees what is committed. WAL and five seconds of busy_timeout are added when the data source does not say otherwise. A call on
// Master while the same goroutine holds a transaction of it waits for ever, or for its deadline. A database in memory is one
// connection for everything.
//
// # How sessions know
//
// A write only counts. The next read of the session (or its token) asks the master where it stands, in one question for all sessions that want to know
// then, sent after their writes had ended: PostgreSQL's place of insertion in the log, back before the header of a page that is still
// empty; MariaDB's GTIDs, MySQL's set of them. A replica that has come so far serves. Transactions from BeginTx, connections and rows
// may write unseen until the garbage collector finds that they are gone: till then each read of the session asks anew; RunTx, Exec, Get
// and Select are known to the moment. Where positions cannot be told the reads of a session follow its writes to the master
// for two seconds.
//
// # Rights
//
// The user needs none beyond his tables. On PostgreSQL pg_read_all_stats (or pg_monitor) lets standbys tell their timeline at once after a fail-over;
// without it sessions read on the master until the standby's next restart point. MariaDB and MySQL: none; read_only=1 on the replicas and
// no READ ONLY ADMIN (SUPER) for the user, gtid and log_bin on, log_slave_updates for sessions that move between replicas.
//
// # Lifecycle and concurrency
//
// Open dials: the master must answer within 12 s, replicas need not. A Router and its handles may be used from any number of goroutines.
// Close ends the probes and closes the pools; calls then return ErrClosed.
// A connection that a program keeps, for a lock or for LISTEN, holds the drain of its pool and outlives it: give it back when
// Master.Generation changes. Prepared statements belong on a transaction or a connection, since they end with their pool.
//
// # Limits
//
// Tested with PostgreSQL 15 (a primary and two standbys on one machine, through lib/pq, pgx and PgBouncer in transaction mode), MariaDB 10.11 (a primary and
// two GTID replicas) and SQLite through modernc.org/sqlite, with 16 workers. MySQL 8 follows the manual and is not yet tested.
// Choosing a source allocates nothing. Each process opens up to MaxOpenConns connections a data source, and two for probes: the server's
// max_connections must allow that times the processes. The driver connection that Conn.Raw shows is the router's own wrapper with lib/pq.
//
// # Recommended settings of the servers
//
// PostgreSQL, primary and replicas, for a dedicated machine:
//
//	max_connections = 1024                  MaxOpenConns × processes, and some more
//	shared_buffers, effective_cache_size    65 % of the memory
//	work_mem = 32MB                         16MB on replicas
//	random_page_cost = 1.1                  on solid state disks
//	autovacuum_max_workers = 4              on the primary
//	tcp_keepalives_idle = 5, _interval = 1, _count = 5    dead clients are found out
//	hot_standby = on, hot_standby_feedback = on           on replicas; without the second the primary's vacuum cancels their queries
//	wal_level = replica, a replication slot for each standby
//
// Give the master's name of a managed cluster as DataSource and the names of the instances, not one that balances, as replicas: the router balances
// itself and sees each one's health.
//
// MariaDB and MySQL: read_only=1 on replicas, log_bin, log_slave_updates, GTIDs (gtid_strict_mode=1; MASTER_USE_GTID=slave_pos), max_connections as
// above.
//
// # Not yet
//
// Asking PostgreSQL 19 to wait for a position on the standby. MySQL 8 in the tests.
package dbrouter
