package link

// Features of a process: what it can do beyond the version of the protocol. They are told in the HELLO, and one is used between two processes,
// or by three, when all of them have it. Bits that are not known are ignored.
const (
	FeatureRelay   = 1 << iota // can relay, and takes relayed streams
	FeatureInflate             // can read a deflated connection
	FeatureDeflate             // deflates what it writes to those that can
)

// features are those of this process.
func (m *Mesh) features() uint64 {
	if m.cfg.Protocol < 2 {
		return 0
	}
	f := uint64(FeatureInflate)
	if m.cfg.Relay != nil {
		f |= FeatureRelay
	}
	if m.cfg.Compress {
		f |= FeatureDeflate
	}
	return f
}

// Has reports whether that process has all of those features, as far as it has told.
func (m *Mesh) Has(id string, features uint64) bool {
	p := m.peer(id)
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.features&features == features
}
