package wire

import "errors"

// Version is the frame version. The number of partitions is a constant of it.
const Version = 1

// Partitions is how many partitions topics are hashed into.
const Partitions = 1024

// FrameSize is the size above which Encode begins another frame.
const FrameSize = 1 << 20

// ErrFrame is returned by Decode for a frame that it cannot read.
var ErrFrame = errors.New("wire: malformed frame")

// Encode returns the frames that carry the messages, in order. A frame is larger than FrameSize only when one message
// is.
func Encode(messages []Message) [][]byte { return nil }

// Decode returns the messages of one frame. They share nothing with it.
func Decode(frame []byte) ([]Message, error) { return nil, ErrFrame }

type tag uint8
