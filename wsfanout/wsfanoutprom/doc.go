// Package wsfanoutprom gives the figures of a wsfanout.Hub to Prometheus.
//
// It is a collector, not an exporter: it opens no port, registers itself nowhere and starts nothing. It is a package of its own so that only those
// who want it link the Prometheus client.
//
// # Use
//
// Give NewCollector a Hub and register what it returns. See the Example.
//
// # Guarantees
//
//   - A scrape reads the Hub once, from what it has at hand.
//   - Names and labels are stable, units are bytes. No label is a topic, a user or a socket. All series exist from the first scrape.
//
// # Not guaranteed
//
// That sums over nodes are of one moment.
//
// # Failures
//
//	the Hub does not run yet, or has ended   figures are 0 or the last ones; ready is 0
//	two collectors with the same labels      the second Register fails: give each Hub labels of its own
//
// # Lifecycle and concurrency
//
// A collector has no goroutine and nothing to close; Unregister takes it out. Scrapes may overlap.
//
// # Limits
//
// About 35 series.
package wsfanoutprom
