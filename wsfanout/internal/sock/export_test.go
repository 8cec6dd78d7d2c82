package sock

// Bytes of a frame.
func Bytes(f *Frame) []byte { return f.b }

// FrameLen is frameLen.
func FrameLen(b []byte) (int, bool) { return frameLen(b) }
