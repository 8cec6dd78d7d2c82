package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// A connection begins with
//
//	dialler  HELLO   who, cluster, protocol, number of the dial, last connection
//	accepter HELLO   the same (or REFUSE)
//	dialler  RESUME  for each lane: the sequence expected, the credit
//	accepter RESUME  the same
//
// Each side ends its previous connection before it says its position, so that no frame is counted afterwards. The dialler does that when
// it has the answer, the accepter when it has the RESUME: a dial that was left behind by a paused or cut peer ends nothing.

// attempt is a handshake. A peer has one at a time.
type attempt struct {
	dialled bool
	how     route
	said    bool // the HELLO is sent, or about to be
	number  uint64
	once    sync.Once
	stop    context.CancelFunc
	done    chan struct{} // closed when it has ended
	void    bool          // cancelled; guarded by peer.mu
}

func (a *attempt) cancel() { a.once.Do(a.stop) }

var (
	errVoid    = errors.New("another connection was made meanwhile")
	errRenewed = errors.New("the stream is not trusted any more")
	errEvicted = errors.New("the peer was given up")
)

func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, ErrRefused)
}

// pauseAfter is the pause after so many failed dials.
func pauseAfter(tries int) time.Duration {
	d := min(50*time.Millisecond<<min(tries, 10), maxPause)
	return d/2 + rand.N(d/2)
}

// route is how a dial goes.
type route int

const (
	direct route = iota
	relayed
	upgrade // direct, while a relayed connection carries frames
)

// dial makes a connection within the timeout; it returns when it is established or has failed.
func (p *peer) dial(timeout time.Duration, how route) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	a := &attempt{dialled: true, how: how, stop: cancel, done: make(chan struct{})}
	p.mu.Lock()
	if p.over.Load() || p.up != (how == upgrade) || p.owner != nil {
		p.mu.Unlock()
		return errVoid
	}
	p.dials++
	a.number = p.dials
	p.owner = a
	p.mu.Unlock()

	c, err := p.dialWith(ctx, a)
	p.mu.Lock()
	if p.owner == a {
		p.owner = nil
	}
	p.lostLocked(err)
	p.mu.Unlock()
	close(a.done)
	if err != nil {
		return err
	}
	if !p.m.goConn(c) {
		return ErrClosed
	}
	return nil
}

func (p *peer) dialWith(ctx context.Context, a *attempt) (_ *conn, err error) {
	var nc net.Conn
	var via string
	if a.how == relayed {
		nc, via, err = p.m.cfg.Relay(ctx, p.id)
	} else {
		nc, err = p.m.cfg.Dial(ctx, p.id)
	}
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer func() {
		stop()
		if err != nil {
			nc.Close()
		}
	}()
	p.mu.Lock()
	if a.void || p.over.Load() {
		p.mu.Unlock()
		return nil, errVoid
	}
	a.said = true
	h := p.helloLocked()
	h.number = a.number
	p.mu.Unlock()
	if _, err := nc.Write(h.append(nil)); err != nil {
		return nil, err
	}
	answer, err := p.m.readHello(nc)
	if err != nil {
		var r refusal
		if errors.As(err, &r) && r.code == refuseEvicted {
			p.evicted()
		}
		return nil, err
	}
	if answer.id != p.id {
		return nil, fmt.Errorf("its address belongs to the process %.80q", answer.id)
	}
	c := newConn(p, nc, connName{p.m.cfg.Self, a.number})
	c.via = via
	c.agree(answer.features)
	mine, err := p.settle(a)
	if err != nil {
		return nil, err
	}
	if _, err := nc.Write(mine.append(nil, typeResume)); err != nil {
		return nil, err
	}
	theirs, err := readResume(nc)
	if err != nil {
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return c, p.establish(a, c, mine, theirs)
}

// Accept takes an authenticated stream that a peer has dialled and returns when it has ended, with the reason when the peer was refused.
// Before Run it waits for Run; conn is closed in any case.
func (m *Mesh) Accept(nc net.Conn) error { return m.AcceptVia(nc, "") }

// AcceptVia is Accept for a stream that came through the process via.
func (m *Mesh) AcceptVia(nc net.Conn, via string) error {
	defer nc.Close()
	if !m.enter() {
		return ErrClosed
	}
	defer m.wg.Done()
	c, err := m.accept(nc, via)
	if err != nil {
		return err
	}
	c.run()
	return nil
}

func (m *Mesh) accept(nc net.Conn, via string) (*conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patientTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	untrack := m.track(nc)
	defer untrack()
	h, err := m.readHello(nc)
	if err != nil {
		var r refusal
		if errors.As(err, &r) {
			nc.Write(r.append(nil))
		}
		return nil, err
	}
	if h.number == 0 {
		return nil, errFormat
	}
	refuse := func(code uint8, text string) error {
		nc.Write(refusal{code, text}.append(nil))
		return fmt.Errorf("link: refused %q: %s", h.id, text)
	}
	if h.id == m.cfg.Self {
		return nil, refuse(refuseOther, "this is the same process")
	}
	p := m.admit(h.id)
	if p == nil {
		return nil, refuse(refuseEvicted, "this process was given up")
	}
	a := &attempt{number: h.number, stop: cancel, done: make(chan struct{})}
	if reason := p.begin(a, h); reason != "" {
		return nil, refuse(refuseCrossed, reason)
	}
	c, err := p.acceptWith(nc, via, a, h)
	p.mu.Lock()
	if p.owner == a {
		p.owner = nil
	}
	p.lostLocked(err)
	p.mu.Unlock()
	p.nudge()
	close(a.done)
	if err == nil && !stop() {
		c.close() // the time was up as it was established: let it be made again
	}
	return c, err
}

// lostLocked notes that a handshake has failed after the previous connection was ended for it.
func (p *peer) lostLocked(err error) {
	switch {
	case err == nil || p.conn != nil || p.over.Load():
	case p.up:
		p.brokeLocked()
	case p.last.number != 0:
		p.broke = true
	}
}

// begin makes an accepted stream the handshake of the peer, or says why not. The lower ID's dial wins.
func (p *peer) begin(a *attempt, h hello) (reason string) {
	p.mu.Lock()
	for p.owner != nil {
		o := p.owner
		switch {
		case o.dialled && o.said && p.m.cfg.Self < p.id:
			p.mu.Unlock()
			return "crossed"
		case !o.dialled && o.number >= a.number:
			p.mu.Unlock()
			return "a later dial is under way"
		}
		o.void = true
		p.owner = nil
		p.mu.Unlock()
		o.cancel()
		if o.said || !o.dialled {
			<-o.done // its stream is closed; one that still dials notices by itself
		}
		p.mu.Lock()
	}
	// An up connection that this side has dialled was known to the peer before it was to this side: a HELLO that does not
	// remember it was sent earlier. So was one with a lower number than an accepted connection.
	if c := p.conn; c != nil && p.up {
		if mine := c.name.dialer == p.m.cfg.Self; mine && h.last != c.name || !mine && h.number <= c.name.number {
			p.mu.Unlock()
			return "crossed"
		}
	}
	if p.over.Load() {
		p.mu.Unlock()
		return "given up"
	}
	p.owner = a
	p.mu.Unlock()
	return ""
}

func (p *peer) acceptWith(nc net.Conn, via string, a *attempt, in hello) (*conn, error) {
	p.mu.Lock()
	h := p.helloLocked()
	p.mu.Unlock()
	if _, err := nc.Write(h.append(nil)); err != nil {
		return nil, err
	}
	theirs, err := readResume(nc)
	if err != nil {
		return nil, err
	}
	mine, err := p.settle(a)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	holds := p.holdsLocked(theirs)
	p.mu.Unlock()
	if !holds {
		nc.Write(refusal{refuseEvicted, "it expects what is not kept any more"}.append(nil))
		p.m.log.Error("link: peer expects frames that are not kept any more, given up", "peer", p.id)
		p.giveUp()
		return nil, errEvicted
	}
	if _, err := nc.Write(mine.append(nil, typeResume)); err != nil {
		return nil, err
	}
	c := newConn(p, nc, connName{p.id, a.number})
	c.via = via
	c.agree(in.features)
	return c, p.establish(a, c, mine, theirs)
}

func (p *peer) helloLocked() hello {
	return hello{min: OldestProtocol, max: p.m.cfg.Protocol, features: p.m.features(), last: p.last, id: p.m.cfg.Self, cluster: p.m.cfg.Cluster}
}

// settle ends the previous connection, if any, and returns where this side stands from then on.
func (p *peer) settle(a *attempt) (positions, error) {
	p.mu.Lock()
	if a.void || p.over.Load() {
		p.mu.Unlock()
		return positions{}, errVoid
	}
	old := p.conn
	p.conn = nil // its end is not a loss
	p.mu.Unlock()
	if old != nil {
		old.close()
		<-old.done
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.positionsLocked(), nil
}

// establish makes c the peer's connection. Sending goes on where the peer stands.
func (p *peer) establish(a *attempt, c *conn, mine, theirs positions) error {
	p.mu.Lock()
	if a.void || p.over.Load() {
		p.mu.Unlock()
		return errVoid
	}
	if !p.m.keep(c) { // asked under the lock: Renew either finds this connection, or has changed the answer before
		p.mu.Unlock()
		return errRenewed
	}
	if !p.holdsLocked(theirs) {
		p.mu.Unlock()
		c.nc.Write(refusal{refuseEvicted, "it expects what is not kept any more"}.append(nil))
		p.m.log.Error("link: peer expects frames that are not kept any more, given up", "peer", p.id)
		p.giveUp()
		return errEvicted
	}
	p.ackLocked(theirs)
	for l := range p.out {
		p.stats.repeated += p.out[l].rewind(theirs[l].expect)
		c.ackedAt[l] = mine[l].expect
	}
	p.stats.connections++
	p.conn, p.last, p.features = c, c.name, c.features
	if c.via != "" {
		p.directAt = time.Now().Add(upgradePause)
		if !p.bettered.IsZero() && time.Since(p.bettered) < fickle {
			p.directAt = time.Now().Add(ficklePause) // the direct way is there and does not hold
		}
	} else if a.how == upgrade {
		p.bettered = time.Now()
	}
	p.broke, p.deadTold, p.probes = false, false, 0
	p.setUpLocked(true)
	p.mu.Unlock()
	return nil
}

// evicted is called when the peer says that it has given this process up.
func (p *peer) evicted() { p.m.bury(p, p.m.cfg.OnEvicted) }

// readHello reads and checks the first frame of the other side. A refusal that is to be sent back is returned as such.
func (m *Mesh) readHello(nc net.Conn) (hello, error) {
	hd, payload, err := readFrame(nc)
	if err != nil {
		return hello{}, err
	}
	switch hd.typ {
	case typeRefuse:
		return hello{}, parseRefusal(payload)
	case typeHello:
	default:
		return hello{}, errFormat
	}
	h, err := parseHello(payload, m.cfg.Self)
	switch {
	case err != nil:
		return h, err
	case h.cluster != m.cfg.Cluster:
		return h, refusal{refuseOther, fmt.Sprintf("cluster %q is not %q", h.cluster, m.cfg.Cluster)}
	case h.max < OldestProtocol || h.min > m.cfg.Protocol:
		return h, refusal{refuseOther, fmt.Sprintf("protocol %d to %d does not meet %d to %d", h.min, h.max, OldestProtocol, m.cfg.Protocol)}
	}
	if min(h.max, m.cfg.Protocol) < 2 {
		h.features = 0
	}
	return h, nil
}

func readResume(nc net.Conn) (positions, error) {
	hd, payload, err := readFrame(nc)
	if err != nil {
		return positions{}, err
	}
	switch hd.typ {
	case typeResume:
		return parsePositions(payload)
	case typeRefuse:
		return positions{}, parseRefusal(payload)
	}
	return positions{}, errFormat
}
