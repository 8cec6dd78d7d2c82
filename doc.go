// Package nines is the map of a library that takes a one-process server to N nodes with the SQL database and the file storage it already has.
//
// Six packages, each usable alone, composed in main:
//
//   - cluster: who is here, are they healthy and alike; ordered messages between nodes
//   - election: one leader with a term; with a database, no two terms' fenced effects interleave
//   - dbrouter: writes to the master, reads to healthy replicas, searches to search replicas
//   - wsfanout: publish anywhere, delivered in order to every subscriber on every node; reconnect anywhere; a hole is always reported
//   - filestore: atomic file semantics on a shared directory; proof that it is shared
//   - jobs: recurring and one-off jobs: one row per due slot, run by any node, retried
//
// They never import each other: each declares the small interface that it needs, over basic and database/sql types.
// The command examples/chat is a reference server made of them; examples/embed is the smallest one.
package nines
