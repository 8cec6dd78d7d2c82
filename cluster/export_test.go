package cluster

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/nines-go/nines/cluster/internal/seal"
)

var (
	NewID   = newID
	IDTime  = idTime
	IDAbove = idAbove
	MakeID  = makeID
)

// Table is a door to the pure core.
type Table struct{ t *table }

func NewTable(self string, now time.Time) *Table {
	t := newTable(&info{ID: self, Name: "self"}, "127.0.0.1:1", now)
	t.settled = true
	return &Table{t}
}

func (x *Table) GossipJoin(id string, now time.Time)         { x.t.gossipJoin(id, id+":1", now) }
func (x *Table) GossipJoinAt(id, addr string, now time.Time) { x.t.gossipJoin(id, addr, now) }
func (x *Table) GossipLeave(id string)                       { x.t.gossipLeave(id) }
func (x *Table) LinkUp(id string, now time.Time)             { x.t.linkUp(id, now) }
func (x *Table) LinkDown(id string, now time.Time)           { x.t.linkDown(id, now) }
func (x *Table) Bury(id string, now time.Time)               { x.t.bury(id, "test", now) }
func (x *Table) Rumour(id, from string, t time.Time)         { x.t.rumour(id, from, t) }
func (x *Table) Resume(now time.Time, d time.Duration)       { x.t.resume(now, d) }
func (x *Table) Told(id string, revision uint64, draining, left bool, now time.Time) {
	x.t.told(&info{ID: id, Name: id, Revision: revision, Draining: draining, Left: left}, now)
}
func (x *Table) Refresh(now time.Time) []string { return x.t.refresh(now) }
func (x *Table) Alive() []string                { return x.t.alive() }
func (x *Table) Lost() []string                 { return x.t.lost() }
func (x *Table) Known() int                     { return len(x.t.members) }
func (x *Table) Fate(id string) string {
	if e := x.t.members[id]; e != nil {
		return e.fate
	}
	return ""
}

// OpenEnvelope is for the fuzzer.
func OpenEnvelope(b []byte) (kind byte, topic string, id uint64, body []byte, err error) {
	m, err := openEnvelope(b)
	return m.kind, m.topic, m.id, m.body, err
}

var Envelope = envelope

// Gate is a door to the bound on strangers.
type Gate struct{ gate }

func (g *Gate) Enter(c net.Conn) func() { return g.enter(c) }

var CompareVersions = compareVersions

// Paused makes a node believe that it was paused.
func (n *Node) Paused(gap time.Duration) {
	n.mu.Lock()
	n.pausedLocked(gap)
	n.mu.Unlock()
	n.notify()
}

// ParkedTopics counts the topics that wait for a handler.
func (n *Node) ParkedTopics() int {
	n.inbox.mu.Lock()
	defer n.inbox.mu.Unlock()
	return len(n.inbox.parked)
}

// About is what is to be said about a member whose clock is off.
func (x *Table) About(id string, offset time.Duration, now time.Time) []Reason {
	e := x.t.members[id]
	e.offset, e.measured = offset, true
	return x.t.about(e, now)
}

// KeepForPeers bounds what is kept for a peer that does not acknowledge. Call it before Run.
func (n *Node) KeepForPeers(bytes int) { n.retain = bytes }

// HeardLeft is word of a goodbye.
func (x *Table) HeardLeft(id string, ago time.Duration, now time.Time) { x.t.heardLeft(id, ago, now) }

// SetTags gives a member tags, and a version.
func (x *Table) SetTags(id, version string, tags map[string]string) {
	e := x.t.members[id]
	in := e.info.clone()
	in.Version, in.Tags = version, tags
	e.info = in
}

// Since is when the fate of a process began.
func (x *Table) Since(id string) time.Time { return x.t.members[id].since }

// Reasons is what is to be said about a member.
func (x *Table) Reasons(id string, now time.Time) []Reason { return x.t.about(x.t.members[id], now) }

// NobodySchedules reports what the node would say.
func (x *Table) NobodySchedules() bool { return x.t.nobodySchedules() }

// SpeakAtMost makes a node one of an older version of the protocol. Call it before Run.
func (n *Node) SpeakAtMost(version int) { n.protocol = uint16(version) }

// Features are what a peer has told of.
func (n *Node) Features(id string) (features uint64) {
	for bit := range 64 {
		if n.mesh.Has(id, 1<<bit) {
			features |= 1 << bit
		}
	}
	return features
}

// Opened counts the datagrams that were taken.
func (n *Node) Opened() uint64 { return n.wire.opened.Load() }

// Strangers counts the connections that have not shown a key yet.
func (n *Node) Strangers() int {
	n.wire.gate.mu.Lock()
	defer n.wire.gate.mu.Unlock()
	return len(n.wire.gate.waiting)
}

// SealDatagram seals as a process of that ID would.
func SealDatagram(key []byte, id, cluster string, plain []byte) []byte {
	d, err := seal.NewDatagrams(id, cluster, [][]byte{key})
	if err != nil {
		panic(err)
	}
	return d.Seal(nil, plain)
}

// Listen is one tick in which those of lives were heard; Quiet is what a peer answers.
func (x *Table) Listen(now time.Time, lives ...string) (ping []string, ask map[string][]string) {
	ping, ask = x.t.listen(pauseTick, func(id string) uint64 {
		n := x.t.members[id].life
		if slices.Contains(lives, id) {
			n++
		}
		return n
	})
	x.t.refresh(now)
	return ping, ask
}

func (x *Table) Answered(by string, quiet map[string]int) { x.t.answered(by, quiet) }
func (x *Table) QuietHere(ids ...string) map[string]int   { return x.t.quietHere(ids) }

// ResolveWith makes a node and a discovery of DNSDiscovery ask another name server. Call it before Run.
func (n *Node) ResolveWith(r *net.Resolver) {
	n.names.resolver = r
	if d, ok := n.cfg.Discovery.(*dnsNames); ok {
		d.resolver = r
	}
}

// ChooseAddress walks down the ladder.
func ChooseAddress(ctx context.Context, c Config, bound *net.TCPAddr) (addr, rung, warning string, err error) {
	a, err := chooseAddress(ctx, &c, bound)
	if err != nil {
		return "", "", "", err
	}
	return a.String(), a.From, a.Warn, nil
}

// Batch is a door to what waits for a handler.
type Batch struct {
	b      batch
	credit [2]credit
}

func (x *Batch) Add(payload []byte, id uint64, owned, other bool) {
	c := &x.credit[0]
	if other {
		c = &x.credit[1]
	}
	x.b.add(item{payload: payload, id: id, credit: c}, owned)
}

func (x *Batch) Each(fn func(payload []byte, id uint64)) {
	x.b.each(func(it *item) { fn(it.payload, it.id) })
}

func (x *Batch) Reset() { x.b.reset() }

// Queues counts the queues before handlers.
func (n *Node) Queues() int {
	n.inbox.mu.Lock()
	defer n.inbox.mu.Unlock()
	return len(n.inbox.queues)
}
