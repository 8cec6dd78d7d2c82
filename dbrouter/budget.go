package dbrouter

import "sync"

// budget bounds the attempts that are made again on another source: as many as a pool has connections at once, which is what the death of a
// source can need, and then one for ten reads. Without it every read of a fleet runs twice when something is wrong with all
// sources alike.
type budget struct {
	mu     sync.Mutex
	tokens float64
	reads  uint32 // counted when last seen
	begun  bool
}

func (b *budget) take(reads uint32, limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.begun {
		b.begun, b.tokens, b.reads = true, float64(limit), reads
	}
	b.tokens = min(b.tokens+0.1*float64(reads-b.reads), float64(limit))
	b.reads = reads
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
