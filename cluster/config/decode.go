package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// document is what one file says, or what travels: settings by name, and names that T does not have and Accept took.
type document struct {
	Values map[string]json.RawMessage
	Extras []extra `json:",omitempty"`
}

type extra struct {
	Path  []string
	Value json.RawMessage
}

func (d *document) clone() *document {
	c := &document{Values: make(map[string]json.RawMessage, len(d.Values)), Extras: slices.Clone(d.Extras)}
	maps.Copy(c.Values, d.Values)
	return c
}

// accepts judges names that are not known.
type accepts func(name string) bool

func (a accepts) ok(name string) bool { return a != nil && a(name) }

// parse reads a file. It tells every fault at once, and never the value of a secret.
func (sc *schema) parse(text []byte, accept accepts) (*document, error) {
	d := &document{Values: map[string]json.RawMessage{}}
	if len(bytes.TrimSpace(text)) == 0 {
		return d, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	var raw json.RawMessage
	err := dec.Decode(&raw)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("something follows the closing brace")
		}
	}
	if err != nil {
		offset := dec.InputOffset()
		if se := (*json.SyntaxError)(nil); errors.As(err, &se) {
			offset = se.Offset
		}
		return nil, fmt.Errorf("it is not JSON (%v, line %d)", err, bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))+1)
	}
	var errs []error
	sc.parseGroup(d, sc.root, nil, raw, accept, &errs)
	return d, errors.Join(errs...)
}

func (sc *schema) parseGroup(d *document, g *group, path []string, raw json.RawMessage, accept accepts, errs *[]error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		what := "the file"
		if g.path != "" {
			what = g.path
		}
		*errs = append(*errs, fmt.Errorf("%s is not a JSON object: write {…}", what))
		return
	}
	for _, key := range sortedKeys(fields) {
		value := fields[key]
		m, ok := g.find(key)
		here := append(slices.Clone(path), key)
		switch {
		case !ok && accept.ok(strings.Join(here, ".")):
			d.Extras = append(d.Extras, extra{here, value})
		case !ok:
			*errs = append(*errs, fmt.Errorf("setting %s is not known: %s", strings.Join(here, "."), nearest(key, g.names())))
		case string(value) == "null": // says nothing
		case m.group != nil:
			sc.parseGroup(d, m.group, append(slices.Clone(path), m.name), value, accept, errs)
		default:
			if _, err := m.setting.decode(value); err != nil {
				*errs = append(*errs, err)
			}
			d.Values[m.setting.name] = value
		}
	}
}

// decode makes a value of JSON.
func (s *setting) decode(raw json.RawMessage) (reflect.Value, error) {
	v := reflect.New(s.typ)
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v.Interface()); err != nil {
		text := string(raw)
		if s.hides {
			text = "not of the right form"
		} else if len(text) > 100 {
			text = text[:100] + "…"
		}
		if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return v.Elem(), fmt.Errorf("%s has the field %s, which is not known: %s", s.name, field, nearest(strings.Trim(field, `"`), fieldsIn(s.typ)))
		}
		return v.Elem(), fmt.Errorf("%s is %s: give %s", s.name, text, form(s.typ))
	}
	return v.Elem(), nil
}

// fieldsIn are the names of the structs inside a type.
func fieldsIn(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct {
		for f := range t.Fields() {
			names = append(names, f.Name)
		}
	}
	return names
}

var durationType = reflect.TypeFor[time.Duration]()

// fromText makes JSON of an environment variable.
func (s *setting) fromText(text string) (json.RawMessage, error) {
	bad := func() (json.RawMessage, error) {
		shown := strconv.Quote(text)
		if s.hides {
			shown = "not of the right form"
		}
		return nil, fmt.Errorf("environment variable %s is %s: give %s", s.env, shown, form(s.typ))
	}
	t := s.typ
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var v any
	var err error
	switch {
	case t == durationType:
		if v, err = time.ParseDuration(text); err != nil {
			v, err = strconv.ParseInt(text, 10, 64)
		}
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		p := reflect.New(t)
		u, _ := reflect.TypeAssert[encoding.TextUnmarshaler](p)
		err = u.UnmarshalText([]byte(text))
		v = p.Interface()
	case t.Kind() == reflect.String:
		v = text
	case t.Kind() == reflect.Bool:
		v, err = strconv.ParseBool(text)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String && !strings.HasPrefix(strings.TrimSpace(text), "["):
		v = strings.Fields(text)
	default:
		v = json.RawMessage(text)
		if !json.Valid([]byte(text)) {
			return bad()
		}
	}
	if err != nil {
		return bad()
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return bad()
	}
	if _, err := s.decode(raw); err != nil {
		return bad()
	}
	return raw, nil
}

// form says in words what a setting of type t takes.
func form(t reflect.Type) string {
	if t == durationType {
		return `a duration in nanoseconds (in an environment variable also "1m30s")`
	}
	switch t.Kind() {
	case reflect.Pointer:
		return form(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number" + within(t)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative" + within(t)
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.String {
			return "a list of texts"
		}
		return "a list"
	case reflect.Map:
		return "an object"
	}
	return "a " + t.String()
}

func within(t reflect.Type) string {
	if t.Bits() == 64 {
		return ""
	}
	return fmt.Sprintf(" of %d bits", t.Bits())
}

// override reads the environment.
func (sc *schema) override(env map[string]string, accept accepts) (values map[string]json.RawMessage, accepted []string, err error) {
	values = map[string]json.RawMessage{}
	var errs []error
	for _, name := range sortedKeys(env) {
		s := sc.byEnv[name]
		if s == nil {
			if accept.ok(name) {
				accepted = append(accepted, name)
				continue
			}
			errs = append(errs, fmt.Errorf("environment variable %s names no known setting: %s", name, nearest(name, sortedKeys(sc.byEnv))))
			continue
		}
		raw, err := s.fromText(env[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		values[s.name] = raw
	}
	return values, accepted, errors.Join(errs...)
}
