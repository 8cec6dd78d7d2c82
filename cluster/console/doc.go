// Package console is the operator's page of a cluster: one line that says how it is and what to do, the nodes with the reasons of their
// colour, and a card for each product. It is a plain http.Handler at any prefix; any node answers for all.
//
// # Use
//
//	page, err := console.New(console.Config{Node: node, Cards: []console.Card{
//		console.Of("database", db.Stats, db.Check),
//		console.Of("leader", elector.Stats, elector.Check),
//	}})
//	http.Handle("/ha/", page)
//	http.Handle("/readyz", page.Health())
//
// A card is the method values of any type that has Stats and Check, the user's own too. Below the prefix are the page, status.json (one
// document for programs), events (the same as a stream) and action (a POST that presses a button).
//
// # Guarantees
//
//   - Without Config.Authorize only requests from this machine and for this machine are answered.
//   - Without Config.AllowActions nothing can be changed. An action must be a POST of the same origin with a JSON body.
//   - The page runs no inline script and loads nothing from elsewhere; it works where a strict content security policy is enforced.
//   - A node that does not answer within 2 s is shown with the reason; the others are shown as they are.
//   - Colour is never the only sign.
//
// # Not guaranteed
//
// The figures of different nodes are not of one instant. Stats of a card are shown as they are: a product must keep secrets out of them.
//
// # Failures
//
// The page is what one node sees, the one that answers it: in a partition each side shows its own. It goes on without a database, and before the
// cluster has settled. A node that is asked and cannot answer is amber beside its own reasons, and has no cards meanwhile. What an action
// did on each node is told node by node; a node that is lost while it runs one may have done it.
//
// # Lifecycle and concurrency
//
// New starts nothing; it registers two topics on the Node. A Handler is safe for concurrent use and needs no closing. An open events stream
// ends with its request, and when the Node drains: http.Server.Shutdown does not wait for it.
//
// # Limits
//
// Each open page asks every node once a second, so the cost grows with pages and nodes: it is meant for some operators and tens of nodes. Stats are
// sent as JSON, and shown as they come. The body of an action has at most 64 KiB.
//
// # Not yet
//
// Logs and log level, the troubleshooting bundle, sparklines and the list of events.
package console
