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
// package wsfanout/client is the one for Go; anything else can speak the protocol below. wsfanouttest is for tests of programs that use this
// package, wsfanoutprom has metrics.
//
// Give each message the key of its row as PublishOptions.ID: then a publish can be repeated without doubt, clients know what they
// have, and OnGap is told after which row to read. What is worth nothing a moment later (typing) is published with Ephemeral.
//
// [Config.Topic] says for each topic what becomes of subscribers that read too slowly ([SlowPolicy]) and whether they are told who is there
// ([PresenceMode]).
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
//   - A publish with an ID that was used in the last five minutes appears once. Across a fork (below), or when home and replica died with its
//     acknowledgement under way, it may come again, after a gap; the clients here do not show it then.
//   - Every subscription is answered: fresh, resumed, or gap with a reason. Silence is no answer.
//   - Shutdown and joining lose nothing and cause no gap.
//   - A message that ExceptUsers or ExceptConns withhold never reaches the socket; its position does, so that nothing looks missing.
//   - OnGap's messages are shown before what follows in the log, and what is in the log with one of their IDs is not
//     shown again on that connection. After a reconnect it may come from the log: an application that fills merges by ID.
//   - A socket that stands still costs less than 2 KiB: it has positions in rings that all share, and no queue. It holds up nobody.
//   - A message for few never waits for the rest of one for many: topics with more than 256 subscribers here are served in slices.
//   - However many clients come back to a node at once, it asks the home of a topic once for all that miss the same.
//   - [Hub.Revoke] closes the sockets of all nodes in its view. One that was out of reach hears of it before anything else, asks the application
//     ([Config.Reauthorize], Authorize) about all its sockets, and shows nothing in between.
//   - A client is read from only as far as it reads; whatever it sends, others notice nothing.
//
// # Not guaranteed
//
//   - Two nodes that cannot see each other both go on: each acknowledges with Copies 1. When they meet, the subscribers of both sides are told a
//     gap. MinCopies 2 refuses instead; MinMembers n keeps fewer than n nodes from taking anything over.
//   - When the two nodes that have a topic die at once, what was in it is gone; everyone is told a gap.
//   - Order between topics, and of ephemeral messages against others.
//   - Ephemeral messages: no position, dropped for sockets that are behind and while a topic has no home.
//   - [Hub.Presence] is what nodes report to the home, some milliseconds old, and may lack somebody while a topic changes its home. Revoke does not
//     keep anybody from coming back: Authenticate has to. A revocation is remembered for 24 h, and 10,000 of them.
//   - While it is cut off a node shows what is published on its own side also to users that were revoked on the other.
//
// # Failures
//
//	what happens                     what clients and callers see
//	a node crashes                   its clients come back elsewhere and resume; publishes wait for the take-over: the slowest member's detection and two round trips
//	a partition                      the same on each side; a gap on both when it ends. Revoked users are closed then
//	a process stands still           nothing it does afterwards can harm; it reports not ready for 2 s, and authorizes its sockets again
//	a client reads slowly            the topic's SlowPolicy; with Resume it is closed with 4008 when the ring has moved on, and told a gap when it resumes
//	a client takes nothing           after 30 s it is cut; its positions are worth what the rings hold
//	a peer cannot be posted to       it counts as dead for the rest of its process's life: a hole in a link is never bridged
//	a publish is not acknowledged    ErrUncertain after 30 s, or when its context ends first: publish again with the same ID
//	too many sockets or frames       503 with Retry-After, or a close code (below)
//	this node falls behind           publishers to the large topic wait; then the links of peers
//	Authenticate fails               401; with ErrForbidden 403
//
// # Protocol
//
// For clients in other languages. A frame is a WebSocket text message with one JSON object, told apart by "type"; unknown types and fields are
// ignored. The URL of the handshake has ?client=ID&count=N: an ID of the client's own, at most 64 bytes, and the number of this connection, which
// grows: of two connections of one client the higher counts. Both may be left out.
//
// The client sends
//
//	subscribe    ref, topics {topic: cursor}. An empty cursor asks for what comes from now on
//	unsubscribe  names [topic]
//	publish      ref, topic, data. Data that is no JSON goes as a string with "text":true, or as base64 with "base64":true
//
// and, where the server has AuthenticateFrame, before all that one frame of the application's own, within 5 s. ref is a number of the client's choice,
// which the answer has.
//
// The server sends
//
//	hello       conn, node, version, config: the first. Pages reload when config changes, and only then
//	subscribed  topic, ref, kind, epoch, offset, n: the client now stands at (epoch, offset), n records follow. kind fresh; resumed: nothing was missed;
//	            gap: something was, with reason, after (ID of the last message shown) and filled (all of it follows as fill)
//	message     topic, epoch, offset, id, data: the record at that position
//	skip        topic, epoch, offset, n: a record that this client is not shown; the last of n, when n is there
//	gap         topic, epoch, offset, reason, after, filled: in the middle. The client now stands there; with n 1 it is a record like a message
//	fill        topic, id, data: from the application, without a position
//	ephemeral   topic, data: no position
//	presence    topic, count, and users with full, or join and leave
//	done        ref, topic: the answer to publish; with code and error when it failed
//	denied      topic, ref, code, error: no subscription, or no longer
//	error       ref, code, error
//	bye         retry: milliseconds to wait before coming back; a close follows
//	ping        nothing: the server lives. It comes every 25 s; after 80 s without a frame a client should reconnect
//
// For each topic a client keeps a cursor: pos, the position where it stands; seen, of up to 8 epochs, newest first, the highest offset that it was
// shown; last, the ID of the newest message shown. The rule:
//
//   - subscribed, and gap without n, set pos.
//   - Any other frame with a position must have offset pos.offset+1 (a skip with n: pos.offset+n). If not, do not show it: subscribe again
//     with the cursor, and ignore the topic until the answer.
//   - It moves pos. When its offset is at or below that of its epoch in seen, it has been shown before. Else show it, and put it into seen.
//   - After a gap a message, or a fill, with an ID among the last 128 that the topic has shown is not shown again.
//   - After a reconnect subscribe to each topic with its cursor. Ignore answers with another ref than that of the last request. A subscribed
//     without ref says that the server has subscribed the topic: a client that has a cursor for it ignores that, too, as its own request is answered.
//
// As text a cursor is 1|pos|seen,seen|last, at most 4,096 bytes, a position is epoch:offset, and epoch, and last, are escaped as by encodeURIComponent (an
// epoch is N.node: only the node is). internal/cursor/testdata/vectors.json has examples that all clients must pass.
//
// Reasons of a gap: ring_overrun (older than what is held), epoch_changed (the position is of a branch that was given up), fork (another branch
// had acknowledged messages), unverified (all that had the end may be lost), slow (DropGap).
//
// After a lost connection come back at once, then after a pause anywhere within 3 s, 6 s, 12 s … 5 min, to another URL each time.
//
// # Closing codes and errors
//
//	1003   binary frame                                 come back, but do not repeat it
//	1008   no JSON object; too many messages or bytes;  the same
//	       refused by OnConnect
//	1009   frame larger than MaxFrame                   the same
//	1011   a callback of the application panicked        come back
//	1012   this node stops; bye told when to come back  come back elsewhere
//	1013   too many sockets of this user (with          come back later
//	       AuthenticateFrame); not authorized in time
//	4001   not authenticated                            stay away
//	4003   revoked, or no longer authorized             stay away
//	4008   read too slowly                              come back, and resume
//	4009   this client has a newer socket               stay away
//
//	400    client or count is malformed
//	401    not authenticated
//	403    ErrForbidden, or a page of another origin
//	503    above a limit, or not serving: wait for Retry-After
//
//	forbidden        ErrForbidden; error is its text
//	failed           the application could not tell; try again
//	bad_topic        empty, more than 255 bytes, or not UTF-8
//	bad_cursor       not what a server sent. (A position that a server never told is a gap.)
//	bad_data         none, or not what its flag says
//	too_many_topics  more than MaxTopics on this socket
//	unknown_type     of a newer version, mostly
//
// # Lifecycle and concurrency
//
// New checks and starts nothing. [Hub.Run] works until [Hub.Shutdown]; its context is the hard stop, not that of signal.NotifyContext. It waits
// until the transport has settled, and sockets are refused with 503 until then. Shutdown hands topics over (10 s at most), closes the
// sockets in a spread, and says goodbye; Publish works until the end of that, then returns ErrClosed. Tell the membership first (Node.Drain).
// All methods may be called at any time from anywhere. Callbacks run on the goroutine of their socket, OnGap and Reauthorize on others; none
// holds a lock, so they may call the Hub.
//
// Members of the cluster without a hub are left out: hubs greet each other, and a member that has not answered within 3 s counts as one
// without. A cluster with such members therefore serves its first topic after 3 s.
//
// # Limits
//
// Rings: 1 MiB and 5 minutes a topic, 256 MiB a node. Topics 255 bytes, IDs 255, messages 1 MiB. Sockets 50,000 a node, 100 a user,
// 1,000 topics each, inbound frames 32 KiB, 20 and 128 KiB a second (all in Config). Tested with twelve nodes, 5,000 sockets, and 50,000 members of
// one topic in process.
//
// One non-blocking write per socket and pass carries all that is pending, and frames are built once for all subscribers. Behind TLS in this process
// a goroutine writes for each socket that has something pending: let the proxy do TLS where that matters. HTTP/2 carries no WebSockets here;
// browsers open a HTTP/1.1 connection for them by themselves.
//
// # Not yet
//
// Brokers other than the hubs themselves.
package wsfanout
