package home

import (
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// MayLeave reports whether a draining node has nothing left that others need. The shell waits for it (10 s at most),
// with its sockets closed, before it calls Leave and stops.
func (n *Node) MayLeave() bool {
	if len(n.pubs) > 0 {
		return false
	}
	if n.nobodyElse() {
		return true
	}
	for i := range n.parts {
		p := &n.parts[i]
		if p.role != idle || p.cp != nil || len(p.orphans) > 0 || p.promised.Term.Compare(p.active.Term) > 0 {
			return false
		}
		if a := p.active; !a.Term.IsZero() && (a.Term.Node == n.cfg.ID || a.Replica == n.cfg.ID) {
			return false
		}
	}
	return true
}

// nobodyElse reports whether there is no process to hand over to: all members leave too, and those that were members are
// known to be gone. One that is merely out of reach may come back with a branch of its own, so it counts.
func (n *Node) nobodyElse() bool {
	for id := range n.known {
		if id != n.cfg.ID && !n.isGone(id) && n.fateOf(id) != Draining {
			return false
		}
	}
	return true
}

// Leave says goodbye to all peers. Only after MayLeave: a process that just stops counts as crashed. The shell posts the
// frames and gives the Node no more input.
func (n *Node) Leave(now time.Duration) {
	n.begin(now)
	for _, id := range n.members {
		if id != n.cfg.ID {
			n.send(id, &wire.Bye{})
		}
	}
}

// onBye remembers that a process has left gracefully: a term whose replica it was lost nothing with it (R5).
func (n *Node) onBye(from string, _ *wire.Bye) {
	n.byes[from] = true
	for i := range n.parts {
		p := &n.parts[i]
		for k := range p.open {
			if p.open[k].Known && p.open[k].Replica == from {
				p.open[k].Left = true
			}
		}
		if p.active.Replica == from {
			p.active.Left = true
		}
	}
}
