package demo_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// judge keeps what publishers were told and what subscribers were shown, and says at the end what broke a promise. It knows that forks and
// losses are allowed where they are reported: what it asks for is that nothing happens silently.
type judge struct {
	mu       sync.Mutex
	sent     map[string]*sent
	watchers []*watcher
	dead     map[string]bool // IDs of processes that died while they may have been the only one with a message
}

// sent is one message that was published.
type sent struct {
	id, room string
	first    time.Time // of the first try
	acked    bool
	epoch    string
	offset   uint64
	copies   int
	home     string
}

// shown is one event at a subscriber: a message of the log, one that filled a gap, the report of a gap (no ID), or a new connection.
type shown struct {
	id     string
	at     time.Time
	epoch  string
	offset uint64
	filled bool
	from   string // publisher and number
	number int
}

// connection is the ID of a new connection's event.
const connection = "(connection)"

// watcher is one subscriber of one room.
type watcher struct {
	name, room string
	since      time.Time
	events     []shown
}

func newJudge() *judge { return &judge{sent: map[string]*sent{}, dead: map[string]bool{}} }

func (j *judge) publishes(id, room string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sent[id] = &sent{id: id, room: room, first: time.Now()}
}

func (j *judge) acked(id, epoch string, offset uint64, copies int, home string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	m := j.sent[id]
	m.acked, m.epoch, m.offset, m.copies, m.home = true, epoch, offset, copies, home
}

func (j *judge) watch(name, room string) *watcher {
	j.mu.Lock()
	defer j.mu.Unlock()
	w := &watcher{name: name, room: room}
	j.watchers = append(j.watchers, w)
	return w
}

func (j *judge) shows(w *watcher, e shown) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.at.IsZero() {
		e.at = time.Now()
	}
	w.events = append(w.events, e)
}

func (j *judge) died(process string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dead[process] = true
}

func (j *judge) gaps() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.watchers {
		for _, e := range w.events {
			if e.id == "" {
				n++
			}
		}
	}
	return n
}

// verdict lists the broken promises, at most a few of each.
func (j *judge) verdict() (faults []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	counts := map[string]int{}
	note := func(kind, format string, args ...any) {
		if counts[kind]++; counts[kind] <= 5 {
			faults = append(faults, kind+": "+fmt.Sprintf(format, args...))
		}
	}
	positions := map[string]string{}
	place := func(room, epoch string, offset uint64, id, who string) {
		if epoch == "" {
			return
		}
		key := fmt.Sprintf("%s %s:%d", room, epoch, offset)
		if other, ok := positions[key]; ok && other != id {
			note("position", "%s is %s, and for %s it is %s", key, other, who, id)
		}
		positions[key] = id
	}
	for _, m := range j.sent {
		if m.acked {
			place(m.room, m.epoch, m.offset, m.id, "its publisher")
		}
	}
	for _, w := range j.watchers {
		seen, gap := map[string]int{}, 0
		last, numbers, filled := shown{}, map[string]int{}, map[string]bool{}
		for _, e := range w.events {
			switch e.id {
			case "":
				gap, last, numbers = gap+1, shown{}, map[string]int{}
				clear(filled)
				continue
			case connection: // a hub knows what it filled only while the connection lasts
				for id := range filled {
					delete(seen, id)
				}
				clear(filled)
				continue
			}
			if e.filled {
				filled[e.id] = true
			}
			if before, ok := seen[e.id]; ok && before == gap {
				note("twice", "%s saw %s twice without a gap between, filled: %t, the second at %s:%d", w.name, e.id, e.filled, e.epoch, e.offset)
			}
			seen[e.id] = gap
			if m := j.sent[e.id]; m == nil || m.room != w.room {
				note("unsent", "%s saw %s, which nobody published to %s", w.name, e.id, w.room)
			}
			if e.filled {
				continue
			}
			place(w.room, e.epoch, e.offset, e.id, w.name)
			if last.id != "" && e.offset <= last.offset {
				note("backwards", "%s saw %s:%d after %s:%d", w.name, e.epoch, e.offset, last.epoch, last.offset)
			}
			if e.number <= numbers[e.from] && !told(w, e.at) { // what was on its way to the other side of a fork arrives at its end
				note("order", "%s saw number %d of %s after %d", w.name, e.number, e.from, numbers[e.from])
			}
			last, numbers[e.from] = e, e.number
		}
		j.missing(w, note)
	}
	for i, a := range j.watchers {
		for _, b := range j.watchers[i+1:] {
			if a.room == b.room {
				j.compare(a, b, note)
			}
		}
	}
	for kind, n := range counts {
		if n > 5 {
			faults = append(faults, fmt.Sprintf("%s: %d in all", kind, n))
		}
	}
	return faults
}

// missing looks for acknowledged messages that were neither shown nor covered by the report of a gap.
func (j *judge) missing(w *watcher, note func(kind, format string, args ...any)) {
	var report time.Time
	had := map[string]bool{}
	for _, e := range w.events {
		had[e.id] = true
		if e.id == "" {
			report = e.at
		}
	}
	for _, m := range j.sent {
		switch {
		case !m.acked || m.room != w.room || had[m.id] || !m.first.After(w.since) || !m.first.After(report):
		case m.copies < 2 && j.dead[m.home]: // nobody else knew of it
		default:
			note("lost", "%s never saw %s (%s:%d, %d copies, sent %s, home %s) and was told of no gap after it",
				w.name, m.id, m.epoch, m.offset, m.copies, m.first.Format("15:04:05.000"), m.home)
		}
	}
}

// compare looks for messages that two subscribers saw in different orders, although one of them was told of no gap since.
func (j *judge) compare(a, b *watcher, note func(kind, format string, args ...any)) {
	for _, x := range segments(a) {
		for _, y := range segments(b) {
			index := map[string]int{}
			for i, e := range x.events {
				index[e.id] = i
			}
			last, at := shown{}, -1
			for _, e := range y.events {
				i, ok := index[e.id]
				if !ok {
					continue
				}
				if i < at {
					later := j.sent[last.id].first
					if f := j.sent[e.id].first; f.After(later) {
						later = f
					}
					if (x.final && y.final) || !told(a, later) || !told(b, later) {
						note("crossed", "%s saw %s before %s, %s saw them the other way round", b.name, last.id, e.id, a.name)
					}
				}
				if i > at {
					last, at = e, i
				}
			}
		}
	}
}

func told(w *watcher, since time.Time) bool {
	return slices.ContainsFunc(w.events, func(e shown) bool { return e.id == "" && e.at.After(since) })
}

// segment is what a subscriber saw of the log between two gaps.
type segment struct {
	events []shown
	final  bool
}

func segments(w *watcher) (list []segment) {
	list = append(list, segment{})
	for _, e := range w.events {
		switch {
		case e.id == "":
			list = append(list, segment{})
		case !e.filled && e.id != connection:
			s := &list[len(list)-1]
			s.events = append(s.events, e)
		}
	}
	list[len(list)-1].final = true
	return list
}

// The judge is not blind, and not too strict.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b string // what two subscribers see: a letter is a message, a capital one a fill, a dot a gap
		want string
	}{
		{"same", "xyz", "xyz", ""},
		{"lost", "xyz", "xz", "lost"},
		{"lost and told", "xyz", "xz.", ""},
		{"lost after it was told", "xyz", ".xz", "lost"},
		{"filled", "xyz", "x.Yz", ""},
		{"twice", "xyz", "xyyz", "twice"},
		{"filled and shown", "xyz", "x.Yyz", "twice"},
		{"filled, and shown by another connection", "xyz", "x.Y!yz", ""},
		{"twice with a gap between", "xyz", "xy.yz", ""},
		{"twice by two connections", "xyz", "xy!yz", "twice"},
		{"crossed", "xyz", "yxz", "crossed"},
		{"crossed, one told", "xyz.", "yxz", "crossed"},
		{"crossed, both told", "xyz.", "yxz.", ""},
		{"unknown", "xyz", "xyqz", "unsent"},
	} {
		j := newJudge()
		start := time.Now()
		for i, id := range []string{"x", "y", "z"} {
			j.publishes(id, "r")
			j.sent[id].first = start.Add(time.Duration(i+1) * time.Millisecond)
			j.acked(id, "", 0, 2, "A")
		}
		for _, text := range []string{c.a, c.b} {
			w := j.watch(fmt.Sprintf("%d", len(j.watchers)), "r")
			w.since = start
			for i, r := range text {
				id := strings.ToLower(strings.Trim(string(r), "."))
				e := shown{id: id, from: id, number: 1, filled: id != string(r), offset: uint64(i + 1), at: start.Add(time.Second)}
				if r == '!' {
					e.id, e.filled = connection, false
				}
				if strings.HasPrefix(text, ".") {
					e.at = start
				}
				j.shows(w, e)
			}
		}
		faults := j.verdict()
		if c.want == "" {
			require.Empty(t, faults, c.name)
		} else {
			require.NotEmpty(t, faults, c.name)
			require.Contains(t, strings.Join(faults, "\n"), c.want+":", c.name)
		}
	}
	j := newJudge()
	for _, id := range []string{"x", "y"} {
		j.publishes(id, "r")
		j.acked(id, "1.A", 7, 1, "A")
	}
	require.Contains(t, strings.Join(j.verdict(), "\n"), "position:")
	w := j.watch("w", "r")
	require.Contains(t, strings.Join(j.verdict(), "\n"), "lost:")
	j.died("A")
	require.NotContains(t, strings.Join(j.verdict(), "\n"), "lost:")
	j.shows(w, shown{id: "x", epoch: "1.A", offset: 7, from: "p", number: 2})
	j.shows(w, shown{id: "y", epoch: "1.A", offset: 6, from: "p", number: 1})
	require.Contains(t, strings.Join(j.verdict(), "\n"), "backwards:")
	require.Contains(t, strings.Join(j.verdict(), "\n"), "order:")
}
