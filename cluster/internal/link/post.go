package link

import (
	"context"
	"errors"
	"slices"
)

// roomLocked is how much of the retention the lane may fill: a full bulk lane leaves room to live, and both leave some to control.
func (p *peer) roomLocked(l Lane) int {
	retain := p.m.cfg.Retain
	switch l {
	case Bulk:
		return retain / 2
	case Live:
		return retain - retain/8
	}
	return retain
}

// admitsLocked reports whether a frame of that size may be queued. A lane that holds nothing takes any size, or a payload larger than the
// retention would never go.
func (p *peer) admitsLocked(o *outLane, size int) bool {
	return p.retainedLocked()+size <= p.roomLocked(o.lane) || o.retained == 0
}

func (p *peer) reserveLocked(o *outLane, size int) {
	o.retained += size
}

// post queues parts. With wait it waits for room within ctx.
func (p *peer) post(ctx context.Context, wait bool, lane Lane, parts [][]byte) error {
	n := 0
	for _, b := range parts {
		n += len(b)
	}
	if n > MaxPayload {
		return ErrTooLarge
	}
	size := encodedSize(n)
	p.mu.Lock()
	if p.over.Load() {
		defer p.mu.Unlock()
		return p.overErrLocked()
	}
	o := &p.out[lane]
	if wait && p.aheadLocked(o) {
		p.paceLocked(ctx, o)
		if p.over.Load() {
			defer p.mu.Unlock()
			return p.overErrLocked()
		}
	}
	if n <= maxWhole && !o.busy && len(o.queue) == 0 && p.admitsLocked(o, size) {
		p.reserveLocked(o, size)
		o.appendWhole(n, parts)
		c := p.conn
		wake := c.wakeLocked()
		p.mu.Unlock()
		c.signal(wake)
		return nil
	}
	return p.postSlow(ctx, wait, o, n, size, parts) // unlocks
}

// tryPostTopic is post without waiting, for what makes the most of the traffic.
func (p *peer) tryPostTopic(wait bool, lane Lane, kind byte, topic string, body []byte) bool {
	n := 2 + len(topic) + len(body)
	size := headerSize + n
	o := &p.out[lane]
	p.mu.Lock()
	if wait && p.aheadLocked(o) || n > maxWhole || p.shut.Load() || p.over.Load() || o.busy || len(o.queue) > 0 || !p.admitsLocked(o, size) {
		p.mu.Unlock()
		return false
	}
	p.reserveLocked(o, size)
	seq := o.nextSeq
	b := o.grow(size)
	putHeader(b, header{typeData, flagCritical | flagSequenced, lane, seq}, n)
	b[headerSize], b[headerSize+1] = kind, byte(len(topic))
	b = b[headerSize+2:]
	copy(b[copy(b, topic):], body)
	c := p.conn
	wake := c.wakeLocked()
	p.mu.Unlock()
	c.signal(wake)
	return true
}

func (p *peer) overErrLocked() error {
	if p.closed {
		return ErrClosed
	}
	return ErrGivenUp
}

// postSlow queues behind other posts, waits for room, and appends large payloads piece by piece, so that other lanes go on meanwhile.
func (p *peer) postSlow(ctx context.Context, wait bool, o *outLane, n, size int, parts [][]byte) error {
	w := &waiter{size: size, ready: make(chan struct{})}
	if behind := len(o.queue); (behind == 0 || o.queue[behind-1].reserved) && p.admitsLocked(o, size) {
		w.reserved = true // only the others' copying is waited for
		p.reserveLocked(o, size)
	} else {
		p.stats.backpressure++
		p.starved = true
		if p.gone {
			p.mu.Unlock()
			p.giveUp()
			return ErrGivenUp
		}
		if !wait {
			p.mu.Unlock()
			return ErrBackpressure
		}
	}
	o.queue = append(o.queue, w)
	p.grantLaneLocked(o)
	p.mu.Unlock()

	select {
	case <-w.ready:
	case <-p.end:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.overErrLocked()
	case <-done(ctx, wait):
		p.mu.Lock()
		if !w.granted {
			defer p.mu.Unlock()
			o.queue = slices.DeleteFunc(o.queue, func(x *waiter) bool { return x == w })
			if w.reserved {
				p.reserveLocked(o, -size)
			}
			p.grantLocked()
			return errors.Join(ErrBackpressure, context.Cause(ctx))
		}
		p.mu.Unlock()
	}

	cut := cutter{left: n, parts: slices.Clone(parts)}
	for more := true; more; {
		p.mu.Lock()
		if p.over.Load() {
			defer p.mu.Unlock()
			return p.overErrLocked()
		}
		if n <= maxWhole {
			o.appendWhole(n, parts)
			more = false
		} else {
			more = o.appendNext(&cut)
		}
		if !more {
			o.busy = false
			p.grantLaneLocked(o)
		}
		c := p.conn
		wake := c.wakeLocked()
		p.mu.Unlock()
		c.signal(wake)
	}
	return nil
}

// done is ctx.Done() of a post that waits for room; the others only wait for somebody's copying.
func done(ctx context.Context, wait bool) <-chan struct{} {
	if !wait {
		return nil
	}
	return ctx.Done()
}

// grantLocked gives room that was freed to those who wait.
func (p *peer) grantLocked() {
	for l := range p.out {
		p.grantLaneLocked(&p.out[l])
	}
}

func (p *peer) grantLaneLocked(o *outLane) {
	if o.busy || len(o.queue) == 0 {
		return
	}
	w := o.queue[0]
	if !w.reserved {
		if !p.admitsLocked(o, w.size) {
			return
		}
		p.reserveLocked(o, w.size)
	}
	o.queue = o.queue[1:]
	w.granted, o.busy = true, true
	close(w.ready)
}
