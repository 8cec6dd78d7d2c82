// Package home is the protocol of topics: which process gives a topic's records their positions, who has copies of them,
// and how every subscriber gets each of them once and in order, or is told that it cannot.
//
// It is pure. A [Node] has no goroutine, clock, socket or randomness: time is an argument, what has to be done is taken
// with [Node.Take]. The shell (package wsfanout) locks, sends, receives and owns the sockets. A run can therefore be
// repeated to the last message: the tests are scripts (testdata/golden) and a simulator over this code.
//
// # Promises
//
//   - P1: while one node fails at a time, and the next only when all nodes report Settled again, an acknowledged message
//     reaches every subscriber that stays or comes back within the bounds of the rings: once, in one order for each topic,
//     without a gap report. A failure is a crash, or a pause with return.
//   - P2: whatever else happens, there are never two records at one position, and a client walks along one log without a
//     hole or is told a gap. What it has seen is not shown again without a gap before it. An acknowledged message that it
//     cannot get is reported as a gap, as long as one process takes part in the merge that held the message, or knew of
//     the term in which it was acknowledged.
//   - P3: a message published again with its ID, at any node, appears once while the window remembers the ID.
//   - P4: planned moves (join, drain) lose nothing and report nothing.
//   - P5: when all views are equal and all processes run, every publish ends, every client is subscribed, every leaver may go.
//
// There is no majority rule. Uniqueness comes from epochs with a single writer, durability from two copies and from asking
// everyone before anyone leads; time is used for progress alone, and clocks are never compared. A node alone goes on and says
// so (Copies is 1). Who wants refusal instead sets MinCopies or MinMembers.
//
// # Words
//
// Topics hash into partitions. A partition has terms (n, node), each proposed by one process; its home is the proposer of the
// highest active term. An epoch is named after the term that minted it and has one writer: who holds its token. Offsets of a
// topic go on counting from epoch to epoch, and every record keeps its epoch, so equal positions mean equal logs before
// them. A view is one process's opinion of the membership; eligible are those of it that do not drain; first and second are the
// rendezvous order over them. A copy is held by home and replica, and by whoever was one of them and has not given it back.
//
// # Rules: terms
//
// The functions that carry out a rule name it.
//
//   - R1 Who proposes. An idle node looks (nudge) at each change of its view, each NACK, ACTIVE and OFFER, and each second. Let t
//     be the highest term it knows. If it is first, and t's proposer is not eligible or is itself, or t was offered to it, it
//     proposes. If it is not first and t's proposer is gone, it offers t to the first. A home that is not first offers its term to
//     the first and goes on; one that is first with another replica than the second proposes; a home or installer whose
//     replica left the view proposes. All this is also looked at when a term becomes active. Nothing is proposed before the
//     first settled view; a node that sees only itself waits SoloDelay unless all others are known to have ended.
//   - R2 Proposing. The term's number is one above all that are known. A home stops writing; PREPARE goes to all of the view.
//   - R3 Promising. A lower term than promised is refused (NACK). Else the node steps down from whatever it did, and answers with
//     its copy, the terms that it promised above the active one, its view, and the token, which leaves with the answer. Contact:
//     a process that sends PREPARE, INSTALL or ACTIVE, or that a PREPARE names as replica, is a member from then on, until the
//     membership has called it gone for a second, or has not heard of it for five.
//   - R4 Collecting. A better copy (held under a higher term; longer; with the token) replaces the own one; committed ends of the
//     own that it lacks become orphans. Everyone named by the views of those that answered is asked too. Complete is a term when
//     all in these views have answered, but for processes that are known to have ended; members tell a proposer when their view
//     changes. A late answer to an older term of the same proposer still counts for copy and token. When the second has
//     changed meanwhile, a new term is proposed.
//   - R5 Verifying. For each other term above the one of the copy that anyone promised or held active, one of its pair must have
//     answered; a replica that said Bye counts. Else the log may end too early: the term is unverified.
//   - R6 Epoch. With the token, and verified, the epoch goes on. Else the term mints a new one; unverified, it appends a gap record
//     to every topic. For each orphan that is not in the log it appends a gap record. Then INSTALL to the replica.
//   - R7 Activating. When the replica has installed, everything is committed and ACTIVE goes to all. Alone, at once. A replica
//     remembers as orphans what its former copy had and the new one lacks.
//   - R8 Following. A newer ACTIVE makes everyone subscribe and publish again, to the new home. Who has a copy and is not of the
//     pair, and a replica with orphans, returns the ends of them; the home appends a gap record for each that is not in its log,
//     unless that epoch was reported up to there, and confirms when the records are committed. Only then is a copy dropped.
//   - R9 Refused. A NACK of the current term ends it. The highest term always wins.
//   - R10 Leaving. A draining node leaves (Bye) when it is idle everywhere, holds nothing, waits for nothing, and knows no promise
//     above the active term. When everyone else is draining or known to have ended, nothing has to be handed over. One that is only
//     out of reach may come back with a branch of its own, and has to be waited for.
//
// # Rules: publishing
//
//   - R11 An origin keeps a publish until it is acknowledged, and sends it again to each new home. After 30 s: ErrUncertain, or
//     ErrNoReplica when it certainly does not exist.
//   - R12 The home answers a known ID with its position; else it appends and replicates.
//   - R13 The fence: a replica takes a record only while the term of its copy is the one that it promised last. What it took it
//     counts as acknowledged.
//   - R14 Only what the replica has is shown, acknowledged, or used in an answer.
//
// # Rules: subscribing
//
//   - R15 A position is in a log when the record there has its epoch. At the birth of a topic an earlier epoch will do, when all
//     transitions since are verified. Below the ring, the ends of the last epochs tell whether it was there.
//   - R16 The home of exactly that term answers a subscription and registers it in one step: fresh, from the committed end, told even
//     when the topic is empty; resumed, when the position matches; else it asks its replica whether it is still the home, and
//     then answers gap, from the newest record that it shares with the cursor.
//   - R17 A node takes an answer only for its outstanding request, and records only while subscribed in the same term. A record that
//     does not follow is not delivered: the node subscribes again. Subscriptions linger; digests find lost ones.
//   - R18 Clients are answered from the ring of their node where their position is in it. Where not, the home is asked with the
//     client's own cursor, once for all that have the same; links are in order, so its answer ends where the node stands, and its
//     records extend the ring downwards. A node never decides that there is a gap.
//   - R19 What the client does is package cursor.
//   - R20 Which of two connections of one client counts is the shell's business.
//   - R21 Rings are trimmed, and idle topics forgotten, by each node for itself. A forgotten topic raises the floor, from which topics
//     begin, and the floor keeps the epoch of the record there: what was told before that epoch is not the birth of a topic. Records
//     tell their predecessor, so a replica that forgot, or did not, follows its home.
//   - R22 With PROMISE and INSTALL go the header of a copy and its newest records (HotBytes; of a topic whose end the receiver has,
//     what follows it), so a move takes as long for a full ring as for an empty one. Who leads or is replica fetches the older
//     ones afterwards on the bulk lane, newest first, from those that had them; equal positions mean equal logs, so what ends where
//     the ring begins fits. Nobody is told to drop a copy that is still needed. A subscription that needs what is on its way waits
//     for it (Hold, 2 s), then it is a gap. Re-replicated, for P1, means that this is done too. Of planned moves eight happen at once.
//   - R23 After a pause a home has its replica confirm it before it answers anything, and for SoloDelay the node holds nothing against
//     others that vanished.
//
// # Known limits
//
//   - A message acknowledged with Copies 1 is lost silently when its only holder dies.
//   - A cut that lasts longer than IdleAge: a topic that both sides have forgotten since is not reported.
//   - Home and a new replica on one side of a cut acknowledge a message and both die, while the old replica leads on the other side:
//     lost without a report. MinMembers of a majority prevents it.
//   - Gap reports may be false (silence never is): home and intended replica of a term that never became active die together; a
//     topic that was idle for IdleAge; a client that knows more than eight epochs.
package home
