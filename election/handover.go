package election

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/election/internal/core"
)

// note is what electors say to each other.
type note struct {
	Op   string `json:"op"` // "ask": would you lead now? "nominate": the lease of that term is free for you; "look": the row has changed; "dead": have you proof that ID is?
	Term uint64 `json:"term,omitempty"`
	ID   string `json:"id,omitempty"`
}

const (
	askTimeout      = 500 * time.Millisecond
	nominateTimeout = time.Second
)

// asked answers another elector.
func (e *Elector) asked(_ context.Context, _ string, payload []byte) ([]byte, error) {
	var n note
	if err := json.Unmarshal(payload, &n); err != nil {
		return nil, fmt.Errorf("election: note: %w", err)
	}
	switch n.Op {
	case "ask":
		if e.willing.Load() {
			return []byte("yes"), nil
		}
		return []byte("no"), nil
	case "nominate":
		e.post(core.Nominated{Term: n.Term})
		return []byte("yes"), nil
	case "look":
		e.post(core.Hinted{})
		return []byte("yes"), nil
	case "dead":
		if e.cfg.Members.Fate(n.ID) == "dead" {
			return []byte("yes"), nil
		}
		return []byte("no"), nil
	}
	return nil, fmt.Errorf("election: note %q is not known", n.Op)
}

func (e *Elector) tell(ctx context.Context, to string, n note, timeout time.Duration) bool {
	payload, err := json.Marshal(n)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := e.cfg.Members.Request(ctx, to, e.topic(), payload)
	return err == nil && string(answer) == "yes"
}

func (e *Elector) ask(ctx context.Context, to string) bool {
	return e.tell(ctx, to, note{Op: "ask"}, askTimeout)
}

func (e *Elector) nominate(ctx context.Context, to string, term uint64) {
	if !e.tell(ctx, to, note{Op: "nominate", Term: term}, nominateTimeout) {
		e.cfg.Logger.Warn("the successor was not reached: the next in line takes over", "election", e.cfg.Name, "to", to)
	}
}

// confirm asks all other members at once whether they too know that a process is dead; one that does is enough.
func (e *Elector) confirm(ctx context.Context, id string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asked sync.WaitGroup
	var yes atomic.Bool
	for _, to := range e.cfg.Members.Alive() {
		if to == id || to == e.cfg.Members.ID() {
			continue
		}
		asked.Go(func() {
			if e.tell(ctx, to, note{Op: "dead", ID: id}, askTimeout) {
				yes.Store(true)
				cancel()
			}
		})
	}
	asked.Wait()
	return yes.Load()
}

// Resign gives leadership up: contexts of Lead and LeadFenced end, then the lease is released, and the next willing member leads at once.
// When callbacks of Lead have not returned after a third of the TTL, the successor may do fenced work at once and other work after
// a TTL. This node leads again only when nobody else does. It returns when the lease is released, or with the error of ctx.
func (e *Elector) Resign(ctx context.Context) error {
	term, err := e.leading()
	if err != nil {
		return err
	}
	to := ""
	for _, id := range e.others() {
		if e.ask(ctx, id) {
			to = id
			break
		}
	}
	e.post(core.Asked{To: to})
	return e.until(ctx, func() (bool, error) { return e.holding != term, nil })
}

// TransferTo gives leadership to the member named and returns when it leads. Nothing changes when that member is not willing: it is not
// eligible, has no elector of this name, or does not reach the database.
func (e *Elector) TransferTo(ctx context.Context, id string) error {
	term, err := e.leading()
	if err != nil {
		return err
	}
	if id == e.cfg.Members.ID() {
		return nil
	}
	if !slices.Contains(e.others(), id) {
		return fmt.Errorf("election: transfer to %q: it is not an eligible member that is alive", id)
	}
	if !e.ask(ctx, id) {
		return fmt.Errorf("election: transfer to %q: it does not want to lead now", id)
	}
	e.post(core.Asked{To: id})
	return e.until(ctx, func() (bool, error) {
		if e.holding == term || e.state.LeaderID == "" || e.state.Term == term {
			return false, nil
		}
		if e.state.LeaderID != id {
			return true, fmt.Errorf("election: transfer to %q: %q took the lease", id, e.state.LeaderID)
		}
		return true, nil
	})
}

func (e *Elector) leading() (uint64, error) {
	if e.life.Closed() {
		return 0, ErrClosed
	}
	t := e.valid()
	if t == nil {
		return 0, ErrNotLeader
	}
	return t.term, nil
}

// others are the members that could lead, in the order in which they would be asked.
func (e *Elector) others() []string {
	m := e.cfg.Members
	var ids []string
	for _, id := range m.Alive() {
		if fate := m.Fate(id); id != m.ID() && fate != "draining" && fate != "suspect" && m.Tag(id, tagCandidate) != "no" && m.Tag(id, tagPaused) == "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// until waits for a condition under the mutex.
func (e *Elector) until(ctx context.Context, fn func() (bool, error)) error {
	for {
		e.mu.Lock()
		ok, err := fn()
		changed, done := e.changed, e.done
		e.mu.Unlock()
		switch {
		case ok:
			return err
		case done:
			return ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
