//go:build unix

package sock

import (
	"syscall"
)

const canTry = true

// tryWriter writes without blocking. The closure is made once: a pass must not allocate.
type tryWriter struct {
	b   []byte
	n   int
	err error
	fn  func(fd uintptr) bool
}

// write hands b to the kernel and reports how much it took; a full buffer is no error.
func (t *tryWriter) write(raw syscall.RawConn, b []byte) (int, error) {
	if t.fn == nil {
		t.fn = t.once
	}
	t.b, t.n, t.err = b, 0, nil
	err := raw.Write(t.fn)
	t.b = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

func (t *tryWriter) once(fd uintptr) bool {
	for t.n < len(t.b) {
		n, err := syscall.Write(int(fd), t.b[t.n:])
		if n > 0 {
			t.n += n
		}
		switch err {
		case nil:
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			t.err = err
			return true
		}
	}
	return true
}
