package dirstore

import (
	"os"
	"syscall"
)

const (
	startEvery = 8 << 20 // bytes
	syncWrite  = 2       // SYNC_FILE_RANGE_WRITE
)

// startWriting lets the disk begin with what was just written at offset, so that the fsync of a large file has little left to wait for. It is
// only an advice.
func startWriting(f *os.File, offset, n int64) {
	if end := offset + n; end/startEvery > offset/startEvery {
		if c, err := f.SyscallConn(); err == nil {
			_ = c.Control(func(fd uintptr) {
				_ = syscall.SyncFileRange(int(fd), max(end-2*startEvery, 0), 2*startEvery, syncWrite)
			})
		}
	}
}
