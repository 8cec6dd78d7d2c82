package home

import (
	"time"

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
	queue []windowEntry
	head  int
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
}

func (w *window) find(k windowID) (Position, bool) {
	at, ok := w.at[k]
	return at, ok
}

// expire forgets what came before a time, and the oldest beyond max.
func (w *window) expire(before time.Duration, max int) {
	for w.head < len(w.queue) && (w.queue[w.head].came < before || len(w.queue)-w.head > max) {
		delete(w.at, w.queue[w.head].windowID)
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
