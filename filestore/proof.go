package filestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/lifecycle"
)

const (
	idTag     = "filestore.id"     // the ID of the store that a member sees
	provenTag = "filestore.proven" // set once a member agreed with all others

	probeTopic   = "nines.filestore.probe"
	verdictTopic = "nines.filestore.verdict"

	probeTimeout = 2 * time.Second
	retry        = 500 * time.Millisecond // between two questions to a member while something is not as it should be, at first
	retryMost    = 5 * time.Second        // and later
	hangLimit    = 5 * time.Second        // storage that does not answer for longer is down
	staleLimit   = 10 * time.Second       // how long a member may read an overwritten content
	answerLimit  = 3 * time.Second / 2    // how long a newcomer waits for a member that does not answer
	verdictLimit = 5 * time.Second        // how long a newcomer waits to be told what another member found
)

// Cluster is what a Proof needs; *cluster.Node satisfies it.
type Cluster interface {
	ID() string
	Alive() []string // nil until the first settled view
	Notify(c chan<- struct{}) (stop func())
	Tag(id, key string) string
	SetTag(key, value string) error
	Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func())
	Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error)
}

// ProofConfig is what NewProof needs. Store and Cluster are required.
type ProofConfig struct {
	Store    *Store        // to be proven
	Cluster  Cluster       // the node
	Interval time.Duration // between two probes of the same member; default 30 s, 100 ms to 10 min. Shorter finds a separated store sooner
	Logger   *slog.Logger  // nil is slog.Default()
}

// Proof shows, when a member appears and again and again, that it sees the same store: this process writes a random text under a name that was
// never used and one under a name that is used again and again, the other answers with the SHA-256 of what it reads there. Neither a copy of a
// directory, nor a second one of the same name, nor a cache that keeps what is out of date passes.
//
// Who disagrees is told, so that both sides know. Of two that disagree the one that was not yet proven is red: a newcomer with the wrong directory
// does not stop the members that work. Of proven ones the minority is; without one, both are.
type Proof struct {
	cfg  ProofConfig
	life lifecycle.Life
	wake chan struct{}

	mu          sync.Mutex
	fault       error     // of this process's own store; nil when it works
	id          string    // the store's, once known
	began       time.Time // of the use of the storage that is going on; zero when none is
	identified  time.Time // last look at the ID
	checked     time.Time // last write of its own
	peers       map[string]*peer
	told        map[string]verdict // what others found of this member
	ready       bool               // the first round is over
	established bool               // agreed with all others once
	stats       ProofStats

	live       text          // under the name that is used again; of the round
	staleLimit time.Duration // less in tests
}

// peer is what is known of one other member.
type peer struct {
	since    time.Time // when it was first seen
	asked    time.Time // last attempt
	failed   int       // attempts since the last success
	fault    error     // why it is not the same store, or could not be asked
	shared   bool      // the last answers were right
	wrong    bool      // the last answers were wrong
	answered bool      // it has a Proof
	primed   bool      // it has read the name that is used again
	stale    time.Time // since when it reads there what was overwritten; zero: it does not
}

// verdict is what another member found of this one.
type verdict struct {
	at   time.Time
	code byte
	text string
}

// ProofStats are a Proof's figures.
type ProofStats struct {
	Ready       bool          // the first round is over
	Established bool          // this member agreed with all others, or was alone, once
	StoreID     string        // "" until it is known
	Members     int           // others that are alive
	Shared      int           // of these, those that were last found to see the same store
	Wrong       int           // of these, those that were last found to see another one
	Rounds      int64         // since the start
	Probes      int64         // questions asked of other members
	Failures    int64         // of these, those with a wrong answer or none
	Visible     time.Duration // from the beginning of the last write to the last answer that read it
}

// NewProof checks cfg and starts nothing.
func NewProof(cfg ProofConfig) (*Proof, error) {
	var errs []error
	if cfg.Store == nil {
		errs = append(errs, errors.New("filestore: ProofConfig.Store is nil: give the store to prove"))
	}
	if v := reflect.ValueOf(cfg.Cluster); cfg.Cluster == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		errs = append(errs, errors.New("filestore: ProofConfig.Cluster is nil: give the cluster's node"))
	}
	if cfg.Interval == 0 {
		cfg.Interval = 30 * time.Second
	}
	if cfg.Interval < 100*time.Millisecond || cfg.Interval > 10*time.Minute {
		errs = append(errs, fmt.Errorf("filestore: ProofConfig.Interval is %s: give 100ms to 10m, or 0 for 30s", cfg.Interval))
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Proof{
		cfg: cfg, staleLimit: staleLimit, wake: make(chan struct{}, 1), peers: map[string]*peer{}, told: map[string]verdict{}, fault: errNotProbed,
	}, nil
}

var errNotProbed = errors.New("not probed yet")

// Run probes until ctx ends or Shutdown is called.
func (p *Proof) Run(ctx context.Context) error {
	ok, err := p.life.Start()
	if !ok {
		return err
	}
	defer p.life.Finish()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.cfg.Cluster.Handle(probeTopic, p.answer)()
	defer p.cfg.Cluster.Handle(verdictTopic, p.hear)()
	defer p.cfg.Cluster.Notify(p.wake)()
	tick := time.NewTicker(min(retry, p.cfg.Interval))
	defer tick.Stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-p.life.Stopping():
			cancel()
		case <-ctx.Done():
		}
	})
	for ctx.Err() == nil {
		p.round(ctx)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-tick.C:
		}
	}
	cancel()
	wg.Wait()
	return nil
}

// Shutdown ends Run and waits for it, until ctx ends: storage that does not answer cannot be made to.
func (p *Proof) Shutdown(ctx context.Context) error { return p.life.Stop(ctx) }

// Stats returns the figures.
func (p *Proof) Stats() ProofStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Ready, s.Established, s.StoreID, s.Members = p.ready, p.established, p.id, len(p.peers)
	for id, o := range p.peers {
		switch {
		case o.wrong || p.told[id].code == verdictWrong:
			s.Wrong++
		case o.shared:
			s.Shared++
		}
	}
	return s
}

// Check returns nil when this process's store works and every other member that answers sees it. It does no I/O. Until the others have
// been asked and have told what they found, it is an error: nothing should be written yet. Later a member that could not be asked, or that
// has another store while this one was proven, is a warning: that member is red itself.
func (p *Proof) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Closed() {
		return ErrClosed
	}
	if !p.began.IsZero() && time.Since(p.began) > hangLimit {
		return &checkError{
			err:    fmt.Errorf("filestore: the store has not answered for %s", time.Since(p.began).Round(time.Second)),
			remedy: "see why the storage hangs: the mount, its server, the network",
		}
	}
	if !p.ready || p.fault != nil {
		err := p.fault
		if err == nil {
			err = errNotProbed
		}
		return &checkError{err: fmt.Errorf("filestore: %w", err), remedy: remedyShared}
	}
	var warning error
	for _, id := range slices.Sorted(maps.Keys(p.peers)) {
		o := p.peers[id]
		switch err := p.disagreementLocked(id, o); {
		case err != nil && p.atFaultLocked(id):
			return &checkError{err: err, remedy: remedyShared}
		case err != nil:
			warning = &checkError{err: err, remedy: "see to that member: it says itself what is wrong", warning: true}
		case !p.established && p.waitingLocked(id, o):
			return &checkError{err: fmt.Errorf("filestore: member %s has not yet told whether it sees this store", id), remedy: "wait a moment; see why it does not answer"}
		case o.fault != nil && !o.shared && warning == nil:
			warning = &checkError{err: o.fault, remedy: "see why that member does not answer", warning: true}
		}
	}
	return warning
}

const remedyShared = "give every node the same shared directory or bucket, mounted and writable, and restart the one that differs"

// disagreementLocked is what one of the two found wrong.
func (p *Proof) disagreementLocked(id string, o *peer) error {
	if o.wrong {
		return o.fault
	}
	if v := p.told[id]; v.code == verdictWrong {
		return fmt.Errorf("%w: member %s says: %s", ErrNotShared, id, v.text)
	}
	return nil
}

// atFaultLocked decides which of two that disagree is red.
func (p *Proof) atFaultLocked(id string) bool {
	if !p.established {
		return true
	}
	if p.cfg.Cluster.Tag(id, provenTag) == "" {
		return false
	}
	with, against := 1, 0 // of the proven ones, this one too
	for other, o := range p.peers {
		switch {
		case p.cfg.Cluster.Tag(other, provenTag) == "":
		case p.disagreementLocked(other, o) != nil:
			against++
		case o.shared:
			with++
		}
	}
	return against >= with
}

// waitingLocked reports whether a newcomer must still hear or ask.
func (p *Proof) waitingLocked(id string, o *peer) bool {
	v := p.told[id]
	switch {
	case v.code == verdictPending || !o.stale.IsZero():
		return true
	case !o.answered: // it may just be starting too
		return time.Since(o.since) < answerLimit
	case v.code != verdictOK:
		return time.Since(o.since) < verdictLimit
	}
	return false
}
