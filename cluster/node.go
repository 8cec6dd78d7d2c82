package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/nines-go/nines/cluster/internal/link"
	"github.com/nines-go/nines/internal/lifecycle"
)

// Node is the local running participant of a cluster. Its methods are safe for concurrent use.
type Node struct {
	cfg  Config
	log  *slog.Logger
	life lifecycle.Life

	inbox    *inbox
	calls    *calls
	loopback *credit
	relays   relays
	ring     *ring
	hooks    *hookQueue
	protocol uint16                    // that is spoken at most
	quick    atomic.Pointer[link.Mesh] // mesh, while messages can be sent
	retain   int                       // bytes kept for each peer; 0 is the links' default
	pause    *pauseWatch
	judges   judges
	meetings meetings
	sent     atomic.Uint64 // messages and answers given to links
	received atomic.Uint64 // that links brought
	events   events

	running    chan struct{} // closed when messages can be sent
	registered chan struct{} // closed when discovery knows this process
	settled    chan struct{} // closed with the first settled view
	ended      chan struct{} // closed when Run has stopped everything
	kick       chan struct{} // there is work for the worker
	again      chan struct{} // reach at once
	fatal      chan error    // ends Run
	wg         sync.WaitGroup
	runCtx     context.Context // ends with Run; set before running is closed
	discovery  chan struct{}   // one slot: calls of Discovery come one at a time
	wire       *wire
	mesh       *link.Mesh
	gossip     *memberlist.Memberlist
	names      *names

	view atomic.Pointer[[]string]

	mu       sync.Mutex
	id       string
	self     *info // replaced, never changed
	table    *table
	watchers map[*watcher]struct{}
	todo     map[string]struct{} // changed since the worker last looked
	tell     bool                // self changed since the peers were told
	paused   bool
	tried    bool          // everybody who was known of at the beginning
	gap      time.Duration // of a pause that was not logged yet
	leaving  bool
	trouble  error          // of discovery
	rows     map[string]row // of discovery, that cannot be reached
	pongs    map[string]time.Time
	pinged   string // the last of the members whose datagrams were tried
	flags    map[string]flag
	addr     string
	warning  string // about the address
}

// New checks cfg and returns a Node that does nothing yet. It reports every fault at once.
func New(cfg Config) (*Node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.NodeName == "" {
		cfg.NodeName, _ = os.Hostname()
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = DefaultMaxMessage
	}
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = 2 * time.Second
	}
	cfg.RetryInterval = min(cfg.RetryInterval, maxRetry)
	if cfg.Network == nil {
		cfg.Network = hostNetwork{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	now := time.Now()
	n := &Node{
		cfg: cfg, protocol: protocol, id: newID(), ring: newRing(cfg.Keys),
		inbox: newInbox(), calls: newCalls(), loopback: newCredit(inboxCredit), hooks: newHookQueue(),
		pause:   newPauseWatch(cfg.Profile.timings().suspicionTime(), cfg.Network),
		running: make(chan struct{}), registered: make(chan struct{}), settled: make(chan struct{}), ended: make(chan struct{}),
		kick: make(chan struct{}, 1), again: make(chan struct{}, 1), fatal: make(chan error, 1), discovery: make(chan struct{}, 1),
		watchers: map[*watcher]struct{}{}, todo: map[string]struct{}{}, rows: map[string]row{}, pongs: map[string]time.Time{}, flags: map[string]flag{},
		names: newNames(),
	}
	n.self = &info{
		ID: n.id, Name: cfg.NodeName, Version: cfg.Version, Schema: cfg.Schema, Started: now.UnixMilli(), Revision: 1,
		ServicePort: cfg.ServicePort, Keyless: len(cfg.Keys) == 0, Tags: map[string]string{},
	}
	n.table = newTable(n.self, "", now)
	n.inbox.answer = n.reply
	n.log = cfg.Logger.With("node", cfg.NodeName)
	return n, nil
}

// ID returns the ID of this process: a UUID whose order is that of age, so the lowest ID of a cluster is its longest-lived process. Where this
// host's clock is behind the cluster's newest process, Run raises the ID once before anything is sent and before Alive is no longer nil:
// read it after that, or after WaitReady.
func (n *Node) ID() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id
}

// Addr returns the address that peers are told, "IP:port"; empty before Run has opened the port, and with Single.
func (n *Node) Addr() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addr
}

// Alive returns this node's opinion of who is here, ascending, itself included; nil until the first settled view and after the end of Run.
// Suspect and draining members are in it. The slice is the caller's.
func (n *Node) Alive() []string {
	if v := n.view.Load(); v != nil {
		return slices.Clone(*v)
	}
	return nil
}

// Fate returns what became of a process: "alive", "suspect", "draining", "left", "dead" or "failed"; empty when this node has never heard of
// it. It is kept for 24 h after the end. "dead" and "left" are final, but that "dead" becomes "left" where a peer knows that the process had
// said goodbye; "failed" may come back.
func (n *Node) Fate(id string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.table.members[id]; e != nil {
		return e.fate
	}
	if n.table.buried(id) {
		return FateDead
	}
	return ""
}

// Tag returns a tag of a process, empty when it has none.
func (n *Node) Tag(id, key string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id == n.id && key == TagPaused {
		n.lookLocked()
	}
	if e := n.table.members[id]; e != nil && e.info != nil {
		return e.info.Tags[key]
	}
	return ""
}

// SetTag sets a tag of this node, which every member learns; an empty value removes it. At most 16 tags, keys and values of at most 256 bytes.
// It may be called before Run: whoever sees this node in Alive then sees the tag too.
func (n *Node) SetTag(key, value string) error {
	if err := checkTag(key, value); err != nil {
		return err
	}
	select {
	case <-n.ended:
		return ErrClosed
	case <-n.life.Done():
		return ErrClosed
	default:
	}
	n.mu.Lock()
	if _, ok := n.self.Tags[key]; !ok && value != "" {
		count := len(n.self.Tags)
		if _, ok := n.self.Tags[TagPaused]; ok {
			count--
		}
		if count >= maxTags {
			n.mu.Unlock()
			return fmt.Errorf("cluster: tag %q would be the %dth; remove one with SetTag(key, \"\")", key, maxTags+1)
		}
	}
	if n.self.Tags[key] == value {
		n.mu.Unlock()
		return nil
	}
	n.changeSelfLocked(func(in *info) { setOrDelete(in.Tags, key, value) })
	n.mu.Unlock()
	n.notify()
	return nil
}

func setOrDelete(m map[string]string, key, value string) {
	if value == "" {
		delete(m, key)
	} else {
		m[key] = value
	}
}

// changeSelfLocked replaces what this process tells about itself, and has the worker tell it.
func (n *Node) changeSelfLocked(fn func(in *info)) {
	in := n.self.clone()
	in.Revision++
	fn(in)
	n.self = in
	n.table.members[n.id].info = in
	n.tell = true
	n.todo[n.id] = struct{}{}
	n.kickWorker()
}

// update changes the table, judges everybody, and tells those who asked. It never blocks on anything but the mutex.
func (n *Node) update(fn func(t *table, now time.Time)) {
	n.mu.Lock()
	n.lookLocked()
	now := time.Now()
	if fn != nil {
		fn(n.table, now)
	}
	changed := n.table.refresh(now)
	var over []string
	for _, id := range changed {
		n.todo[id] = struct{}{}
		if e := n.table.members[id]; e != nil && (e.left || e.dead) {
			over = append(over, id)
			if n.mesh != nil {
				n.mesh.Shut(id)
			}
		}
	}
	n.publishLocked()
	n.mu.Unlock()
	for _, id := range over {
		n.calls.fail(id, ErrNoMember)
	}
	if len(changed) > 0 {
		n.kickWorker()
		n.notify()
	}
}

func (n *Node) publishLocked() {
	select {
	case <-n.ended:
		n.view.Store(nil)
		return
	default:
	}
	if v := n.table.alive(); v != nil {
		n.view.Store(&v)
	}
}

func (n *Node) kickWorker() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// watcher is one Notify.
type watcher struct{ c chan<- struct{} }

// Notify has a value sent to c, without blocking, after each change of Alive, of a Fate or of a tag, until stop is called. Give c a buffer of
// one: then no change goes unseen, and many may be merged.
func (n *Node) Notify(c chan<- struct{}) (stop func()) {
	w := &watcher{c}
	n.mu.Lock()
	n.watchers[w] = struct{}{}
	n.mu.Unlock()
	return func() {
		n.mu.Lock()
		delete(n.watchers, w)
		n.mu.Unlock()
	}
}

func (n *Node) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range n.watchers {
		select {
		case w.c <- struct{}{}:
		default:
		}
	}
}

// settle makes the view known for the first time.
func (n *Node) settle() {
	n.mu.Lock()
	was := n.table.settled
	n.table.settled = true
	n.table.refresh(time.Now())
	n.publishLocked()
	n.mu.Unlock()
	if !was {
		close(n.settled)
		n.notify()
	}
}

func (n *Node) isSettled() bool {
	select {
	case <-n.settled:
		return true
	default:
		return false
	}
}

// lookLocked notices a pause of this process before anything is concluded from what was not heard.
func (n *Node) lookLocked() {
	if gap := n.pause.look(); gap > 0 {
		n.pausedLocked(gap)
	}
}

func (n *Node) pausedLocked(gap time.Duration) {
	if !n.isRunning() {
		return
	}
	now := time.Now()
	n.table.resume(now, n.timings().suspicionTime()+time.Second)
	n.paused = true
	n.changeSelfLocked(func(in *info) { in.Tags[TagPaused] = now.UTC().Format(time.RFC3339Nano) })
	select {
	case n.again <- struct{}{}:
	default:
	}
	n.gap = gap // the tick logs it
}

// verified ends the time after a pause. pauses is how many there had been when what speaks for it was begun: a later one is not ended by it.
func (n *Node) verified(pauses int64) {
	n.mu.Lock()
	n.lookLocked()
	was := n.paused && n.pause.count.Load() == pauses
	if was {
		n.paused = false
		n.changeSelfLocked(func(in *info) { delete(in.Tags, TagPaused) })
	}
	n.mu.Unlock()
	if was {
		n.log.Info("acknowledged again after the pause")
		n.notify()
	}
}

func (n *Node) isRunning() bool {
	select {
	case <-n.running:
		return true
	default:
		return false
	}
}

func (n *Node) timings() timings { return n.cfg.Profile.timings() }

// spawn runs fn as one of Run's goroutines.
func (n *Node) spawn(fn func()) { n.wg.Go(fn) }
