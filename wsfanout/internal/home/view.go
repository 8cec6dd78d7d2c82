package home

import (
	"maps"
	"slices"
	"time"
)

// A process that has made itself known by a message, and that the membership does not call a member, stays in the view for
// a while (R3): contactTime when the membership says that it is gone, unknownTime when it has not heard of it yet.
const (
	contactTime = time.Second
	unknownTime = 5 * time.Second
)

// A view is this node's opinion of the membership, and what follows from it.
type view struct {
	settled bool
	alive   []string // as the membership says
	fateOf  func(id string) Fate

	contacts map[string]time.Duration // processes known by contact → until when

	members  []string // alive and contacts, ascending
	views    uint64   // counts changes of members
	eligible []string // members that are not draining; all, if that leaves none
	known    map[string]bool
	hashes   []uint64 // of eligible

	alone       time.Duration // since when this node sees nobody else
	pausedUntil time.Duration // until when a process that vanished from the membership is kept (R23)
}

func (v *view) init() {
	v.contacts = map[string]time.Duration{}
	v.known = map[string]bool{}
	v.fateOf = func(string) Fate { return Unknown }
}

func (n *Node) isMember(id string) bool {
	_, ok := slices.BinarySearch(n.members, id)
	return ok
}

func (n *Node) isEligible(id string) bool {
	_, ok := slices.BinarySearch(n.eligible, id)
	return ok
}

// isGone reports whether a process is known to have ended, whatever the views say (R4).
func (n *Node) isGone(id string) bool {
	f := n.fateOf(id)
	return f == Dead || f == Left || n.byes[id]
}

// mustWaitAlone reports whether this node sees nobody and may not lead for that alone (R1, R23).
func (n *Node) mustWaitAlone() bool {
	if len(n.members) != 1 || n.now-n.alone >= n.cfg.SoloDelay {
		return false
	}
	for id := range n.known {
		if !n.isGone(id) {
			return true
		}
	}
	return len(n.known) == 0 || n.now < n.pausedUntil
}

func (n *Node) setView(v View) {
	if v.Fate != nil {
		n.fateOf = v.Fate
	}
	settles := v.Settled && !n.settled
	if settles {
		n.settled, n.alone = true, n.now
	}
	alive := slices.Clone(v.Alive)
	if !slices.Contains(alive, n.cfg.ID) {
		alive = append(alive, n.cfg.ID)
	}
	slices.Sort(alive)
	alive = slices.Compact(alive)
	if n.now < n.pausedUntil {
		for _, id := range n.alive {
			if !slices.Contains(alive, id) && n.fateOf(id) == Failed {
				n.contacts[id] = n.pausedUntil
			}
		}
	}
	n.alive = alive
	n.lookAround()
	if settles {
		for i := range n.parts {
			n.parts[i].nudge()
		}
	}
}

// contact is the contact rule (R3): a process that leads or wants to is a member, whatever the membership says so far.
func (n *Node) contact(id string) {
	if id == n.cfg.ID || n.isGone(id) || !n.on(ruleContact) {
		return
	}
	if _, ok := n.contacts[id]; !ok && slices.Contains(n.alive, id) {
		return
	}
	n.contacts[id] = n.now + contactTime
	if n.fateOf(id) == Unknown {
		n.contacts[id] = n.now + unknownTime
	}
	n.lookAround()
}

// forgetContacts ends contacts that have not become members.
func (n *Node) forgetContacts() {
	changed := false
	for _, id := range slices.Sorted(maps.Keys(n.contacts)) {
		if slices.Contains(n.alive, id) {
			delete(n.contacts, id)
			continue
		}
		switch n.fateOf(id) {
		case Alive, Suspect, Draining:
			n.contacts[id] = n.now + contactTime
		case Left, Dead, Failed:
			if n.now >= n.pausedUntil {
				n.contacts[id] = min(n.contacts[id], n.now+contactTime)
			}
		}
		if n.now >= n.contacts[id] {
			delete(n.contacts, id)
			changed = true
		}
	}
	if changed {
		n.lookAround()
	}
}

// lookAround computes members and eligible anew and tells the partitions what has changed.
func (n *Node) lookAround() {
	members := slices.Clone(n.alive)
	for id := range n.contacts {
		members = append(members, id)
	}
	slices.Sort(members)
	members = slices.Compact(members)
	var eligible []string
	for _, id := range members {
		draining := n.fateOf(id) == Draining
		if id == n.cfg.ID {
			draining = draining || n.draining
		}
		if !draining {
			eligible = append(eligible, id)
		}
	}
	if len(eligible) == 0 {
		eligible = members
	}
	var added []string
	for _, id := range members {
		if id != n.cfg.ID && !n.isMember(id) {
			added = append(added, id)
		}
		if id != n.cfg.ID {
			n.known[id] = true
		}
	}
	same := slices.Equal(members, n.members) && slices.Equal(eligible, n.eligible)
	if len(members) == 1 && len(n.members) != 1 {
		n.alone = n.now
	}
	n.members, n.eligible = members, eligible
	if !same {
		n.views++
	}
	n.forgetKnown()
	if same {
		// A fate may have changed: one that is proven dead need not be waited for.
		for i := range n.parts {
			if p := &n.parts[i]; p.role == preparing {
				p.advance()
			}
		}
		return
	}
	n.hashes = n.hashes[:0]
	for _, id := range eligible {
		n.hashes = append(n.hashes, fnv1a(id))
	}
	for i := range n.parts {
		p := &n.parts[i]
		p.first, p.second = rank(p.id, eligible, n.hashes, n.cfg.ID)
		if n.order != nil {
			p.first, p.second = rankBy(n.order, eligible, n.cfg.ID)
		}
	}
	for i := range n.parts {
		n.parts[i].viewChanged(added)
	}
}

// forgetKnown bounds what is remembered of processes that are gone.
func (n *Node) forgetKnown() {
	if len(n.known) < 4096 {
		return
	}
	for id := range n.known {
		if !n.isMember(id) && n.isGone(id) {
			delete(n.known, id)
			delete(n.byes, id)
		}
	}
}
