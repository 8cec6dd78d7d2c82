// Package question has the words in which the router asks a server where it stands. The fake servers of dbroutertest answer them.
package question

// Words are a way to ask.
type Words int32

// The ways.
const (
	First   Words = iota // of the dialect
	MySQL                // MariaDB's are tried first
	Plain                // only to answer
	MariaDB = First
)

const (
	// Postgres asks whether the server is a standby, for its timeline, the place in the log (replayed on a standby, inserted on a
	// primary), what a standby has received, the size of a page and of a segment of the log.
	//
	// The place is that of the insertion, since a commit with synchronous_commit=off is at no other one yet. The timeline of a standby
	// is that of what it receives; who may not see it (without pg_read_all_stats) gets that of the last restart point, which is an
	// older one at worst.
	//
	// A primary whose sessions are read only by default accepts no writes either: it is on its way out.
	Postgres = `SELECT r.standby OR current_setting('default_transaction_read_only')::bool,
	CASE WHEN r.standby THEN COALESCE((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint()))
		ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
	(CASE WHEN r.standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0'::pg_lsn)::bigint,
	(CASE WHEN r.standby THEN pg_last_wal_receive_lsn() END - '0/0'::pg_lsn)::bigint,
	current_setting('wal_block_size')::bigint, pg_size_bytes(current_setting('wal_segment_size'))
	FROM (SELECT pg_is_in_recovery() AS standby) AS r`

	maria = `SELECT @@global.read_only, @@global.gtid_slave_pos, @@global.gtid_binlog_pos, @@global.log_slave_updates`
	mysql = `SELECT @@global.read_only OR @@global.super_read_only, @@global.gtid_executed`
	plain = `SELECT 1`

	// Identity asks for the number that all servers of a PostgreSQL cluster share.
	Identity = `SELECT system_identifier FROM pg_control_system()`
)

// Of returns the question to a server of a dialect.
func Of(dialect string, w Words) string {
	switch {
	case w == Plain:
		return plain
	case dialect == "postgres":
		return Postgres
	case dialect == "mysql" && w == MySQL:
		return mysql
	case dialect == "mysql":
		return maria
	}
	return plain
}
