package cache

import (
	"time"

	"github.com/nines-go/nines/cluster"
)

// sight is what this node last saw of a member.
type sight struct {
	state  cluster.State
	since  time.Time
	linked bool
}

// current takes in what the Node has learnt, before anything that is kept may be shown, and reports whether the cache may be used.
func (c *Cache[V]) current() bool {
	n := c.cfg.Node
	pause := n.Tag(n.ID(), cluster.TagPaused) // the Node looks at the clock for it: a process that was stopped knows before it shows anything
	// looking is set before changed is drained, so whoever sees neither comes after the drop.
	if len(c.changed) > 0 || c.looking.Load() || pause != "" || n.Meetings() != c.met.Load() {
		c.look(pause)
	}
	return pause == "" && c.usable.Load()
}

// look compares the members with those seen before. Whoever came, or has been away, may have invalidated without this node: everything goes. A
// change of Since shows an absence also when nobody called in between.
func (c *Cache[V]) look(pause string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pause != "" && pause != c.pause {
		c.pause = pause
		c.dropLocked()
	}
	c.looking.Store(true)
	defer c.looking.Store(false)
	n := c.cfg.Node
	if met := n.Meetings(); met != c.met.Load() { // counted before the first message of who came: no event of its own is shown with what was kept
		c.dropLocked()
		c.met.Store(met)
	}
	select {
	case <-c.changed:
	default:
		return
	}
	usable := !c.closed && n.Alive() != nil
	self := n.ID()
	seen := map[string]sight{}
	back := false
	if pauses := n.Stats().Pauses; pauses != c.pauses {
		c.pauses, back = pauses, true // also one that was over before anybody called
	}
	for _, m := range n.Members() {
		if m.ID == self {
			continue
		}
		now := sight{m.State, m.Since, m.Linked}
		seen[m.ID] = now
		if m.State == cluster.FateAlive || m.State == cluster.FateDraining {
			was, known := c.seen[m.ID]
			back = back || !known || now.state != was.state || now.since != was.since || now.linked && !was.linked
		}
	}
	c.seen = seen
	if back || usable != c.usable.Load() {
		c.dropLocked()
	}
	c.usable.Store(usable)
}
