package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/nines-go/nines/cluster/internal/link"
)

// protocol is the version of what Nodes say to each other, and oldestProtocol the one before, with which they speak too.
const (
	protocol       = link.Protocol
	oldestProtocol = link.OldestProtocol
)

// timings is what a Profile stands for.
type timings struct {
	probe, probeTimeout, gossip, pushPull, stream time.Duration
	suspicion                                     int           // of probe intervals
	ask                                           time.Duration // for the IDs of the others, before this node's is used
	reach                                         time.Duration // for one attempt to reach somebody
	hearings                                      hearings
}

func (p Profile) timings() timings {
	t := timings{
		probe: 200 * time.Millisecond, probeTimeout: 100 * time.Millisecond, suspicion: 4,
		gossip: 50 * time.Millisecond, pushPull: 15 * time.Second, stream: 3 * time.Second,
		ask: 400 * time.Millisecond, reach: time.Second,
		hearings: hearings{300 * time.Millisecond, 600 * time.Millisecond, 500 * time.Millisecond, 1100 * time.Millisecond},
	}
	switch p {
	case Local:
		t.probe, t.probeTimeout, t.gossip, t.stream = 120*time.Millisecond, 60*time.Millisecond, 30*time.Millisecond, 2*time.Second
	case WAN:
		t.probe, t.probeTimeout, t.gossip, t.stream = 1200*time.Millisecond, 800*time.Millisecond, 150*time.Millisecond, 10*time.Second
		t.ask, t.reach = time.Second, 3*time.Second
		t.hearings = hearings{time.Second, 3 * time.Second, 2500 * time.Millisecond, 5 * time.Second}
	}
	return t
}

// suspicionTime is how long a silent process is suspected before it is called failed.
func (t timings) suspicionTime() time.Duration { return time.Duration(t.suspicion) * t.probe }

// gossipConfig is memberlist's configuration. Its own encryption is off: the wire seals. Detection
// does not stretch with memberlist's opinion of its own health, because links have a say before anybody is given up.
func gossipConfig(p Profile, id, clusterName string, compress bool, w *wire, d *delegate, logger *slog.Logger) *memberlist.Config {
	t := p.timings()
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.Transport = id, clusterName, w
	c.BindPort, c.AdvertisePort = w.adv.Port, w.adv.Port
	c.ProbeInterval, c.ProbeTimeout = t.probe, t.probeTimeout
	c.GossipInterval, c.GossipNodes = t.gossip, 4
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = t.suspicion, 1
	c.AwarenessMaxMultiplier = 1
	c.PushPullInterval, c.TCPTimeout = t.pushPull, t.stream
	c.RetransmitMult = 4
	c.GossipToTheDeadTime = 30 * time.Second
	c.EnableCompression = compress
	c.Delegate, c.Events, c.Alive = d, d, d
	c.LogOutput, c.Logger = nil, log.New(&logBridge{logger}, "", 0)
	return c
}

// delegate is memberlist's way to tell. Its methods run under memberlist's lock and must return at once.
type delegate struct {
	meta   []byte
	joined func(id, addr string)
	gone   func(id string, left bool)
	buried func(id string) bool
}

const metaMagic = 'N'

// meta is what gossip carries about a process: magic, protocol, lowest protocol it speaks, revision. All else travels on links.
func gossipMeta(highest byte, revision uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{metaMagic, highest, oldestProtocol}, revision)
}

func checkMeta(b []byte, highest byte) error {
	if len(b) < 3 || b[0] != metaMagic {
		return errors.New("its gossip is not of this kind")
	}
	if b[2] > highest || b[1] < oldestProtocol {
		return fmt.Errorf("it speaks protocols %d to %d, this node %d to %d", b[2], b[1], oldestProtocol, highest)
	}
	return nil
}

func (d *delegate) NodeMeta(limit int) []byte       { return d.meta }
func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}
func (d *delegate) NotifyJoin(n *memberlist.Node)   { d.joined(n.Name, n.Address()) }
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.joined(n.Name, n.Address()) }
func (d *delegate) NotifyLeave(n *memberlist.Node)  { d.gone(n.Name, n.State == memberlist.StateLeft) }
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if d.buried(n.Name) {
		return errors.New("it is known to be dead")
	}
	if _, ok := idTime(n.Name); !ok {
		return errors.New("its name is not an ID")
	}
	return checkMeta(n.Meta, d.meta[1])
}

// logBridge brings memberlist's lines to slog: they are about probes and retries, which the Node reports in its own words, so at most Debug.
type logBridge struct{ log *slog.Logger }

func (b *logBridge) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(bytes.TrimPrefix(p, []byte("memberlist: "))))
	level := slog.LevelDebug
	if strings.HasPrefix(line, "[ERR] memberlist: Conflicting") {
		level = slog.LevelWarn
	}
	if i := strings.Index(line, "memberlist: "); i >= 0 {
		line = line[i+len("memberlist: "):]
	}
	b.log.Log(context.Background(), level, "gossip", "line", line)
	return len(p), nil
}

var _ io.Writer = (*logBridge)(nil)
