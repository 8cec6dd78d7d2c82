package cluster

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	reachQuick    = time.Minute            // how long a member that was lost is tried at the quick pace
	reachQuickly  = 800 * time.Millisecond // the quick pace
	reachStart    = 100 * time.Millisecond // the pace before the view has settled and after a pause
	reachEach     = 3                      // attempts at one address at a time: one that hangs in a cut delays no other
	reachAtOnce   = 48                     // attempts at a time
	reachShakes   = 3                      // times the time for a connection: before there is a second attempt beside one that is connected
	reachPatience = 5                      // times the time for a connection: an attempt as a whole
	reachSpacing  = 40 * time.Millisecond  // between two attempts at one address
	seedsEvery    = 5 * time.Second        // while all is well
	seedsSoon     = time.Second            // while somebody that is known of is not here
	triedWithin   = 5 * time.Second        // the first look at everybody: not longer than that keeps a node from being ready
)

// reacher looks for members for as long as the Node runs: in discovery, and where members were seen in the last 24 h. Gossip alone never
// merges two halves again, and a join that races another may miss it. It belongs to one goroutine; attempts run beside it and overlap,
// because those that were begun in a cut hang for some time after it.
type reacher struct {
	n       *Node
	results chan result
	reads   chan reading

	began   time.Time
	entries []Entry // what discovery said last
	read    bool    // it said so at least once
	reading bool    // it is being asked
	asked   time.Time

	targets []target
	pauses  int64 // of this process when these were chosen: after one, members are targets too
	quick   bool  // a member was lost lately, or came by link alone
	tries   map[string]*try
	flying  int
	nonce   uint64
}

// target is where somebody may be who is not a member, or not one that is sure of this process.
type target struct {
	key   string // its address, or the name that stands for it
	addr  string // empty: to be resolved
	entry *Entry // of discovery; nil: from memory
}

// try is what came of a target.
type try struct {
	flying    int
	started   time.Time
	connected atomic.Bool // the latest one is
	number    uint64      // of the attempt that done tells of
	done      *result
}

// result is the end of an attempt.
type result struct {
	target target
	number uint64
	pauses int64 // of this process when it began: an answer from before a pause says nothing
	known  bool  // somebody there has this process as a member
	err    error
}

type reading struct {
	entries []Entry
	err     error
}

func (n *Node) reachLoop(ctx context.Context) {
	select { // whoever registers later than another finds the other's entry: no two first nodes stay alone
	case <-n.registered:
	case <-n.settled:
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &reacher{n: n, began: time.Now(), results: make(chan result), reads: make(chan reading), tries: map[string]*try{}}
	r.readSeeds(ctx)
	next := time.NewTimer(r.pace())
	defer next.Stop()
	for {
		launch := true
		select {
		case <-ctx.Done():
			return
		case <-n.life.Stopping():
			return
		case x := <-r.reads:
			r.reading = false
			if x.err == nil {
				r.entries, r.read = x.entries, true
			}
		case x := <-r.results:
			r.took(x)
			launch = false
		case <-n.again:
		case <-next.C:
			r.readSeeds(ctx)
			next.Reset(r.pace())
		}
		if launch {
			r.launch(ctx)
		}
		r.conclude()
	}
}

// pace is the pause before the next round.
func (r *reacher) pace() time.Duration {
	d := r.n.cfg.RetryInterval
	switch {
	case !r.n.isSettled() || r.n.isPaused():
		d = min(d, reachStart)
	case r.quick:
		d = min(d, reachQuickly)
	}
	return d/2 + rand.N(d/2+1)
}

// readSeeds asks discovery when it is time. A database that hangs holds up nothing else.
func (r *reacher) readSeeds(ctx context.Context) {
	every := seedsEvery
	switch {
	case !r.n.isSettled():
		every = 0
	case !r.well():
		every = seedsSoon
	}
	if r.reading || time.Since(r.asked) < every {
		return
	}
	r.reading, r.asked = true, time.Now()
	r.n.spawn(func() {
		var x reading
		x.entries, x.err = r.n.seeds(ctx)
		select {
		case r.reads <- x:
		case <-ctx.Done():
		}
	})
}

// launch begins an attempt at each target that may have one more, those first that had none for longest.
func (r *reacher) launch(ctx context.Context) {
	n := r.n
	pauses := n.pauses()
	again := pauses != r.pauses // what was begun before a pause does not count, nor hold up anything
	r.pauses = pauses
	r.targets, r.quick = n.targets(r.entries)
	here := make(map[string]bool, len(r.targets))
	for _, t := range r.targets {
		here[t.key] = true
		if r.tries[t.key] == nil {
			r.tries[t.key] = &try{}
		}
	}
	for key, t := range r.tries {
		if !here[key] && t.flying == 0 {
			delete(r.tries, key)
		}
	}
	n.forgetRows(here)
	slices.SortStableFunc(r.targets, func(a, b target) int {
		return r.tries[a.key].started.Compare(r.tries[b.key].started)
	})
	now := time.Now()
	for _, t := range r.targets {
		x := r.tries[t.key]
		if r.flying >= reachAtOnce {
			return
		}
		if x.flying >= reachEach || now.Sub(x.started) < reachSpacing {
			continue
		}
		if again {
			x.connected.Store(false)
		}
		if x.flying > 0 && x.connected.Load() && now.Sub(x.started) < reachShakes*n.timings().reach {
			continue // it is no cut: the handshake takes its time, and more of them would make it longer
		}
		x.connected.Store(false)
		r.nonce++
		r.flying, x.flying, x.started = r.flying+1, x.flying+1, now
		res := result{target: t, number: r.nonce, pauses: r.pauses}
		n.spawn(func() {
			res.known, res.err = n.approach(ctx, t, func() { x.connected.Store(true) })
			select {
			case r.results <- res:
			case <-ctx.Done():
			}
		})
	}
}

// took takes the end of an attempt.
func (r *reacher) took(x result) {
	n := r.n
	r.flying--
	t := r.tries[x.target.key]
	t.flying--
	if x.pauses != n.pauses() {
		return
	}
	if t.done == nil || t.number < x.number {
		t.number, t.done = x.number, &x
	}
	n.noteRow(x)
	if x.err != nil && x.target.addr != "" && !isRefused(x.err) {
		n.wire.ping(x.target.addr) // it may answer on the other port
	}
	if x.known {
		n.acknowledged(x.pauses)
	}
}

// conclude draws what follows from all attempts together.
func (r *reacher) conclude() {
	n := r.n
	quiet, nobody := r.read, r.read // everybody refused, failed or knows this process; nobody of this cluster is there
	tried := r.read
	for _, t := range r.targets {
		tried = tried && r.tries[t.key].done != nil
		switch x := r.tries[t.key].done; {
		case x == nil || x.pauses != n.pauses() || x.err == nil && !x.known:
			quiet, nobody = false, false
		case !isRefused(x.err) && !isForeign(x.err) && !errors.Is(x.err, errSelf):
			nobody = false
		}
	}
	if quiet && !n.isSettled() && n.trouble0() == nil {
		n.settle()
	}
	if tried || time.Since(r.began) > triedWithin || n.isSettled() && n.trouble0() != nil {
		n.hasTried()
	}
	if over, pauses := n.graceOver(); over {
		n.verified(pauses)
	} else if nobody {
		n.verified(r.pauses) // there is nobody to be acknowledged by: a process that starts would go on alone too
	}
}

// well reports whether everybody that is known of is a member, or certainly does not run.
func (r *reacher) well() bool {
	for _, t := range r.targets {
		x := r.tries[t.key].done
		if x == nil || !x.known && !isRefused(x.err) && !errors.Is(x.err, errSelf) {
			return false
		}
	}
	return r.read
}

// hasTried: everybody who was known of at the beginning was tried, so that this node knows whether it stands apart from somebody.
func (n *Node) hasTried() {
	n.mu.Lock()
	was := n.tried
	n.tried = true
	n.mu.Unlock()
	if !was {
		n.notify()
	}
}

// graceOver reports whether the others had their time to answer after a pause of this process.
func (n *Node) graceOver() (over bool, pauses int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookLocked()
	return n.paused && time.Now().After(n.table.hold), n.pause.count.Load()
}

func (n *Node) isPaused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused
}

// pauses counts this process' pauses, one that was not noticed yet included.
func (n *Node) pauses() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lookLocked()
	return n.pause.count.Load()
}

func (n *Node) trouble0() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trouble
}

// isBack makes the reacher try at once: a process is back, so others may be.
func (n *Node) isBack() {
	if !n.isSettled() {
		return
	}
	select {
	case n.again <- struct{}{}:
	default:
	}
}

// acknowledged: a member knows this process by its ID.
func (n *Node) acknowledged(pauses int64) {
	n.verified(pauses)
	if n.isSettled() {
		return
	}
	n.mu.Lock()
	waiting := false
	for _, e := range n.table.members {
		waiting = waiting || e.present && !e.shown && e.fate != FateDead && e.fate != FateLeft
	}
	n.mu.Unlock()
	if !waiting { // else the next round, or the timer
		n.settle()
	}
}

// targets are the addresses where somebody may be who is not a member yet, or is one no longer; while this process is not settled or was
// paused, members too.
func (n *Node) targets(entries []Entry) (targets []target, quick bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	everybody := n.paused || !n.table.settled
	here := map[string]bool{n.addr: true}
	var all []target
	for i := range entries {
		e := &entries[i]
		t := target{key: e.addr(n.defaultPort()), entry: e}
		if net.ParseIP(e.Hostname) != nil {
			t.addr = t.key
		}
		all = append(all, t)
	}
	for _, e := range n.table.members {
		if e.shown && e.present && e.linked && e.addr != "" && !everybody {
			here[e.addr] = true
		}
		if e.shown && everybody && e.id != n.id && e.addr != "" {
			all = append(all, target{key: e.addr, addr: e.addr})
		}
		if !e.present && (e.absent || e.linked) && !e.left && !e.dead && time.Since(e.since) < reachQuick {
			quick = true
		}
	}
	for _, addr := range n.table.lost() {
		all = append(all, target{key: addr, addr: addr})
	}
	seen := map[string]bool{}
	for _, c := range all {
		if here[c.addr] || seen[c.key] {
			continue
		}
		if c.addr == "" && n.names.fresh(c.entry.Hostname, here, portOf(c.key)) {
			continue
		}
		if c.entry != nil && c.entry.ID != "" {
			if c.entry.ID == n.id || n.table.buried(c.entry.ID) {
				continue
			}
			if e := n.table.members[c.entry.ID]; e != nil && (e.left || e.shown && e.present && e.linked && !everybody) {
				continue
			}
		}
		seen[c.key] = true
		targets = append(targets, c)
	}
	slices.SortFunc(targets, func(a, b target) int { return cmp.Compare(a.key, b.key) })
	return targets, quick
}

func (n *Node) defaultPort() int {
	if n.cfg.GossipPort == 0 {
		return DefaultPort
	}
	return n.cfg.GossipPort
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// approach asks who is at a target and joins it. known reports whether it has this process as a member.
func (n *Node) approach(ctx context.Context, t target, connected func()) (known bool, err error) {
	within := n.timings().reach
	ctx, cancel := context.WithTimeout(ctx, reachPatience*within)
	defer cancel()
	addr := t.addr
	if addr == "" {
		if addr, err = n.resolve(ctx, *t.entry); err != nil {
			return false, err
		}
		if addr == n.Addr() {
			return false, errSelf
		}
	}
	f, err := n.wire.inquire(ctx, within, addr, question{ID: n.ID()}, connected)
	if err != nil {
		return false, err
	}
	if f.ID == n.ID() {
		return false, errSelf
	}
	if f.Fate == FateDead {
		n.evicted(f.ID)
		return false, nil
	}
	n.mu.Lock()
	e := n.table.members[f.ID]
	member := e != nil && e.present && !e.absent
	over := n.table.buried(f.ID)
	n.mu.Unlock()
	if over {
		return false, nil // it will be told, and go
	}
	if member && present(f.Fate) {
		n.learnFlags(f.Flags)
		return true, nil
	}
	// Twice: the first exchange makes both sides refute what was said of them, the second one brings that across.
	for range 2 {
		if _, err := n.gossip.Join([]string{addr}); err != nil {
			return false, err
		}
	}
	f, err = n.wire.inquire(ctx, within, addr, question{ID: n.ID()}, nil)
	if known = err == nil && present(f.Fate); known {
		n.learnFlags(f.Flags)
	}
	return known, nil
}

var errSelf = errors.New("this process itself")

func present(fate string) bool {
	return fate == FateAlive || fate == FateSuspect || fate == FateDraining
}

// resolve returns an entry's address with its name looked up.
func (n *Node) resolve(ctx context.Context, e Entry) (string, error) {
	ip, err := n.names.lookup(ctx, e.Hostname)
	if err != nil {
		return "", err
	}
	port := e.GossipPort
	if port <= 0 {
		port = n.defaultPort()
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(port)), nil
}
