package wsfanout

import (
	"encoding/binary"
	"errors"
)

// envelope is what travels as the data of a record: the message and who is left out.
type envelope struct {
	exceptUsers, exceptConns []string
	conflate                 string
	data                     []byte
}

const (
	envPlain = 0
	envRich  = 1
)

var errEnvelope = errors.New("wsfanout: malformed record")

func (e *envelope) encode() []byte {
	if len(e.exceptUsers)+len(e.exceptConns) == 0 && e.conflate == "" {
		return append(append(make([]byte, 0, 1+len(e.data)), envPlain), e.data...)
	}
	b := []byte{envRich}
	for _, list := range [][]string{e.exceptUsers, e.exceptConns, {e.conflate}} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return append(b, e.data...)
}

func decodeEnvelope(b []byte) (e envelope, err error) {
	if len(b) == 0 || b[0] > envRich {
		return e, errEnvelope
	}
	if b[0] == envPlain {
		e.data = b[1:]
		return e, nil
	}
	b = b[1:]
	var lists [3][]string
	for i := range lists {
		n, b2, ok := uvarint(b)
		if !ok {
			return e, errEnvelope
		}
		b = b2
		for range n {
			l, b2, ok := uvarint(b)
			if !ok {
				return e, errEnvelope
			}
			lists[i] = append(lists[i], string(b2[:l]))
			b = b2[l:]
		}
	}
	if len(lists[2]) != 1 {
		return e, errEnvelope
	}
	return envelope{exceptUsers: lists[0], exceptConns: lists[1], conflate: lists[2][0], data: b}, nil
}

// uvarint reads a count or a length, which can be no larger than what follows.
func uvarint(b []byte) (uint64, []byte, bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return 0, nil, false
	}
	return n, b[size:], true
}
