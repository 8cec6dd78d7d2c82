package console

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
)

// encode writes any product's figures as JSON: fields in the order of the struct, names in snake case, durations in seconds with that unit
// in their name, times as RFC 3339. What cannot be written is told in its place.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	write(&b, reflect.ValueOf(v), 0)
	return b.Bytes()
}

const maxDepth = 8

var (
	durationType  = reflect.TypeFor[time.Duration]()
	timeType      = reflect.TypeFor[time.Time]()
	marshalerType = reflect.TypeFor[json.Marshaler]()
	textType      = reflect.TypeFor[encoding.TextMarshaler]()
	errorType     = reflect.TypeFor[error]()
	stringerType  = reflect.TypeFor[fmt.Stringer]()
)

func write(b *bytes.Buffer, v reflect.Value, depth int) {
	if !v.IsValid() || depth > maxDepth {
		b.WriteString("null")
		return
	}
	switch t := v.Type(); {
	case t == durationType:
		writeJSON(b, time.Duration(v.Int()).Seconds())
		return
	case t == timeType:
		if at, _ := reflect.TypeAssert[time.Time](v); at.IsZero() {
			b.WriteString("null")
		} else {
			writeJSON(b, at)
		}
		return
	case nillable(v) && v.IsNil():
		b.WriteString("null")
		return
	case t.Implements(errorType):
		err, _ := reflect.TypeAssert[error](v)
		writeJSON(b, err.Error())
		return
	case t.Implements(marshalerType), t.Implements(textType):
		writeJSON(b, v.Interface())
		return
	case t.Implements(stringerType) && v.Kind() != reflect.Struct:
		s, _ := reflect.TypeAssert[fmt.Stringer](v)
		writeJSON(b, s.String())
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		write(b, v.Elem(), depth)
	case reflect.Struct:
		writeStruct(b, v, depth)
	case reflect.Map:
		writeMap(b, v, depth)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			writeJSON(b, fmt.Sprintf("%x", v.Interface()))
			return
		}
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, v.Index(i), depth+1)
		}
		b.WriteByte(']')
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		b.WriteString("null")
	default:
		writeJSON(b, v.Interface())
	}
}

func nillable(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice, reflect.Chan, reflect.Func:
		return true
	}
	return false
}

func writeStruct(b *bytes.Buffer, v reflect.Value, depth int) {
	b.WriteByte('{')
	first := true
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.IsExported() || f.Anonymous && f.Type.Kind() == reflect.Struct || len(f.Index) > 1 && !promoted(v.Type(), f) {
			continue
		}
		fv, err := v.FieldByIndexErr(f.Index)
		if err != nil {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		name := snake(f.Name)
		if f.Type == durationType && !strings.HasSuffix(name, "_seconds") {
			name += "_seconds"
		}
		writeJSON(b, name)
		b.WriteByte(':')
		write(b, fv, depth+1)
	}
	b.WriteByte('}')
}

// promoted reports whether f is the field that its name selects.
func promoted(t reflect.Type, f reflect.StructField) bool {
	g, ok := t.FieldByName(f.Name)
	return ok && slices.Equal(g.Index, f.Index)
}

func writeMap(b *bytes.Buffer, v reflect.Value, depth int) {
	keys := v.MapKeys()
	names := make(map[string]reflect.Value, len(keys))
	for _, k := range keys {
		names[fmt.Sprint(k.Interface())] = v.MapIndex(k)
	}
	b.WriteByte('{')
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for i, name := range sorted {
		if i > 0 {
			b.WriteByte(',')
		}
		writeJSON(b, name)
		b.WriteByte(':')
		write(b, names[name], depth+1)
	}
	b.WriteByte('}')
}

func writeJSON(b *bytes.Buffer, v any) {
	out, err := json.Marshal(v)
	if err != nil {
		out, _ = json.Marshal(err.Error())
	}
	b.Write(out)
}

// snake turns OpenConnections into open_connections and LeaderID into leader_id.
func snake(name string) string {
	var b strings.Builder
	rs := []rune(name)
	for i, r := range rs {
		if unicode.IsUpper(r) {
			startsWord := i > 0 && (!unicode.IsUpper(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1]))
			if startsWord && rs[i-1] != '_' {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
