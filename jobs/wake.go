package jobs

import (
	"context"
	"strconv"
	"sync"
	"time"
)

const (
	topicWake   = "nines.jobs.wake"   // there is work
	topicDue    = "nines.jobs.due"    // a job was put off: look again when the next one is due
	topicTick   = "nines.jobs.tick"   // a schedule changed
	topicCancel = "nines.jobs.cancel" // payload: the job
)

// wakes is what wakeLoop has to tell; guarded by Runner.mu.
type wakes struct {
	topics map[string]bool
	after  []time.Time // further wake-ups: the work may be in a transaction that has not committed
}

// listen takes the other nodes' messages and returns what ends that. Handlers only kick loops: they run on the cluster's goroutines.
func (r *Runner) listen() (stop func()) {
	c := r.cfg.Cluster
	if c == nil {
		return func() {}
	}
	changed := make(chan struct{}, 1)
	stops := []func(){c.Notify(changed)}
	for _, topic := range []string{topicWake, topicDue, topicTick} {
		stops = append(stops, c.Handle(topic, func(context.Context, string, []byte) ([]byte, error) {
			r.wakeHere(topic)
			return nil, nil
		}))
	}
	stops = append(stops, c.Handle(topicCancel, func(_ context.Context, _ string, payload []byte) ([]byte, error) {
		if id, err := strconv.ParseInt(string(payload), 10, 64); err == nil {
			r.cancelHere(id)
		}
		return nil, nil
	}))
	done := make(chan struct{})
	var forwarder sync.WaitGroup
	forwarder.Go(func() {
		for {
			select {
			case <-changed:
				kick(r.kickWatch)
			case <-done:
				return
			}
		}
	})
	return func() {
		for _, stop := range stops {
			stop()
		}
		close(done)
		forwarder.Wait()
	}
}

func (r *Runner) wakeHere(topic string) {
	switch topic {
	case topicTick:
		kick(r.kickTick)
		return
	case topicDue:
		r.dueChanged.Store(true)
	}
	kick(r.kickClaim)
}

// wake tells this process at once, and the others within a millisecond or two: what comes meanwhile shares the message.
func (r *Runner) wake(topic string) {
	r.wakeHere(topic)
	r.broadcast(topic)
}

func (r *Runner) broadcast(topic string) {
	if r.cfg.Cluster == nil {
		return
	}
	r.mu.Lock()
	if r.wakes.topics == nil {
		r.wakes.topics = map[string]bool{}
	}
	r.wakes.topics[topic] = true
	r.mu.Unlock()
	kick(r.kickWake)
}

// wakeLater wakes for what a caller's transaction will have committed soon.
func (r *Runner) wakeLater() {
	now := time.Now()
	r.mu.Lock()
	if len(r.wakes.after) < 16 {
		r.wakes.after = append(r.wakes.after, now.Add(3*time.Millisecond), now.Add(20*time.Millisecond), now.Add(150*time.Millisecond))
	}
	r.mu.Unlock()
	kick(r.kickWake)
}

func (r *Runner) wakeLoop(ctx context.Context) {
	for {
		var next time.Duration = time.Hour
		r.mu.Lock()
		kept := r.wakes.after[:0]
		late := false
		for _, at := range r.wakes.after {
			if left := time.Until(at); left <= 0 {
				late = true
			} else {
				kept = append(kept, at)
				next = min(next, left)
			}
		}
		r.wakes.after = kept
		topics := r.wakes.topics
		r.wakes.topics = nil
		r.mu.Unlock()
		if late {
			r.wake(topicDue)
		}
		if r.cfg.Cluster != nil {
			for topic := range topics {
				r.cfg.Cluster.TryBroadcast(topic, nil)
			}
			if topics != nil && !pause(ctx, time.Millisecond) {
				return
			}
		}
		t := time.NewTimer(next)
		select {
		case <-t.C:
		case <-r.kickWake:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}
