package sock

import "net"

// Bytes of a frame.
func Bytes(f *Frame) []byte { return f.b }

// FrameLen is frameLen.
func FrameLen(b []byte) (int, bool) { return frameLen(b) }

// Left is what the socket writes of frames and later when it is dropped as behind after the worker could write n bytes of frames: the drop comes while
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
	if len(s.pending) > 0 {
		b = append(b, newShard().join(s.pending, s.off)...)
	}
	return b, s.bytes
}

// Waiting is the room that a socket's list takes up, in frames, and whether the kernel takes nothing.
func (s *Socket) Waiting() (list int, lagging_ bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cap(s.pending), s.state == lagging
}

// Conn is the connection below.
func (s *Socket) Conn() net.Conn { return s.nc }
