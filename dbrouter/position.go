package dbrouter

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/nines-go/nines/internal/dialect"
)

// mark is a place in one line of history: on PostgreSQL the timeline and the byte of the log, on MariaDB a GTID's domain and its sequence
// number, on MySQL a hash of the server's UUID and its transaction number.
type mark struct{ line, seq uint64 }

// position is how far a server has come: its marks in the order of their lines. It never changes once made. nil: not known.
type position []mark

// covers reports whether a server at p has everything that one at q had.
//
// On PostgreSQL a server on a later timeline has, up to the place where that branched off, the history of the earlier one, and what lies
// beyond that place on the earlier one was lost with its server: it is enough that p is not behind in bytes.
func (p position) covers(d dialect.Dialect, q position) bool {
	if len(q) == 0 {
		return true
	}
	if d == dialect.Postgres {
		return len(p) > 0 && p[0].line >= q[0].line && p[0].seq >= q[0].seq
	}
	i := 0
	for _, m := range q {
		for i < len(p) && p[i].line < m.line {
			i++
		}
		if i == len(p) || p[i].line != m.line || p[i].seq < m.seq {
			return false
		}
	}
	return true
}

// merge returns the least position that covers both.
func (p position) merge(d dialect.Dialect, q position) position {
	switch {
	case p.covers(d, q):
		return p
	case q.covers(d, p):
		return q
	case d == dialect.Postgres: // what p has beyond the branch to q's timeline is lost
		if p[0].line > q[0].line {
			return p
		}
		return q
	}
	m := slices.Concat(p, q)
	slices.SortFunc(m, func(a, b mark) int {
		if a.line != b.line {
			return cmpUint(a.line, b.line)
		}
		return cmpUint(b.seq, a.seq) // the furthest first: it stays
	})
	return slices.CompactFunc(m, func(a, b mark) bool { return a.line == b.line })
}

func cmpUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// behind is by how much p trails q: bytes of PostgreSQL's log, transactions elsewhere; -1 where it cannot be told.
func (p position) behind(d dialect.Dialect, q position) int64 {
	if p == nil || q == nil {
		return -1
	}
	if d == dialect.Postgres {
		return max(int64(q[0].seq)-int64(p[0].seq), 0)
	}
	var n int64
	for _, m := range q {
		i, ok := slices.BinarySearchFunc(p, m.line, func(a mark, line uint64) int { return cmpUint(a.line, line) })
		switch {
		case !ok:
			n += int64(m.seq)
		case p[i].seq < m.seq:
			n += int64(m.seq - p[i].seq)
		}
	}
	return n
}

// withoutHeader moves a place in PostgreSQL's log that lies just behind the header of an empty page back to the beginning of that page: that is
// where the record before it ends, and where a standby that has replayed everything says that it is. Without this one place of about a
// thousand is never reached as long as nothing more is written.
func withoutHeader(lsn, block, segment uint64) uint64 {
	const short, long = 24, 40 // the header of a page, and of the first one of a segment
	switch {
	case segment > 0 && lsn%segment == long:
		return lsn - long
	case block > 0 && lsn%block == short && (segment == 0 || lsn%segment != short):
		return lsn - short
	}
	return lsn
}

// gtids reads MariaDB's list of domain-server-sequence.
func gtids(lists ...string) position {
	p := position{}
	for _, list := range lists {
		var q position
		for one := range strings.SplitSeq(list, ",") {
			f := strings.Split(strings.TrimSpace(one), "-")
			if len(f) != 3 {
				continue
			}
			domain, err1 := strconv.ParseUint(f[0], 10, 32)
			seq, err2 := strconv.ParseUint(f[2], 10, 64)
			if err1 != nil || err2 != nil {
				continue
			}
			q = position.merge(q, dialect.MySQL, position{{domain, seq}})
		}
		p = p.merge(dialect.MySQL, q)
	}
	return p
}

// gtidSet reads MySQL's set of uuid:first-last:…. Of each server the first interval counts: a replica that applies out of order has gaps,
// and only what lies before them is known to be there without them.
func gtidSet(set string) position {
	p := position{}
	for one := range strings.SplitSeq(set, ",") {
		uuid, intervals, ok := strings.Cut(strings.TrimSpace(one), ":")
		if !ok {
			continue
		}
		first, _, _ := strings.Cut(intervals, ":")
		if i := strings.LastIndexByte(first, '-'); i >= 0 {
			first = first[i+1:]
		}
		seq, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			continue
		}
		h := fnv.New64a()
		h.Write([]byte(strings.ToLower(uuid)))
		p = p.merge(dialect.MySQL, position{{h.Sum64(), seq}})
	}
	return p
}

// append writes p for a token.
func (p position) append(b []byte) []byte {
	for _, m := range p {
		b = binary.AppendUvarint(binary.AppendUvarint(b, m.line), m.seq)
	}
	return b
}

// parsePosition is the reverse of append.
func parsePosition(b []byte) (position, bool) {
	p := position{}
	for len(b) > 0 {
		line, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, false
		}
		seq, k := binary.Uvarint(b[n:])
		if k <= 0 {
			return nil, false
		}
		if len(p) > 0 && p[len(p)-1].line >= line {
			return nil, false
		}
		p, b = append(p, mark{line, seq}), b[n+k:]
	}
	return p, true
}
