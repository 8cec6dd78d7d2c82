// Package dbrouter sends writes to the master, reads to healthy replicas and searches to search replicas, on PostgreSQL, MySQL, MariaDB
// and SQLite.
//
// It is a set of connection pools (sqlx on database/sql) with a health model: replicas that are dead, frozen or far behind serve no reads, and
// the reads that meet them run elsewhere. It is not a proxy, does not parse statements to route them, and does not promote databases: who is
// the master is decided by whoever runs them.
//
// # Use
//
// Open a Router with the data sources, keep the three handles. Master has the methods of sqlx.DB; Replica and Search are Readers, which
// have only those that read. The handles are stable: they survive Reconfigure, Recycle and a master that moves. The caller says where
// a statement goes by the handle; UseMaster(ctx) sends the reads of a context to the master, and WithSession(ctx) does so from the first
// write on: begin one for each request. The example shows the whole of it. The program imports the driver (lib/pq, pgx's stdlib, go-sql-driver/mysql, modernc.org/sqlite or
// mattn/go-sqlite3) and names it in Config.DriverName.
//
// # Guarantees
//
//   - Search goes to the search replicas in use, in turn; with none to the replicas; with none to the master. Replica goes to the
//     replicas, with none to the master.
//   - No statement writes on a replica: its sessions are read only on the server, whatever the statement. What a server refuses there as a
//     write, such as SELECT … FOR UPDATE or INSERT … RETURNING, runs once on the master.
//   - Get and Select through a Reader do not fail because a replica died, froze, shut down or cancelled them for the sake of replication: they
//     run once on each other source that may serve them. Query, Queryx, QueryRowx and BeginReadx do so until they return; rows
//     and transactions that are under way on a source found hung end with an error instead of waiting.
//   - In a session (WithSession) every read sees the writes that the same session made before it: it runs on the master.
//   - Statements through Master are sent once. They run again only when their pool was replaced before they began.
//   - A context that ends ends the call, 100 ms later at most, also when the server is frozen and the driver (lib/pq) waits for it: the
//     connection is then left to a goroutine that closes it once the driver comes back. No more than MaxOpenConns are left so.
//   - Reconfigure and Recycle open the new pools, and the new master must answer, before the old ones are retired: calls do not fail. Rows,
//     transactions and connections of a retired pool end on it; it is closed when none is left or after DrainTimeout. A
//     configuration that does not work leaves the old one serving.
//   - A master that has become read only (25006, 1290, 1792, 1836, or by what a probe sees) has its pools replaced at once, then at growing
//     intervals until one accepts writes: a DNS name that moved, or a list of hosts with target_session_attrs=read-write, leads to the new
//     master. RunTx does its callback again; other writes were refused, and say so.
//   - RunTx does its callback again on a serialization failure or a deadlock, and reports ErrUnknownOutcome when the connection was lost
//     during COMMIT.
//   - Errors about data sources, the log (unless Trace) and Stats contain no passwords.
//
// # Not guaranteed
//
//   - Outside of a session a read through a Reader may not see what was just written through Master: replicas trail. Use UseMaster, or read on
//     Master. A session ends with its context: the next request begins a new one.
//   - Two reads through a Reader may see different states, even the older one second. BeginReadx sees one.
//   - A write whose connection is lost may have happened or not. Make it repeatable, or use RunTx and look after ErrUnknownOutcome.
//   - Two servers that both accept writes are not kept apart: fence the old master before a new one is promoted.
//
// # Failures
//
//   - Replica dead or shutting down: out of use with the first call that meets it. Frozen, or cut off: out of use after two probes of
//     500 ms without an answer, so within MonitorInterval and a second. Back after two good probes.
//   - Replica further behind than MaxLag (PostgreSQL): out of use within MonitorInterval, back below half of it. When all are, the
//     master serves.
//   - Replica that was promoted: out of use, until Reconfigure.
//   - Master dead or frozen: writes fail with the driver's error or their deadline; reads go on on replicas. Check fails.
//   - A caller's own deadline takes no source out of use; it makes a probe run.
//   - Every data source is probed on a connection of its own, so that a full pool does not look like a dead server.
//
// # Sessions on the server
//
// Each connection gets QueryTimeout as the server's statement timeout, and on replicas becomes read only, by SET statements. Behind a
// transaction pooler these would reach other clients' sessions: say Config.Pooler. Then reads run in READ ONLY transactions (Query, Queryx and QueryRowx
// rely on the replica being one: a replica that accepts writes is not used), and every call has a deadline. Drivers must not
// prepare statements there: for pgx default_query_exec_mode=exec, for lib/pq binary_parameters=yes.
// Migrate has no statement timeout.
//
// SQLite: Master is one connection, whose transactions take the write lock at BEGIN (_txlock=immediate); reads have a second pool with
// query_only. WAL and five seconds of busy_timeout are added when the data source does not say otherwise. A call on Master while the
// same goroutine holds a transaction of it waits for ever, or for its deadline. A database in memory is one connection for everything.
//
// # Lifecycle and concurrency
//
// Open dials: the master must answer within 12 s, replicas need not. A Router and its handles may be used from any number of goroutines.
// Close ends the probes and closes the pools; calls then return ErrClosed (a Row reports database/sql's "database is closed").
// A connection that a program keeps, for a lock or for LISTEN, holds the drain of its pool and outlives it: give it back when
// Master.Generation changes. Prepared statements belong on a transaction or a connection, since they end with their pool.
//
// # Limits
//
// Tested with PostgreSQL 15, a primary and two standbys on one machine, through lib/pq and pgx, and with SQLite through modernc.org/sqlite.
// Choosing a source allocates nothing. MySQL and MariaDB follow the manuals and are not tested yet. Each process opens up to
// MaxOpenConns connections a data source, and one for probes: the server's max_connections must allow that times the processes. The
// driver connection that Conn.Raw shows is the router's own wrapper with lib/pq.
//
// # Recommended settings of the servers
//
// PostgreSQL replicas: hot_standby_feedback = on (without it the primary's vacuum cancels queries on replicas);
// max_connections as above; tcp_keepalives_idle = 5, _interval = 1, _count = 5 so that dead clients are found out.
//
// # Not yet
//
// Tokens that carry a session to the next request and to other nodes, and sessions whose reads return to the replicas once these have the
// session's writes; Stale(ctx, d); lag as a time and lag of MySQL and MariaDB; a choice of
// what to do when all replicas lag; finding the new master among the configured sources; holding writes until the old master is
// fenced; a ramp for replicas that return; a retry budget.
package dbrouter
