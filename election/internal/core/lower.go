package core

import (
	"strings"
	"time"
)

// lower knows the members with a lower ID that came after this process began to lead, and since when they could lead themselves.
// Those that were there at the beginning had their chance: a leadership is not moved without a reason.
type lower map[string]time.Duration

const exempt = time.Duration(-1)

func (l lower) begin(now Now, v View) {
	for _, id := range v.candidates(v.Me) {
		if id < v.Me {
			l[id] = exempt
		}
	}
}

func (l lower) update(now Now, v View) {
	here := map[string]bool{}
	for _, id := range v.candidates(v.Me) {
		if id < v.Me {
			here[id] = true
			if _, ok := l[id]; !ok {
				l[id] = now.Mono
			}
		}
	}
	for id := range l {
		if !here[id] {
			delete(l, id)
		}
	}
}

// stable is the lowest that has been eligible for long enough, "" for none.
func (l lower) stable(now Now, d time.Duration) string {
	best := ""
	for id, since := range l {
		if since != exempt && now.Mono-since >= d && (best == "" || id < best) {
			best = id
		}
	}
	return best
}

// again starts the count anew: the member did not want to lead.
func (l lower) again(now Now) {
	for id, since := range l {
		if since != exempt {
			l[id] = now.Mono
		}
	}
}

// next is how long it takes until stable may answer something new; 0 for never.
func (l lower) next(now Now, d time.Duration) time.Duration {
	var next time.Duration
	for _, since := range l {
		if since != exempt {
			at := max(since+d-now.Mono, time.Millisecond)
			if next == 0 || at < next {
				next = at
			}
		}
	}
	return next
}

// sessionServer is the identity of the server in the name of a lock session.
func sessionServer(session string) string {
	i := strings.LastIndexByte(session, '#')
	if i < 0 {
		return ""
	}
	return session[:i]
}
