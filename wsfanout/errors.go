package wsfanout

import "errors"

var (
	// ErrClosed is returned by every method after Shutdown, and after Run's context has ended.
	ErrClosed = errors.New("wsfanout: hub closed")
	// ErrForbidden is for Authenticate, Authorize and OnMessage to say no with: the client is told so, and nothing is logged.
	ErrForbidden = errors.New("wsfanout: not allowed")
	// ErrTooLarge is returned by Publish for data above Config.MaxMessage.
	ErrTooLarge = errors.New("wsfanout: message too large")
	// ErrUncertain is returned by Publish when nobody has acknowledged the message in time. It may appear, or not. Publish again with the same
	// PublishOptions.ID, at any node: it then appears once.
	ErrUncertain = errors.New("wsfanout: publish not acknowledged")
	// ErrNoReplica is returned by Publish when Config.MinCopies is 2 and there was no second node in time.
	ErrNoReplica = errors.New("wsfanout: no second node for the message")
)

// errTopics is why a socket cannot be subscribed to one more topic.
var errTopics = errors.New("too many topics")
