package link

// Features of a process: what it can do beyond the version of the protocol. They are told in the HELLO, and a feature is used between two
// processes, or by three, when all of them have it.
const (
	FeatureRelay = 1 << iota // can relay, and takes relayed streams
)

func (m *Mesh) features() uint64 {
	f := uint64(0)
	if m.cfg.Relay != nil {
		f |= FeatureRelay
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
