package link

import (
	"context"
	"net"
	"time"
)

// Mesh keeps the links of one process. Its methods are safe for concurrent use.
type Mesh struct {
	cfg Config
}

// New checks cfg. Nothing runs before Run.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Mesh{cfg: cfg}, nil
}

// Run owns the goroutines of all links until ctx ends; it returns nil when the last has ended, calls of OnFrame included.
func (m *Mesh) Run(ctx context.Context) error { panic("not yet") }

// Accept takes an authenticated stream that a peer has dialled and returns when it has ended, with the reason when the peer was refused.
// Before Run it waits for Run; conn is closed in any case.
func (m *Mesh) Accept(conn net.Conn) error { panic("not yet") }

// Connect keeps a link to that process until Forget.
func (m *Mesh) Connect(id string) { panic("not yet") }

// Forget ends the link to a process that is gone for good: what is kept for it is dropped, and should it come back after all it is told
// that it was given up, because the streams to and from it cannot be continued. For a process that may return use GiveUp, or nothing.
func (m *Mesh) Forget(id string) { panic("not yet") }

// GiveUp says that the caller takes that process for gone. The link goes on as long as its retention has room; from the moment when it
// has none (which may be now) the process is given up for good: OnGivenUp is called, nothing more is delivered to it or taken from it,
// and when it connects it is told so. A process that comes back before is welcome, and the word is taken back.
func (m *Mesh) GiveUp(id string) { panic("not yet") }

// Post queues parts as one payload for that process. It waits for room within ctx; the order is that of the calls. The parts are copied.
// nil means: delivered in order unless one of the two processes ends.
func (m *Mesh) Post(ctx context.Context, to string, lane Lane, parts ...[]byte) error { panic("not yet") }

// TryPost is Post without waiting: ErrBackpressure when there is no room.
func (m *Mesh) TryPost(to string, lane Lane, parts ...[]byte) error { panic("not yet") }

// Flush waits until everything that was posted so far to peers that are up is acknowledged.
func (m *Mesh) Flush(ctx context.Context) error { panic("not yet") }

// Up reports whether the link to that process carries frames now.
func (m *Mesh) Up(id string) bool { panic("not yet") }

// Offset returns how far that process' clock is ahead of this one's, and the round trip with which it was measured; ok is false before
// the first measurement.
func (m *Mesh) Offset(id string) (offset, rtt time.Duration, ok bool) { panic("not yet") }

// Stats returns figures of all links.
func (m *Mesh) Stats() Stats { panic("not yet") }

// Stats are the figures of a Mesh.
type Stats struct {
	Peers map[string]PeerStats
}

// PeerStats are the figures of one link, since the beginning.
type PeerStats struct {
	Up                   bool
	Connections          uint64 // established so far
	SentBytes, RecvBytes uint64 // of frames, in order, repeats not counted
	RepeatedBytes        uint64 // sent again after a reconnect
	Retained             int    // bytes not acknowledged
	Backpressure         uint64 // posts that were refused or had to wait
	RTT, Offset          time.Duration
}
