package link

import "time"

// Stats are the figures of a Mesh.
type Stats struct {
	Peers map[string]PeerStats
}

// PeerStats are the figures of one link, since the beginning.
type PeerStats struct {
	Up                   bool
	Connections          uint64 // established so far
	SentBytes, RecvBytes uint64 // of frames, in order, repeats not counted
	RepeatedBytes        uint64 // sent again after a reconnect
	Retained             int    // bytes of memory that hold what is not acknowledged
	Backpressure         uint64 // posts that were refused or had to wait
	RTT, Offset          time.Duration
}

// Stats returns figures of all links.
func (m *Mesh) Stats() Stats {
	s := Stats{Peers: make(map[string]PeerStats)}
	for id, p := range *m.peers.Load() {
		p.mu.Lock()
		ps := PeerStats{
			Up: p.up, Connections: p.stats.connections, RepeatedBytes: p.stats.repeated,
			Retained: p.retainedLocked(), Backpressure: p.stats.backpressure,
		}
		for l := range lanes {
			ps.SentBytes += p.out[l].sent
			ps.RecvBytes += p.recv[l].bytes
		}
		best, _ := p.clock.best()
		ps.RTT, ps.Offset = best.rtt, best.offset
		p.mu.Unlock()
		s.Peers[id] = ps
	}
	return s
}
