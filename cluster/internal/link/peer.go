package link

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// peer is the state of the streams to and from one process. It outlives connections.
type peer struct {
	m  *Mesh
	id string

	in   [lanes]inLane
	over atomic.Bool   // given up, forgotten or the mesh has ended; set under mu
	shut atomic.Bool   // TryPostTopic is refused, see Shut
	end  chan struct{} // closed with over
	kick chan struct{} // wakes manage

	reads atomic.Uint64 // of all connections

	mu     sync.Mutex
	out    [lanes]outLane
	recv   [lanes]struct{ next, bytes uint64 } // sequence that is expected, bytes taken so far
	wanted bool                                // Connect
	gone   bool                                // GiveUp was called, and neither did the link come up since nor was Connect called
	closed bool                                // over because the mesh has ended

	conn  *conn    // the present connection, may be silent
	up    bool     // it carries frames
	last  connName // the last connection that was established
	owner *attempt // the handshake under way
	dials uint64

	broke    bool // a connection ended and none was established since
	probes   int  // dials that are left to prove the death of an unwanted peer
	deadTold bool
	urgent   bool // manage shall dial at once
	short    int  // connections in a row that ended soon
	starved  bool // a post found no room since the last that was freed

	features uint64    // of the peer, from its last HELLO
	directAt time.Time // when the direct way is to be tried again, while the connection is relayed
	bettered time.Time // when a direct connection last took the place of a relayed one

	clock   clock
	changed chan struct{} // closed at the next acknowledgement, made by Flush
	stats   struct{ connections, repeated, backpressure uint64 }
}

func newPeer(m *Mesh, id string) *peer {
	p := &peer{m: m, id: id, end: make(chan struct{}), kick: make(chan struct{}, 1)}
	for l := range lanes {
		p.out[l] = newOutLane(l)
		p.recv[l].next = 1
		p.in[l].wake = make(chan struct{}, 1)
		if m.cfg.Taker != nil {
			p.in[l].taker = m.cfg.Taker(id, l)
		}
	}
	return p
}

// start runs the goroutines of the peer.
func (p *peer) start() {
	p.m.wg.Go(p.manage)
	for l := range lanes {
		p.m.wg.Go(func() { p.take(l) })
	}
}

func (p *peer) nudge() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// finish ends the peer: everything kept is dropped, posts return.
func (p *peer) finish(meshClosed bool) {
	p.mu.Lock()
	if p.over.Load() {
		p.mu.Unlock()
		return
	}
	p.over.Store(true)
	p.closed = meshClosed
	close(p.end)
	c, a := p.conn, p.owner
	p.conn, p.up = nil, false
	for l := range p.out {
		p.out[l].drop()
	}
	p.noteAckLocked()
	p.mu.Unlock()
	if a != nil {
		a.cancel()
	}
	if c != nil {
		c.finish(!meshClosed)
	}
}

// giveUp ends the peer for good and says so.
func (p *peer) giveUp() { p.m.bury(p, p.m.cfg.OnGivenUp) }

// setUpLocked changes up and tells.
func (p *peer) setUpLocked(up bool) {
	if p.up == up || p.over.Load() {
		return
	}
	if p.up = up; up {
		p.gone = false
		p.m.event(p.m.cfg.OnUp, p.id)
	} else {
		p.m.event(p.m.cfg.OnDown, p.id)
		if a := p.owner; a != nil && a.how == upgrade && !a.said {
			a.cancel() // what may hang must not delay another relay
		}
	}
	p.nudge()
}

// ended is called once the goroutines of a connection have ended.
func (p *peer) ended(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != c || p.over.Load() {
		return
	}
	p.conn = nil
	if p.short++; c.useful || time.Since(c.begun) > longLife {
		p.short = 0
	}
	p.brokeLocked()
}

// brokeLocked notes that the peer has no connection any more.
func (p *peer) brokeLocked() {
	p.setUpLocked(false)
	p.broke, p.urgent, p.probes = true, true, deathProbes
	p.nudge()
}

// requestAck lets the peer know what was received and handled.
func (p *peer) requestAck() {
	p.mu.Lock()
	c := p.conn
	if c != nil {
		c.ackDue = true
	}
	wake := c.wakeLocked()
	p.mu.Unlock()
	c.signal(wake)
}

// positionsLocked tells where this side stands.
func (p *peer) positionsLocked() positions {
	var ps positions
	for l := range ps {
		in := &p.in[l]
		limit := in.consumed.Load() + uint64(p.m.cfg.Window)
		in.granted.Store(max(limit, in.granted.Load()))
		ps[l] = position{p.recv[l].next, in.granted.Load()}
	}
	return ps
}

// holdsLocked reports whether sending can go on where the peer stands.
func (p *peer) holdsLocked(ps positions) bool {
	for l := range ps {
		if !p.out[l].holds(ps[l].expect) {
			return false
		}
	}
	return true
}

// ackLocked takes what the peer says of its position and reports whether anything moved.
func (p *peer) ackLocked(ps positions) (moved bool) {
	freed := 0
	for l := range ps {
		o := &p.out[l]
		before := o.acked
		freed += o.ack(ps[l].expect - 1)
		moved = moved || o.acked != before || ps[l].limit > o.limit
		o.limit = max(o.limit, ps[l].limit)
	}
	if freed > 0 {
		p.starved = false
		p.grantLocked()
	}
	if moved {
		p.noteAckLocked()
	}
	return moved
}

// retainedLocked is what is kept for the peer, of all lanes, reservations included.
func (p *peer) retainedLocked() (n int) {
	for l := range p.out {
		n += p.out[l].retained
	}
	return n
}

func (p *peer) noteAckLocked() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// How dialling is paced.
const (
	attemptTimeout = 2 * time.Second       // of one dial with its handshake: what hangs in a cut is tried anew
	patientTimeout = 6 * time.Second       // of each third one, for a slow network or machine
	probeSpacing   = time.Millisecond      // between the first dials after a connection ended
	deathProbes    = 60                    // how many of those
	deathRefusals  = 3                     // in a row prove the death
	yieldFirst     = 30 * time.Millisecond // the higher ID lets the lower one dial first
	maxPause       = time.Second
	longLife       = time.Second // of a connection that was good
	directTimeout  = time.Second // of a dial after which a relay is asked
	upgradePause   = 3 * time.Second
	fickle         = 30 * time.Second // a direct connection that was lost within that time of its making
	ficklePause    = time.Minute      // lets the relayed one stay for that
	maxShort       = 8                // shorter ones without a frame that are made again at once
)

// manage dials while a link is wanted and not up, or is up by a detour.
func (p *peer) manage() {
	refused, tries := 0, 0
	dials := 0 // not begun anew by Connect: who calls it often would never be patient
	if p.m.cfg.Self > p.id {
		select {
		case <-time.After(yieldFirst):
		case <-p.end:
			return
		}
	}
	for {
		p.mu.Lock()
		need := !p.over.Load() && !p.up && p.owner == nil && (p.wanted || p.probes > 0)
		if p.urgent {
			p.urgent, refused, tries = false, 0, 0
		}
		short := p.short
		better := p.betterLocked()
		p.mu.Unlock()
		if !need {
			select {
			case <-p.kick:
			case <-better:
				if err := p.dial(attemptTimeout, upgrade); err != nil {
					p.mu.Lock()
					p.directAt = time.Now().Add(upgradePause)
					p.mu.Unlock()
				}
			case <-p.end:
				return
			}
			continue
		}
		if tries == 0 && short > maxShort {
			p.pause(pauseAfter(short - maxShort)) // connections are made and fail: do not spin
		}
		timeout := attemptTimeout
		if p.m.cfg.Relay != nil {
			timeout = directTimeout
		}
		if dials%3 == 2 {
			timeout = patientTimeout
		}
		dials++
		err := p.dial(timeout, direct)
		if err == nil {
			dials = 0
			continue
		}
		if tries++; isRefused(err) {
			refused++
		} else {
			refused = 0
		}
		p.mu.Lock()
		p.probes = max(0, p.probes-1)
		if p.broke && refused >= deathRefusals && !p.deadTold && !p.over.Load() {
			p.deadTold, p.probes = true, 0
			p.m.event(p.m.cfg.OnDead, p.id)
		}
		probing := p.broke && !p.deadTold && tries < deathProbes
		detour := p.m.cfg.Relay != nil && p.wanted && !(p.broke && refused > 0 && tries < deathProbes) // who is about to be proven dead is
		p.mu.Unlock()
		if tries == 1 || tries%64 == 0 {
			p.m.log.Debug("link: dial failed", "peer", p.id, "tries", tries, "error", err)
		}
		if detour {
			if err := p.dial(attemptTimeout, relayed); err == nil {
				continue
			} else if !errors.Is(err, ErrNoRelay) && (tries == 1 || tries%64 == 0) {
				p.m.log.Debug("link: not relayed", "peer", p.id, "tries", tries, "error", err)
			}
		}
		if probing {
			p.pause(probeSpacing)
		} else {
			p.pause(pauseAfter(tries))
		}
	}
}

// betterLocked fires when the direct way is to be tried beside a relayed connection.
func (p *peer) betterLocked() <-chan time.Time {
	if p.conn == nil || p.conn.via == "" || !p.up || !p.wanted || p.owner != nil {
		return nil
	}
	return time.After(time.Until(p.directAt))
}

// pause waits, less when the connection ends or comes up.
func (p *peer) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-p.end:
			return
		case <-p.kick:
			p.mu.Lock()
			now := p.urgent || p.up
			p.mu.Unlock()
			if now {
				return
			}
		}
	}
}

// flushed waits until what was posted before is acknowledged or the peer is not up.
func (p *peer) flushed(ctx context.Context) error {
	var want [lanes]uint64
	p.mu.Lock()
	for l := range want {
		want[l] = p.out[l].nextSeq - 1
	}
	for {
		done := true
		for l := range want {
			done = done && p.out[l].acked >= want[l]
		}
		if done || !p.up {
			p.mu.Unlock()
			return nil
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(checkUp):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		p.mu.Lock()
	}
}

const checkUp = 100 * time.Millisecond
