package sock

// Bytes of a frame.
func Bytes(f *Frame) []byte { return f.b }

// FrameLen is frameLen.
func FrameLen(b []byte) (int, bool) { return frameLen(b) }

// Left is what stays in the list of a socket that is dropped as behind, when the worker could write n bytes of frames: the drop comes while
// the worker writes, or after it.
func Left(during bool, n int, frames, later []*Frame) (b []byte, bytes int) {
	s := &Socket{pool: NewPool(Config{}), state: queued, inHand: true, pending: later}
	for _, f := range append(frames[:len(frames):len(frames)], later...) {
		s.bytes += len(f.b)
	}
	s.bytes -= n
	if during {
		s.dropLocked()
	}
	s.inHand = false
	s.putBackLocked(frames, n)
	if !during {
		s.dropLocked()
	}
	for _, f := range s.pending {
		b = append(b, f.b...)
	}
	return b, s.bytes
}
