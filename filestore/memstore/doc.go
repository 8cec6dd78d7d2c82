// Package memstore keeps objects in memory: for tests and for a single process that needs no files. It passes the same conformance suite as the
// other drivers and has IfMatch. What is in it is gone with the process.
package memstore
