package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
)

// SaveOptions are the extras of Save.
type SaveOptions struct {
	// If is the version that the change was made for: another one is ErrConflict. Nil: whichever holds.
	If *Version
}

const saveAttempts = 20

// Save changes the configuration on every node. fn gets a copy of the values that hold here and changes it; it may run again, when somebody else
// saves at the same time: of two Saves one comes first everywhere, and the other is made on top of it.
//
// First all nodes are asked whether they can take it: a node that is read only, does not know a setting or whose Validate refuses is ErrRefused
// (or ErrReadOnly) with its reason, and nothing has changed. Then it is written and holds here, and then everywhere. Save returns nil when
// every member has it, has left, is dead or was declared failed (that one catches up when it is back); *cluster.PeersError names those
// that had not answered when ctx ended, which catch up as well.
//
// What the environment sets is never written: a change of such a setting is ErrOverridden. A change of a local setting holds on this node alone.
func (s *Store[T]) Save(ctx context.Context, fn func(c *T) error, opts *SaveOptions) error {
	if fn == nil {
		panic("config: Save of a nil func")
	}
	select {
	case <-s.ended:
		return ErrClosed
	default:
	}
	if n := s.node.Load(); n != nil {
		if err := settled(ctx, n); err != nil {
			return fmt.Errorf("config: save: %w", err)
		}
	}
	for i := range saveAttempts {
		err := s.save(ctx, fn, opts)
		if !errors.Is(err, errAgain) {
			if err == nil {
				s.counts.saves.Add(1)
			}
			return err
		}
		if opts != nil && opts.If != nil {
			return ErrConflict
		}
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(10*time.Millisecond) << min(i, 5)))):
		case <-ctx.Done():
			return fmt.Errorf("config: save: %w", context.Cause(ctx))
		}
	}
	return ErrConflict
}

// errAgain: somebody else was first.
var errAgain = errors.New("config: once more")

func (s *Store[T]) save(ctx context.Context, fn func(c *T) error, opts *SaveOptions) error {
	base := s.now.Load()
	if s.readOnly(base) {
		return fmt.Errorf("%w: change the file on every node and reload", ErrReadOnly)
	}
	if opts != nil && opts.If != nil && base.version != *opts.If {
		return ErrConflict
	}
	doc, err := s.change(base, fn)
	if err != nil {
		return err
	}
	n := s.node.Load()
	version := Version{Number: base.version.Number + 1, By: "alone"}
	if n != nil {
		version.By = n.ID()
	}
	st, err := s.build(doc, version, descend(base))
	if err != nil {
		return fmt.Errorf("config: save: %w", err)
	}
	out := parcel{version, st.lineage, s.schema.travelling(doc)}
	if n != nil {
		if err := s.prepare(ctx, n, out); err != nil {
			return err
		}
	}
	if err := s.commit(ctx, base, st); err != nil || n == nil {
		return err
	}
	failed, newer := s.everywhere(ctx, n, topicApply, out)
	if newer != "" {
		if err := s.pull(ctx, n, newer); err != nil {
			return fmt.Errorf("config: save: %w", err)
		}
	}
	if !s.now.Load().holds(version) {
		return errAgain // another Save of the same moment came first
	}
	if len(failed) > 0 {
		return &cluster.PeersError{Failed: failed}
	}
	return nil
}

// prepare asks every member whether it can take what is to be saved.
func (s *Store[T]) prepare(ctx context.Context, n *cluster.Node, out parcel) error {
	failed, newer := s.everywhere(ctx, n, topicPrepare, out)
	var errs []error
	for id, err := range failed {
		var re *cluster.RemoteError
		if !errors.As(err, &re) {
			return &cluster.PeersError{Failed: failed} // nobody knows whether it could take it
		}
		kind := ErrRefused
		if strings.HasPrefix(re.Text, ErrReadOnly.Error()) {
			kind = ErrReadOnly
		}
		errs = append(errs, fmt.Errorf("%w: %s: %s", kind, nameOf(n, id), re.Text))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if newer == "" {
		return nil
	}
	if err := s.pull(ctx, n, newer); err != nil {
		return fmt.Errorf("config: save: %w", err)
	}
	return errAgain
}

// commit writes st, if base still holds.
func (s *Store[T]) commit(ctx context.Context, base, st *state[T]) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if s.now.Load() != base {
		return errAgain
	}
	if err := s.write(st); err != nil {
		return s.fail("save", err)
	}
	s.swap(st, "save")
	return nil
}

// write puts st into the file. The caller has the turn.
func (s *Store[T]) write(st *state[T]) error {
	if s.cfg.Path == "" {
		return nil
	}
	if err := writeFile(s.cfg.Path, s.schema.render(st.doc)); err != nil {
		return fmt.Errorf("config: file %q cannot be written: %w", s.cfg.Path, err)
	}
	// After the file: a crash between the two leaves a version that is too low, and is caught up.
	if err := replace(s.cfg.Path+noteSuffix, append(marshal(note{st.version, st.lineage, st.at}), '\n'), fileMode); err != nil {
		return fmt.Errorf("config: file %q cannot be written: %w", s.cfg.Path+noteSuffix, err)
	}
	return nil
}

func (s *Store[T]) readOnly(st *state[T]) bool {
	return s.cfg.ReadOnly != nil && s.cfg.ReadOnly(st.values)
}

// change runs fn on a copy of the effective values and returns what the file says then.
func (s *Store[T]) change(base *state[T], fn func(c *T) error) (*document, error) {
	copied := new(T)
	*copied = *base.values
	now, before := reflect.ValueOf(copied).Elem(), reflect.ValueOf(base.values).Elem()
	for _, set := range s.schema.settings { // so that fn cannot change what is shared
		value, err := set.decode(marshal(set.of(before).Interface()))
		if err != nil {
			return nil, fmt.Errorf("config: save: %w", err)
		}
		set.of(now).Set(value)
	}
	if err := fn(copied); err != nil {
		return nil, err
	}
	doc := base.doc.clone()
	var errs []error
	for _, set := range s.schema.settings {
		switch _, overridden := s.env[set.name]; {
		case set.same(before, now):
		case overridden:
			errs = append(errs, fmt.Errorf("%w: %s: change %s of this process, or unset it", ErrOverridden, set.name, set.env))
		default:
			doc.Values[set.name] = marshal(set.of(now).Interface())
		}
	}
	return doc, errors.Join(errs...)
}

// parcel is what travels.
type parcel struct {
	Version  Version
	Lineage  []Version
	Document *document `json:",omitempty"`
}

const maxLineage = 64

// descend is the lineage of what is made on st.
func descend[T any](st *state[T]) []Version {
	line := append([]Version{st.version}, st.lineage...)
	return line[:min(len(line), maxLineage)]
}

// holds reports whether st is version v or was made on it.
func (st *state[T]) holds(v Version) bool {
	return st.version == v || slices.Contains(st.lineage, v)
}

// travelling is what other nodes take of d: all but local settings.
func (sc *schema) travelling(d *document) *document {
	out := &document{Values: map[string]json.RawMessage{}}
	for name, raw := range d.Values {
		if !sc.byName[strings.ToLower(name)].local {
			out.Values[name] = raw
		}
	}
	for _, e := range d.Extras {
		if !sc.isLocal(e.Path) {
			out.Extras = append(out.Extras, e)
		}
	}
	return out
}

// isLocal reports whether the group that an unknown name stands in is local.
func (sc *schema) isLocal(path []string) bool {
	g := sc.root
	for _, name := range path {
		m, ok := g.find(name)
		if !ok || m.group == nil {
			return g.local
		}
		g = m.group
	}
	return g.local
}

// merged is what the file of this node says when it takes d: d, and its own local settings.
func (s *Store[T]) merged(own, d *document) (*document, error) {
	out := &document{Values: map[string]json.RawMessage{}}
	var errs []error
	accept := accepts(s.cfg.Accept)
	for _, name := range sortedKeys(d.Values) {
		switch set := s.schema.byName[strings.ToLower(name)]; {
		case set == nil && accept.ok(name):
			out.Extras = append(out.Extras, extra{strings.Split(name, "."), d.Values[name]})
		case set == nil:
			errs = append(errs, fmt.Errorf("setting %s is not known to this version of the program", name))
		case !set.local:
			if _, err := set.decode(d.Values[name]); err != nil {
				errs = append(errs, err)
			}
			out.Values[set.name] = d.Values[name]
		}
	}
	for _, e := range d.Extras {
		if name := strings.Join(e.Path, "."); !accept.ok(name) {
			errs = append(errs, fmt.Errorf("setting %s is not known to this version of the program", name))
		} else if !s.schema.isLocal(e.Path) {
			out.Extras = append(out.Extras, e)
		}
	}
	for name, raw := range own.Values {
		if s.schema.byName[strings.ToLower(name)].local {
			out.Values[name] = raw
		}
	}
	for _, e := range own.Extras {
		if s.schema.isLocal(e.Path) {
			out.Extras = append(out.Extras, e)
		}
	}
	return out, errors.Join(errs...)
}

// candidate is what in would make of this node's configuration.
func (s *Store[T]) candidate(now *state[T], in parcel) (*state[T], error) {
	if s.readOnly(now) {
		return nil, fmt.Errorf("%w", ErrReadOnly)
	}
	if in.Document == nil {
		return nil, errors.New("config: nothing came")
	}
	doc, err := s.merged(now.doc, in.Document)
	if err != nil {
		return nil, err
	}
	return s.build(doc, in.Version, in.Lineage)
}

// take makes what another node saved hold here, if it is newer, and returns the version that holds then.
func (s *Store[T]) take(ctx context.Context, from string, in parcel) (Version, error) {
	if err := s.begin(ctx); err != nil {
		return Version{}, err
	}
	defer s.end()
	now := s.now.Load()
	if in.Version.Compare(now.version) <= 0 {
		return now.version, nil
	}
	st, err := s.candidate(now, in)
	if err == nil {
		err = s.write(st)
	}
	if err != nil {
		return now.version, s.fail("take version "+in.Version.String()+" of "+from, err)
	}
	s.counts.taken.Add(1)
	if now.version.Number > 0 && !st.holds(now.version) {
		s.log.Warn("what was saved here while others saved too is replaced", "version", now.version.Number, "settings", s.changed(now, st))
	}
	s.swap(st, "saved on "+from)
	return st.version, nil
}

// pull takes what a member has.
func (s *Store[T]) pull(ctx context.Context, n *cluster.Node, id string) error {
	in, err := cluster.RequestJSON[parcel](ctx, n, id, topicGet, struct{}{})
	if err != nil {
		return err
	}
	_, err = s.take(ctx, nameOf(n, id), in)
	return err
}

// everywhere asks all members but this one, and returns those that failed, and one that has a newer version.
func (s *Store[T]) everywhere(ctx context.Context, n *cluster.Node, topic string, out parcel) (failed map[string]error, newer string) {
	failed = map[string]error{}
	self := n.ID()
	highest := out.Version
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range n.Alive() {
		if id == self {
			continue
		}
		wg.Go(func() {
			has, err := s.ask(ctx, n, id, topic, out)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed[id] = err
			case has.Compare(highest) > 0 || topic == topicPrepare && has.Compare(out.Version) >= 0:
				highest, newer = has, id
			}
		})
	}
	wg.Wait()
	return failed, newer
}

// ask asks one member for the version that it has after topic, and returns nil too when it need not answer any more.
func (s *Store[T]) ask(ctx context.Context, n *cluster.Node, id, topic string, out parcel) (Version, error) {
	changed := make(chan struct{}, 1)
	defer n.Notify(changed)()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		v   Version
		err error
	}
	done := make(chan answer, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		v, err := cluster.RequestJSON[Version](asking, n, id, topic, out)
		done <- answer{v, err}
	})
	defer wg.Wait()
	for {
		select {
		case a := <-done:
			switch {
			case errors.Is(a.err, cluster.ErrNoMember), errors.Is(a.err, cluster.ErrNoHandler), a.err != nil && n.Fate(id) == cluster.FateFailed:
				return Version{}, nil // gone, or without a Store, or it will catch up
			}
			return a.v, a.err
		case <-changed:
			if n.Fate(id) == cluster.FateFailed {
				cancel()
				return Version{}, nil
			}
		}
	}
}

// settled waits until the node knows who is here.
func settled(ctx context.Context, n *cluster.Node) error {
	changed := make(chan struct{}, 1)
	defer n.Notify(changed)()
	for n.Alive() == nil {
		if err := n.Check(ctx); errors.Is(err, cluster.ErrClosed) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func nameOf(n *cluster.Node, id string) string {
	for _, m := range n.Members() {
		if m.ID == id && m.Name != "" {
			return m.Name
		}
	}
	return id
}
