package seal

// window remembers which of the last Window sequences were taken.
type window struct {
	top  uint64 // the newest taken; 0 before the first
	bits [Window / 64]uint64
}

// take reports whether seq is new, and takes it.
func (w *window) take(seq uint64) bool {
	if seq == 0 {
		return false
	}
	if w.top == 0 { // nothing below the first one
		for i := range w.bits {
			w.bits[i] = ^uint64(0)
		}
		w.top = seq
		return true
	}
	switch {
	case seq > w.top:
		if seq-w.top >= Window {
			clear(w.bits[:])
		} else {
			for s := w.top + 1; s < seq; s++ {
				w.clear(s)
			}
		}
		w.top = seq
		w.set(seq)
		return true
	case w.top-seq >= Window || w.isSet(seq):
		return false
	}
	w.set(seq)
	return true
}

func (w *window) set(s uint64)        { w.bits[s/64%(Window/64)] |= 1 << (s % 64) }
func (w *window) clear(s uint64)      { w.bits[s/64%(Window/64)] &^= 1 << (s % 64) }
func (w *window) isSet(s uint64) bool { return w.bits[s/64%(Window/64)]&(1<<(s%64)) != 0 }
