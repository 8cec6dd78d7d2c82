// Package cursor holds positions in a topic's log and the client's rule for them.
//
// A client of a topic keeps a [Cursor] and shows it when it comes back, to whichever node. The rule is small on
// purpose: the Go client, the JavaScript client and the simulator of internal/home follow the same one, and the
// vectors in testdata/vectors.json bind them together.
//
//   - An answer to a subscription sets Pos to the answer's start ([Cursor.Start]); an answer of kind gap is a report.
//   - A record must follow Pos: its offset is Pos.Offset+1 ([Cursor.Take] says ErrHole otherwise: subscribe again).
//   - A record at or below the offset in Seen for its epoch moves Pos and is not shown again.
//   - Any other record is shown, enters Seen (newest first, 8 epochs at most) and, if it is data, sets Last.
//   - A record of kind gap is a report: something before it is lost to this log.
package cursor

import (
	"cmp"
	"errors"
)

// MaxSeen is how many epochs a cursor remembers.
const MaxSeen = 8

// ErrHole is returned by Take for a record that does not follow the cursor's position. The client must not show it;
// it subscribes again with its cursor.
var ErrHole = errors.New("cursor: record does not follow the position")

// A Term is one attempt of a process to be a partition's home, and the name of the epoch that it minted, if it did.
// Terms are never used twice: Node is an ID of one process start and N grows. The zero Term means none.
type Term struct {
	N    uint64
	Node string
}

// Compare orders terms by number, then by node.
func (t Term) Compare(u Term) int {
	if c := cmp.Compare(t.N, u.N); c != 0 {
		return c
	}
	return cmp.Compare(t.Node, u.Node)
}

// IsZero reports whether t is no term.
func (t Term) IsZero() bool { return t.N == 0 && t.Node == "" }

// A Position names a record of one topic: the epoch that wrote it and its offset. Offsets go on counting from epoch
// to epoch. Two logs with the same record at one position have the same records before it.
type Position struct {
	Epoch  Term
	Offset uint64
}

// IsZero reports whether p is no position. Offset 0 of an epoch is one: it stands before the first record.
func (p Position) IsZero() bool { return p.Epoch.IsZero() && p.Offset == 0 }

// A Cursor is what a client keeps of a topic. The zero Cursor is a client that has never been answered.
type Cursor struct {
	Pos  Position   // where in the log the client stands; always told by a node or a record
	Seen []Position // highest offset shown of each epoch, newest epoch first, at most MaxSeen
	Last string     // publish ID of the newest data record shown
}

// IsZero reports whether the client has never been answered.
func (c *Cursor) IsZero() bool { return c.Pos.IsZero() && len(c.Seen) == 0 && c.Last == "" }

// Start applies the start position of an answer, of whichever kind.
func (c *Cursor) Start(start Position) { c.Pos = start }

// Take applies one record and reports whether it is shown (for a gap record: reported).
func (c *Cursor) Take(at Position, gap bool, id string) (show bool, err error) {
	if at.Offset != c.Pos.Offset+1 {
		return false, ErrHole
	}
	c.Pos = at
	for i, s := range c.Seen {
		if s.Epoch != at.Epoch {
			continue
		}
		if at.Offset <= s.Offset {
			return false, nil
		}
		copy(c.Seen[1:i+1], c.Seen[:i])
		c.Seen[0] = at
		c.note(gap, id)
		return true, nil
	}
	if len(c.Seen) < MaxSeen {
		c.Seen = append(c.Seen, Position{})
	}
	copy(c.Seen[1:], c.Seen)
	c.Seen[0] = at
	c.note(gap, id)
	return true, nil
}

func (c *Cursor) note(gap bool, id string) {
	if !gap {
		c.Last = id
	}
}

// Clone returns a copy that shares nothing with c.
func (c Cursor) Clone() Cursor {
	c.Seen = append([]Position(nil), c.Seen...)
	return c
}
