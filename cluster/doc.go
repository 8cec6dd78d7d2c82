// Package cluster tells each process of a service which other processes are here, whether they are healthy and alike, and carries ordered
// messages between them. It needs a database or a list of addresses to find the first peer, and one port.
//
// It is not a consensus system: Alive is this node's opinion, and two nodes may have different ones for as long as they cannot talk. What
// must happen once is decided with a term and a fence (package election), not with a view. It is not a message broker either: messages go
// from process to process, are kept in memory until the peer has them, and end with either process.
//
// # Use
//
// Fill in a Config, call New, then Run on a goroutine of its own, and Shutdown at the end; see the Example. A second process with the same
// ClusterName, Discovery and Keys joins by itself. Handle, Send, Post, Request, Broadcast and Gather carry messages; Alive, Fate, Notify and Tag
// tell about members in basic types, so that other packages can name what they need of a Node as a small interface of their own; Members,
// Status and Check are for people and health checks.
//
// # Identity
//
// An ID is a UUID (version 7) for each start of a process, so IDs sort by age, the lowest is the longest-lived process, and a restarted one
// never looks like an old friend. Before a node uses its ID it asks the seeds for the highest one and makes its own greater; a cluster whose
// newest ID lies more than 24 h in the future is refused with an error about clocks. NodeName is a label. The same name twice, two nodes on one
// host, a restart on the same port within milliseconds: all work.
//
// # Guarantees
//
//   - A process whose connections are reset and whose port refuses is Fate "dead" at once (some 20 ms), leaves Alive, and that ID never comes
//     back. So is one whose address belongs to a younger process. Peers are told, so that those without a connection know too.
//   - A process that was cut off or stopped is "failed" and leaves Alive after about 1.2 s (profile LAN). Gossip and link must agree: gossip alone
//     never removes a process that talks to us. When it answers again it comes back under its ID, and the messages that were on their way
//     arrive, in order, once each.
//   - Views merge again after every separation, within 2 s of its end, for members that were seen in the last 24 h and for what discovery lists.
//   - Alive is nil until the view has settled: a member knows this process by its ID, or everybody that is known of refused or failed; at most
//     1.5 s after Run. Of processes that start at the same time, the one that registers later finds the other before it settles.
//   - Whoever sees a newcomer in Alive sees its tags too, unless it has been silent for 500 ms.
//   - Post delivers in order, each message once, for the life of the two processes, across reconnections. For one sender and topic a handler
//     runs once at a time. A handler that does not keep up makes its sender wait, after 4 MiB for each sender and lane here, and what fits the
//     link; nothing grows without bound, and other senders are not touched.
//   - Answers overtake messages: a handler may ask the node whose messages it handles, however many of those wait. Two nodes whose handlers
//     ask each other while both are full do wait for each other, until a ctx ends: give such questions a deadline.
//   - A message for a topic without handler waits for one: up to 4 MiB a topic and 16 MiB in all, for 60 s; requests for 1 s.
//   - With Keys nobody joins, reads or forges without one of them; datagrams cannot be replayed. Connections that have not shown a key are
//     bounded: 8 an address, 64 in all, 5 s each.
//
// # Not guaranteed
//
//   - That two nodes have the same view at any time. That a failed process does not run: it may be stopped, or cut off, and go on later.
//   - That a message which was posted to a process that died was handled. Send returning nil says that the process had it.
//   - Order between Post and PostBulk, or between topics.
//   - Protection against a member that lies: whoever has the key is trusted.
//   - A firewall that answers with resets in place of a host makes that host look dead. Its process learns that it was given up, and ends.
//
// # Failures
//
// Crash: Fate "dead" at once; Request to it ends with ErrNoMember; its row is deleted by the oldest member. When the whole host goes, nobody
// answers and it is "failed" like a process that was cut off.
//
// Partition: each side goes on with its own view. What was posted before the separation was noticed is kept (64 MiB a peer) and delivered
// after it. When that is full while the peer is failed, the peer is given up for good: its Run returns ErrEvicted as soon as it is told,
// and it has to be started again, under a new ID. Of two that gave each other up, the older goes on.
//
// Pause (SIGSTOP, a sleeping machine, a starved process): each node watches the clock that counts those times too. After a gap longer than it
// takes to be suspected it sets its tag "nines.paused", Check says not ready, and both last until a member has acknowledged it again, or, where
// nobody can be reached, until the others had their time to answer. What it did not hear meanwhile is held against nobody.
//
// Slow peer: Post waits within its ctx, TryPost answers ErrBackpressure. Full lanes never delay heartbeats.
//
// Clocks: only ages of IDs depend on them, see Identity. Offsets are measured on the links, shown in Members, amber above 1 s.
//
// Discovery away: members stay; new nodes cannot find the cluster; amber, and Run goes on.
//
// Two servers on one table that cannot reach each other: both are red and say which address and why. The younger is not ready; the older,
// which may have users, stays so. A newcomer whose peers have lost the member that it cannot reach is red and ready: it is not the fault.
//
// # Lifecycle and concurrency
//
// New does nothing but check. Run blocks, owns every goroutine, and may be called before or after other products' Run: methods that send wait
// for it within their ctx. Its ctx is the hard stop, which peers see as a death: never the one from signal.NotifyContext. Shutdown drains,
// tells the peers, deletes the row and ends Run; it is safe before Run, twice and concurrently. Afterwards methods return ErrClosed and Alive
// nil. All methods are safe for concurrent use, also from handlers and hooks; a handler may block, which delays its sender and topic alone.
// Broadcast, TryBroadcast and Gather include this node. The gossip library underneath does not wait for its goroutines: some end up to
// 3 s after Run, and touch nothing by then.
//
// # Limits
//
// Tested with up to 5 nodes on one machine, and 10 in simulated time (package clustertest). Payloads to 64 MiB; topics to 255 bytes; 16 tags of
// 256 bytes each. Every pair has a connection, so a cluster is meant to have tens of nodes, not thousands. MySQL and MariaDB are written for in
// discovery and not yet tested.
//
// # Not yet
//
// Relaying between two members that cannot reach each other but a third can; flags with a time to live; replacing keys without a restart
// (several keys are accepted, so a rolling restart does it); mutual TLS with names; a switch for compression; metrics for Prometheus; hearing
// from a peer, rather than over the own link, that a process left.
package cluster
