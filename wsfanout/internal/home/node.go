package home

import "time"

// A Node is the part that one process plays in all partitions. It is not safe for concurrent use: the shell locks.
// now is monotonic and never goes back; only differences count.
type Node struct {
	cfg Config
}

// New returns a Node that does nothing until its first settled View.
func New(cfg Config) (*Node, error) { return &Node{cfg: cfg}, nil }

// SetView tells the Node what this process thinks of the membership: at the start, and after each change of
// members or fates.
func (n *Node) SetView(now time.Duration, v View) {}

// Receive gives the Node what wire.Decode read from one frame of the process from.
func (n *Node) Receive(now time.Duration, from string, messages []Message) {}

// Tick lets time pass. The shell calls it every 100 ms or so (at least four times per Config.Retry).
func (n *Node) Tick(now time.Duration) {}

// Publish begins a publish; an Ack with the handle ends it, unless Cancel does. Its error is about the arguments only.
func (n *Node) Publish(now time.Duration, p Publish) (Handle, error) { return 0, nil }

// Cancel forgets a publish: it may or may not appear, and no Ack follows.
func (n *Node) Cancel(h Handle) {}

// Attach subscribes a local client to a topic from its cursor (zero: from now on). One Answer follows, as soon as
// the topic's home can be asked. A client that is attached already is attached anew.
func (n *Node) Attach(now time.Duration, client ClientID, topic string, c Cursor) {}

// Detach ends a subscription, answered or not.
func (n *Node) Detach(now time.Duration, client ClientID, topic string) {}

// Since returns the records after a position from what this node has of a topic with local clients, for a client
// that was answered and then fell behind. False: not all of them are here; attach the client anew with its cursor.
func (n *Node) Since(topic string, at Position) ([]*Record, bool) { return nil, false }

// Drain makes this node take no new homes and hand over those that it has. The membership must say draining too.
func (n *Node) Drain(now time.Duration) {}

// MayLeave reports whether a draining node has nothing left that others need. The shell waits for it (10 s at most),
// with its sockets closed, before it calls Leave and stops.
func (n *Node) MayLeave() bool { return false }

// Leave says goodbye to all peers. Only after MayLeave: a process that just stops counts as crashed. The shell posts the
// frames and gives the Node no more input.
func (n *Node) Leave(now time.Duration) {}

// Paused tells the Node that this process did not run for a while (its monotonic clock jumped by gap, more than the
// suspicion time). The shell reports not ready, and calls it before any other input.
func (n *Node) Paused(now, gap time.Duration) {}

// Take returns what has been asked for since the last Take. Call it after each input, in the same critical section, and
// act on it in the order of the Takes.
func (n *Node) Take() Output { return Output{} }

// HomeOf returns the process that this node takes for the home of a topic; false when it knows none.
func (n *Node) HomeOf(topic string) (string, bool) { return "", false }

// Settled reports whether, as far as this node is concerned, the next failure may come: every partition has a home in the
// view, and those that this node is home of have a replica (when there is another node), with nothing being
// proposed or installed here.
func (n *Node) Settled() bool { return false }

// Stats returns counters and sizes. It walks over all partitions.
func (n *Node) Stats() Stats { return Stats{} }
