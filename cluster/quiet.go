package cluster

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/nines-go/nines/cluster/internal/link"
)

// A member that nobody hears is given up after a second or so, without waiting for gossip. Each process counts how long every other one has been
// silent: on the link, and in datagrams. One that begins to be silent is sent datagrams that it would answer; then those that do not find it
// silent themselves are asked. It is failed when nobody hears it. And whoever was heard a moment ago is not failed, whatever gossip says: a network that
// loses a third of what is sent makes gossip wrong now and then, and now and then makes links silent for a second.
//
// Silence is counted tick by tick, and a tick that is late counts for three at most: what this process did not hear because it did not run
// is no evidence.

// hearings are the steps of that: for how long it has been silent.
type hearings struct {
	ping   time.Duration // then it is sent datagrams
	ask    time.Duration // then others are asked
	agreed time.Duration // they agree when they have not heard it for that long
	silent time.Duration // then it is failed
}

const (
	quietPings = 3             // datagrams a tick: some may be lost
	mostQuiet  = 3 * pauseTick // that one tick counts for
	retryQuiet = time.Second   // between datagrams to one that is failed
)

// hearing is a question about processes that the sender does not hear, or the answer to one.
type hearing struct {
	Ask   []string       `json:",omitempty"`
	Quiet map[string]int `json:",omitempty"` // ms without a sign of life
}

// listen is a tick after that long, and returns whom to send datagrams, and whom to ask about whom. life counts what was heard from a process.
func (t *table) listen(elapsed time.Duration, life func(id string) uint64) (ping []string, ask map[string][]string) {
	elapsed = min(elapsed, mostQuiet)
	for id, e := range t.members {
		if id == t.self || e.left || e.dead || !e.shown && !e.silent {
			continue
		}
		if now := life(id); now != e.life {
			e.life = now
			e.fresh()
			continue
		}
		was := e.quiet
		e.quiet += elapsed
		if e.quiet >= t.hearings.ping && (e.shown || e.quiet/retryQuiet != was/retryQuiet) {
			ping = append(ping, id)
		}
	}
	for id, e := range t.members {
		if id == t.self || !e.shown || e.quiet < t.hearings.ask {
			continue
		}
		for other, o := range t.members {
			if !t.hears(other, o, id) {
				continue
			}
			if ask == nil {
				ask = map[string][]string{}
			}
			ask[other] = append(ask[other], id)
		}
		t.conclude(id, e)
	}
	return ping, ask
}

// hears reports whether other can be asked about a process.
func (t *table) hears(other string, o *entry, about string) bool {
	return other != t.self && other != about && o.shown && o.linked && o.quiet < t.hearings.ask
}

// conclude decides whether nobody hears a process.
func (t *table) conclude(id string, e *entry) {
	if e.silent || !e.shown || e.quiet < t.hearings.silent {
		return
	}
	for other, o := range t.members {
		if t.hears(other, o, id) && !slices.Contains(e.agree, other) {
			return
		}
	}
	e.silent = true
}

// fresh begins anew: there was a sign of life of another kind.
func (e *entry) fresh() { e.quiet, e.silent, e.agree = 0, false, nil }

// quietHere answers a question: for how many ms this node has not heard the processes.
func (t *table) quietHere(ids []string) map[string]int {
	quiet := make(map[string]int, len(ids))
	for _, id := range ids[:min(len(ids), maxTellIDs)] {
		switch e := t.members[id]; {
		case id == t.self:
		case e == nil || !e.shown:
			quiet[id] = int(t.hearings.silent.Milliseconds()) // it is not here
		default:
			quiet[id] = int(e.quiet.Milliseconds())
		}
	}
	return quiet
}

// answered takes what a peer has not heard.
func (t *table) answered(by string, quiet map[string]int) {
	for id, ms := range quiet {
		e := t.members[id]
		if e == nil || id == by {
			continue
		}
		agrees := time.Duration(ms)*time.Millisecond >= t.hearings.agreed
		switch i := slices.Index(e.agree, by); {
		case agrees && i < 0:
			e.agree = append(e.agree, by)
		case !agrees && i >= 0:
			e.agree = slices.Delete(e.agree, i, i+1)
		}
		t.conclude(id, e)
	}
}

// lately reports whether a process was heard within the time after which it would be called silent.
func (t *table) lately(e *entry) bool { return e.quiet < t.hearings.silent && e.life > 0 }

// listen is one tick.
func (n *Node) listen(elapsed time.Duration) {
	if n.cfg.Single || !n.isRunning() {
		return
	}
	n.mu.Lock()
	ping, ask := n.table.listen(elapsed, n.lives)
	addrs := n.addrsLocked(ping)
	n.mu.Unlock()
	n.pingThem(addrs)
	for peer, ids := range ask {
		n.tellHearing(peer, hearing{Ask: ids})
	}
}

// lives counts the signs of life of a process.
func (n *Node) lives(id string) uint64 { return n.mesh.Reads(id) + n.wire.lives(id) }

func (n *Node) addrsLocked(ids []string) (addrs []string) {
	for _, id := range ids {
		if e := n.table.members[id]; e != nil && e.addr != "" {
			addrs = append(addrs, e.addr)
		}
	}
	return addrs
}

func (n *Node) pingThem(addrs []string) {
	for _, addr := range addrs {
		for range quietPings {
			n.wire.ping(addr)
		}
	}
}

func (n *Node) tellHearing(peer string, h hearing) {
	b, err := json.Marshal(h)
	if err != nil {
		return
	}
	n.respond(peer, link.Control, controlEnvelope(kindHear, 0), b)
}

// hearing takes a peer's question or answer.
func (n *Node) hearing(from string, h hearing) {
	if len(h.Ask) > 0 {
		n.mu.Lock()
		quiet := n.table.quietHere(h.Ask)
		addrs := n.addrsLocked(h.Ask)
		n.mu.Unlock()
		n.pingThem(addrs) // for the next answer
		n.tellHearing(from, hearing{Quiet: quiet})
	}
	if len(h.Quiet) > 0 {
		n.update(func(t *table, now time.Time) { t.answered(from, h.Quiet) })
	}
}
