// Package filestoreprom gives the figures of a filestore.Store, of its Proof and of a mirror.Mirror to Prometheus.
//
// It is a collector, not an exporter: it opens no port, registers itself nowhere and starts nothing. It is a package of its own so that only those
// who want it link the Prometheus client.
//
// # Use
//
// Give NewCollector a Store, NewProofCollector its Proof, NewMirrorCollector a Mirror, and register what they return. See the Example. With a
// separate store for exports, give each its own labels.
//
// # Guarantees
//
//   - A scrape reads each source once, from what it has at hand: no object is read or written.
//   - Names and labels are stable; units are seconds and bytes. No label is a key, a member or an extension.
//   - Every series exists from the first scrape, with 0.
//
// # Not guaranteed
//
// A distribution of latencies: the sums of durations and the counts of calls give means. filestore.Observe tells of every operation to who wants
// a histogram.
//
// # Failures
//
//	two collectors with the same labels       the second Register fails: give each store labels of its own
//	the Store is closed, the Proof has ended  figures are the last ones; proof_ready is 0
//
// # Lifecycle and concurrency
//
// A collector has no goroutine and nothing to close; Unregister takes it out. Scrapes may overlap.
//
// # Limits
//
// About 20 series of a store, 10 of a proof, 10 of a mirror.
package filestoreprom
