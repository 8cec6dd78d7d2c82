package filestore

import "time"

// SetStaleLimit shortens how long a member may read what was overwritten.
func SetStaleLimit(p *Proof, d time.Duration) { p.staleLimit = d }
