// Package console is the operator's page of a cluster: what is wrong, on which node, and what to do about it. Any node shows all of them.
//
// It is a plain http.Handler for the program's own server, at any prefix, with no build step and nothing from elsewhere. It is not a monitoring
// system: it shows now, and what its page has seen since it was opened; for months and alarms there are the Prometheus collectors.
//
// # Use
//
// Make one Handler a node with New and mount it, stripped or not, with or without a slash at the end: mux.Handle("/admin/ha/", h). Of makes a
// card of any type with Stats and Check methods: each product's, or the program's own. NewLogs goes in front of the program's slog.Handler,
// Config.Settings takes the method of config.Store. Health is a handler of its own for a load balancer and the supervisor, since that
// needs no authorization. See the Example.
//
// What there is below the prefix:
//
//	(the page)      the verdict, the nodes with reasons and remedies, the cards, events, settings, logs
//	status.json     all figures of all nodes; its schema number changes when a field changes its meaning
//	events          the same as server-sent events, each second
//	settings.json   the settings of all nodes with their sources
//	history.json    what happened to members, as each node saw it
//	logs.json       the last records; ?node=ID ?level=WARN ?limit=200 ?after=ID:seq
//	action, level   POST: a card's button; the log level of one node or of all, for some minutes or until the next change
//	bundle          POST: a zip with a folder for each node: status, cards, settings, events, logs, goroutines, versions, the program's own files
//
// # Guarantees
//
//   - Any node answers for all it can reach, over the cluster's own links: no node needs to know another's HTTP address. A node that does not
//     answer within 2 s (20 s for the bundle) is shown with the reason.
//   - Each node tells of itself what only it can know, and where nodes do not see the same that is a finding too.
//   - It only looks, unless AllowActions: every POST is refused then, here and when another node's page asks. With it a POST must come from the
//     page itself (Sec-Fetch-Site, Origin, a content type that no form can send). Each action is logged with the client's address.
//   - Without Authorize it answers requests from this machine, for this machine, only; whoever comes through a proxy is not from here.
//   - Nothing that Config.Secrets names leaves in the bundle, logs, settings or a card's error; passwords in URLs and data sources, attributes named
//     like secrets, bearer tokens and cluster keys are taken out even if nobody named them.
//   - The page runs under a content security policy that allows its own files alone: no inline script, no inline style, no frame. Text is never
//     parsed as HTML.
//   - Colour is never the only sign, the keyboard reaches everything, it works from 360 px on and follows dark mode. Where a proxy holds the
//     stream back, it polls; while it is not seen, it asks nothing.
//   - An open page does not hold up Shutdown: its stream ends when the node drains.
//
// # Not guaranteed
//
//   - That a text which looks like nothing special is taken for a secret: name those in Config.Secrets.
//   - That an action has not run where its answer did not come in time.
//   - Who pressed what: the log has the client's address; people are Authorize's to tell apart.
//
// # Failures
//
//	a node hangs                 its row says that it does not answer; the rest comes after 2 s
//	this node has no view yet    it shows itself alone, red
//	a card or an action panics   its card is red, the stack is in the log; the program goes on
//	a Check that blocks          ends with its ctx after 2 s; one that ignores ctx holds up this node's answer
//	a node without a console     its row says so, and all that is known of it from the cluster
//	the viewer's clock is off    ages are off by that
//
// # Lifecycle and concurrency
//
// A Handler owns no goroutine and is not closed: it ends with its Node. All of its viewers share one round of questions each 0.4 s. Checks run side by side,
// in each round; make them cheap. Logs is a slog.Handler like any other; SetLevel for a while keeps a timer until then.
//
// # Limits
//
// Tried with nine nodes on a page. 2,000 records or 1 MiB of logs are kept by default, 256 events; a file of the bundle is cut off at 8 MiB.
//
// # Not yet
//
// Figures from before the page was opened, other languages.
package console
