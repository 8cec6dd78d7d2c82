// Package link carries frames between the processes of a cluster: one connection for each pair, three lanes in it, and on each lane the
// frames arrive in order, none lost and none twice, for as long as both processes live, however often the connection breaks.
//
// It knows processes by ID and nothing of membership, topics or keys: who dials, what a stream is protected with and who is wanted is the
// caller's. An ID is that of one process start and never comes back.
//
//	m, err := link.New(link.Config{Self: id, Cluster: name, Dial: dial, OnFrame: take})
//	go m.Run(ctx)             // owns all goroutines
//	go m.Accept(conn)         // for each stream that came in; returns when it ended (AcceptVia: that came by a relay)
//	m.Connect(peer)           // keep a link
//	m.TryPost(peer, link.Live, header, body)
//
// # Guarantees
//
//   - A payload whose Post or TryPost returned nil is delivered to the peer's OnFrame exactly once and after all that were posted on that
//     lane before, unless one of the two processes ends or gives the other up.
//   - A stream never has a hole. Where one cannot be continued (a process has given up or forgotten the other, or lost its state) it ends
//     for good on both sides: posts answer ErrGivenUp, nothing more is delivered, and the other process is told when it connects next.
//   - Lanes do not wait for one another: Control goes before Live before Bulk, payloads above 64 KiB travel in fragments, each lane has
//     its own goroutine at the receiver and its own credit, and Bulk may fill half of the retention and Live seven eighths.
//   - Memory is bounded: Retain bytes for each peer (what frames leave empty in their chunks is counted) plus at most one payload and one
//     chunk a lane on the sending side, Window bytes a lane twice plus one payload on the receiving side.
//   - What is in the connection cannot be overtaken. So bulk is never more than half a megabyte ahead of its acknowledgements (more where
//     the round trip is long, up to its credit), and a control frame passes 50 MB of it within milliseconds.
//   - A process that Dial does not reach is reached by Relay, if there is one, and by Dial again as soon as that works: the direct way is
//     tried every 3 s. Streams go on across both changes as across any reconnection.
//   - A process that ends is known (OnDead) within a few dials of its connections' end, about 10 ms; one that is silent for a second is
//     down; a process that was itself paused does not take that for its peers' silence.
//
// # Not guaranteed
//
//   - nil from Post does not say that the peer has it. Who needs that lets the peer answer.
//   - OnDead believes the network: a device that answers for a dead address with resets looks like a dead process.
//   - Frames that arrived before the end of a process may be handed to OnFrame after OnDown or OnDead.
//   - After 65,536 processes that were given up, the oldest of them is forgotten and would be met as a new one.
//
// # How
//
// What is sent is what is kept: a payload is copied once, with its header, into 64 KiB chunks. The writer of the connection sends from
// them all that has come together (at once when it was idle), they stay until the peer has acknowledged them, and after a reconnect the
// writer goes on in them at the sequence that the peer expects. The receiver's reader adds frames to the buffer of their lane and never
// waits, so heartbeats, acknowledgements and other lanes pass a handler that blocks; the lane's goroutine swaps that buffer for an empty
// one. Where a Taker takes payloads without waiting, and nothing waits before them, the reader gives them to it directly. Nothing is
// allocated for a frame. Acknowledgements are cumulative and for all lanes, each 50 ms or 64 KiB;
// with them the receiver says how far the sender of each lane may go: 4 MiB past what was handled.
//
// A connection begins with HELLO both ways (process, cluster, protocol range, count of the dial, last connection) and RESUME both ways
// (for each lane the sequence expected next and the credit). The positions are not in the HELLO, because a side may state its position
// only after the connection before has ended there, and should not end that one before it knows that the new one is alive: a dial that a
// paused or cut peer has left behind must end nothing. When both sides dial at once the dial of the lower ID goes on. A silent connection
// is kept while new ones are tried; whichever carries bytes first wins.
//
//	       Connect, Accept          HELLO, RESUME              silent 1 s
//	none ------------------> dialling -----------> up <------------------------> down (conn kept, dialling)
//	                            ^                  |                              |
//	                            +------------------+------------------------------+   connection ended: OnDown,
//	                                                                                  3 refusals in a row: OnDead
//
// Frames have a type and a critical flag. An unknown frame that is not critical is skipped, also when it has a sequence, so later versions
// can add frames; an unknown critical one ends the connection. The frames of testdata are what is on the wire.
//
// Two processes speak the lower of their versions: this one understands Protocol and the one before. Since version 2 a HELLO also tells
// features (relaying, compression), and one is used where all who take part have it. A connection is deflated in each direction for itself,
// after the RESUMEs, where the sender wants it and the receiver can read it.
//
// # Failures
//
//   - Connection cut, at any byte: down, dialled at once, sending goes on. Nobody notices but for the delay.
//   - Peer paused or cable cut: down after 1 s, posts are kept up to Retain, then ErrBackpressure.
//   - Peer gone: OnDead where its address refuses; else the caller decides. GiveUp ends the link when the retention is full,
//     Forget at once.
//   - Slow network: Post lets the peer catch up from 768 KiB on, or from what a gigabyte a second makes of the round trip.
//   - Slow handler: the sender's Retain fills, Post waits within its ctx, TryPost answers ErrBackpressure.
//   - A peer that breaks the protocol (a hole, more than its credit, garbage): the connection ends, with an error in the log.
//
// # Lifecycle and concurrency
//
// New is inert. Connect and Post may come before Run; Accept waits for it. Run ends with its context; posts then return ErrClosed. Flush
// waits for what is on its way, for a process that leaves in good order. All methods are safe for concurrent use. OnFrame runs on the
// goroutine of its sender and lane; the other callbacks run on one goroutine, in order, and may call any method.
//
// # Limits
//
// 65,535 bytes less a header in one frame, 64 MiB and 64 KiB in one payload, 255 bytes in an ID. Tested through 10,000 resets, and with 100
// processes in simulated time.
package link
