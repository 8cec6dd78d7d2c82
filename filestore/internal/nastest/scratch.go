package nastest

import (
	"os"
	"testing"
)

// Scratch returns a folder for the length of a test, in memory where the machine has such a file system: what is tested is not the disk.
func Scratch(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	if fi, err := os.Stat(memory); err != nil || !fi.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "nines-files-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
