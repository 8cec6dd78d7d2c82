// Package electionprom gives the figures of an election.Elector to Prometheus.
//
// It is a collector, not an exporter: it opens no port, registers itself nowhere and starts nothing. It is a package of its own so that only
// those who want it link the Prometheus client. Collectors of the other products look the same: NewCollector(source, labels), names that
// begin with nines_ and the product.
//
// # Use
//
// Give NewCollector an Elector and register what it returns. See the Example. Useful alerts, with the labels of one election:
//
//	sum(nines_election_leading) == 0         for more than a few TTL: nobody leads
//	sum(nines_election_leading) > 1          in one scrape it is a handover between two reads; for longer it must not be
//	nines_election_ready == 0                this node does not know who leads
//	rate(nines_election_terms_won_total[1h]) leadership that moves without a deployment
//
// # Guarantees
//
//   - A scrape reads the Elector once, from what it has at hand: no message and no query.
//   - Names and labels are stable; units are seconds. No metric has the ID of a process.
//   - All series exist from the first scrape.
//
// # Not guaranteed
//
// That scrapes of two nodes are of one moment.
//
// # Failures
//
//	the Elector does not run yet, or has ended   figures are 0 or the last ones; ready is 0
//	two collectors with the same labels          the second Register fails: give each Elector labels of its own
//
// # Lifecycle and concurrency
//
// A collector has no goroutine and nothing to close; Unregister takes it out. Scrapes may overlap.
//
// # Limits
//
// About 20 series for each Elector.
package electionprom
