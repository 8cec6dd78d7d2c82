package link

import (
	"context"
	"time"
)

// A post that may wait lets the peer keep up: it runs ahead of the acknowledgements by what fits the processor's cache at both ends, or by what
// the round trip needs. A message that is still in the cache when it is written, read and handled costs half of what it costs elsewhere, and
// a queue of megabytes only makes what is in it late. TryPost does not wait, and fills the retention.
const (
	paceAbove = 768 << 10
	paceRate  = 1 << 30               // bytes a second
	paceFor   = 20 * time.Millisecond // without an acknowledgement
)

// pacing is that of one lane.
type pacing struct {
	above  int           // bytes
	caught chan struct{} // closed when posts that wait may go on; made by the first of them
	lame   bool          // the peer acknowledged nothing for paceFor: something else limits it, and nobody waits until it does
}

// aheadLocked reports whether a post that may wait shall.
func (p *peer) aheadLocked(o *outLane) bool {
	return o.retained > o.pace.above && p.up && !o.pace.lame
}

// paceLocked lets a peer that keeps acknowledging catch up. It gives up p.mu meanwhile.
func (p *peer) paceLocked(ctx context.Context, o *outLane) {
	timer := time.NewTimer(paceFor)
	defer timer.Stop()
	for acked := o.acked; p.aheadLocked(o); acked = o.acked {
		if o.pace.caught == nil {
			o.pace.caught = make(chan struct{})
		}
		caught := o.pace.caught
		p.mu.Unlock()
		late, ended := false, false
		select {
		case <-caught:
		case <-p.end:
			ended = true
		case <-ctx.Done():
			ended = true
		case <-timer.C:
			late = true
		}
		p.mu.Lock()
		if ended {
			return
		}
		if late {
			o.pace.lame = o.pace.lame || o.acked == acked
			timer.Reset(paceFor)
		}
	}
}

// caughtUp is called when acknowledgements have freed something.
func (o *outLane) caughtUp() {
	o.pace.lame = false
	if o.retained <= o.pace.above/2 && o.pace.caught != nil {
		close(o.pace.caught)
		o.pace.caught = nil
	}
}
