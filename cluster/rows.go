package cluster

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/nines-go/nines/cluster/internal/seal"
)

// row is an entry of discovery that is not a member and cannot be reached.
type row struct {
	entry Entry
	addr  string // as it was tried: an address, or a name
	err   error
	since time.Time // unreachable
	ping  time.Time // LastPingAt when it was first unreachable
	known bool      // it was a member once, of this node or of a peer
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isForeign: something answers, and is not of this cluster.
func isForeign(err error) bool {
	return errors.Is(err, seal.ErrKey) || errors.Is(err, seal.ErrCluster) || errors.Is(err, seal.ErrCertificate)
}

// noteRow keeps which entries of discovery cannot be reached and since when.
func (n *Node) noteRow(x result) {
	t := x.target
	if t.entry == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if x.err == nil || errors.Is(x.err, errSelf) || isRefused(x.err) { // refused: nobody is there; a process that ended without a word
		delete(n.rows, t.key)
		return
	}
	r := row{entry: *t.entry, addr: t.key, err: x.err, since: time.Now(), ping: t.entry.LastPingAt}
	if old, ok := n.rows[t.key]; ok && old.entry.ID == r.entry.ID {
		r.since, r.ping = old.since, old.ping
	}
	r.known = r.entry.ID != "" && n.table.met(r.entry.ID)
	n.rows[t.key] = r
}

// forgetRows drops what is no target any more.
func (n *Node) forgetRows(targets map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key := range n.rows {
		if !targets[key] {
			delete(n.rows, key)
		}
	}
}

// seedSilent is how long a seed without an ID, of a list or a name server, does not answer before that is worth a word.
const seedSilent = 5 * time.Second

// aboutRowLocked is what is to be said about an entry that cannot be reached.
func (n *Node) aboutRowLocked(r row, now time.Time) (reasons []Reason) {
	id := r.entry.ID
	since := r.since.Format(time.TimeOnly)
	if id == "" {
		switch {
		case isForeign(r.err):
			return []Reason{{Code: CodeUnreachable, Level: Red, Text: fmt.Sprintf("the seed %s refuses this node since %s: %v", r.addr, since, r.err),
				Remedy: n.keyRemedy()}}
		case now.Sub(r.since) < seedSilent:
			return nil
		}
		return []Reason{{Code: CodeSeed, Level: Amber, Text: fmt.Sprintf("the seed %s does not answer since %s: %v", r.addr, since, r.err),
			Remedy: "start the node there, let its port be reached over TCP and UDP, or take it off the list"}}
	}
	if e := n.table.members[id]; e != nil && e.shown || !r.running(now) {
		return nil
	}
	x := Reason{Code: CodeUnreachable, Level: Red,
		NotReady: !r.known && n.id > id} // of two that never met, the younger must not serve; the older may have users
	if isForeign(r.err) {
		x.Text = fmt.Sprintf("the process at %s is in the discovery table and refuses this node: %v", r.addr, r.err)
		x.Remedy = n.keyRemedy()
		return []Reason{x}
	}
	ports := fmt.Sprintf("neither TCP nor UDP port %s answers", portOf(r.addr))
	if at, ok := n.pongs[id]; ok && now.Sub(at) < pongWithin(0) {
		ports = fmt.Sprintf("TCP port %s does not answer, UDP does", portOf(r.addr))
	}
	x.Text = fmt.Sprintf("the process at %s is in the discovery table and runs, and this node cannot reach it since %s: %s (%v)", r.addr, since, ports, r.err)
	x.Remedy = "let this port be reached over TCP and UDP between the hosts, or give one of the two another ClusterName"
	return []Reason{x}
}

func (n *Node) keyRemedy() string {
	if len(n.cfg.Keys) == 0 {
		return "this node has no key: give it the Keys of the others, or another ClusterName"
	}
	return "give both the same Keys, or another ClusterName to one of them"
}

// running reports whether the process of an unreachable row is known to run.
func (r row) running(now time.Time) bool {
	return isForeign(r.err) || r.entry.LastPingAt.After(r.ping) || !r.known && now.Sub(r.entry.LastPingAt) < heartbeat*5/4
}

// pong: a process has answered a datagram.
func (n *Node) pong(from string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.table.members[from]; ok || n.inRowsLocked(from) {
		n.pongs[from] = time.Now()
	}
}

func (n *Node) inRowsLocked(id string) bool {
	for _, r := range n.rows {
		if r.entry.ID == id {
			return true
		}
	}
	return false
}
