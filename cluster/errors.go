package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The errors that callers tell apart with errors.Is.
var (
	// ErrClosed: the Node was shut down, or its Run has ended. Every method that returns an error may return it.
	ErrClosed = errors.New("cluster: node closed")
	// ErrNoMember: the process is not known, or it has left, died or been given up. Send, Post, TryPost, PostBulk, Request.
	ErrNoMember = errors.New("cluster: no such member")
	// ErrBackpressure: the peer has no credit left for more bytes at the moment. TryPost.
	ErrBackpressure = errors.New("cluster: peer has no credit left")
	// ErrTooLarge: the payload is larger than MaxMessage. Send, Post, TryPost, PostBulk, Request, Broadcast; a reply too.
	ErrTooLarge = errors.New("cluster: message larger than MaxMessage")
	// ErrNoHandler: the peer's process has no handler for the topic. Request and Gather.
	ErrNoHandler = errors.New("cluster: peer has no handler for the topic")
	// ErrEvicted: a peer has given this process up for good, as a process that was cut off for longer than what was sent to it could be
	// kept. Only a new process, with a new ID, can join again: let the supervisor restart this one. Run.
	ErrEvicted = errors.New("cluster: this process was given up by its peers")
)

// RemoteError is the error that a handler on another node returned to Request or Gather. Its text has crossed the wire; its identity has not.
type RemoteError struct {
	From, Topic, Text string
}

// Error names the node and the topic.
func (e *RemoteError) Error() string {
	return fmt.Sprintf("cluster: handler of %q on %s: %s", e.Topic, e.From, e.Text)
}

// PeersError is Broadcast's partial failure: the members that are not known to have taken the message, each with its reason.
type PeersError struct {
	Failed map[string]error // by member ID
}

// Error lists the members in ascending order.
func (e *PeersError) Error() string {
	ids := make([]string, 0, len(e.Failed))
	for id := range e.Failed {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var b strings.Builder
	fmt.Fprintf(&b, "cluster: %d members have not taken the message", len(ids))
	for _, id := range ids {
		fmt.Fprintf(&b, "; %s: %v", id, e.Failed[id])
	}
	return b.String()
}

// Unwrap returns the reasons.
func (e *PeersError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed))
	for _, err := range e.Failed {
		errs = append(errs, err)
	}
	return errs
}

// CheckError is what Check and WaitReady report: why the cluster is not green, the worst reason first.
type CheckError struct {
	Reasons []Reason // at least one
}

// Error is the text of the reasons.
func (e *CheckError) Error() string {
	texts := make([]string, 0, len(e.Reasons))
	for _, r := range e.Reasons {
		texts = append(texts, r.Text)
	}
	return "cluster: " + strings.Join(texts, "; ")
}

// Remedy says what an operator can do about the worst reason.
func (e *CheckError) Remedy() string { return e.Reasons[0].Remedy }

// Warning reports whether this node is fit to serve all the same: no reason keeps it from being ready.
func (e *CheckError) Warning() bool {
	return !slices.ContainsFunc(e.Reasons, func(r Reason) bool { return r.NotReady })
}

// listenError is a port or an address that cannot be used.
type listenError struct {
	field, value, remedy string
	err                  error
}

func (e *listenError) Error() string {
	return fmt.Sprintf("cluster: %s %q cannot be used: %v; %s", e.field, e.value, e.err, e.remedy)
}

func (e *listenError) Unwrap() error { return e.err }
