package config

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/internal/lifecycle"
)

// Version numbers what was saved over the cluster. Versions only grow; of two with one Number the greater By wins on every node.
type Version struct {
	Number uint64 // 0: never saved, as the file says
	By     string // ID of the process that saved it
}

// Compare is negative when v is older than w, 0 when they are the same, positive when v is newer.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Number, w.Number), strings.Compare(v.By, w.By))
}

// String is the number.
func (v Version) String() string { return fmt.Sprint(v.Number) }

// Store holds the configuration of this node and keeps it the same on all nodes. Its methods are safe for concurrent use.
type Store[T any] struct {
	cfg      Config[T]
	log      *slog.Logger
	schema   *schema
	env      map[string]json.RawMessage // overrides by setting
	accepted []string                   // variables that Accept took
	first    *state[T]                  // as opened: what a setting that needs a restart works with
	life     lifecycle.Life
	ended    chan struct{} // closed when methods answer ErrClosed
	endOnce  sync.Once

	now  atomic.Pointer[state[T]]
	turn chan struct{} // one slot: who changes the file and now
	wake chan struct{} // something to look at for Run
	node atomic.Pointer[cluster.Node]

	counts struct{ saves, reloads, taken, failures atomic.Uint64 }

	mu       sync.Mutex
	detach   []func()
	watchers []*watcher[T]
	trouble  *trouble // the last change that failed, until one succeeds
	tried    Version  // that could not be taken from another node
	retry    time.Time
	macs     string // value of tagSecrets
}

// state is one configuration; it never changes.
type state[T any] struct {
	values  *T
	doc     *document // of the file
	version Version
	lineage []Version // that it was made on, newest first
	print   print
	at      time.Time
	next    chan struct{} // closed when there is a newer one
}

// watcher is one OnChange.
type watcher[T any] struct {
	fn   func(old, new *T)
	last *state[T] // that it has heard of
}

// Open checks cfg, reads the file and the environment and returns a Store that holds their values. It reports every fault of them at once:
// unknown names with the nearest valid one, values of a wrong form, and what Validate says. It starts nothing.
func Open[T any](_ context.Context, cfg Config[T]) (*Store[T], error) {
	sc, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Store[T]{
		cfg: cfg, log: cfg.Logger, schema: sc, ended: make(chan struct{}), turn: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
	var envErr error
	s.env, s.accepted, envErr = sc.override(cfg.overrides(), cfg.Accept)
	doc, on, err := s.read()
	if err := joinTwo(err, envErr); err != nil {
		return nil, err
	}
	if s.first, err = s.build(doc, on.Version, on.Lineage); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	s.now.Store(s.first)
	return s, nil
}

func joinTwo(file, env error) error {
	switch {
	case file == nil && env == nil:
		return nil
	case env == nil:
		return file
	case file == nil:
		return fmt.Errorf("config: %w", env)
	}
	return fmt.Errorf("%w\n%w", file, env)
}

// read reads the file.
func (s *Store[T]) read() (*document, note, error) {
	if s.cfg.Path == "" {
		return &document{Values: map[string]json.RawMessage{}}, note{}, nil
	}
	text, err := readFile(s.cfg.Path)
	if err != nil {
		return nil, note{}, fmt.Errorf("config: file %q cannot be read: %w", s.cfg.Path, err)
	}
	doc, err := s.schema.parse(text, s.cfg.Accept)
	if err != nil {
		return nil, note{}, fmt.Errorf("config: file %q: %w", s.cfg.Path, err)
	}
	on, err := readNote(s.cfg.Path)
	if err != nil {
		return nil, note{}, fmt.Errorf("config: %w", err)
	}
	return doc, on, nil
}

// build makes effective values: the defaults, what the file says, what the environment says.
func (s *Store[T]) build(doc *document, version Version, lineage []Version) (*state[T], error) {
	values := new(T)
	*values = s.cfg.Default
	v := reflect.ValueOf(values).Elem()
	for _, from := range []map[string]json.RawMessage{doc.Values, s.env} {
		for name, raw := range from {
			set := s.schema.byName[strings.ToLower(name)]
			value, err := set.decode(raw)
			if err != nil {
				return nil, err
			}
			set.of(v).Set(value)
		}
	}
	if s.cfg.Validate != nil {
		if err := s.cfg.Validate(values); err != nil {
			return nil, err
		}
	}
	return &state[T]{
		values: values, doc: doc, version: version, lineage: lineage, print: s.schema.fingerprint(v), at: time.Now(), next: make(chan struct{}),
	}, nil
}

// Get returns the values that hold now: defaults, file, environment, the later the stronger. They are shared: do not change them. What Get
// returned stays as it is when the configuration changes; call it again.
func (s *Store[T]) Get() *T { return s.now.Load().values }

// Version returns the version of what Get returns.
func (s *Store[T]) Version() Version { return s.now.Load().version }

// Hash returns the SHA-256 of what Get returns, in hexadecimal: the same on nodes with the same configuration. Local settings are left out, and
// of secrets only whether they are set goes in.
func (s *Store[T]) Hash() string { return s.now.Load().print.hash }

// Sections returns the hash of each section that is not local.
func (s *Store[T]) Sections() map[string]string {
	sections := map[string]string{}
	maps.Copy(sections, s.now.Load().print.sections)
	return sections
}

// Accepted names what Config.Accept took, of the file and of the environment, ascending.
func (s *Store[T]) Accepted() []string {
	names := slices.Clone(s.accepted)
	for _, e := range s.now.Load().doc.Extras {
		names = append(names, strings.Join(e.Path, "."))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Watch yields the values that hold, then each that comes to hold, until ctx ends, the Store ends or the loop is left. Those between two steps
// of a slow loop may be left out, the last never.
func (s *Store[T]) Watch(ctx context.Context) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for {
			st := s.now.Load()
			if !yield(st.values) {
				return
			}
			select {
			case <-st.next:
			case <-ctx.Done():
				return
			case <-s.ended:
				return
			}
		}
	}
}

// OnChange has fn called after each change from now on, until stop is called: on one of Run's goroutines, one function at a time. Changes that
// come while it runs may be merged, the last is never lost. A nil fn panics.
func (s *Store[T]) OnChange(fn func(old, new *T)) (stop func()) {
	if fn == nil {
		panic("config: OnChange of a nil func")
	}
	w := &watcher[T]{fn: fn}
	s.mu.Lock()
	w.last = s.now.Load()
	s.watchers = append(slices.Clone(s.watchers), w)
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers = slices.DeleteFunc(slices.Clone(s.watchers), func(o *watcher[T]) bool { return o == w })
	}
}

// begin takes the turn to change something.
func (s *Store[T]) begin(ctx context.Context) error {
	select {
	case <-s.ended:
		return ErrClosed
	default:
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ended:
		return ErrClosed
	}
}

func (s *Store[T]) end() { <-s.turn }

// swap makes st what holds. The caller has the turn.
func (s *Store[T]) swap(st *state[T], why string) {
	old := s.now.Load()
	s.now.Store(st)
	close(old.next)
	s.clear()
	s.tell()
	if changed := s.changed(old, st); len(changed) > 0 || st.version != old.version {
		s.log.Info("configuration changed", "why", why, "version", st.version.Number, "hash", st.print.hash, "settings", changed)
	}
	s.poke()
}

// changed names the settings that differ.
func (s *Store[T]) changed(a, b *state[T]) []string {
	var names []string
	va, vb := reflect.ValueOf(a.values).Elem(), reflect.ValueOf(b.values).Elem()
	for _, set := range s.schema.settings {
		if !set.same(va, vb) {
			names = append(names, set.name)
		}
	}
	return names
}

// same compares a setting of two Ts.
func (s *setting) same(a, b reflect.Value) bool {
	return bytes.Equal(marshal(s.of(a).Interface()), marshal(s.of(b).Interface()))
}

func (s *Store[T]) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Reload reads the file again and makes it hold on this node. When it cannot be read or is at fault, what held before still holds, and Check
// says so. The environment is that of Open. It does not go to other nodes: Save does.
func (s *Store[T]) Reload(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	s.counts.reloads.Add(1)
	now := s.now.Load()
	doc, on, err := s.read()
	if err != nil {
		return s.fail("reload", err)
	}
	if s.cfg.Path == "" {
		return nil
	}
	if now.version.Compare(on.Version) > 0 {
		on.Version, on.Lineage = now.version, now.lineage
	}
	st, err := s.build(doc, on.Version, on.Lineage)
	if err != nil {
		return s.fail("reload", fmt.Errorf("config: file %q: %w", s.cfg.Path, err))
	}
	s.swap(st, "reload")
	return nil
}
