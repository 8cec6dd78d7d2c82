package home

import (
	"strings"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// A windowID is a publish ID in its topic. Gap records have IDs too, told apart by a byte that no publish ID may
// begin with.
type windowID struct{ topic, id string }

const gapPrefix = "\x00"

func windowKey(topic string, kind wire.Kind, id string) windowID {
	if kind == wire.Gap {
		id = gapPrefix + id
	}
	return windowID{topic, id}
}

// A window remembers where the publish IDs of the last while are, in the order in which they were used.
type window struct {
	at    map[windowID]Position
	forks map[windowID]reported // gap records of forks, by topic and "fork:epoch"
	queue []windowEntry
	head  int
}

// reported is up to where a fork has been reported, and by which record. The owner of the epoch may still have been writing
// on its side when the first report was made, so one report an epoch is not enough.
type reported struct {
	offset uint64
	at     Position
}

// forkID is the identity of the report that a branch of an epoch ended at an offset.
func forkID(tip Position) string { return ReasonFork + ":" + tip.String() }

// fork finds the report of a tip, or of a later one of the same epoch.
func (w *window) fork(topic string, tip Position) (Position, bool) {
	r, ok := w.forks[windowID{topic, ReasonFork + ":" + tip.Epoch.String()}]
	return r.at, ok && r.offset >= tip.Offset
}

// splitFork returns the parts of a key made of a forkID.
func splitFork(k windowID) (windowID, uint64, bool) {
	s, ok := strings.CutPrefix(k.id, gapPrefix+ReasonFork+":")
	if !ok {
		return k, 0, false
	}
	p, err := cursor.ParsePosition(s)
	return windowID{k.topic, ReasonFork + ":" + p.Epoch.String()}, p.Offset, err == nil
}

type windowEntry struct {
	windowID
	came time.Duration
}

func (w *window) add(k windowID, at Position, now time.Duration) {
	if w.at == nil {
		w.at = map[windowID]Position{}
	}
	if _, ok := w.at[k]; !ok {
		w.queue = append(w.queue, windowEntry{k, now})
	}
	w.at[k] = at
	if f, offset, ok := splitFork(k); ok && offset >= w.forks[f].offset {
		if w.forks == nil {
			w.forks = map[windowID]reported{}
		}
		w.forks[f] = reported{offset, at}
	}
}

func (w *window) find(k windowID) (Position, bool) {
	at, ok := w.at[k]
	return at, ok
}

// expire forgets what came before a time, and the oldest beyond max.
func (w *window) expire(before time.Duration, max int) {
	for w.head < len(w.queue) && (w.queue[w.head].came < before || len(w.queue)-w.head > max) {
		k := w.queue[w.head].windowID
		delete(w.at, k)
		if f, offset, ok := splitFork(k); ok && offset == w.forks[f].offset {
			delete(w.forks, f)
		}
		w.queue[w.head] = windowEntry{}
		w.head++
	}
	if w.head > 64 && w.head > len(w.queue)/2 {
		w.queue = append([]windowEntry(nil), w.queue[w.head:]...)
		w.head = 0
	}
}

func (w *window) entries() []wire.Window {
	var es []wire.Window
	for _, e := range w.queue[w.head:] {
		es = append(es, wire.Window{Topic: e.topic, ID: e.id, At: w.at[e.windowID]})
	}
	return es
}
