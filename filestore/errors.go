package filestore

import "errors"

// Errors beside those of the standard library: an object that is not there is fs.ErrNotExist, one that is there already fs.ErrExist, what a
// driver cannot do errors.ErrUnsupported.
var (
	// ErrPrecondition is returned by Put when IfMatch names another version than the present one.
	ErrPrecondition = errors.New("filestore: precondition failed")

	// ErrInvalidKey is returned by every call that takes a key or a prefix: CheckKey says what a key may be.
	ErrInvalidKey = errors.New("filestore: invalid key")

	// ErrNotShared is returned by Proof.Check when another member does not see what this one writes.
	ErrNotShared = errors.New("filestore: not the cluster's store")

	// ErrCorrupt is returned by Put when the content is not what PutOptions.Size or SHA256 promised; nothing is stored.
	ErrCorrupt = errors.New("filestore: content differs from what was promised")

	// ErrClosed is returned after Close or Shutdown.
	ErrClosed = errors.New("filestore: closed")
)
