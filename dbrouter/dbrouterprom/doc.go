// Package dbrouterprom gives the figures of a dbrouter.Router to Prometheus.
//
// It is a collector, not an exporter: it opens no port, registers itself nowhere and starts nothing. It is a package of its own so that only those
// who want it link the Prometheus client.
//
// # Use
//
// Give NewCollector a Router and register what it returns. See the Example.
//
// # Guarantees
//
//   - A scrape reads the Router once, from what its probes have at hand: no query.
//   - Names and labels are stable; units are seconds and bytes. A data source is labelled with its role and with host:port/database: no passwords.
//   - Series with a bounded set of labels exist from the first scrape. Lag is left out where it is not known.
//
// # Not guaranteed
//
// That two scrapes of different processes agree: each has pools, probes and breakers of its own.
//
// # Failures
//
//	the Router is closed                  the last figures; ready is 0
//	two collectors with the same labels   the second Register fails: give each Router labels of its own
//	the master moves (FollowMaster)       the series of its old role end, those of its new role begin
//
// # Lifecycle and concurrency
//
// A collector has no goroutine and nothing to close; Unregister takes it out. Scrapes may overlap.
//
// # Limits
//
// 11 series, and 17 for each data source.
package dbrouterprom
