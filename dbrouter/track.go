package dbrouter

import (
	"context"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

const (
	ownWait = 20 * time.Millisecond // how long a session's read waits for a replica to come so far
	ownPin  = 2 * time.Second       // how long reads follow writes to the master where positions cannot be told
)

// track is what a session knows of one router: how far a replica must have come to serve its reads.
//
// What the session did at the master counts (writes), and is only priced (known, need) when a read or a token wants to know: the
// master is asked where it stands, which is at or behind the end of everything that the session had finished before. Reads stay on one
// replica (last), where time does not run backwards; when they must leave it, that one is asked how far it is.
type track struct {
	r       *Router
	session *Session
	next    *track // of another router

	writes atomic.Uint64 // calls of the master that have ended
	known  atomic.Uint64 // of these, those that need covers
	open   atomic.Int64  // transactions, connections and rows that may still write
	wrote  atomic.Int64  // when the last one ended, in nanoseconds since 1970
	pinned atomic.Bool   // to the master: by a token that says nothing
	until  atomic.Int64  // to the master until then, in nanoseconds since 1970
	need   atomic.Pointer[position]
	last   atomic.Pointer[source] // the replica of its reads
}

// did counts a call of the master that has ended and may have written, or has seen what no replica may have.
func (tr *track) did() {
	tr.wrote.Store(time.Now().UnixNano())
	tr.writes.Add(1)
	tr.session.wrote.Store(true)
}

// saw counts a read that ran on the master: what comes after it must not be older.
func (tr *track) saw() {
	tr.wrote.Store(time.Now().UnixNano())
	tr.writes.Add(1)
}

// pin counts what was begun at the master and whose end is not the router's to see. Until then every read of the session asks anew.
func pin[T any](tr *track, what *T) {
	tr.did()
	tr.open.Add(1)
	runtime.AddCleanup(what, func(tr *track) { tr.did(); tr.open.Add(-1) }, tr)
}

// settled reports whether need is all that the session asks for.
func (tr *track) settled() bool {
	return tr.known.Load() == tr.writes.Load() && tr.open.Load() == 0 && !tr.pinned.Load() && tr.until.Load() == 0
}

// needs is need as a value.
func (tr *track) needs() position {
	if p := tr.need.Load(); p != nil {
		return *p
	}
	return nil
}

// raise makes need cover p.
func (tr *track) raise(d dialect.Dialect, p position) {
	for {
		old := tr.need.Load()
		var m position
		if old != nil {
			m = *old
		}
		if m.covers(d, p) {
			return
		}
		m = m.merge(d, p)
		if tr.need.CompareAndSwap(old, &m) {
			return
		}
	}
}

// choose returns the source for a read of the session, or nil when any will do. It asks and waits when it must.
func (tr *track) choose(ctx context.Context, rd *Reader, t *topology, tried []*source) *source {
	if t.read == t.master && len(t.replicas)+len(t.search) == 0 {
		return t.master
	}
	if t.dialect == dialect.SQLite {
		return t.read // what is committed is there
	}
	if len(t.replicasInUse) == 0 && (!rd.search || len(t.searchInUse) == 0) {
		if tr.settled() && tr.need.Load() == nil && tr.last.Load() == nil {
			return nil // it asks for nothing: as other reads
		}
		tr.r.own.master.Add(1)
		return t.master
	}
	if len(tried) == 0 && tr.settled() {
		need := tr.needs()
		if last := tr.last.Load(); last != nil {
			if t.serves(last, rd.search) && last.has(need, tr) {
				return last
			}
		} else if s := rd.covering(t, need, tr, nil); s != nil {
			if tr.last.CompareAndSwap(nil, s) {
				return s
			}
			if last := tr.last.Load(); last != nil && t.serves(last, rd.search) && last.has(need, tr) {
				return last
			}
		}
	}
	s := tr.settle(ctx, rd, t, tried)
	if s == t.master {
		tr.r.own.master.Add(1)
	}
	return s
}

// settle finds out how far the session's reads must be and returns a source that is.
func (tr *track) settle(ctx context.Context, rd *Reader, t *topology, tried []*source) *source {
	if tr.pinned.Load() {
		return t.master
	}
	if until := tr.until.Load(); until != 0 {
		if time.Now().UnixNano() < until {
			return t.master
		}
		tr.until.CompareAndSwap(until, 0)
	}
	if _, ok := tr.price(ctx, t); !ok {
		return t.master
	}
	need := tr.needs()
	last := tr.last.Load()
	var stay *source // what serves when no other has come so far
	if last != nil {
		failed := contains(tried, last)
		if !failed && last.has(need, tr) && contains(t.inUse(true), last) {
			if t.serves(last, rd.search) {
				return last
			}
			stay = last
		}
		// It is left: who comes next must have what it has shown.
		shown, ok := tr.shown(ctx, t, last)
		if !ok {
			return t.master
		}
		need = need.merge(t.dialect, shown)
	}
	s := rd.covering(t, need, tr, tried)
	if s == nil {
		if s = rd.await(ctx, t, need, tr, tried); s != nil {
			tr.r.own.waited.Add(1)
		}
	}
	switch {
	case s != nil:
		tr.raise(t.dialect, need)
		tr.last.CompareAndSwap(last, s)
		return s
	case stay != nil:
		return stay
	}
	tr.raise(t.dialect, need)
	return t.master
}

// price has need cover all that the session has done at the master; it reports whether that is known.
func (tr *track) price(ctx context.Context, t *topology) (asked, ok bool) {
	count, open := tr.writes.Load(), tr.open.Load() // before the question
	if tr.known.Load() == count && open == 0 {
		return false, true
	}
	at, err := tr.r.ask(t.master).wait(ctx)
	if err != nil {
		return true, false
	}
	if at == nil {
		// It does not tell. Replicas that do not tell either serve when the last write is old enough.
		if now := time.Now().UnixNano(); now-tr.wrote.Load() < int64(ownPin) || open > 0 {
			return true, false
		}
	} else {
		tr.raise(t.dialect, at)
		tr.last.Store(nil) // whatever it has shown, the master has it
	}
	for {
		known := tr.known.Load()
		if known >= count || tr.known.CompareAndSwap(known, count) {
			return true, true
		}
	}
}

// shown is a position that covers what the session has seen on the replica of its reads.
func (tr *track) shown(ctx context.Context, t *topology, last *source) (position, bool) {
	if last.inUse() {
		a := tr.r.ask(last)
		if _, err := a.wait(ctx); err == nil && a.seen != nil {
			return a.seen, true
		}
	}
	// It is gone, or does not tell: the master has whatever it has shown.
	at, err := tr.r.ask(t.master).wait(ctx)
	return at, err == nil && at != nil
}

// has reports whether the source, as far as is known without asking, has everything up to need.
func (s *source) has(need position, tr *track) bool {
	if at := s.applied.Load(); at != nil {
		return at.covers(s.dialect, need)
	}
	if s.mute.Load() { // it does not tell
		return tr == nil || time.Now().UnixNano()-tr.wrote.Load() >= int64(ownPin)
	}
	return len(need) == 0
}

// covering returns a replica in use that has everything up to need, as far as is known without asking.
func (rd *Reader) covering(t *topology, need position, tr *track, tried []*source) *source {
	lists := [2][]*source{t.replicasInUse, nil}
	if rd.search {
		lists = [2][]*source{t.searchInUse, t.replicasInUse}
	}
	turn := rd.turn.Add(1)
	for _, list := range lists {
		if len(list) == 0 {
			continue
		}
		if len(list) > 1 { // in turn, by their shares
			round := t.reads
			if rd.search {
				round = t.searches
			}
			if s := round[turn&uint32(len(round)-1)]; contains(list, s) && s.has(need, tr) && !contains(tried, s) {
				return s
			}
		}
		for i := range list {
			if s := list[(turn+uint32(i))%uint32(len(list))]; s.has(need, tr) && !contains(tried, s) {
				return s
			}
		}
	}
	return nil
}

// await asks the replicas in use how far they are until one has everything up to need, for ownWait. nil: none has.
func (rd *Reader) await(ctx context.Context, t *topology, need position, tr *track, tried []*source) *source {
	wait, cancel := context.WithTimeout(ctx, ownWait)
	defer cancel()
	var candidates []*source
	for _, s := range t.inUse(rd.search) {
		if contains(tried, s) || s.mute.Load() {
			continue
		}
		if stuck := s.stuck.Load(); stuck != nil && !s.has(*stuck, nil) {
			tr.r.ask(s) // it has been waited for in vain: the next ones will know when that is over
			continue
		}
		candidates = append(candidates, s)
	}
	for pause := time.Duration(0); len(candidates) > 0; pause = min(2*pause+250*time.Microsecond, 4*time.Millisecond) {
		if pause > 0 {
			select {
			case <-time.After(pause):
			case <-wait.Done():
			}
		}
		if found := tr.r.first(wait, t, candidates, need); found != nil {
			return found
		}
		if wait.Err() != nil {
			break
		}
	}
	if ctx.Err() == nil {
		for _, s := range candidates {
			if !s.has(need, tr) {
				s.stuck.Store(&need)
			}
		}
	}
	return nil
}

// first asks candidates how far they are and returns the first that answers to have everything up to need.
func (r *Router) first(ctx context.Context, t *topology, candidates []*source, need position) *source {
	answers := make([]*answer, len(candidates))
	cases := make([]reflect.SelectCase, len(candidates)+1)
	for i, s := range candidates {
		answers[i] = r.ask(s)
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(answers[i].done)}
	}
	cases[len(candidates)] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ctx.Done())}
	for range candidates {
		i, _, _ := reflect.Select(cases)
		if i == len(candidates) {
			return nil
		}
		if a := answers[i]; a.err == nil && a.at != nil && a.at.covers(t.dialect, need) {
			return candidates[i]
		}
		cases[i].Chan = reflect.Value{} // answered
	}
	return nil
}

func contains(list []*source, s *source) bool {
	return slices.Contains(list, s)
}
