//go:build unix

package sock

import (
	"net"
	"syscall"
)

// tryWriter writes without blocking: it hands b to the kernel and reports how much that took. A full buffer is no error. A connection that is none
// of the kernel's may offer it by itself.
type tryWriter interface {
	TryWrite(b []byte) (int, error)
}

func tryWriterOf(nc net.Conn) tryWriter {
	switch c := nc.(type) {
	case tryWriter:
		return c
	case syscall.Conn:
		if raw, err := c.SyscallConn(); err == nil {
			t := &rawWriter{raw: raw}
			t.fn = t.once
			return t
		}
	}
	return nil
}

// rawWriter belongs to one socket, of which one goroutine writes at a time. The closure is made once: a pass must not allocate.
type rawWriter struct {
	raw syscall.RawConn
	b   []byte
	n   int
	err error
	fn  func(fd uintptr) bool
}

func (t *rawWriter) TryWrite(b []byte) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := t.raw.Write(t.fn)
	t.b = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

func (t *rawWriter) once(fd uintptr) bool {
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
