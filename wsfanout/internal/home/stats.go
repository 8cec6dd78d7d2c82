package home

// Settled reports whether, as far as this node is concerned, the next failure may come: every partition has a home in the
// view, and those that this node is home of have a replica (when there is another node), with nothing being
// proposed or installed here, and no older records on their way.
func (n *Node) Settled() bool {
	if !n.settled {
		return false
	}
	for i := range n.parts {
		if !n.parts[i].settled() {
			return false
		}
	}
	return true
}

func (p *part) settled() bool {
	n := p.n
	a := p.active
	if a.Term.IsZero() || p.promised.Term.Compare(a.Term) > 0 || !n.isMember(a.Term.Node) {
		return false
	}
	if a.Term.Node == n.cfg.ID {
		return p.whole() && p.first == n.cfg.ID && p.replica == p.second
	}
	return p.role == idle && a.Term.Node == p.first && p.returned == nil && (p.cp == nil || len(p.cp.owed) == 0)
}

// Stats returns counters and sizes. It walks over all partitions.
func (n *Node) Stats() Stats {
	s := n.stats
	s.Partitions = len(n.parts)
	s.Settled = n.Settled()
	s.RingBytes = n.ringBytes
	s.Publishing = len(n.pubs)
	s.Subscribed = len(n.edges)
	s.Asked = n.requests
	for i := range n.parts {
		p := &n.parts[i]
		switch p.role {
		case leading:
			s.Homed++
			if p.replica == "" {
				s.Solo++
			}
		case preparing, installing:
			s.Preparing++
		}
		if p.cp != nil && len(p.cp.owed) > 0 || p.role == leading && !p.whole() {
			s.Filling++
		}
		if a := p.active; a.Term.IsZero() || !n.isMember(a.Term.Node) {
			s.Leaderless++
		}
		if p.cp == nil {
			continue
		}
		s.Copies++
		s.Topics += len(p.cp.topics)
		if p.role == idle && p.cp.acc == p.active.Term && p.active.Replica == n.cfg.ID {
			s.Replicated++
		}
	}
	for _, e := range n.edges {
		s.Clients += len(e.clients)
		s.Waiting += len(e.waiting)
	}
	return s
}
