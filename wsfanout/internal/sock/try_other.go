//go:build !unix

package sock

import "net"

type tryWriter interface {
	TryWrite(b []byte) (int, error)
}

func tryWriterOf(nc net.Conn) tryWriter {
	t, _ := nc.(tryWriter)
	return t
}
