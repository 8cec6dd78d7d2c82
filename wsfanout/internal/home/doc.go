// Package home is the protocol of topics: who sequences a topic, who has copies of it, who gets its records.
//
// It is pure: a [Node] has no goroutine, clock, socket or randomness. Time is an argument; what has to be done is
// taken with [Node.Take]. The shell (package wsfanout) locks, sends, receives and owns the sockets.
package home
