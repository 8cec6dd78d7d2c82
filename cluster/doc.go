// Package cluster tells each process of a service which other processes are here, whether they are healthy and alike, and carries ordered
// messages between them. It needs a database, a name or a list of addresses to find the first peer, and one port.
//
// It is not a consensus system: Alive is this node's opinion, and two nodes may have different ones for as long as they cannot talk. What
// must happen once is decided with a term and a fence (package election), not with a view. It is not a message broker either: messages go
// from process to process, are kept in memory until the peer has them, and end with either process.
//
// # Use
//
// Fill in a Config, call New, then Run on a goroutine of its own, and Shutdown at the end; see the Example. A second process with the same
// ClusterName, Discovery and Keys joins by itself.
//
//	Alive Fate Notify Tag SetTag             who is here, in basic types: other packages name what they need of a Node as an interface of their own
//	Handle Post Send Request and others      messages to one process
//	Broadcast Gather                         to all
//	SetFlag ClearFlag Flag                   a word that the whole cluster knows for a while, such as "maintenance"
//	Status Check WaitReady Members Events    for people, health checks, and metrics
//	Drain Shutdown                           leaving
//
// Package clustertest runs Nodes in memory and in simulated time, with every kind of fault, for tests of what runs on a cluster.
//
// # Finding each other
//
// SQLDiscovery keeps a row for each process in the table ClusterDiscovery (PostgreSQL, MySQL and MariaDB, SQLite; SELECT * FROM
// ClusterDiscovery answers everywhere): renewed each 60 s, stale after 30 min, deleted when the process leaves, and by any node when it is
// stale or its process is known to be dead. StaticDiscovery is a list that may be the same on all nodes, DNSDiscovery a name with A, AAAA or
// SRV records. Discovery brings the first contact only; from then on members are remembered for 24 h and looked for wherever they were
// seen, for as long as a Node runs. A database or a name server that hangs holds up neither that nor anything else.
//
// One port, 8074 by default, serves datagrams and streams. The address that peers are told is chosen as Config says, and logged.
//
// A Node joins when a member has acknowledged this process, by its ID: not when a connection came about. It is ready (WaitReady) when it has
// also heard from everybody else in discovery, or knows that it cannot.
//
// # Identity
//
// An ID is a UUID (version 7) for each start of a process, so IDs sort by age, the lowest is the longest-lived process, and a restarted one
// never looks like an old friend. Before a node uses its ID it asks the seeds for the highest one and makes its own greater; a cluster whose
// newest ID lies more than 24 h in the future is refused with an error about clocks. NodeName is a label. The same name twice, the same name
// at a new address, two nodes on one host, a restart on the same port within milliseconds: all work.
//
// # Detection
//
// Four things are known of every process: what gossip says, what its link says, when it was last heard in any way, and what it said of
// itself. Its Fate follows from them:
//
//	alive     its link works, or gossip has it
//	suspect   its link is silent for a second: still in Alive
//	draining  it takes no new work: still in Alive
//	left      it said goodbye, to this node or to another that knows
//	dead      its connections were reset and its port refuses, its address belongs to a younger process, or it was given up for good
//	failed    nobody hears it, or gossip and this node do not: it may come back
//
// Who is silent for 300 ms (profile LAN) is sent datagrams that it would answer. After 600 ms the others are asked whether they hear it. After 1.1 s it
// is failed when none of them does. So a node that is cut off finds that out as quickly as the others do, a member that just one node
// cannot reach stays, and a network that loses a third of all it is given fails nobody.
//
// # Guarantees
//
//   - A killed process is Fate "dead" everywhere within 100 ms, most often 10: as soon as its operating system has closed what it had. It leaves Alive, and
//     that ID never comes back.
//   - A process that was cut off or stopped is "failed" and leaves Alive within 1.5 s (99 of 100; profile LAN). Whoever is heard, on the link or in
//     datagrams, by this node or by one that this node hears, is not. When it answers again it comes back under its ID, and the messages
//     that were on their way arrive, in order, once each.
//   - Views merge again after every separation, within 2 s of its end (99 of 100), for members that were seen in the last 24 h and for what
//     discovery lists.
//   - Alive is nil until the view has settled: a member knows this process by its ID, or everybody that is known of refused or failed; at most
//     1.5 s after Run. Of processes that start at the same time, the one that registers later finds the other before it settles.
//   - Whoever sees a newcomer in Alive sees its tags too, unless it has been silent for 500 ms. A newcomer that is ready knows the flags.
//   - A goodbye is known to those who missed it, and to those who came after it, for 24 h.
//   - After a pause of this process that is longer than the suspicion time (0.8 s) nothing is concluded from what it did not hear, and it is not
//     ready, before a member has acknowledged it again.
//   - Post delivers in order, each message once, for the life of the two processes, across reconnections and relays. For one sender and topic a handler
//     runs once at a time. A handler that does not keep up makes its sender wait, after 4 MiB for each sender and lane here, and what fits the
//     link; nothing grows without bound, and other senders are not touched.
//   - What a node holds for a peer that does not take it is 64 MiB of memory; what it holds of a peer's for its handlers is 4 MiB a lane, a
//     request until its answer is on its way. A received message costs one copy and no allocation.
//   - PostBulk never holds up the rest: half a megabyte of it is on its way at a time, so that all else arrives within milliseconds beside it.
//   - Answers overtake messages: a handler may ask the node whose messages it handles, however many of those wait. (Answers above 256 KiB
//     travel like PostBulk, and wait behind such messages.) Two nodes whose handlers ask each other while both are full do wait for each
//     other, until a ctx ends: give such questions a deadline.
//   - Two members that cannot reach each other, while a third can reach both, speak through that one (the lowest ID of those that can), about
//     2 s after their connection went silent, and directly again about 3 s after they can. The relay carries sealed bytes and reads none.
//   - A message for a topic without handler waits for one: up to 4 MiB a topic and 16 MiB in all, for 60 s; requests for 1 s.
//   - With Keys nobody joins, reads or forges without one of them; datagrams cannot be replayed. With TLS a certificate is needed too. Who does
//     not fit (another key, none, another ClusterName, another certificate) is refused, and told why. What is not of this protocol is
//     closed and counted (Stats.Refused). Connections that have not shown a key are bounded: 8 an address, 64 in all, 5 s each, the oldest
//     goes first. SetKeys replaces keys in three steps while the cluster runs, without a lost message or member.
//   - Nodes of this version of the wire protocol and of the one before are one cluster; what only this one can, it does where all who take part
//     can.
//
// # Not guaranteed
//
//   - That two nodes have the same view at any time. That a failed process does not run: it may be stopped, or cut off, and go on later.
//   - That a message which was posted to a process that died was handled. Send returning nil says that the process had it.
//   - Order between Post and PostBulk, or between topics.
//   - That a process which was stopped between asking Check and acting on the answer does not act. For that there are terms and fences.
//   - Protection against a member that lies: whoever has the key is trusted. With TLS a certificate says which node may open a stream, and
//     not that it tells the truth.
//   - That a relay is as fast as a connection of one's own: all that two members say to each other passes it, and load does not choose it.
//   - A firewall that answers with resets in place of a host makes that host look dead. Its process learns that it was given up, and ends.
//
// # Failures
//
//	what happens                 what this package does, and what callers see
//	process killed, crashed      Fate "dead" in some 10 ms; Request to it ends with ErrNoMember; its row is deleted by the oldest member
//	host lost, cable pulled      Fate "failed" after 1.1 s; what is posted to it is kept (64 MiB)
//	partition                    each side goes on with its own view; merged again within 2 s of its end; what was posted is delivered then
//	partition, and 64 MiB full   the peer is given up for good: Fate "dead"; its Run returns ErrEvicted as soon as it is told, and a new process
//	                             must be started. Of two that gave each other up, the older goes on
//	one pair cannot connect      both stay; what they send goes through the lowest ID that has links to both; amber
//	one way cut                  the same
//	UDP blocked                  all works over TCP; amber, with the member that does not answer
//	packets lost                 slower; nobody is failed at a loss of 30 %
//	connection reset             made anew at once; nothing is lost or repeated
//	process stopped, starved     "failed" for the others after 1.1 s; itself not ready and tag "nines.paused" when it goes on, until acknowledged,
//	                             or, where nobody can be reached, until the others had 1.8 s to answer
//	slow peer                    Post waits within its ctx, TryPost answers ErrBackpressure; heartbeats are never delayed
//	slow handler                 the same for its sender and lane, nobody else
//	clock wrong                  only ages of IDs depend on clocks; offsets are measured on the links, shown in Members, amber above 1 s
//	discovery away               members stay; new nodes start alone and join when it is back; amber
//	two servers on one table     both red, with the address, the port that does not answer, or the key; the younger is never ready, the older,
//	that cannot see each other   which may have users, stays so. A newcomer whose peers have lost that member is red and ready
//	another key, another name,   refused, with the reason in Status and log, and counted (Stats.Refused)
//	another certificate
//	topic longer than MaxTopic   Handle panics, all else returns an error; both say how long it is
//	all nodes gone               the next start begins a cluster anew; rows of processes that ended without a word refuse, and are no fault
//
// # Lifecycle and concurrency
//
// New does nothing but check, and names every fault of the Config at once. Run blocks, owns every goroutine, and may be called before or
// after other products' Run: methods that send wait for it within their ctx. Its ctx is the hard stop, which peers see as a death: never the one from signal.NotifyContext. Shutdown drains,
// tells the peers, deletes the row and ends Run; it is safe before Run, twice and concurrently. Afterwards methods return ErrClosed and Alive
// nil. All methods are safe for concurrent use, also from handlers and hooks; a handler may block, which delays its sender and topic alone.
// Broadcast, TryBroadcast and Gather include this node. The gossip library underneath does not wait for its goroutines: some end up to
// 3 s after Run, and touch nothing by then.
//
// # Limits
//
// Tested with 5 processes on one machine, 5 network namespaces, and 100 nodes in simulated time. Payloads to 64 MiB; topics to 255 bytes (MaxTopic), the names
// that products put before them included;
// 16 tags of 256 bytes each, 64 flags. Every pair has a connection, so a cluster is meant to have tens of nodes, not thousands: an idle node sends some
// 16 datagrams a second, however many there are, and 8 heartbeats a second to each other node (0.5 KB). An idle node of five takes about one
// percent of a core and 20 MB. MySQL is written for and not tested; MariaDB is.
//
// # Not yet
//
// Groups of nodes that are not all connected with each other.
package cluster
