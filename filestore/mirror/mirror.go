package mirror

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/internal/lifecycle"
)

const (
	stagingDir  = ".staging"
	versionsDir = ".versions"
	stateFile   = ".state.json"

	firstRetry    = time.Second
	grace         = time.Minute // that the folder of an old version stays
	noticeTimeout = 5 * time.Second
)

// Cluster lets the mirrors tell each other of a change; *cluster.Node satisfies it.
type Cluster interface {
	ID() string
	Alive() []string
	Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func())
	Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error)
}

// Config is what New needs. Store and Dir are required.
type Config struct {
	Store   *filestore.Store // that all nodes share
	Dir     string           // of this node alone; made when it is not there
	Cluster Cluster          // nil: the nodes find changes by looking every Interval
	Prefix  string           // of the keys in the store; default "extensions"

	Interval time.Duration       // between two looks into the store; default 30 s, 100 ms to 1 h
	Keys     []ed25519.PublicKey // one of them must have signed each bundle (see Sign); none: signatures are not asked for

	MaxBundle int64 // bytes of a bundle; default 256 MiB
	MaxSize   int64 // bytes of its files, unpacked; default 1 GiB
	MaxFiles  int   // files and folders in it; default 10,000

	Logger *slog.Logger // nil is slog.Default()
}

// Extension is one installed extension as this node has it.
type Extension struct {
	ID        string    // its name
	Version   string    // as Install was told; text for people
	SHA256    string    // of the bundle, in hex
	Enabled   bool      // as SetEnabled was told
	Installed time.Time // when this version was installed
	Path      string    // the folder with its files on this node
}

// Stats are a Mirror's figures.
type Stats struct {
	Extensions int       // that this node has
	Enabled    int       // of these
	Failed     int       // that this node should have and has not, or not in the version that it should
	Syncs      int64     // looks into the store
	Fetches    int64     // bundles brought here
	Failures   int64     // looks and fetches that failed
	LastSync   time.Time // of the last look that found the store
}

// Mirror keeps a directory as the store says.
type Mirror struct {
	cfg  Config
	life lifecycle.Life
	wake chan struct{}

	syncing sync.Mutex // one at a time changes Dir

	preparing sync.Mutex
	swept     bool

	mu     sync.Mutex
	have   map[string]Extension // by ID
	failed map[string]error     // by ID
	fault  error                // of the last look
	old    map[string]time.Time // folders of old versions, by name, and since when
	known  map[string]cachedManifest
	notify map[chan<- struct{}]struct{}
	loaded bool
	stats  Stats
}

var validID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// New checks cfg and starts nothing.
func New(cfg Config) (*Mirror, error) {
	var errs []error
	bad := func(field string, value any, remedy string) {
		errs = append(errs, fmt.Errorf("mirror: Config.%s is %v: %s", field, value, remedy))
	}
	if cfg.Store == nil {
		bad("Store", "nil", "give the store that all nodes share")
	}
	if cfg.Dir == "" {
		bad("Dir", "empty", "give a directory of this node")
	}
	if v := reflect.ValueOf(cfg.Cluster); cfg.Cluster != nil && v.Kind() == reflect.Pointer && v.IsNil() {
		bad("Cluster", "a nil pointer", "give the cluster's node, or leave it out")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "extensions"
	}
	if err := filestore.CheckKey(cfg.Prefix); err != nil {
		errs = append(errs, fmt.Errorf("mirror: Config.Prefix: %w", err))
	}
	if cfg.Interval == 0 {
		cfg.Interval = 30 * time.Second
	}
	if cfg.Interval < 100*time.Millisecond || cfg.Interval > time.Hour {
		bad("Interval", cfg.Interval, "give 100ms to 1h, or 0 for 30s")
	}
	for i, key := range cfg.Keys {
		if len(key) != ed25519.PublicKeySize {
			bad(fmt.Sprintf("Keys[%d]", i), fmt.Sprintf("%d bytes", len(key)), "give a public key of 32 bytes")
		}
	}
	for field, value := range map[string]*int64{"MaxBundle": &cfg.MaxBundle, "MaxSize": &cfg.MaxSize} {
		if *value < 0 {
			bad(field, *value, "give a number of bytes, or 0 for the default")
		}
	}
	if cfg.MaxFiles < 0 {
		bad("MaxFiles", cfg.MaxFiles, "give a number of files, or 0 for 10000")
	}
	if cfg.MaxBundle == 0 {
		cfg.MaxBundle = 256 << 20
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 1 << 30
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = 10000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Mirror{
		cfg: cfg, wake: make(chan struct{}, 1), have: map[string]Extension{}, failed: map[string]error{}, old: map[string]time.Time{},
		known: map[string]cachedManifest{}, notify: map[chan<- struct{}]struct{}{},
	}, nil
}

func (m *Mirror) topic() string { return "nines.mirror." + m.cfg.Prefix }

// Run follows the store until ctx ends or Shutdown is called.
func (m *Mirror) Run(ctx context.Context) error {
	ok, err := m.life.Start()
	if !ok {
		return err
	}
	defer m.life.Finish()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-m.life.Stopping():
			cancel()
		case <-ctx.Done():
		}
	})
	if m.cfg.Cluster != nil {
		defer m.cfg.Cluster.Handle(m.topic(), m.hear)()
	}
	wait := firstRetry
	for ctx.Err() == nil {
		if err := m.sync(ctx); err != nil {
			wait = min(2*wait, m.cfg.Interval)
		} else {
			wait = firstRetry
		}
		pause := time.NewTimer(m.pause(wait))
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-pause.C:
		}
		pause.Stop()
	}
	cancel()
	wg.Wait()
	return nil
}

// pause is how long to wait for the next look: less while something is amiss.
func (m *Mirror) pause(retry time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil || len(m.failed) > 0 {
		return min(retry, m.cfg.Interval)
	}
	return m.cfg.Interval
}

// Shutdown ends Run and waits for it.
func (m *Mirror) Shutdown(ctx context.Context) error { return m.life.Stop(ctx) }

// List returns what this node has, by ID. Before the first look into the store it is what the node had when it stopped.
func (m *Mirror) List() []Extension {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.loaded {
		m.loadLocked()
	}
	return slices.SortedFunc(maps.Values(m.have), func(a, b Extension) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}

// Get returns one extension as this node has it.
func (m *Mirror) Get(id string) (Extension, bool) {
	for _, e := range m.List() {
		if e.ID == id {
			return e, true
		}
	}
	return Extension{}, false
}

// Notify sends to c, without blocking, when what List returns has changed. c should have room for one.
func (m *Mirror) Notify(c chan<- struct{}) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notify[c] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.notify, c)
	}
}

// Check returns nil when this node has what the store says, else a warning.
func (m *Mirror) Check(context.Context) error {
	if m.life.Closed() {
		return ErrClosed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.fault != nil:
		return &finding{fmt.Errorf("mirror: the store cannot be followed: %w", m.fault), "see to the store and to the directory of the extensions"}
	case m.stats.LastSync.IsZero():
		return &finding{errors.New("mirror: the store has not been looked into yet"), "wait a moment"}
	case len(m.failed) > 0:
		id := slices.Sorted(maps.Keys(m.failed))[0]
		return &finding{fmt.Errorf("mirror: extension %s is not as it should be: %w", id, m.failed[id]), "install it again, or remove it"}
	}
	return nil
}

// Stats returns the figures.
func (m *Mirror) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Extensions, s.Failed = len(m.have), len(m.failed)
	for _, e := range m.have {
		if e.Enabled {
			s.Enabled++
		}
	}
	return s
}

// Status asks every member what it has, by member ID. A member that does not answer is left out.
func (m *Mirror) Status(ctx context.Context) map[string][]Extension {
	if m.cfg.Cluster == nil {
		return map[string][]Extension{"": m.List()}
	}
	all := map[string][]Extension{m.cfg.Cluster.ID(): m.List()}
	var mu sync.Mutex
	m.ask(ctx, func(id string, answer []byte) {
		var list []Extension
		if json.Unmarshal(answer, &list) == nil {
			mu.Lock()
			defer mu.Unlock()
			all[id] = list
		}
	}, []byte{noticeStatus})
	return all
}

// What a notice says.
const (
	noticeChanged = 1
	noticeStatus  = 2
)

// ask sends a notice to every other member at once.
func (m *Mirror) ask(ctx context.Context, got func(id string, answer []byte), payload []byte) {
	if m.cfg.Cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range m.cfg.Cluster.Alive() {
		if id == m.cfg.Cluster.ID() {
			continue
		}
		wg.Go(func() {
			if answer, err := m.cfg.Cluster.Request(ctx, id, m.topic(), payload); err == nil {
				got(id, answer)
			}
		})
	}
	wg.Wait()
}

// tellOthers lets the other members look at once. Who is not reached looks by itself.
func (m *Mirror) tellOthers(ctx context.Context) {
	m.ask(ctx, func(string, []byte) {}, []byte{noticeChanged})
}

func (m *Mirror) hear(_ context.Context, _ string, payload []byte) ([]byte, error) {
	if len(payload) != 1 {
		return nil, fmt.Errorf("mirror: a notice of %d bytes", len(payload))
	}
	if payload[0] == noticeStatus {
		return json.Marshal(m.List())
	}
	m.poke()
	return nil, nil
}

func (m *Mirror) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// changedLocked tells those who asked for it.
func (m *Mirror) changedLocked() {
	for c := range m.notify {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// loadLocked reads what the node had when it stopped.
func (m *Mirror) loadLocked() {
	m.loaded = true
	b, err := os.ReadFile(filepath.Join(m.cfg.Dir, stateFile))
	var list []Extension
	if err != nil || json.Unmarshal(b, &list) != nil {
		return
	}
	for _, e := range list {
		if fi, err := os.Stat(e.Path); validID.MatchString(e.ID) && err == nil && fi.IsDir() && filepath.Dir(e.Path) == m.versions() {
			m.have[e.ID] = e
		}
	}
}

func (m *Mirror) versions() string { return filepath.Join(m.cfg.Dir, versionsDir) }
