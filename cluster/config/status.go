package config

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
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

// Secrets returns the values that hold now and are marked secret, and passwords in URLs among them: what must not be shown by anything that
// writes texts, such as the console's logs and bundle.
func (s *Store[T]) Secrets() []string {
	v := reflect.ValueOf(s.now.Load().values).Elem()
	var found []string
	for _, set := range s.schema.settings {
		if set.hides {
			found = secretsIn(found, tree(marshal(set.of(v).Interface())), set.typ, set.secret)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

var inSource = regexp.MustCompile(`(?i)(?:^|[\s;&?])(?:password|pwd)=('(?:[^'\\]|\\.)*'|[^\s;&]+)|^[^:@/\s]+:(.+)@[a-z]*\(`)

// passwordIn returns the password of a data source: a URL's, that of "password=…", or of "user:password@tcp(…)".
func passwordIn(source string) (found []string) {
	if u, err := url.Parse(source); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok && password != "" {
			return []string{password}
		}
	}
	for _, m := range inSource.FindAllStringSubmatch(source, -1) {
		if p := strings.Trim(m[1]+m[2], "'"); p != "" {
			found = append(found, p)
		}
	}
	return found
}

// secretsIn adds the texts inside a value of type t that are secret.
func secretsIn(found []string, v any, t reflect.Type, secret bool) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch x := v.(type) {
	case string:
		if secret && x != "" {
			found = append(found, x)
			found = append(found, passwordIn(x)...)
		}
	case []any:
		for _, e := range x {
			if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
				found = secretsIn(found, e, t.Elem(), secret)
			}
		}
	case map[string]any:
		for name, e := range x {
			switch t.Kind() {
			case reflect.Map:
				found = secretsIn(found, e, t.Elem(), secret)
			case reflect.Struct:
				for f := range t.Fields() {
					as, _, _ := strings.Cut(f.Tag.Get("json"), ",")
					if name == cmp.Or(as, f.Name) {
						m, _ := (marks{secret: secret}).with(f.Tag.Get("nines"), "")
						found = secretsIn(found, e, f.Type, m.secret)
					}
				}
			}
		}
	}
	return found
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
