package home

import (
	"errors"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// Names of the packages cursor and wire that the inputs and outputs of a Node are made of.
type (
	Term     = cursor.Term
	Position = cursor.Position
	Cursor   = cursor.Cursor
	Record   = wire.Record
	Message  = wire.Message
)

// Errors of an Ack.
var (
	// ErrUncertain: no acknowledgement within Config.Uncertain. The message may or may not appear; publishing it
	// again with the same ID is safe.
	ErrUncertain = errors.New("home: publish not acknowledged")
	// ErrNoReplica: Config.MinCopies is 2 and within Config.Uncertain there was no second node. The message does
	// not appear, unless it is published again.
	ErrNoReplica = errors.New("home: no replica")
)

// Errors of Publish.
var (
	errTopic = errors.New("home: topic is empty or longer than 255 bytes")
	errID    = errors.New("home: publish ID is not valid text or longer than 255 bytes")
)

// A Config is what a Node has to know. Every zero field but ID means the default in its comment.
type Config struct {
	ID         string // this process; never used again by another
	Partitions int    // 1,024. Only tests may change it: all nodes must have the same
	MinCopies  int    // 1. 2: nothing is acknowledged that only one node has
	MinMembers int    // 1. No term is proposed with fewer nodes

	RingBytes int           // 1 MiB a topic
	RingAge   time.Duration // 5 min
	NodeBytes int           // 256 MiB: bound on all rings; the topics idle longest are trimmed first
	WindowAge time.Duration // 5 min
	WindowIDs int           // 65,536 a partition
	HotBytes  int           // 256 KiB of a partition's newest records go with a move; older ones follow
	Moves     int           // 8 partitions are moved at once, when their home and replica are there
	IdleAge   time.Duration // 24 h after which a topic without records is forgotten

	SoloDelay time.Duration // 2 s before a node that sees nobody leads, unless the others are known dead or gone
	Retry     time.Duration // 1 s between two looks at a partition that nobody leads
	Announce  time.Duration // 5 s between two ACTIVE of a home, and between two digests of an edge
	Linger    time.Duration // 10 s that an edge stays subscribed after its last client
	Uncertain time.Duration // 30 s; must be shorter than WindowAge
	Hold      time.Duration // 2 s that a client waits for older records on their way, before it is told a gap
}

// A Fate is what the membership says of a process.
type Fate uint8

const (
	Unknown  Fate = iota
	Alive         // a member
	Suspect       // a member that has been silent for a while
	Draining      // a member that is about to leave: it takes no new homes
	Left          // said goodbye
	Dead          // proven dead
	Failed        // given up
)

// ParseFate reads what Transport.Fate returns.
func ParseFate(s string) Fate {
	switch s {
	case "alive":
		return Alive
	case "suspect":
		return Suspect
	case "draining":
		return Draining
	case "left":
		return Left
	case "dead":
		return Dead
	case "failed":
		return Failed
	}
	return Unknown
}

// A View is this node's opinion of the membership.
type View struct {
	// Settled is false until the membership has had its first look around. Nothing is proposed before.
	Settled bool
	// Alive are the members (alive, suspect or draining), this node included, in any order. The Node keeps no
	// reference to it.
	Alive []string
	// Fate answers for any process. The Node calls it from within any of its methods until the next View, so it must be
	// fast and must not call the Node.
	Fate func(id string) Fate
}

// A ClientID names a local subscriber. The shell gives it, one for each connection, never 0 and never the same again.
type ClientID uint64

// A Handle names a publish that has not been acknowledged.
type Handle uint64

// A Publish is a message for a topic.
type Publish struct {
	Topic     string // 1 to 255 bytes
	ID        string // publish ID, "" for one of the Node's own making; the same ID is appended once within WindowAge
	Data      []byte // kept: not to be changed afterwards
	Ephemeral bool   // no position, no copy, acknowledged at once, may be dropped
}

// An Output is what inputs have asked for since the last Take. Frames and Events are each in order; there is none
// between them.
type Output struct {
	Frames []Frame
	Acks   []Ack
	Events []Event
}

// A Frame is what one peer has to get. The shell encodes it with wire.Encode and posts the results in order. All frames
// ever taken for one peer must arrive in order and without loss, or that peer must be given up as a whole: its Fate
// becomes Dead or Failed and nothing that it sent is given to Receive any more.
type Frame struct {
	To       string
	Bulk     bool // on the bulk lane: no order against other frames, and may be lost
	Messages []Message
}

// An Ack ends a publish.
type Ack struct {
	Handle Handle
	Topic  string
	ID     string
	At     Position // zero for an ephemeral one
	Copies int      // 1 or 2: on how many nodes it is now
	Err    error    // nil, ErrUncertain or ErrNoReplica
}

// An Event is an *Answer or a *Deliver.
type Event interface{ event() }

// A Kind tells how a subscription goes on.
type Kind = wire.Answer

const (
	Fresh   = wire.Fresh     // from now on
	Resumed = wire.Resumed   // nothing missed but the records that come with the answer
	Gapped  = wire.GapAnswer // something cannot be replayed: Reason, From, Start
)

// Reasons of a gap, in answers, deliveries and as Data of gap records.
const (
	ReasonRing       = "ring_overrun"  // older than what rings hold
	ReasonEpoch      = "epoch_changed" // the client's position is on a branch that this log does not have
	ReasonFork       = "fork"          // gap record: another branch had acknowledged messages
	ReasonUnverified = "unverified"    // gap record: all that had the end of the log may be lost
)

// An Answer is the one answer to an Attach. Until it, the client gets nothing of the topic; from it on, every Deliver.
type Answer struct {
	Client  ClientID
	Topic   string
	Kind    Kind
	Reason  string    // of Gapped
	From    Position  // of Gapped: where the client stood
	Start   Position  // where the client stands before Records; told even for an empty topic
	Records []*Record // in order, to be applied with the rule of package cursor (some may have been shown already)
}

// A Deliver brings records to every client that is attached to the topic and was answered before in the order of
// events.
type Deliver struct {
	Topic   string
	Gap     *Gap       // not nil: the node itself could not go on without a hole; a report to each client, before Records
	Records []*Record  // in order, may be empty with Gap. Ephemeral ones have no position
	Clients []ClientID // the clients it is for; shared, valid until the next input of the Node
}

// A Gap reports that clients now stand at Start, and what was between is not replayed.
type Gap struct {
	Reason string
	From   Position
	Start  Position
}

func (*Answer) event()  {}
func (*Deliver) event() {}

// Stats are counters and sizes of a Node.
type Stats struct {
	Partitions int // all
	Homed      int // this node is home of
	Solo       int // of those, without a replica
	Replicated int // this node is replica of
	Leaderless int // no home known, or one that is not in the view
	Preparing  int // terms being proposed or installed by this node
	Copies     int // partitions of which this node holds a copy
	Filling    int // partitions that lack older records which are on their way here or to the replica
	Topics     int // in copies
	Subscribed int // topics with local clients or lingering
	Clients    int // attachments of local clients
	Waiting    int // attachments not answered yet
	Publishing int // publishes not acknowledged
	RingBytes  int // in copies and edge rings
	Settled    bool

	Terms     uint64 // activated by this node
	Epochs    uint64 // minted by this node
	Appended  uint64 // records, as home
	Delivered uint64 // records, to local topics
	Gaps      uint64 // answers and gap records that this node caused
	Asked     uint64 // subscriptions and questions sent to homes
	Repairs   uint64 // subscriptions renewed because a record did not follow
}
