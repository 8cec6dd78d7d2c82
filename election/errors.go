package election

import "errors"

var (
	// ErrClosed is returned by all methods after Shutdown, or after the context of Run has ended.
	ErrClosed = errors.New("election: closed")
	// ErrNotLeader is returned by Resign and TransferTo on a node that does not lead, and is the cause of the contexts of Lead,
	// LeadFenced and HandleLeader when leadership has ended.
	ErrNotLeader = errors.New("election: not the leader")
	// ErrDeposed is returned by Fence and Commit when the term has ended: nothing of the transaction may be committed. It is also the
	// cause of the Context of a Lock that was lost, and returned by its Unlock.
	ErrDeposed = errors.New("election: term has ended")
	// ErrNoLeader is returned by Forward when its context ended while no leader was known.
	ErrNoLeader = errors.New("election: no leader known")
	// ErrLocked is returned by Mutex.TryLock when another holds the mutex.
	ErrLocked = errors.New("election: mutex is locked")
)
