package clustertest

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
)

// Network is a network in memory, whole and fast at first. Its methods are safe for concurrent use. A host is made by the first mention of its
// name.
type Network struct {
	begin time.Time
	board board
	key   []byte

	mu       sync.Mutex
	rng      *rand.Rand
	machines map[string]*machine
	byIP     map[netip.Addr]*machine
	cuts     map[[2]*machine]bool // from, to
	group    map[*machine]int     // of the partition; 0 are those that were not named
	loss     float64
	min, max time.Duration
	halves   map[*half]struct{} // of all streams that are not closed on both sides
	changed  signal             // the topology
	nextPort uint16
}

// machine is a host: what stays when its process ends.
type machine struct {
	name   string
	ip     netip.Addr
	paused bool
	proc   *Host
	sent   Traffic
}

// Traffic is what a host has sent so far.
type Traffic struct {
	Datagrams, Writes int   // Writes to streams
	DatagramBytes     int64 // of payload, lost ones included
	StreamBytes       int64
}

// Sent returns what a host has sent since the network was made, by all its processes: what it costs that N nodes are there, or that one of
// them does something.
func (n *Network) Sent(host string) Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machineLocked(host).sent
}

// New returns a network whose losses and delays are drawn by seed. In a testing/synctest bubble it must be made there.
func New(seed uint64) *Network {
	n := &Network{
		begin: time.Now(), rng: rand.New(rand.NewPCG(seed, 0x6e696e6573)),
		machines: map[string]*machine{}, byIP: map[netip.Addr]*machine{}, cuts: map[[2]*machine]bool{},
		halves: map[*half]struct{}{}, nextPort: firstPort,
	}
	n.board.rows = map[string]cluster.Entry{}
	for range 4 {
		n.key = binary.BigEndian.AppendUint64(n.key, n.rng.Uint64())
	}
	return n
}

// Host returns the network as the present process of a host has it. After Kill it returns that of the next process.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machineLocked(name)
	if m.proc == nil {
		m.proc = &Host{net: n, at: m, ports: map[uint16]*listener{}, packets: map[uint16]*packetConn{}, conns: map[*conn]struct{}{}}
	}
	return m.proc
}

// Config returns what a Node on that host needs to join the others of this network; change what the test is about. It has keys, the name
// of the host, Discovery, and a Logger that discards.
func (n *Network) Config(host string) cluster.Config {
	return cluster.Config{
		ClusterName: "test", Discovery: n.Discovery(), Keys: [][]byte{n.key}, NodeName: host, Network: n.Host(host),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func (n *Network) machineLocked(name string) *machine {
	if m := n.machines[name]; m != nil {
		return m
	}
	i := len(n.machines) + 1
	if name == "" || i > 1<<16 {
		panic(fmt.Sprintf("clustertest: host %q: the name must not be empty, and there are %d at most", name, 1<<16))
	}
	m := &machine{name: name, ip: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	n.machines[name], n.byIP[m.ip] = m, m
	return m
}

// Kill ends the process of a host as far as its peers can see: its connections are reset, its ports refuse, and what it has of this network
// answers net.ErrClosed from then on. A peer that is cut off learns of it when it is not any more. The goroutines of the process are
// not the network's: end Run with its ctx. A new process on that host takes Host, or Config, again.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machineLocked(host)
	p := m.proc
	if p == nil {
		return
	}
	m.proc = nil
	p.dead = true
	for _, l := range p.ports {
		l.closeLocked()
	}
	for _, c := range p.packets {
		c.closeLocked()
	}
	for c := range p.conns {
		c.killLocked()
	}
	n.changed.wake()
}

// Pause makes a host's traffic stand still until Resume: it sends and receives nothing; its peers can connect to it and send until buffers
// are full, as to a stopped process. It is not a stopped process from inside: its clock and goroutines go on, so that it takes its peers
// for silent, and its watch for pauses sees none.
func (n *Network) Pause(host string) { n.setPaused(host, true) }

// Resume ends Pause.
func (n *Network) Resume(host string) { n.setPaused(host, false) }

func (n *Network) setPaused(host string, paused bool) {
	n.change(func() { n.machineLocked(host).paused = paused })
}

// Partition separates hosts that are in different groups, in place of the partition before. Hosts that are in none of them are a group too.
func (n *Network) Partition(groups ...[]string) {
	n.change(func() {
		n.group = map[*machine]int{}
		for i, g := range groups {
			for _, name := range g {
				n.group[n.machineLocked(name)] = i + 1
			}
		}
	})
}

// CutOneWay loses whatever host from sends to host to.
func (n *Network) CutOneWay(from, to string) {
	n.change(func() { n.cuts[[2]*machine{n.machineLocked(from), n.machineLocked(to)}] = true })
}

// CutPair loses whatever two hosts send to each other.
func (n *Network) CutPair(a, b string) {
	n.change(func() {
		x, y := n.machineLocked(a), n.machineLocked(b)
		n.cuts[[2]*machine{x, y}], n.cuts[[2]*machine{y, x}] = true, true
	})
}

// Heal ends Partition and all cuts. Streams go on with their next retransmission, as those of TCP do: 0.2 s after they came to stand still, and
// then after 0.4 s, 0.8 s and so on up to 120 s.
func (n *Network) Heal() {
	n.change(func() {
		n.group = nil
		clear(n.cuts)
	})
}

// Loss is the share of datagrams that are lost, 0 to 1, each for itself. Streams lose nothing.
func (n *Network) Loss(share float64) {
	n.mu.Lock()
	n.loss = share
	n.mu.Unlock()
}

// Delay is how long what is sent from now on travels, one way, drawn evenly from min to max for each datagram and each Write. Streams keep their
// order, datagrams do not.
func (n *Network) Delay(min, max time.Duration) {
	if min < 0 || max < min {
		panic(fmt.Sprintf("clustertest: Delay(%v, %v): want 0 <= min <= max", min, max))
	}
	n.mu.Lock()
	n.min, n.max = min, max
	n.mu.Unlock()
}

// change changes the topology and lets everything that stood still find out.
func (n *Network) change(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
	now := time.Now()
	halves := make([]*half, 0, len(n.halves))
	for h := range n.halves {
		halves = append(halves, h)
	}
	slices.SortFunc(halves, func(a, b *half) int { return int(a.number) - int(b.number) }) // for the seed's sake
	for _, h := range halves {
		h.topologyLocked(now)
	}
	for _, m := range n.machines {
		if m.proc != nil {
			for _, c := range m.proc.packets {
				c.changed.wake()
			}
		}
	}
	n.changed.wake()
}

func (n *Network) openLocked(from, to *machine) bool {
	return from == to || n.group[from] == n.group[to] && !n.cuts[[2]*machine{from, to}]
}

func (n *Network) delayLocked(from, to *machine) time.Duration {
	if from == to || n.max == 0 {
		return 0
	}
	return n.min + time.Duration(n.rng.Int64N(int64(n.max-n.min)+1))
}

// signal wakes whoever waits for its owner. The zero value is ready.
type signal struct{ c chan struct{} }

// wait returns a channel that the next wake closes.
func (s *signal) wait() <-chan struct{} {
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) wake() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
