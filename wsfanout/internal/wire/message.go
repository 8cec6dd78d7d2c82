// Package wire holds the messages that hubs send each other about topics, and their encoding.
//
// A frame is a batch of messages from one node to another. The protocol (package home) needs frames to arrive once
// and in order for each ordered pair of processes; a link that cannot do that any more must be treated as the death
// of the process at its other end.
package wire

import "github.com/nines-go/nines/wsfanout/internal/cursor"

// Term, Position and Cursor are those of package cursor.
type (
	Term     = cursor.Term
	Position = cursor.Position
	Cursor   = cursor.Cursor
)

// A Kind tells what a record is.
type Kind uint8

const (
	Data      Kind = iota // a message
	Gap                   // a report: what the record's Data names (fork or unverified) may be missing before it
	Ephemeral             // a message without a position: never stored, may be dropped
)

// A Record is one entry of a topic's log. It is shared and never changed once it has been handed out.
type Record struct {
	Position
	Kind Kind
	ID   string // publish ID; of a gap record its identity
	Data []byte // the message; of a gap record its reason
}

// A Message is one message of the protocol. Every message but Bye is about one partition.
type Message interface {
	// Partition returns the partition that the message is about.
	Partition() int
	tag() tag
}

// P is the partition of a message, embedded in each.
type P struct{ Part int }

// Partition returns the partition.
func (p P) Partition() int { return p.Part }

// An Open is a term that was promised above the active one.
type Open struct {
	Term    Term
	Replica string // the intended one; "" when none or unknown
	Known   bool   // Replica is known
	Left    bool   // the intended replica has left gracefully since
}

// A Lineage is one epoch in the history of a log.
type Lineage struct {
	Epoch    Term
	Verified bool // false: the end of the log before this epoch may be missing
}

// A Mark is the last offset of an epoch in a topic.
type Mark = Position

// A Tip is the end of one topic in a branch of the log.
type Tip struct {
	Topic string
	At    Position
}

// A Topic is one topic of a copy in transit.
type Topic struct {
	Name      string
	From      Term      // FloorBy at its birth
	Born      Position  // where the topic began or was begun again
	Base      Position  // position before Records[0]
	Tail      bool      // the receiver keeps its own records up to Base
	Older     bool      // the sender has, or will have, records before Base that are not sent: to be fetched (R22)
	Marks     []Mark    // oldest first
	Records   []*Record // after Base
	Committed uint64    // highest committed offset that the sender knows
}

// A Window entry is a publish ID that has been used in a partition lately.
type Window struct {
	Topic string
	ID    string
	At    Position
}

// A Copy is a partition's log in transit.
type Copy struct {
	Acc     Term   // term under which it was held
	Length  uint64 // records appended under Acc
	Token   bool   // the right to write the current epoch goes with it
	Lineage []Lineage
	Floor   uint64 // topics begin here: no forgotten one went further
	FloorBy Term   // epoch of the forgotten record at Floor; none before the first was forgotten
	Topics  []Topic
	Window  []Window
}

type (
	// Prepare asks for the promise to follow no lower term (R2, R3).
	Prepare struct {
		P
		G       Term
		Replica string
	}
	// Promise is the answer to Prepare, with all the member has (R3, R4).
	Promise struct {
		P
		G       Term
		Copy    *Copy // nil: none
		Orphans []Tip
		Open    []Open
		Active  Term
		Replica string // of Active
		View    []string
	}
	// ViewUpdate tells a proposer that a promiser's view has changed (R4).
	ViewUpdate struct {
		P
		G    Term
		View []string
	}
	// Nack refuses a term because a higher one was promised (R9).
	Nack struct {
		P
		Refused  Term
		Promised Open
	}
	// Install makes the receiver the replica of a term (R6, R7).
	Install struct {
		P
		G    Term
		Copy *Copy
	}
	// Installed is the answer to Install; and again, with Whole, when the replica has all older records too (R22).
	Installed struct {
		P
		G     Term
		Whole bool
	}
	// Active names the home of a partition (R7, R8).
	Active struct {
		P
		G       Term
		Replica string
	}
	// Offer tells the node that should lead about the highest term known (R1).
	Offer struct {
		P
		T Open
	}
	// Pub asks the home to append a message (R11, R12).
	Pub struct {
		P
		Topic     string
		ID        string
		Data      []byte
		Ephemeral bool
	}
	// PubAck tells the origin where its message is.
	PubAck struct {
		P
		Topic     string
		ID        string
		At        Position
		Copies    int
		NoReplica bool // refused: the home has no replica and needs one
	}
	// Rep replicates one record (R12, R13).
	Rep struct {
		P
		G      Term
		Topic  string
		Prev   Position
		Record *Record
	}
	// RepAck acknowledges all records of a topic up to Offset.
	RepAck struct {
		P
		G      Term
		Topic  string
		Offset uint64
	}
	// Sub subscribes an edge to a topic at the home of exactly term G (R16).
	Sub struct {
		P
		G       Term
		Request uint64
		Topic   string
		Cursor  Cursor
		Only    bool // answer for one client of the edge; the edge's own registration stays as it is
	}
	// SubOK is the answer to Sub.
	SubOK struct {
		P
		G       Term
		Request uint64
		Topic   string
		Answer  Answer
		Reason  string // of a gap
		Start   Position
		Records []*Record
		Only    bool
	}
	// Live carries one committed record to an edge (R14, R17).
	Live struct {
		P
		G      Term
		Topic  string
		Prev   Term // epoch of the predecessor
		Record *Record
	}
	// Confirm asks the replica whether the sender is still the home (R16, R23).
	Confirm struct {
		P
		G      Term
		Number uint64
	}
	// Confirmed is the answer to Confirm.
	Confirmed struct {
		P
		G      Term
		Number uint64
	}
	// Return tells the home of term G where the branches that the sender has to give up ended (R8).
	Return struct {
		P
		G    Term
		Tips []Tip
	}
	// ReturnOK tells the former holder that all its tips are in the log or reported there.
	ReturnOK struct {
		P
		G Term
	}
	// Unsub ends an edge's subscription.
	Unsub struct {
		P
		G       Term
		Request uint64
		Topic   string
	}
	// Digest is a hash over the topics that an edge is subscribed to at a home (R17).
	Digest struct {
		P
		G    Term
		Hash uint64
	}
	// Resub asks the edge to subscribe again, because its digest differs.
	Resub struct {
		P
		G Term
	}
	// Fetch asks for the records of a topic that end at a position (R22).
	Fetch struct {
		P
		Topic  string
		Before Position
	}
	// Backfill is the answer to Fetch, on the bulk lane: the records after Base up to Before.
	Backfill struct {
		P
		Topic   string
		Before  Position
		Base    Position
		Records []*Record
		Older   bool // there are, or will be, more before Base
	}
	// Bye says that the sender has handed everything over and leaves (R10, R5).
	Bye struct{ P }
)

// Follows reports whether the records are one after the other from Base to Before.
func (m *Backfill) Follows() bool {
	at := m.Base
	for _, r := range m.Records {
		if r.Offset != at.Offset+1 {
			return false
		}
		at = r.Position
	}
	return at == m.Before
}

// An Answer tells how a subscription goes on.
type Answer uint8

const (
	Fresh     Answer = iota + 1 // from now on
	Resumed                     // nothing was missed but the records that come with the answer
	GapAnswer                   // something cannot be replayed
)
