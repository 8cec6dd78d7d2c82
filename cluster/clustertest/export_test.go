package clustertest

// Streams counts the directions of streams that are not closed on both sides.
func (n *Network) Streams() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.halves)
}

var Retransmission = retransmission
