// Package wsfanout sends messages to WebSockets on all nodes of a cluster, in one order for each topic, and lets a client that lost its
// connection go on at any node without missing one. There is no broker: hubs talk to each other through a small [Transport], which
// *cluster.Node satisfies. Without one a [Hub] works alone.
//
// It is not a message queue: what a topic holds is meant for clients that come back within minutes, and lives in memory. What must outlast
// the cluster belongs in a database, from which [Config.OnGap] fills what the memory no longer has.
//
// # Use
//
// A Hub is an http.Handler and [Hub.Publish]; see the Example. Clients subscribe to topics, names of the application's choice such as
// "room/7" or "user/ann", when Authorize lets them; OnConnect can subscribe them with [Conn.Subscribe]. [Script] serves the JavaScript client,
// package wsfanout/client is the one for Go. Anything else can speak the protocol: one JSON object a text message, described in
// internal/frame.
//
// Give each message the key of its row as PublishOptions.ID: then a publish can be repeated without doubt, clients know what they
// have, and OnGap is told after which row to read. What is worth nothing a moment later (typing) is published with Ephemeral.
//
// # Guarantees
//
// One node sequences each topic ([Hub.Home]), a second has every message before anyone is shown it; package internal/home states the rules
// and what they promise, number by number.
//
//   - While one node fails at a time, and the next only when Stats().Settled is true everywhere again, every acknowledged message reaches
//     every subscriber that stays, or comes back within the bounds of the rings: once, in one order, without a gap report. A failure
//     is a crash, or a pause that ends.
//   - Whatever else happens, a client is never shown two different messages at one position, nor a message after one that it should have had,
//     without being told of a gap.
//   - A publish with an ID that was used in the last five minutes appears once. Across a fork (below) it may come again, after a gap.
//   - Every subscription is answered: fresh, resumed, or gap with a reason. Silence is no answer.
//   - Shutdown and joining lose nothing and cause no gap.
//   - A message that ExceptUsers or ExceptConns withhold never reaches the socket; its position does, so that nothing looks missing.
//   - OnGap's messages are shown before what follows in the log, and what is in the log with one of their IDs is not
//     shown again on that connection. After a reconnect it may come from the log: an application that fills merges by ID.
//
// # Not guaranteed
//
//   - Two nodes that cannot see each other both go on: each acknowledges with Copies 1. When they meet, the subscribers of both sides are told a
//     gap. MinCopies 2 refuses instead; MinMembers n keeps fewer than n nodes from taking anything over.
//   - When the two nodes that have a topic die at once, what was in it is gone; everyone is told a gap.
//   - Order between topics, and of ephemeral messages against others.
//   - Ephemeral messages: no position, dropped for sockets that are behind and while a topic has no home.
//   - [Hub.Presence] is what nodes tell each other, some milliseconds old. [Hub.Revoke] reaches the nodes that are in the view; Authenticate
//     has to refuse the rest when they come back.
//
// # Failures
//
//   - A node crashes: its clients come back elsewhere and resume; publishes wait for the take-over, which takes as long as the slowest member's
//     detection and two round trips. Messages in its hands that nobody had acknowledged are sent again by the nodes they came from.
//   - A partition: as above, on each side.
//   - A process is paused: nothing it does afterwards can harm (its writes are fenced); it reports not ready for two seconds.
//   - A slow client: 256 KiB are queued for its socket at most (plus one message), the rest waits in the topic's ring. When the ring has moved on
//     it is closed with 4008 and is answered a gap when it resumes. One that takes nothing for 30 s is cut.
//   - A peer that cannot be posted to any more is treated as dead for the rest of its process's life: a hole in a link is never bridged.
//   - Publish returns ErrUncertain after 30 s, or when its context ends first: publish again with the same ID.
//
// # Closing codes
//
// 1008 broke a rule or was refused by OnConnect · 1009 frame too large · 1012 this node stops (a bye frame before it says when to come back) ·
// 1013 too many sockets of this user · 4001 not authenticated · 4003 revoked · 4008 read too slowly · 4009 the client has a newer socket. After
// 4001, 4003 and 4009 clients stay away. The handshake answers 401, 403, 503 with Retry-After above a limit, and 403 to foreign pages.
//
// # Lifecycle and concurrency
//
// New checks and starts nothing. [Hub.Run] works until [Hub.Shutdown]; its context is the hard stop, not that of signal.NotifyContext. It waits
// until the transport has settled, and sockets are refused with 503 until then. Shutdown hands topics over (10 s at most), closes the
// sockets in a spread, and says goodbye; Publish works until the end of that, then returns ErrClosed. Tell the membership first (Node.Drain).
// All methods may be called at any time from anywhere. Callbacks run on the goroutine of their socket, OnGap on one of its own; none
// holds a lock, so they may call the Hub.
//
// Members of the cluster without a hub are left out: hubs greet each other, and a member that has not answered within 3 s counts as one
// without. A cluster with such members therefore serves its first topic after 3 s.
//
// # Limits
//
// Rings: 1 MiB and 5 minutes a topic, 256 MiB a node. Topics 255 bytes, IDs 255, messages 1 MiB. Sockets 50,000 a node, 100 a user,
// 1,000 topics each, inbound frames 32 KiB and 20 a second (all in Config). Tested with three nodes and some hundred sockets.
//
// One non-blocking write per socket and pass carries all that is pending, and frames are built once for all subscribers. Behind TLS in this process
// a goroutine writes for each socket that has something pending: let the proxy do TLS where that matters. HTTP/2 carries no WebSockets here;
// browsers open a HTTP/1.1 connection for them by themselves.
//
// # Not yet
//
// Acting on ConflateKey (it travels with the message) and per-topic policies for slow sockets; compression; join and leave messages of
// presence; re-authorization of sockets on a node that was out of reach; a bulk lane for large copies; fairness between a very large room
// and a direct message; limits by address; brokers other than the hubs themselves; Prometheus metrics.
package wsfanout
