package home

// A planned move hands a partition over while its home and replica are there: at a join, a leave, a return. Config.Moves of them
// happen at once, so that few topics wait at a time; what has lost its home or its replica does not queue (R22).

// move proposes a term for a planned move now, or when another one has ended.
func (p *part) move() {
	n := p.n
	if !p.moving && n.moves >= n.cfg.Moves {
		p.queue(true)
		return
	}
	if p.propose() && p.role != idle && !p.moving && !p.whole() {
		p.moving = true
		n.moves++
	}
}

func (p *part) queue(on bool) {
	if p.queued != on {
		p.queued = on
		if on {
			p.n.queued++
		} else {
			p.n.queued--
		}
	}
}

// moved ends a planned move when nothing more of it is to be done here.
func (p *part) moved() {
	if p.moving && (p.role == idle || p.whole()) {
		p.moving = false
		p.n.moves--
	}
}

// whole reports whether this node leads the partition, and it and its replica have all records.
func (p *part) whole() bool {
	return p.role == leading && len(p.cp.owed) == 0 && (p.replica == "" || p.lead.whole)
}

// moveOn begins a move that waits for its turn. It reports false when there is none, or too many are under way.
func (n *Node) moveOn() bool {
	if n.queued == 0 || n.moves >= n.cfg.Moves {
		return false
	}
	for i := range n.parts {
		p := &n.parts[i]
		if !p.queued {
			continue
		}
		p.queue(false)
		if p.role == idle {
			p.nudge()
		} else {
			p.check(false)
		}
		return true
	}
	return false
}

// fillOn asks for older records that waited for others to come.
func (n *Node) fillOn() {
	if !n.unfilled {
		return
	}
	n.unfilled = false
	for i := range n.parts {
		if n.fetches >= n.cfg.Moves {
			return
		}
		if p := &n.parts[i]; p.fetch == nil && p.cp != nil && len(p.cp.owed) > 0 {
			p.fill()
		}
	}
}
