package config

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// schema is what T says about its settings.
type schema struct {
	root     *group
	settings []*setting // in the order of T
	sections []string   // names of the fields of T
	byName   map[string]*setting
	byEnv    map[string]*setting
}

// group is a struct of settings.
type group struct {
	name   string // "" is T
	path   string // "Section.Part"
	local  bool
	fields []member
}

// member is a field of a group: a group or a setting.
type member struct {
	name    string
	group   *group
	setting *setting
}

// setting is one value that the file or the environment may set.
type setting struct {
	name    string // "SqlSettings.DataSource"
	section string
	env     string
	index   []int
	typ     reflect.Type
	marks
	hides bool // it, or something in it, is secret
}

// marks are the words of a `nines` tag. They hold for everything below, unless that says otherwise.
type marks struct{ secret, local, restart bool }

func (m marks) with(tag, where string) (marks, error) {
	for word := range strings.SplitSeq(tag, ",") {
		switch word = strings.TrimSpace(word); word {
		case "":
		case "secret":
			m.secret = true
		case "local":
			m.local = true
		case "restart":
			m.restart = true
		case "live":
			m.restart = false
		default:
			return m, fmt.Errorf("config: the tag nines:%q of %s has the word %q; use secret, local, restart, live", tag, where, word)
		}
	}
	return m, nil
}

func newSchema(t reflect.Type, prefix string) (*schema, error) {
	sc := &schema{byName: map[string]*setting{}, byEnv: map[string]*setting{}}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("config: %s is no struct; make one with a field for each section", t)
	}
	var errs []error
	sc.root = sc.walk(t, nil, "", "", marks{}, prefix, &errs)
	for _, m := range sc.root.fields {
		sc.sections = append(sc.sections, m.name)
	}
	return sc, errors.Join(errs...)
}

func (sc *schema) walk(t reflect.Type, index []int, path, section string, above marks, prefix string, errs *[]error) *group {
	g := &group{path: path, local: above.local}
	if i := strings.LastIndexByte(path, '.'); path != "" {
		g.name = path[i+1:]
	}
	for f := range t.Fields() {
		if !f.IsExported() {
			continue
		}
		at := append(append([]int(nil), index...), f.Index...)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && options == "" {
			continue
		}
		if f.Anonymous && name == "" && isGroup(f.Type) { // as encoding/json does
			g.fields = append(g.fields, sc.walk(f.Type, at, path, section, above, prefix, errs).fields...)
			continue
		}
		if name == "" {
			name = f.Name
		}
		full := strings.TrimPrefix(path+"."+name, ".")
		m, err := above.with(f.Tag.Get("nines"), full)
		if err != nil {
			*errs = append(*errs, err)
		}
		in := section
		if in == "" {
			in = name
		}
		if isGroup(f.Type) {
			sub := sc.walk(f.Type, at, full, in, m, prefix, errs)
			g.fields = append(g.fields, member{name: name, group: sub})
			continue
		}
		s := &setting{name: full, section: in, index: at, typ: f.Type, marks: m, hides: m.secret || hides(f.Type, nil)}
		if prefix != "" {
			s.env = prefix + strings.ToUpper(strings.ReplaceAll(full, ".", "_"))
			if other := sc.byEnv[s.env]; other != nil {
				*errs = append(*errs, fmt.Errorf("config: %s and %s have the same environment variable %s; rename one", other.name, s.name, s.env))
			}
			sc.byEnv[s.env] = s
		}
		if other := sc.byName[strings.ToLower(full)]; other != nil {
			*errs = append(*errs, fmt.Errorf("config: %s and %s differ only in case; rename one", other.name, s.name))
		}
		switch f.Type.Kind() {
		case reflect.Func, reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
			*errs = append(*errs, fmt.Errorf("config: %s is a %s, which JSON cannot hold; exclude it with json:\"-\"", full, f.Type))
		}
		sc.byName[strings.ToLower(full)] = s
		sc.settings = append(sc.settings, s)
		g.fields = append(g.fields, member{name: name, setting: s})
	}
	return g
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isGroup reports whether a field's parts are settings of their own.
func isGroup(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !ownForm(t)
}

// ownForm reports whether a type says itself how it is written.
func ownForm(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler)
}

// hides reports whether something inside a value of type t is marked secret.
func hides(t reflect.Type, seen []reflect.Type) bool {
	if slices.Contains(seen, t) {
		return false
	}
	seen = append(seen, t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return hides(t.Elem(), seen)
	case reflect.Struct:
		if ownForm(t) {
			return false
		}
		for f := range t.Fields() {
			if m, _ := (marks{}).with(f.Tag.Get("nines"), ""); f.IsExported() && (m.secret || hides(f.Type, seen)) {
				return true
			}
		}
	}
	return false
}

func (s *setting) of(v reflect.Value) reflect.Value { return v.FieldByIndex(s.index) }

// find returns the member that name means, without regard to case.
func (g *group) find(name string) (member, bool) {
	for _, m := range g.fields {
		if m.name == name {
			return m, true
		}
	}
	for _, m := range g.fields {
		if strings.EqualFold(m.name, name) {
			return m, true
		}
	}
	return member{}, false
}

func (g *group) names() []string {
	names := make([]string, len(g.fields))
	for i, m := range g.fields {
		names[i] = m.name
	}
	return names
}

// nearest is the remedy for a name that is not known.
func nearest(name string, names []string) string {
	best, distance := "", len(name)/2+1
	for _, n := range names {
		if d := edits(strings.ToLower(name), strings.ToLower(n)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return "remove it"
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// edits counts the letters to insert, delete or replace that make b of a (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
