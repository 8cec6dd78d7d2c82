package mirror

import "errors"

// Errors beside those of filestore and of the standard library: an extension that is not there is fs.ErrNotExist.
var (
	// ErrBundle is returned by Install when the archive holds what it must not, or is none.
	ErrBundle = errors.New("mirror: bad bundle")

	// ErrSignature is returned by Install when Config.Keys is set and none of them has signed the bundle.
	ErrSignature = errors.New("mirror: bad signature")

	// ErrConflict is returned by Install when another installation of the same ID was going on.
	ErrConflict = errors.New("mirror: installed by another call meanwhile")

	// ErrClosed is returned after Shutdown.
	ErrClosed = errors.New("mirror: closed")
)

// finding is what Check returns: a warning, because the node goes on with what it has.
type finding struct {
	err    error
	remedy string
}

func (f *finding) Error() string  { return f.err.Error() }
func (f *finding) Unwrap() error  { return f.err }
func (f *finding) Remedy() string { return f.remedy }
func (f *finding) Warning() bool  { return true }
