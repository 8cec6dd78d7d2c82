// Package clusterprom gives the figures of a cluster.Node to Prometheus.
//
// It is a collector, not an exporter: it opens no port, registers itself nowhere and starts nothing. It is a package of its own so that only those
// who want it link the Prometheus client. Collectors of the other products look the same: NewCollector(source, labels), names that begin
// with nines_ and the product.
//
// # Use
//
// Give NewCollector a Node and register what it returns, and NewConfigCollector the Store of its configuration, where it has one. See the Example.
//
// # Guarantees
//
//   - A scrape reads the Node once, from what it has at hand: no message, no query, no lock held while metrics are sent.
//   - Names and labels are stable; units are seconds and bytes. The labels of peers are the name and the address of a node, never the ID of a
//     process: a hundred restarts make no new series. (node_info alone has the ID, of this process.)
//   - A peer that ended stays, with peer_up 0, for as long as the Node remembers it (24 h); one that said goodbye does not.
//   - The series of members and level exist from the first scrape, with 0, so that alerts on them work.
//
// # Not guaranteed
//
// That two scrapes of different nodes agree: each tells its own opinion. That is what an alert on a split compares.
//
// # Failures
//
//	the Node does not run yet, or has ended   figures are 0 or the last ones; node_ready is 0
//	two collectors with the same labels       the second Register fails: give each Node labels of its own
//	two live nodes, one name and address      the younger is shown
//
// # Lifecycle and concurrency
//
// A collector has no goroutine and nothing to close; Unregister takes it out. Scrapes may overlap.
//
// # Limits
//
// About 45 series and 7 for each peer.
package clusterprom
