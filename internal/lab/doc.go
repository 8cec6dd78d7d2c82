// Package lab starts real servers for tests: PostgreSQL with streaming standbys and with PgBouncer before it, MariaDB with
// replicas, an S3 object store, SQLite files. Test code alone imports it.
//
// A server listens on a free loopback port and keeps its data in a folder of the test process, in memory where the machine has
// /dev/shm. It is stopped at the end of the test that started it; what is left when the test process ends, however it ends (a panic,
// a timeout, SIGKILL), is killed and removed by a small shell that waits for the end of a pipe from the test process.
//
// Where the binary of a server is missing, the test is skipped with the reason, or fails when the environment says CI=true: Need.
// Packages that need "a database" and no faults run their tests over a table of SQLite, Database and MySQL:
//
//	for _, open := range []func(testing.TB) (driver, dsn string){lab.SQLite, lab.Database, lab.MySQL} { … }
package lab
