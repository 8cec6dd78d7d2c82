package link

import (
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one established connection to a peer. Its reader, writer and pulse end together.
type conn struct {
	p        *peer
	nc       net.Conn
	name     connName
	via      string // who relays it; empty is nobody
	features uint64 // of the peer
	begun    time.Time
	deflate  *flate.Writer // nil: what is written goes as it is
	inflate  bool          // what comes is deflated
	once     sync.Once
	stop     chan struct{} // closed by close
	done     chan struct{} // closed when reader, writer and pulse have ended
	wake     chan struct{} // for the writer

	reads  atomic.Uint32 // counts reads, for the pulse
	proofs atomic.Uint32 // counts what shows that the peer hears us: pongs, acknowledgements that move

	// Guarded by p.mu.
	idle     bool // the writer waits for wake
	ackDue   bool
	pingDue  bool
	pongDue  bool
	evict    bool // tell the peer that it was given up, then close
	pong     pong
	ackedAt  [lanes]uint64 // what the peer was told to have arrived
	received uint64        // bytes since the last acknowledgement
	useful   bool          // it brought a frame or an acknowledgement
}

func newConn(p *peer, nc net.Conn, name connName) *conn {
	return &conn{p: p, nc: nc, name: name, begun: time.Now(), stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// agree sets what the features of the two make of the connection.
func (c *conn) agree(features uint64) {
	c.features = features
	mine := c.p.m.features()
	if mine&FeatureDeflate != 0 && features&FeatureInflate != 0 {
		c.deflate, _ = flate.NewWriter(c.nc, flate.BestSpeed) // never fails at that level
	}
	c.inflate = features&FeatureDeflate != 0 && mine&FeatureInflate != 0
}

// How a connection is watched.
const (
	tick         = 50 * time.Millisecond // acknowledgements
	pingTicks    = 5                     // heartbeat
	silentTicks  = 20                    // nothing was read: down
	unheardTicks = 40                    // the peer shows no sign of hearing us: down
	ackBytes     = 64 << 10
)

// Shares of one pass of the writer, in bytes.
const (
	liveQuantum = 256 << 10
	bulkQuantum = 64 << 10
	readSize    = 2 * chunkSize
	joinBelow   = 32 << 10 // less than this is joined into one write
)

// run reads until the connection ends.
func (c *conn) run() error {
	var wg sync.WaitGroup
	var werr error
	wg.Go(func() {
		defer c.close()
		werr = c.write()
	})
	wg.Go(c.pulse)
	err := c.read()
	c.close()
	wg.Wait()
	c.p.ended(c)
	close(c.done)
	if werr != nil && errors.Is(err, net.ErrClosed) {
		err = werr
	}
	return err
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.stop)
		c.nc.Close()
	})
}

// finish closes the connection; with evict the peer is told first, if it reads.
func (c *conn) finish(evict bool) {
	if !evict {
		c.close()
		return
	}
	c.p.mu.Lock()
	c.evict = true
	wake := c.wakeLocked()
	c.p.mu.Unlock()
	c.signal(wake) // the pulse closes it if the writer cannot
}

// wakeLocked reports whether the writer must be signalled. A nil conn needs nothing.
func (c *conn) wakeLocked() bool {
	if c == nil || !c.idle {
		return false
	}
	c.idle = false
	return true
}

func (c *conn) signal(wake bool) {
	if wake {
		c.wake <- struct{}{} // has room: the writer was idle
	}
}

// write sends what is due until the connection ends: everything that has come together since the last write goes in one.
func (c *conn) write() error {
	var (
		p       = c.p
		scratch = make([]byte, 0, 256)
		joined  = make([]byte, 0, joinBelow)
		bufs    [][]byte
		pinned  []*chunk
	)
	for {
		p.mu.Lock()
		for i, ch := range pinned {
			ch.pins--
			ch.release()
			pinned[i] = nil
		}
		bufs, pinned = bufs[:0], pinned[:0]
		scratch = c.controlLocked(scratch[:0])
		if len(scratch) > 0 {
			bufs = append(bufs, scratch)
		}
		evict := c.evict
		if !evict {
			bufs, pinned = p.out[Control].gather(bufs, pinned, liveQuantum)
			bufs, pinned = p.out[Live].gather(bufs, pinned, liveQuantum)
			bufs, pinned = p.out[Bulk].gather(bufs, pinned, bulkQuantum)
		}
		c.idle = len(bufs) == 0
		p.mu.Unlock()

		if len(bufs) == 0 {
			select {
			case <-c.wake:
				continue
			case <-c.stop:
				return net.ErrClosed
			}
		}
		err := c.send(bufs, joined)
		if err != nil || evict {
			p.mu.Lock()
			for _, ch := range pinned {
				ch.pins--
				ch.release()
			}
			p.mu.Unlock()
			return err
		}
	}
}

func (c *conn) send(bufs [][]byte, joined []byte) error {
	if c.deflate != nil {
		for _, b := range bufs {
			if _, err := c.deflate.Write(b); err != nil {
				return err
			}
		}
		return c.deflate.Flush()
	}
	if len(bufs) == 1 {
		_, err := c.nc.Write(bufs[0])
		return err
	}
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	if total <= joinBelow {
		for _, b := range bufs {
			joined = append(joined, b...)
		}
		_, err := c.nc.Write(joined)
		return err
	}
	nb := net.Buffers(bufs)
	_, err := nb.WriteTo(c.nc)
	return err
}

// controlLocked appends the frames that have no sequence.
func (c *conn) controlLocked(b []byte) []byte {
	if c.evict {
		return refusal{refuseEvicted, "this process was given up"}.append(b)
	}
	if c.pongDue {
		c.pongDue = false
		c.pong.sent = time.Now().UnixNano()
		b = c.pong.append(b)
	}
	if c.pingDue {
		c.pingDue = false
		b = ping{c.p.m.mono(), time.Now().UnixNano()}.append(b)
	}
	if c.ackDue {
		c.ackDue, c.received = false, 0
		ps := c.p.positionsLocked()
		for l := range ps {
			c.ackedAt[l] = ps[l].expect
		}
		b = ps.append(b, typeAck)
	}
	return b
}

// pulse watches the connection, and sends heartbeats and late acknowledgements. It counts ticks, not time: a process that was paused
// must not take its own silence for the peer's.
func (c *conn) pulse() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var reads, proofs uint32
	quiet, unheard, evicting := 0, 0, 0
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-c.stop:
			return
		}
		if now := c.reads.Load(); now != reads {
			reads, quiet = now, 0
		} else {
			quiet++
		}
		if now := c.proofs.Load(); now != proofs {
			proofs, unheard = now, 0
		} else {
			unheard++
		}
		p := c.p
		p.mu.Lock()
		if p.conn == c {
			p.setUpLocked(quiet < silentTicks && unheard < unheardTicks)
		}
		for l := range p.recv {
			c.ackDue = c.ackDue || p.recv[l].next != c.ackedAt[l]
		}
		c.pingDue = c.pingDue || n%pingTicks == 1
		if c.evict {
			evicting++
		}
		wake := c.wakeLocked()
		p.mu.Unlock()
		c.signal(wake)
		if evicting > pingTicks {
			c.close()
		}
	}
}

var (
	errHole   = errors.New("the peer left a hole in a lane")
	errCredit = errors.New("the peer sent more than it was allowed")
)

// read takes frames until the connection ends. Nothing here waits for a handler.
func (c *conn) read() error {
	var from io.Reader = c.nc
	if c.inflate {
		from = flate.NewReader(c.nc)
	}
	buf := make([]byte, readSize)
	have := 0
	for {
		n, err := from.Read(buf[have:])
		if n > 0 {
			c.reads.Add(1)
			c.p.reads.Add(1)
			have += n
			used, need, ferr := c.frames(buf[:have])
			if ferr != nil {
				if _, told := ferr.(refusal); !told {
					c.p.m.log.Error("link: protocol violated, connection ends", "peer", c.p.id, "error", ferr)
				}
				return ferr
			}
			have = copy(buf, buf[used:have])
			if need > len(buf) {
				buf = append(make([]byte, 0, need), buf[:have]...)[:need]
			}
		}
		if err != nil {
			return err
		}
	}
}

// frames takes the whole frames at the beginning of b and returns how many bytes those are, and how many the next one needs.
func (c *conn) frames(b []byte) (used, need int, err error) {
	p := c.p
	next, bytes := [lanes]uint64{}, [lanes]uint64{}
	p.mu.Lock() // only this reader changes recv: the connection before it has ended
	for l := range p.recv {
		next[l], bytes[l] = p.recv[l].next, p.recv[l].bytes
	}
	p.mu.Unlock()
	var run struct { // frames of one lane, side by side
		lane       Lane
		start, end int
	}
	flush := func() {
		if run.end > run.start && !p.over.Load() {
			p.bring(run.lane, b[run.start:run.end])
		}
		run.start = run.end
	}
	begin := bytes
	for {
		h, payload, size, ferr := parseFrame(b[used:])
		if ferr == errShort {
			need = size
			break
		}
		if ferr != nil {
			err = ferr
			break
		}
		if h.flags&flagCritical != 0 && !known(h.typ) {
			err = fmt.Errorf("%w: unknown critical type %d", errFormat, h.typ)
			break
		}
		if h.flags&flagSequenced == 0 {
			if err = c.control(h.typ, payload); err != nil {
				break
			}
			used += size
			continue
		}
		if h.lane >= lanes {
			err = fmt.Errorf("%w: lane %d", errFormat, h.lane)
			break
		}
		if h.seq > next[h.lane] {
			err = errHole
			break
		}
		if h.seq == next[h.lane] {
			if bytes[h.lane]+uint64(size) > p.in[h.lane].granted.Load() {
				err = errCredit
				break
			}
			next[h.lane]++
			bytes[h.lane] += uint64(size)
			if run.lane != h.lane || run.end != used {
				flush()
				run.lane, run.start = h.lane, used
			}
			run.end = used + size
		}
		used += size
	}
	flush()
	c.took(next, bytes, begin)
	return used, need, err
}

// took notes what was received.
func (c *conn) took(next, bytes, begin [lanes]uint64) {
	if bytes == begin {
		return
	}
	p := c.p
	p.mu.Lock()
	for l := range next {
		p.recv[l].next, p.recv[l].bytes = next[l], bytes[l]
		c.received += bytes[l] - begin[l]
	}
	c.useful = true
	if c.received >= ackBytes {
		c.ackDue = true
	}
	wake := c.ackDue && c.wakeLocked()
	p.mu.Unlock()
	c.signal(wake)
}

func known(t frameType) bool {
	return t >= typeHello && t <= typeAck || t >= typeData && t <= typeNext
}

// control handles a frame that has no sequence.
func (c *conn) control(typ frameType, payload []byte) error {
	p := c.p
	switch typ {
	case typeAck:
		ps, err := parsePositions(payload)
		if err != nil {
			return err
		}
		p.mu.Lock()
		if p.over.Load() {
			p.mu.Unlock()
			return nil
		}
		if p.ackLocked(ps) {
			c.proofs.Add(1)
			c.useful = true
		}
		wake := c.idle && p.sendableLocked() && c.wakeLocked()
		p.mu.Unlock()
		c.signal(wake)
	case typePing:
		in, err := parsePing(payload)
		if err != nil {
			return err
		}
		p.mu.Lock()
		c.pong, c.pongDue = pong{ping: in, received: time.Now().UnixNano()}, true
		wake := c.wakeLocked()
		p.mu.Unlock()
		c.signal(wake)
	case typePong:
		in, err := parsePong(payload)
		if err != nil {
			return err
		}
		mono, wall := p.m.mono(), time.Now().UnixNano()
		p.mu.Lock()
		p.clock.add(in, mono, wall)
		if best, _ := p.clock.best(); best.rtt > 0 {
			for l := range p.out {
				p.out[l].pace.above = max(paceAbove, int(best.rtt.Seconds()*paceRate))
			}
			p.out[Bulk].ahead = max(bulkAhead, uint64(best.rtt.Seconds()*bulkRate))
		}
		p.mu.Unlock()
		c.proofs.Add(1)
	case typeRefuse:
		r := parseRefusal(payload)
		if r.code == refuseEvicted {
			p.evicted()
		}
		return r
	case typeHello, typeResume, typeData, typeFirst, typeNext:
		return errFormat // handshake out of place, or without a sequence
	}
	return nil
}

func (p *peer) sendableLocked() bool {
	for l := range p.out {
		if p.out[l].sendable() {
			return true
		}
	}
	return false
}
