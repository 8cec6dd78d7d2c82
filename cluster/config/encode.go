package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
)

// What stands for a secret in a hash and wherever values are shown.
const (
	secretSet   = "(secret)"
	secretUnset = "(no secret)"
)

// marshal is JSON as it is everywhere here: no HTML escapes, no line end.
func marshal(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return json.RawMessage(`"` + strings.Map(func(r rune) rune {
			if r < ' ' || r == '"' || r == '\\' {
				return ' '
			}
			return r
		}, err.Error()) + `"`)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// tree is a value as maps, lists and numbers, whose JSON has sorted keys.
func tree(raw json.RawMessage) any {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	_ = dec.Decode(&v)
	return v
}

// shown is a setting's value without its secrets.
func (s *setting) shown(v reflect.Value) any {
	if s.secret {
		return mark(v)
	}
	raw := marshal(v.Interface())
	if !s.hides {
		return tree(raw)
	}
	return mask(tree(raw), s.typ)
}

func mark(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			return secretUnset
		}
	default:
		if v.IsZero() {
			return secretUnset
		}
	}
	return secretSet
}

// mask replaces what is marked secret inside a value of type t.
func mask(v any, t reflect.Type) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch x := v.(type) {
	case []any:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			for i := range x {
				x[i] = mask(x[i], t.Elem())
			}
		}
	case map[string]any:
		switch t.Kind() {
		case reflect.Map:
			for k := range x {
				x[k] = mask(x[k], t.Elem())
			}
		case reflect.Struct:
			maskStruct(x, t)
		}
	}
	return v
}

func maskStruct(x map[string]any, t reflect.Type) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" && isGroup(f.Type) {
			maskStruct(x, f.Type)
			continue
		}
		if name == "" {
			name = f.Name
		}
		value, ok := x[name]
		if !ok {
			continue
		}
		if m, _ := (marks{}).with(f.Tag.Get("nines"), ""); m.secret {
			x[name] = secretSet
			if isEmpty(value) {
				x[name] = secretUnset
			}
			continue
		}
		x[name] = mask(value, f.Type)
	}
}

func isEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case json.Number:
		return v == "0"
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// print is the fingerprint of effective values.
type print struct {
	hash     string            // of everything, hex
	sections map[string]string // hash of each section that is not local, hex
	secrets  map[string][]byte // canonical JSON of the settings with secrets, of each section that has some
}

// fingerprint hashes values: SHA-256 of their canonical JSON (sorted keys, no white space), local settings left out, secrets replaced by a mark.
func (sc *schema) fingerprint(v reflect.Value) print {
	p := print{sections: map[string]string{}, secrets: map[string][]byte{}}
	all := map[string]any{}
	hidden := map[string]map[string]any{}
	for _, s := range sc.settings {
		if s.local {
			continue
		}
		section, _ := all[s.section].(map[string]any)
		if section == nil {
			section = map[string]any{}
			all[s.section] = section
		}
		section[s.name] = s.shown(s.of(v))
		if s.hides {
			if hidden[s.section] == nil {
				hidden[s.section] = map[string]any{}
			}
			hidden[s.section][s.name] = tree(marshal(s.of(v).Interface()))
		}
	}
	for name, section := range all {
		p.sections[name] = digest(marshal(section))
	}
	for name, section := range hidden {
		p.secrets[name] = marshal(section)
	}
	p.hash = digest(marshal(all))
	return p
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// render writes a file: sections and settings in the order of T, only those that it sets, and the accepted names after them.
func (sc *schema) render(d *document) []byte {
	var b bytes.Buffer
	sc.renderGroup(&b, sc.root, nil, d)
	var out bytes.Buffer
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return append(b.Bytes(), '\n')
	}
	out.WriteByte('\n')
	return out.Bytes()
}

func (sc *schema) renderGroup(b *bytes.Buffer, g *group, path []string, d *document) {
	b.WriteByte('{')
	first := true
	put := func(name string, value []byte) {
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.Write(marshal(name))
		b.WriteByte(':')
		b.Write(value)
	}
	for _, m := range g.fields {
		if m.setting != nil {
			if raw, ok := d.Values[m.setting.name]; ok {
				put(m.name, raw)
			}
			continue
		}
		here := append(append([]string(nil), path...), m.name)
		if sc.sets(d, m.group, here) {
			var sub bytes.Buffer
			sc.renderGroup(&sub, m.group, here, d)
			put(m.name, sub.Bytes())
		}
	}
	for _, e := range d.Extras {
		if len(e.Path) == len(path)+1 && equalFold(e.Path[:len(path)], path) {
			put(e.Path[len(path)], e.Value)
		}
	}
	b.WriteByte('}')
}

// sets reports whether d says anything about a group.
func (sc *schema) sets(d *document, g *group, path []string) bool {
	for name := range d.Values {
		if strings.HasPrefix(name, g.path+".") {
			return true
		}
	}
	for _, e := range d.Extras {
		if len(e.Path) > len(path) && equalFold(e.Path[:len(path)], path) {
			return true
		}
	}
	return false
}

func equalFold(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !strings.EqualFold(a[i], b[i]) {
			return false
		}
	}
	return true
}
