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
// Silence is counted in ticks, not in time: what this process did not hear because it did not run is no evidence.

// hearings are the steps of that, in ticks of pauseTick.
type hearings struct {
	ping   int // then it is sent datagrams
	ask    int // then others are asked
	agreed int // they agree when they have not heard it for that long
	silent int // then it is failed
}

const (
	quietPings = 3 // datagrams a tick: some may be lost
	askEvery   = 2 // ticks
)

// hearing is a question about processes that the sender does not hear, or the answer to one.
type hearing struct {
	Ask   []string       `json:",omitempty"`
	Quiet map[string]int `json:",omitempty"` // ticks without a sign of life
}

// listen counts one more tick for everybody, and returns whom to send a datagram, and whom to ask about whom. life counts what was heard from a
// process.
func (t *table) listen(life func(id string) uint64) (ping []string, ask map[string][]string) {
	for id, e := range t.members {
		if id == t.self || e.left || e.dead || !e.shown && !e.silent {
			continue
		}
		if now := life(id); now != e.life {
			e.life = now
			e.fresh()
		} else {
			e.quiet++
		}
		if e.quiet >= t.hearings.ping && (e.shown || e.quiet%10 == 0) {
			ping = append(ping, id)
		}
	}
	for id, e := range t.members {
		if id == t.self || !e.shown || e.quiet < t.hearings.ask {
			continue
		}
		agreed := true
		for other, o := range t.members {
			if other == t.self || other == id || !o.shown || !o.linked || o.quiet >= t.hearings.ask {
				continue
			}
			if (e.quiet-t.hearings.ask)%askEvery == 0 {
				if ask == nil {
					ask = map[string][]string{}
				}
				ask[other] = append(ask[other], id)
			}
			agreed = agreed && slices.Contains(e.agree, other)
		}
		e.silent = e.silent || agreed && e.quiet >= t.hearings.silent
	}
	return ping, ask
}

// fresh begins anew: there was a sign of life of another kind.
func (e *entry) fresh() { e.quiet, e.silent, e.agree = 0, false, nil }

// quietHere answers a question: for how many ticks this node has not heard the processes.
func (t *table) quietHere(ids []string) map[string]int {
	quiet := make(map[string]int, len(ids))
	for _, id := range ids[:min(len(ids), maxTellIDs)] {
		switch e := t.members[id]; {
		case id == t.self:
		case e == nil || !e.shown:
			quiet[id] = t.hearings.silent // it is not here
		default:
			quiet[id] = e.quiet
		}
	}
	return quiet
}

// answered takes what a peer has not heard.
func (t *table) answered(by string, quiet map[string]int) {
	for id, ticks := range quiet {
		e := t.members[id]
		if e == nil || id == by {
			continue
		}
		i := slices.Index(e.agree, by)
		switch {
		case ticks >= t.hearings.agreed && i < 0:
			e.agree = append(e.agree, by)
		case ticks < t.hearings.agreed && i >= 0:
			e.agree = slices.Delete(e.agree, i, i+1)
		}
	}
}

// lately reports whether a process was heard within the time after which it would be called silent.
func (t *table) lately(e *entry) bool { return e.quiet < t.hearings.silent && e.life > 0 }

// listen is one tick.
func (n *Node) listen() {
	if n.cfg.Single || !n.isRunning() {
		return
	}
	n.mu.Lock()
	ping, ask := n.table.listen(n.lives)
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
