package cluster

import (
	"cmp"
	"slices"
	"time"
)

// What a process tells of others.
const (
	tellDeath  = 5 * time.Minute
	tellGone   = 10 * time.Minute // to whom the link was up all the time
	maxTellIDs = 1024
)

// goneLocked are the processes that are known to have said goodbye, the latest of them, with the seconds since.
func (n *Node) goneLocked(within time.Duration) map[string]int64 {
	var left []*entry
	for _, e := range n.table.members {
		if e.left && time.Since(e.since) < within {
			left = append(left, e)
		}
	}
	slices.SortFunc(left, func(a, b *entry) int { return cmp.Or(b.since.Compare(a.since), cmp.Compare(a.id, b.id)) })
	gone := make(map[string]int64, len(left))
	for _, e := range left[:min(len(left), maxTellIDs)] {
		gone[e.id] = int64(time.Since(e.since) / time.Second)
	}
	return gone
}

// heardLeft: a peer, or gossip, knows that the process said goodbye. It is believed by a node that has no sign of life from that process
// itself; also of one that is taken for dead, as who missed the goodbye would, and of one that was never met here: a newcomer knows too.
// It is kept from when it happened, so that word of it does not go round for ever.
func (t *table) heardLeft(id string, ago time.Duration, now time.Time) {
	e := t.members[id]
	if ago < 0 || ago > keepFate || id == t.self || e != nil && (e.left || e.linked) {
		return
	}
	if _, ok := idTime(id); !ok || e == nil && len(t.members) >= maxHeard {
		return
	}
	e = t.get(id, now)
	e.left, e.present = true, false
	e.ended = now.Add(-ago)
	if e.info == nil {
		e.seen = e.ended
	}
}

// hearsay reports whether this node never met the process, and knows of its end only.
func (e *entry) hearsay() bool { return e.left && e.info == nil && e.addr == "" }

// maxHeard bounds the table where it grows from hearsay.
const maxHeard = 8192
