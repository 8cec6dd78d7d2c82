package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// Lane is one of the three streams of a link. Frames of one lane keep their order; lanes pass one another.
type Lane uint8

// The lanes, in the order in which they are served. Control goes first, live before bulk, and bulk takes a small share at a time, so that
// none of them waits for a large transfer.
const (
	Control Lane = iota
	Live
	Bulk
	lanes
)

func (l Lane) String() string {
	switch l {
	case Control:
		return "control"
	case Live:
		return "live"
	case Bulk:
		return "bulk"
	}
	return fmt.Sprintf("lane %d", uint8(l))
}

// Bounds.
const (
	MaxPayload    = 64<<20 + 64<<10 // of one Post: the largest message and its header
	DefaultRetain = 64 << 20
	DefaultWindow = 4 << 20
	maxID         = 255
)

// Config is what New needs. Self, Cluster, Dial and OnFrame are required.
type Config struct {
	Self    string // ID of this process, unique for each start
	Cluster string

	// Dial returns an authenticated stream to the present address of that process. It is called again and again for as long as a link
	// is wanted and is not up. An error that wraps ErrRefused or syscall.ECONNREFUSED says that nothing listens there.
	Dial func(ctx context.Context, id string) (net.Conn, error)

	// Relay returns an authenticated stream to that process through a third one, and the ID of that, for a process that Dial does not
	// reach. The stream is made anew whenever it ends, and left as soon as Dial reaches the process again. ErrNoRelay says that there is
	// none at the moment. nil: links are direct.
	Relay func(ctx context.Context, id string) (c net.Conn, via string, err error)

	// Keep reports whether a stream may still be used; nil: always. Renew asks it again.
	Keep func(c net.Conn) bool

	// OnFrame takes a payload: one call at a time for a sender and lane, in order. The payload is valid until it returns. Blocking is
	// back-pressure for that sender and lane and for nobody else.
	OnFrame func(from string, lane Lane, payload []byte)

	// Taker returns what takes the payloads of one sender and lane in place of OnFrame, or nil; nil is OnFrame for all.
	Taker func(from string, lane Lane) Taker

	// The following run one at a time, in the order of what happened, beside the work of the links. All may be nil.
	OnUp      func(id string) // the link carries frames both ways
	OnDown    func(id string) // it ended or was silent for a second; frames are kept and sent when it is up again
	OnDead    func(id string) // it ended and the process' address refused three times: the process is gone
	OnGivenUp func(id string) // this process has given that one up, see GiveUp
	OnEvicted func(by string) // that process has given this one up

	// Compress deflates what goes to peers that can inflate it. It takes time, and some 700 KiB for each peer.
	Compress bool

	// Protocol is the highest version that is spoken, from OldestProtocol to Protocol; 0 is Protocol. For tests of rolling upgrades.
	Protocol uint16

	Retain int // bytes of unacknowledged frames for each peer; default DefaultRetain
	Window int // bytes for each peer and lane that wait for OnFrame; default DefaultWindow
	Logger *slog.Logger
}

// Taker takes the payloads of one sender and lane, in order. Its methods are called by one goroutine at a time. Payloads are valid until the
// call returns.
type Taker interface {
	// Take takes a payload at once, or reports that it cannot. It runs where the connection is read, and must not wait.
	Take(payload []byte) bool
	// Flush follows a series of calls of Take, and must not wait either.
	Flush()
	// Handle takes a payload that Take did not. Blocking is back-pressure for that sender and lane and for nobody else.
	Handle(payload []byte)
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("link: "+format, args...)) }
	if len(c.Self) == 0 || len(c.Self) > maxID {
		bad("Self has %d bytes; use 1 to %d", len(c.Self), maxID)
	}
	if len(c.Cluster) > maxID {
		bad("Cluster has %d bytes; use at most %d", len(c.Cluster), maxID)
	}
	if c.Dial == nil {
		bad("Dial is nil; links need a way to reach a peer")
	}
	if c.OnFrame == nil {
		bad("OnFrame is nil; frames need a taker")
	}
	if c.Retain < 0 || c.Window < 0 {
		bad("Retain %d, Window %d: neither may be negative; 0 is the default", c.Retain, c.Window)
	}
	if c.Protocol != 0 && (c.Protocol < OldestProtocol || c.Protocol > Protocol) {
		bad("Protocol %d: use %d to %d", c.Protocol, OldestProtocol, Protocol)
	}
	return errors.Join(errs...)
}
