// Package electiontest tests programs that use package election, and what they give to it.
//
// # What is in it
//
//   - Cluster and Member: a cluster in memory for real Electors in one process. Tests say who is alive and what each member sees: members can
//     be removed with any fate, cut off from each other, drained and paused. With SQLite in memory, or without a database, it is all
//     that a test of several nodes needs; it works inside testing/synctest.
//   - Leader: a stand-in for an Elector, for code that asks whether it leads. The test says when it does; nothing is elected.
//   - TestMembership and TestDB: the conformance suites for an election.Membership and an election.DB of your own.
//
// # Use
//
// See the Examples.
//
// # Guarantees
//
//   - What a Member sees changes when a call says so, before that call returns, and never by itself.
//   - A Leader has the methods of an Elector that a program calls, with the same promises: contexts end before Revoke returns to the caller's
//     next statement, terms rise, Watch never misses the last state, Commit rolls back what is not fenced.
//   - Each suite passes on what the project itself has: the fake and the real cluster; PostgreSQL, MariaDB and SQLite.
//
// # Not guaranteed
//
// A Leader decides nothing and checks nothing in a database: its Fence compares the term alone. What must hold in a race of two nodes is
// tested with two Electors.
//
// # Failures
//
// A suite fails the test with what was expected. A Member that was removed sees only itself; requests to it fail at once.
//
// # Lifecycle and concurrency
//
// There is nothing to stop. All methods are safe for concurrent use.
//
// # Limits
//
// Views are computed at each call: for some dozens of members.
package electiontest
