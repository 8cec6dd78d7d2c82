// Package dbroutertest has database servers that live in memory, for tests of programs that use dbrouter: a master and replicas whose lag,
// silence, failures and roles the test decides.
//
// A Cluster gives the Config for dbrouter.Open. Its servers understand no SQL: a statement that begins like one that writes appends to a log, any
// other answers with one row that tells which server answered and how many writes it has seen (columns server and writes), or
// with what Cluster.Answer returns. That is enough to see where a program's statements go, and what it does when a replica trails
// or the master moves. For the rest of SQL use a real server.
//
// Everything works inside a testing/synctest bubble, where the probes of the router and the lag of the servers take no time. The types are safe
// for concurrent use. The package is for tests; it does not import testing.
package dbroutertest
