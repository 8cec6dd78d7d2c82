package seal

import "errors"

// What Client, Server and Open refuse.
var (
	// ErrKey: the other side has none of our keys, or one of the two runs without keys.
	ErrKey = errors.New("no key in common")
	// ErrCluster: the other side belongs to a cluster of another name.
	ErrCluster = errors.New("another cluster")
	// ErrCertificate: with an Identity, the certificate of one of the two is missing, of other roots, or for another name.
	ErrCertificate = errors.New("certificate refused")
	// ErrReplay is returned by Open for a datagram that was taken before or is too old to tell.
	ErrReplay = errors.New("datagram repeated or too old")
	// ErrFormat: what came is not of this protocol.
	ErrFormat = errors.New("not of this protocol")
)
