package console

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const hidden = "(secret)"

// hider takes secrets out of texts: those that it was told of, and whatever looks like one.
type hider struct{ exact *strings.Replacer }

const minSecret = 4 // shorter ones would hide half of every text

func newHider(secrets func() []string) hider {
	if secrets == nil {
		return hider{}
	}
	var all []string
	for _, s := range secrets() {
		if len(s) < minSecret {
			continue
		}
		quoted, _ := json.Marshal(s)
		all = append(all, s, url.QueryEscape(s), url.PathEscape(s), strings.Trim(string(quoted), `"`))
	}
	if len(all) == 0 {
		return hider{}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // a secret may be within another
	pairs := make([]string, 0, 2*len(all))
	for _, s := range slices.Compact(all) {
		pairs = append(pairs, s, hidden)
	}
	return hider{strings.NewReplacer(pairs...)}
}

var (
	secretNames = regexp.MustCompile(`(?i)(passw(or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|encryption[_-]?key|authorization|cookie|credential|dsn|data_?source)`)
	inURL       = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@"']*):([^\s@"']+)@`)
	inDSN       = regexp.MustCompile(`(^|[\s"'(=])([A-Za-z0-9_.-]+):([^\s@"':/]+)@(tcp|unix|udp)?\(`)
	inPairs     = regexp.MustCompile(`(?i)\b((?:[a-z0-9]+[_-])*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|sslkey|authorization)(?:[_-][a-z0-9]+)*"?\s*[=:]\s*"?)((?:bearer\s+|basic\s+)?[^\s&;,"'}\]]+)`)
	inBearer    = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
	aKey        = regexp.MustCompile(`(^|[^A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{43}=`) // 32 bytes in base64: a key of the cluster
)

// text takes secrets out of a text.
func (h hider) text(s string) string {
	if h.exact != nil {
		s = h.exact.Replace(s)
	}
	s = inURL.ReplaceAllString(s, "${1}:"+hidden+"@")
	s = inDSN.ReplaceAllString(s, "${1}${2}:"+hidden+"@${4}(")
	s = inPairs.ReplaceAllString(s, "${1}"+hidden)
	s = inBearer.ReplaceAllString(s, "${1} "+hidden)
	return aKey.ReplaceAllString(s, "${1}"+hidden)
}

// file takes secrets out of a file of the bundle: out of the strings of JSON, so that it stays JSON, or out of the whole text.
func (h hider) file(name string, b []byte) []byte {
	switch {
	case !utf8.Valid(b):
		return b
	case strings.HasSuffix(name, ".json"):
		return h.json(b, "  ")
	case strings.HasSuffix(name, ".jsonl"):
		var out []byte
		for line := range bytes.Lines(b) {
			out = append(append(out, bytes.TrimSpace(h.json(line, ""))...), '\n')
		}
		return out
	}
	return []byte(h.text(string(b)))
}

func (h hider) json(b []byte, indent string) []byte {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return []byte(h.text(string(b)))
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if enc.Encode(h.walk("", v)) != nil {
		return nil
	}
	return out.Bytes()
}

func (h hider) walk(name string, v any) any {
	switch v := v.(type) {
	case string:
		return h.value(name, v)
	case []any:
		for i := range v {
			v[i] = h.walk(name, v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = h.walk(k, v[k])
		}
	}
	return v
}

// value takes secrets out of the value of an attribute: all of it when its name says so.
func (h hider) value(name, s string) string {
	if s != "" && secretNames.MatchString(name) {
		return hidden
	}
	return h.text(s)
}
