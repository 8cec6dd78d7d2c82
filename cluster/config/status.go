package config

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Setting is one setting as it holds on this node.
type Setting struct {
	Name     string // "SqlSettings.DataSource"
	Section  string
	Value    string // JSON; "(secret)" or "(no secret)" in place of what is marked secret
	Source   Source
	Env      string // the variable that would override it, or does
	Live     bool   // a change holds at once; else at the next start of the process
	Pending  bool   // it was changed since the process started and is not live
	Local    bool   // of this node alone: not compared, not sent
	Secret   bool
	Override string `json:",omitempty"` // JSON; what the file says in place of what the environment says
}

// Source is where a value comes from.
type Source string

// The sources, the later the stronger.
const (
	SourceDefault     Source = "default"
	SourceFile        Source = "file"
	SourceEnvironment Source = "environment"
)

// Settings lists all settings in the order of T, with where each value comes from. No secret is in it.
func (s *Store[T]) Settings() []Setting {
	st := s.now.Load()
	v, opened := reflect.ValueOf(st.values).Elem(), reflect.ValueOf(s.first.values).Elem()
	list := make([]Setting, 0, len(s.schema.settings))
	for _, set := range s.schema.settings {
		out := Setting{
			Name: set.name, Section: set.section, Source: SourceDefault, Env: set.env, Live: !set.restart, Local: set.local, Secret: set.hides,
			Pending: set.restart && !set.same(v, opened),
		}
		out.Value = plain(set.shown(set.of(v)))
		file, inFile := st.doc.Values[set.name]
		if inFile {
			out.Source = SourceFile
		}
		if _, ok := s.env[set.name]; ok {
			out.Source = SourceEnvironment
			if value, err := set.decode(file); inFile && err == nil {
				out.Override = plain(set.shown(value))
			}
		}
		list = append(list, out)
	}
	return list
}

func plain(v any) string {
	if v == secretSet || v == secretUnset {
		return fmt.Sprint(v)
	}
	return string(marshal(v))
}

// trouble is why a change does not hold here.
type trouble struct {
	verb string
	err  error
	at   time.Time
}

func (s *Store[T]) fail(verb string, err error) error {
	s.counts.failures.Add(1)
	s.mu.Lock()
	s.trouble = &trouble{verb, err, time.Now()}
	s.mu.Unlock()
	return err
}

func (s *Store[T]) clear() {
	s.mu.Lock()
	s.trouble = nil
	s.mu.Unlock()
}

// Stats are the figures of a Store.
type Stats struct {
	Path     string
	Version  uint64
	SavedBy  string // ID of the process that saved the version
	Hash     string
	ReadOnly bool
	Since    time.Time // these values hold
	Settings int
	Pending  []string // settings that were changed and hold at the next start only
	Overrides,
	Accepted int // settings that the environment sets; names that Accept took
	Saves    uint64 // by this node, that came through
	Taken    uint64 // versions of other nodes
	Reloads  uint64
	Failures uint64 // of Save, Reload and of what came from others
}

// Stats returns the figures.
func (s *Store[T]) Stats() Stats {
	st := s.now.Load()
	return Stats{
		Path: s.cfg.Path, Version: st.version.Number, SavedBy: st.version.By, Hash: st.print.hash, ReadOnly: s.readOnly(st), Since: st.at,
		Settings: len(s.schema.settings), Pending: s.pending(st), Overrides: len(s.env), Accepted: len(s.Accepted()),
		Saves: s.counts.saves.Load(), Taken: s.counts.taken.Load(), Reloads: s.counts.reloads.Load(), Failures: s.counts.failures.Load(),
	}
}

func (s *Store[T]) pending(st *state[T]) []string {
	var names []string
	v, opened := reflect.ValueOf(st.values).Elem(), reflect.ValueOf(s.first.values).Elem()
	for _, set := range s.schema.settings {
		if set.restart && !set.same(v, opened) {
			names = append(names, set.name)
		}
	}
	return names
}

// finding is what Check returns: the node serves with the values that held before, so it is a warning.
type finding struct {
	text, remedy string
	err          error
}

func (f *finding) Error() string  { return f.text }
func (f *finding) Remedy() string { return f.remedy }
func (f *finding) Warning() bool  { return true }
func (f *finding) Unwrap() error  { return f.err }

// Check returns nil, a warning (Warning and Remedy are its methods) when the last change does not hold here, when others have a newer version or
// when settings wait for a restart, and ErrClosed after the end.
func (s *Store[T]) Check(context.Context) error {
	select {
	case <-s.ended:
		return ErrClosed
	default:
	}
	s.mu.Lock()
	t := s.trouble
	s.mu.Unlock()
	st := s.now.Load()
	if t != nil {
		return &finding{
			text:   fmt.Sprintf("config: could not %s at %s, version %s still holds: %v", t.verb, t.at.Format(time.TimeOnly), st.version, t.err),
			remedy: "mend what it says and reload, or save again", err: t.err,
		}
	}
	if n := s.node.Load(); n != nil && s.readOnly(st) {
		for _, id := range n.Alive() {
			if v, _, ok := told(n.Tag(id, tagHash)); ok && v.Compare(st.version) > 0 {
				return &finding{
					text:   fmt.Sprintf("config: this node is read only and at version %s, %s at version %s", st.version, nameOf(n, id), v),
					remedy: "copy the file of that node, with its .version, and reload",
				}
			}
		}
	}
	if names := s.pending(st); len(names) > 0 {
		return &finding{text: "config: changed and not in use yet: " + strings.Join(names, ", "), remedy: "restart this node"}
	}
	return nil
}
