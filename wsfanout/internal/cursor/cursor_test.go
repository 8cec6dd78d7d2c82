package cursor_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
)

// A story is one test vector: a cursor, and what happens to it. Every implementation of the client's rule runs them.
type story struct {
	Name   string `json:"name"`
	Cursor string `json:"cursor"`
	Steps  []step `json:"steps"`
}

// A step is either a start ("start": position) or a record ("at", "gap", "id").
type step struct {
	Start string `json:"start,omitempty"`
	At    string `json:"at,omitempty"`
	Gap   bool   `json:"gap,omitempty"`
	ID    string `json:"id,omitempty"`

	Show   bool   `json:"show"`           // what the client shows, or reports
	Hole   bool   `json:"hole,omitempty"` // the record does not follow
	Cursor string `json:"cursor"`         // afterwards
}

type malformed struct {
	Why  string `json:"why"`
	Text string `json:"text"`
}

type vectors struct {
	Stories   []story     `json:"stories"`
	Malformed []malformed `json:"malformed"`
}

func load(t testing.TB) vectors {
	b, err := os.ReadFile("testdata/vectors.json")
	require.NoError(t, err)
	var v vectors
	require.NoError(t, json.Unmarshal(b, &v))
	require.NotEmpty(t, v.Stories)
	return v
}

func TestVectors(t *testing.T) {
	for _, s := range load(t).Stories {
		t.Run(s.Name, func(t *testing.T) {
			c, err := cursor.Parse(s.Cursor)
			require.NoError(t, err)
			require.Equal(t, s.Cursor, c.String())
			for i, x := range s.Steps {
				if x.Start != "" {
					p, err := cursor.ParsePosition(x.Start)
					require.NoError(t, err)
					c.Start(p)
				} else {
					p, err := cursor.ParsePosition(x.At)
					require.NoError(t, err)
					show, err := c.Take(p, x.Gap, x.ID)
					require.Equal(t, x.Show, show, "step %d", i)
					if x.Hole {
						require.ErrorIs(t, err, cursor.ErrHole)
					} else {
						require.NoError(t, err)
					}
				}
				require.Equal(t, x.Cursor, c.String(), "step %d", i)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, m := range load(t).Malformed {
		_, err := cursor.Parse(m.Text)
		require.Error(t, err, m.Why)
	}
	_, err := cursor.Parse("1|1.A:1||" + strings.Repeat("x", cursor.MaxText))
	require.Error(t, err)
}

func TestTakeDoesNotShareWithAClone(t *testing.T) {
	a, err := cursor.Parse("1|1.A:1|1.A:1|m1")
	require.NoError(t, err)
	b := a.Clone()
	_, err = b.Take(cursor.Position{Epoch: cursor.Term{N: 1, Node: "A"}, Offset: 2}, false, "m2")
	require.NoError(t, err)
	require.Equal(t, "1|1.A:1|1.A:1|m1", a.String())
}

func FuzzParse(f *testing.F) {
	for _, s := range load(f).Stories {
		f.Add(s.Cursor)
		for _, x := range s.Steps {
			f.Add(x.Cursor)
		}
	}
	for _, m := range load(f).Malformed {
		f.Add(m.Text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := cursor.Parse(s)
		if err != nil {
			return
		}
		again, err := cursor.Parse(c.String())
		if len(c.String()) > cursor.MaxText {
			return
		}
		require.NoError(t, err)
		require.Equal(t, c.String(), again.String())
	})
}
