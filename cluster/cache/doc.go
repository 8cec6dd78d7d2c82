// Package cache keeps on each node of a cluster what is loaded from a slower place, and takes it out on all of them before Invalidate returns.
//
// It is for what is read at each request and changes seldom: sessions, users, settings, permissions. It is not a shared cache: every node loads
// for itself and has its own entries. It is not a store: what it has can be gone at any moment.
//
// # Use
//
// Make one Cache for each kind of value with New, on every node, with the same Name and before the Node runs. Get returns a value; whoever
// changes it commits the change, calls Invalidate, and tells others of the change after that. See the Example.
//
// # Guarantees
//
//   - A Get that begins after Invalidate has returned nil, on any member, does not return what was there before. So an event that is published
//     after that never shows with the old value, whichever way it takes.
//   - Invalidate returns when every member has applied it, has left, is dead, or was declared failed (about 1.2 s with profile LAN). A member whose
//     Fate is suspect must answer or fail first; otherwise ctx ends and a *cluster.PeersError names it. It may have applied it; call again.
//   - A node that was away drops everything before it shows anything more: after a partition before the first message of a member that is in reach
//     again is handled, after a pause (a stopped process, a sleeping machine) with the first Get, before any timer has run. Nodes that meet for
//     the first time drop too: each may have invalidated without the other. That costs loads after each join.
//   - Orders keep their place: what a node posts after its Invalidate is handled after it, by other topics' handlers too.
//   - An invalidation that comes during a load discards what that load brings. Its callers, who asked before, still get the value; whoever asks after
//     it has a new load.
//   - One load at a time for a key. When the ctx of the caller that loads ends, another one loads; an error of Load goes to all who waited, and
//     is not kept.
//   - At most Max entries, none older than TTL, counted from the beginning of its load.
//
// # Not guaranteed
//
//   - That a node which is cut off, and still serves, has heard of anything: until it is back it shows what it has, up to TTL old. Choose TTL for that.
//   - Events that reach a node by another way than the cluster (a poll of the database) while it is cut off: it shows them with what it has. From
//     its return on the first guarantee holds. Those by PostBulk are no exception but for a member that is failed here and hears all the
//     same, as in a cut of one direction: they have no order against orders.
//   - Changes that nobody invalidates: TTL bounds those as well.
//
// # Failures
//
//	Load fails                          its error goes to all who waited; nothing is kept
//	a member dies during Invalidate     it is not waited for
//	a member hangs, or is cut off       waited for until it is declared failed, or ctx ends: *cluster.PeersError names it
//	a member without a Cache of the Name  not waited for, but it takes 1 s to say so
//	no settled view yet; paused, and no peer has answered since; ended
//	                                    Get loads each time and keeps nothing (Stats.Bypassed); Invalidate waits for the view, or returns
//	                                    cluster.ErrClosed after the end
//
// # Lifecycle and concurrency
//
// A Cache has no goroutines: it looks at what the Node has learnt in each Get, and Load runs on the caller's. All methods are safe for concurrent use;
// Load may use other caches, and this one for other keys. One Cache a Name and Node: of two, only the newer hears of invalidations. Values are
// shared by all callers: do not change them. Close takes the cache off its Node; Get goes on, without keeping anything.
//
// # Limits
//
// Max entries are held by count, not by size. The keys of one Invalidate travel in one message, bounded by the Node's MaxMessage.
//
// # Not yet
//
// Values that are loaded again before they expire, loading many keys at once, metrics for Prometheus.
package cache
