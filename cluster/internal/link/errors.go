package link

import "errors"

// What the methods of a Mesh return.
var (
	// ErrClosed is returned by every method once Run has ended.
	ErrClosed = errors.New("link: closed")
	// ErrBackpressure is returned by TryPost, and by Post together with its ctx's error, when what the peer has not acknowledged fills
	// the retention.
	ErrBackpressure = errors.New("link: peer takes no more")
	// ErrNoPeer is returned by Post and TryPost for a process that was neither connected to nor has come by itself.
	ErrNoPeer = errors.New("link: no such peer")
	// ErrGivenUp is returned by Post and TryPost for a process that was given up or forgotten, or that has given this one up.
	ErrGivenUp = errors.New("link: peer given up")
	// ErrTooLarge is returned by Post and TryPost for more than MaxPayload bytes.
	ErrTooLarge = errors.New("link: payload too large")
	// ErrRefused is wrapped by an error of Config.Dial that says the same as syscall.ECONNREFUSED: nothing listens there.
	ErrRefused = errors.New("link: connection refused")
	// ErrNoRelay is wrapped by an error of Config.Relay when nobody can relay.
	ErrNoRelay = errors.New("link: nobody to relay")
)
