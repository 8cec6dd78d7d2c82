package dbrouter

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// verdicts remembers which statements belong on the master. It is keyed by what a statement says, not by where its text lies in memory,
// and has a fixed size: two statements that share a slot are judged again and again.
type verdicts struct {
	seed  maphash.Seed
	slots [slots]atomic.Pointer[verdict]
}

const slots = 1 << 9

type verdict struct {
	query  string
	master bool
}

// forMaster reports whether a statement given to a Reader should go to the master at once. That saves the round trip to a replica that
// would refuse it; what keeps replicas from writing is that their sessions are read only. It errs towards the master.
func (v *verdicts) forMaster(query string) bool {
	slot := v.slot(query)
	if found := slot.Load(); found != nil && found.query == query {
		return found.master
	}
	judged := &verdict{strings.Clone(query), belongsOnMaster(query)}
	slot.Store(judged)
	return judged.master
}

// slot is where a statement is remembered. Its length and some of its bytes tell most statements of a program apart, in less time than all of
// them.
func (v *verdicts) slot(query string) *atomic.Pointer[verdict] {
	n := len(query)
	if n < 16 {
		return &v.slots[maphash.String(v.seed, query)%slots]
	}
	h := uint64(n)*0x9e3779b97f4a7c15 ^ word(query[n-8:])*0xff51afd7ed558ccd ^ word(query[n/2:])*0xc4ceb9fe1a85ec53 ^ word(query[n/4:])*0x165667b19e3779f9
	return &v.slots[h>>(64-9)]
}

// word reads the first eight bytes of s.
func word(s string) uint64 {
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// refused remembers that a replica refused a statement.
func (v *verdicts) refused(query string) {
	v.slot(query).Store(&verdict{strings.Clone(query), true})
}

// reading are the words with which a statement begins that reads. Others may change the session, and with it what comes after them.
var reading = map[string]bool{"select": true, "with": true, "values": true, "table": true, "show": true, "explain": true, "describe": true, "desc": true}

// locking are pieces of reads that lock, or count, and have to do so where the writers are.
var locking = []string{
	" for update", " for no key update", " for share", " for key share", "lock in share mode", "skip locked",
	"nextval", "setval", "lastval", "advisory", "get_lock", "release_lock", "release_all_locks", "is_free_lock", "is_used_lock", "set_config", "last_insert_id",
	"pg_notify", "into outfile", "into dumpfile", "returning ", "txid_current", "pg_current_xact_id", "lo_create", "lo_import", "lo_put", "dblink",
}

// belongsOnMaster looks at the words of a statement, outside of comments and literals.
func belongsOnMaster(query string) bool {
	text, clean := bare(query)
	if !clean {
		return true
	}
	text = strings.TrimSpace(text)
	for strings.HasSuffix(text, ";") {
		text = strings.TrimSpace(strings.TrimSuffix(text, ";"))
	}
	for strings.HasPrefix(text, "(") {
		text = strings.TrimSpace(text[1:])
	}
	if text == "" {
		return false
	}
	if strings.Contains(text, ";") {
		return true // several: one of them may undo what the session is
	}
	word := text
	if i := strings.IndexFunc(text, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r == '_') }); i >= 0 {
		word = text[:i]
	}
	if !reading[word] {
		return true
	}
	for _, l := range locking {
		if strings.Contains(text, l) {
			return true
		}
	}
	if word == "explain" || word == "with" { // as a statement of its own, or inside
		for _, w := range []string{"insert ", "update ", "delete ", "merge ", "replace ", "truncate "} {
			if strings.Contains(text, w) {
				return true
			}
		}
	}
	return false
}

// bare returns the words of a statement in lower case with single spaces, without comments and literals. clean is false where the text can
// be read in more than one way: comments that a server runs, backslashes before quotes.
func bare(query string) (text string, clean bool) {
	var b strings.Builder
	b.Grow(len(query) + 1)
	space := func() {
		if s := b.String(); s == "" || s[len(s)-1] != ' ' {
			b.WriteByte(' ')
		}
	}
	for i := 0; i < len(query); {
		c := query[i]
		rest := query[i:]
		switch {
		case strings.HasPrefix(rest, "--"), c == '#' && !strings.HasPrefix(rest, "#>") && !strings.HasPrefix(rest, "#-"):
			if c == '#' && strings.ContainsAny(rest, ";") {
				return "", false // a comment on MySQL, an operator on PostgreSQL
			}
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			if strings.HasPrefix(rest, "--") && len(rest) > 2 && rest[2] != ' ' && rest[2] != '\t' && rest[2] != '\n' && rest[2] != '-' {
				return "", false // a comment on PostgreSQL, two minuses on MySQL
			}
			i += end
			space()
		case strings.HasPrefix(rest, "/*!"), strings.HasPrefix(rest, "/*M!"):
			return "", false
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 || strings.Contains(rest[2:2+end], "/*") {
				return "", false // they nest on PostgreSQL alone
			}
			i += end + 4
			space()
		case c == '\'' || c == '"' || c == '`':
			end := strings.IndexByte(rest[1:], c)
			if end < 0 || strings.Contains(rest[:end+1], `\`) {
				return "", false
			}
			i += end + 2 // a doubled quote begins another literal at once, which is the same
			space()
		case c == '$' && dollar(rest) != "":
			tag := dollar(rest)
			end := strings.Index(rest[len(tag):], tag)
			if end < 0 {
				return "", false
			}
			i += end + 2*len(tag)
			space()
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			space()
			i++
		case c == 0 || c >= 0x80:
			b.WriteByte('?')
			i++
		default:
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			b.WriteByte(c)
			i++
		}
	}
	return b.String() + " ", true
}

// dollar returns the tag of PostgreSQL's dollar quote with which text begins, or "".
func dollar(text string) string {
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '$':
			return text[:i+1]
		case c >= '0' && c <= '9' && i > 1, c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= 0x80:
		default:
			return ""
		}
	}
	return ""
}
