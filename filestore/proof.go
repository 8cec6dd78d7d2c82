package filestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/internal/lifecycle"
)

const (
	idKey      = Reserved + "store-id"
	probeDir   = Reserved + "probe/"
	idTag      = "filestore.id"
	probeTopic = "nines.filestore.probe"

	probeTimeout = 2 * time.Second
	retry        = 500 * time.Millisecond // after a probe that could not be asked
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
	Store    *Store
	Cluster  Cluster
	Interval time.Duration // between two probes of the same member; default 30 s, 100 ms to 10 min. Shorter finds an unmounted disk sooner
	Logger   *slog.Logger  // nil is slog.Default()
}

// Proof shows, when a member appears and again and again, that it sees the same store: this process writes a random text under a name that was
// never used, the other answers with the SHA-256 of what it reads there. Neither a copy of a directory nor a second one of the same name passes.
type Proof struct {
	cfg  ProofConfig
	life lifecycle.Life

	mu    sync.Mutex
	fault error            // of this process's own store; nil when it works
	peers map[string]*peer // by member ID
	ready bool             // the first round is over
}

// peer is what is known of one other member.
type peer struct {
	asked  time.Time // last attempt
	proven time.Time // last success
	fault  error     // why it is not the same store, or could not be asked
	shared bool      // the last answer was right
	wrong  bool      // the last answer was wrong
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
	return &Proof{cfg: cfg, peers: map[string]*peer{}, fault: errors.New("not probed yet")}, nil
}

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
	changed := make(chan struct{}, 1)
	defer p.cfg.Cluster.Notify(changed)()
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
		case <-changed:
		case <-tick.C:
		}
	}
	wg.Wait()
	return nil
}

// Shutdown ends Run and waits for it.
func (p *Proof) Shutdown(ctx context.Context) error { return p.life.Stop(ctx) }

// round does what is due: the store's ID first, then every member that is new, failed or was not asked for Interval.
func (p *Proof) round(ctx context.Context) {
	alive := p.cfg.Cluster.Alive()
	if alive == nil {
		return
	}
	err := p.identify(ctx, alive)
	p.mu.Lock()
	if (err == nil) != (p.fault == nil) && p.ready {
		p.cfg.Logger.Warn("file store changed", "err", err)
	}
	p.fault = err
	due := p.dueLocked(alive)
	p.mu.Unlock()
	if err == nil {
		var wg sync.WaitGroup
		for _, id := range due {
			wg.Go(func() { p.probe(ctx, id) })
		}
		wg.Wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = p.ready || ctx.Err() == nil
}

// dueLocked returns whom to ask now, and forgets who is gone.
func (p *Proof) dueLocked(alive []string) []string {
	for id := range p.peers {
		if !slices.Contains(alive, id) {
			delete(p.peers, id)
		}
	}
	var due []string
	for _, id := range alive {
		if id == p.cfg.Cluster.ID() {
			continue
		}
		s := p.peers[id]
		if s == nil {
			s = &peer{}
			p.peers[id] = s
		}
		if !s.shared || time.Since(s.asked) >= p.cfg.Interval {
			due = append(due, id)
		}
	}
	return due
}

// identify reads the store's ID and tells it to the others. It makes one only when no member has one: an empty directory in a cluster that has a
// store is the wrong directory.
func (p *Proof) identify(ctx context.Context, alive []string) error {
	id, err := p.cfg.Store.read(ctx, idKey)
	if errors.Is(err, fs.ErrNotExist) {
		for _, other := range alive {
			if tag := p.cfg.Cluster.Tag(other, idTag); other != p.cfg.Cluster.ID() && tag != "" {
				return fmt.Errorf("%w: this store has no ID, member %s has one with ID %s", ErrNotShared, other, tag)
			}
		}
		if p.isReady() {
			return fmt.Errorf("%w: the store lost its ID", ErrNotShared)
		}
		text := newID()
		_, err = p.cfg.Store.driver.Put(ctx, idKey, strings.NewReader(text), &PutOptions{Size: int64(len(text)), IfAbsent: true})
		if err == nil || errors.Is(err, fs.ErrExist) {
			id, err = p.cfg.Store.read(ctx, idKey)
		}
	}
	if err != nil {
		return fmt.Errorf("filestore: the store's ID cannot be read: %w", err)
	}
	if p.cfg.Cluster.Tag(p.cfg.Cluster.ID(), idTag) == string(id) {
		return nil
	}
	return p.cfg.Cluster.SetTag(idTag, string(id))
}

func (p *Proof) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// probe asks one member.
func (p *Proof) probe(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	wrong, err := p.ask(ctx, id)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.peers[id]
	if s == nil {
		return
	}
	if wrong && !s.wrong {
		p.cfg.Logger.Error("another member has another file store", "member", id, "err", err)
	}
	s.asked, s.fault, s.wrong, s.shared = time.Now(), err, wrong, err == nil
	if err == nil {
		s.proven = s.asked
	}
}

// ask writes under a fresh name and compares what the member read there. wrong says that the member has another store; an error without it, that
// it could not be asked.
func (p *Proof) ask(ctx context.Context, id string) (wrong bool, err error) {
	key := probeDir + p.cfg.Cluster.ID() + "-" + newID()
	text := newID()
	d := p.cfg.Store.driver
	if _, err := d.Put(ctx, key, strings.NewReader(text), &PutOptions{Size: int64(len(text)), IfAbsent: true}); err != nil {
		return false, fmt.Errorf("filestore: the probe cannot be written: %w", err)
	}
	defer func() { _ = d.Delete(context.WithoutCancel(ctx), key) }()
	answer, err := p.cfg.Cluster.Request(ctx, id, probeTopic, []byte(key))
	if err != nil {
		return false, fmt.Errorf("filestore: member %s could not be asked: %w", id, err)
	}
	want := sha256.Sum256([]byte(text))
	switch {
	case len(answer) == 1+len(want) && answer[0] == answerSum && bytes.Equal(answer[1:], want[:]):
		return false, nil
	case len(answer) > 0 && answer[0] == answerError:
		return true, fmt.Errorf("%w: member %s cannot read what this one wrote: %s", ErrNotShared, id, answer[1:])
	}
	return true, fmt.Errorf("%w: member %s reads something else than this one wrote", ErrNotShared, id)
}

// The first byte of an answer.
const (
	answerSum   = 1
	answerError = 2
)

// answer reads what another member wrote.
func (p *Proof) answer(ctx context.Context, from string, payload []byte) ([]byte, error) {
	key := string(payload)
	if !strings.HasPrefix(key, probeDir+from+"-") || checkGrammar(key) != nil {
		return nil, fmt.Errorf("filestore: %q is no probe of %s", key, from)
	}
	b, err := p.cfg.Store.read(ctx, key)
	if err != nil {
		return append([]byte{answerError}, err.Error()...), nil
	}
	sum := sha256.Sum256(b)
	return append([]byte{answerSum}, sum[:]...), nil
}

// Check returns nil when this process's store works and every other member that answers sees it. A member that could not be asked is a warning:
// the cluster has its own word for that. Before the first round it is an error: nothing should be written yet.
func (p *Proof) Check(context.Context) error {
	const remedy = "give every node the same shared directory or bucket, mounted and writable, and restart the one that differs"
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready || p.fault != nil {
		err := p.fault
		if err == nil {
			err = errors.New("not probed yet")
		}
		return &checkError{err: fmt.Errorf("filestore: %w", err), remedy: remedy}
	}
	var unasked error
	for _, id := range slices.Sorted(keys(p.peers)) {
		switch s := p.peers[id]; {
		case s.wrong:
			return &checkError{err: s.fault, remedy: remedy}
		case !s.shared && s.fault != nil:
			unasked = s.fault
		}
	}
	if unasked != nil {
		return &checkError{err: unasked, remedy: "see why that member does not answer", warning: true}
	}
	return nil
}

func keys(m map[string]*peer) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func newID() string {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		panic(err) // never: crypto/rand ends the process itself
	}
	return hex.EncodeToString(b)
}
