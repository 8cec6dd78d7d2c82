//go:build !unix

package sock

import (
	"errors"
	"syscall"
)

const canTry = false

type tryWriter struct{}

func (t *tryWriter) write(syscall.RawConn, []byte) (int, error) {
	return 0, errors.ErrUnsupported
}
