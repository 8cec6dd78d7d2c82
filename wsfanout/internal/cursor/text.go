package cursor

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxText is the longest resume cursor that Parse reads, in bytes.
const MaxText = 4096

var errText = errors.New("cursor: malformed cursor")

// String returns "2.B" for the second term, proposed by B; "" for none. The node is escaped as by JavaScript's
// encodeURIComponent, so a term never contains a colon, a comma or a bar.
func (t Term) String() string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatUint(t.N, 10) + "." + escape(t.Node)
}

// ParseTerm reads what String wrote.
func ParseTerm(s string) (Term, error) {
	if s == "" {
		return Term{}, nil
	}
	n, node, ok := strings.Cut(s, ".")
	if !ok {
		return Term{}, errText
	}
	u, err := parseUint(n)
	if err != nil {
		return Term{}, err
	}
	id, err := unescape(node)
	if err != nil {
		return Term{}, err
	}
	return Term{N: u, Node: id}, nil
}

// String returns "epoch:offset".
func (p Position) String() string {
	return p.Epoch.String() + ":" + strconv.FormatUint(p.Offset, 10)
}

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	e, o, ok := strings.Cut(s, ":")
	if !ok {
		return Position{}, errText
	}
	t, err := ParseTerm(e)
	if err != nil {
		return Position{}, err
	}
	u, err := parseUint(o)
	if err != nil {
		return Position{}, err
	}
	return Position{Epoch: t, Offset: u}, nil
}

// String returns the resume cursor as it travels between client and server:
//
//	1|<position>|<position>,<position>,…|<last publish ID, escaped>
//
// and "" for the zero Cursor.
func (c Cursor) String() string {
	if c.IsZero() {
		return ""
	}
	var b strings.Builder
	b.WriteString("1|")
	b.WriteString(c.Pos.String())
	b.WriteByte('|')
	for i, s := range c.Seen {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(s.String())
	}
	b.WriteByte('|')
	b.WriteString(escape(c.Last))
	return b.String()
}

// Parse reads a resume cursor. It comes from a client, so anything may be in it.
func Parse(s string) (Cursor, error) {
	var c Cursor
	if s == "" {
		return c, nil
	}
	if len(s) > MaxText {
		return c, errText
	}
	f := strings.Split(s, "|")
	if len(f) != 4 || f[0] != "1" {
		return c, errText
	}
	pos, err := ParsePosition(f[1])
	if err != nil {
		return c, err
	}
	var seen []Position
	if f[2] != "" {
		for t := range strings.SplitSeq(f[2], ",") {
			p, err := ParsePosition(t)
			if err != nil {
				return c, err
			}
			if seen = append(seen, p); len(seen) > MaxSeen {
				return c, errText
			}
		}
	}
	last, err := unescape(f[3])
	if err != nil {
		return c, err
	}
	return Cursor{Pos: pos, Seen: seen, Last: last}, nil
}

func parseUint(s string) (uint64, error) {
	if s == "" || s[0] == '+' {
		return 0, errText
	}
	u, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, errText
	}
	return u, nil
}

const upperHex = "0123456789ABCDEF"

// plain reports whether encodeURIComponent leaves b as it is.
func plain(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	return strings.IndexByte("-_.!~*'()", b) >= 0
}

func escape(s string) string {
	n := 0
	for i := 0; i < len(s); i++ {
		if !plain(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

func unescape(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' {
			if !plain(c) {
				return "", errText
			}
			b = append(b, c)
			continue
		}
		if i+2 >= len(s) {
			return "", errText
		}
		u, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errText
		}
		b = append(b, byte(u))
		i += 2
	}
	if !utf8.Valid(b) {
		return "", errText
	}
	return string(b), nil
}
