package dbrouter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nines-go/nines/dbrouter/internal/question"
	"github.com/nines-go/nines/internal/dialect"
)

// claim is what a data source says about being the master.
type claim struct {
	dsn      string
	writable bool
	at       position
}

// outranks reports whether a server at p was made a master after one at q: on PostgreSQL a promotion begins a later timeline; elsewhere it has all
// that the other one has, and more.
func (p position) outranks(d dialect.Dialect, q position) bool {
	if len(p) == 0 || len(q) == 0 {
		return false
	}
	if d == dialect.Postgres {
		return p[0].line > q[0].line
	}
	return p.covers(d, q) && !q.covers(d, p)
}

// follow decides who is the master: the index of another one, or -1 to keep the current one. known is where the current one was when last
// seen as a master.
//
//	current writable, no other         keep
//	current writable, others too       keep when it outranks them all (old masters that came back; on PostgreSQL), else two masters
//	current not writable, one other    that one, unless it is older than what is known
//	current not writable, more others  the one that outranks the rest, else two masters
//	nobody writable                    keep
func follow(d dialect.Dialect, current claim, known position, others []claim) (to int, two bool) {
	best := -1
	for i, o := range others {
		if !o.writable {
			continue
		}
		if current.writable {
			// Elsewhere a place in the log does not tell a master of before from one that has just been promoted.
			if d != dialect.Postgres || !current.at.outranks(d, o.at) {
				return -1, true
			}
			continue
		}
		if d == dialect.Postgres && len(known) > 0 && !o.at.outranks(d, known) {
			continue // a master of long ago
		}
		switch {
		case best < 0 || o.at.outranks(d, others[best].at):
			best, two = i, false
		case !others[best].at.outranks(d, o.at):
			two = true
		}
	}
	if two {
		return -1, true
	}
	return best, false
}

// stranger asks one data source with connections of its own.
type stranger struct {
	db *sql.DB
	d  dialect.Dialect
	w  question.Words
}

// newStranger returns one that dials for every question: its name is resolved anew.
func newStranger(cfg *Config, d dialect.Dialect, dsn string) (*stranger, error) {
	c, err := newConnector(cfg, dsn, nil, maxLeft)
	if err != nil {
		return nil, err
	}
	s := &stranger{db: sql.OpenDB(c), d: d}
	s.db.SetMaxIdleConns(-1)
	return s, nil
}

func (s *stranger) claim(ctx context.Context, dsn string) (claim, error) {
	for {
		o, err := observe(ctx, s.db, s.d, s.w)
		if err == nil {
			return claim{dsn, !o.standby, o.at}, nil
		}
		if s.d != dialect.MySQL || s.w == question.Plain || lost(err) || ctx.Err() != nil {
			return claim{dsn: dsn}, err
		}
		s.w++
		if s.w == question.Plain {
			return claim{dsn: dsn}, err // it does not say whether it takes writes
		}
	}
}

// locate finds the master among the data sources of a layout. It asks all of them at once, for two seconds at most.
func locate(ctx context.Context, cfg *Config, l layout) (layout, error) {
	d, err := dialect.Of(cfg.DriverName)
	if err != nil || !cfg.FollowMaster {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTry)
	defer cancel()
	all := l.all()
	claims, errs := make([]claim, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, dsn := range all {
		wg.Go(func() {
			s, err := newStranger(cfg, d, dsn)
			if err != nil {
				errs[i] = err
				return
			}
			defer s.db.Close()
			claims[i], errs[i] = s.claim(ctx, dsn)
		})
	}
	wg.Wait()
	to, two := follow(d, claims[0], nil, claims[1:])
	switch {
	case two:
		return l, twoMasters(claims)
	case to >= 0:
		return l.promote(all[to+1]), nil
	}
	if errs[0] != nil {
		return l, errs[0]
	}
	if !claims[0].writable {
		return l, errNoMaster
	}
	return l, nil
}

// twoMasters is the error that names those who accept writes.
func twoMasters(claims []claim) error {
	var names []string
	for _, c := range claims {
		if c.writable {
			names = append(names, redact(c.dsn))
		}
	}
	return fmt.Errorf("%w: %q: make all but one read only, or set DataSource to the master and take the other out of the configuration", ErrTwoMasters, names)
}

// chase is a search for a master that accepts writes.
type chase struct {
	since time.Time
	found chan struct{} // closed at its end
}

const (
	chasePause = 20 * time.Millisecond  // between two looks
	chaseCalm  = 200 * time.Millisecond // when it has taken ten minutes, or two claim to be the master
	freshDial  = 250 * time.Millisecond // between two dials of a name that has not moved
)

// hunt looks for a master that accepts writes, unless that is being done.
func (r *Router) hunt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.top.Load()
	if t == nil || t.closed || t.dialect == dialect.SQLite || r.chase != nil {
		return
	}
	c := &chase{since: time.Now(), found: make(chan struct{})}
	r.chase = c
	r.wg.Go(func() {
		r.chaseMaster(c)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.chase = nil
		close(c.found)
	})
}

// hunted returns since when a master is being looked for, and a channel that closes when that is over.
func (r *Router) hunted() (since time.Time, over <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.chase == nil {
		return time.Now(), closedChannel
	}
	return r.chase.since, r.chase.found
}

// lookout watches one way to a master during a chase: a pool for writes that is ready to be the master's.
type lookout struct {
	pool  *source
	from  *source // whose place it would take, or nil
	fresh bool    // each look dials anew
	busy  bool
	last  time.Time // when its last look began
	seen  bool
	err   error
	claim
}

// look asks the server where it stands.
func (l *lookout) look(ctx context.Context, t *topology) (claim, error) {
	if l.fresh {
		l.pool.dropIdle(t.cfg)
	}
	words := question.Words(l.pool.words.Load())
	o, err := observe(ctx, l.pool.db.DB, t.dialect, words)
	if err != nil && ctx.Err() == nil && t.classify(err) == FaultNone {
		l.pool.simpler()
	}
	writable := err == nil && !o.standby && (o.known || l.from == nil)
	if l.from != nil && l.from.isDeposed() {
		writable = false // it came back as what it was
	}
	return claim{l.pool.dsn, writable, o.at}, err
}

// sighting is the result of a look.
type sighting struct {
	l   *lookout
	c   claim
	err error
}

// chaseMaster returns when the current master accepts writes, or another one has been adopted, or the router is closed.
func (r *Router) chaseMaster(c *chase) {
	ctx, cancel := context.WithCancel(r.ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	t := r.top.Load()
	known := r.past.latest()

	sightings := make(chan sighting, 16)
	current := &lookout{pool: t.master}
	var taken *source // the pool that was adopted
	candidate := func(dsn string, from *source) *lookout {
		pool, err := newSource(t.cfg, t.dialect, roleMaster, "DataSource", dsn)
		if err != nil {
			return nil // it could be opened before
		}
		pool.words.Store(t.master.words.Load())
		l := &lookout{pool: pool, from: from}
		return l
	}
	anew := candidate(t.layout.master, nil)
	var others []*lookout
	if t.cfg.FollowMaster {
		var dsns []string
		for _, s := range t.sources()[1:] {
			if l := candidate(s.dsn, s); l != nil && !slices.Contains(dsns, s.dsn) {
				others, dsns = append(others, l), append(dsns, s.dsn)
			}
		}
	}
	if anew == nil {
		return
	}
	anew.fresh = true
	pools := []*source{anew.pool}
	for _, l := range others {
		pools = append(pools, l.pool)
	}
	defer func() {
		for _, p := range pools {
			if p != taken {
				_ = p.close()
			}
		}
	}()
	places := newPlaces(ctx, &wg, t.master.dsn)
	start := func(l *lookout) {
		l.busy, l.last = true, time.Now()
		wg.Go(func() {
			try, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			var c claim
			var err error
			if l == current {
				var o observation
				o, err = t.master.observe(try)
				c = claim{t.layout.master, err == nil && !o.standby, o.at}
			} else {
				c, err = l.look(try, t)
			}
			select {
			case sightings <- sighting{l, c, err}:
			case <-ctx.Done():
			}
		})
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	two := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			now := r.top.Load()
			if now.closed || now.generation != t.generation {
				return // somebody else has replaced the master
			}
			for _, l := range append([]*lookout{current}, others...) {
				if !l.busy {
					start(l)
				}
			}
			if !anew.busy && (places.several || anew.seen && anew.err != nil || time.Since(anew.last) > freshDial) {
				start(anew)
			}
			pause := chasePause
			if two || time.Since(c.since) > 10*time.Minute {
				pause = chaseCalm
			}
			timer.Reset(pause)
		case <-places.moved: // whatever the dial under way meets at the old place
			anew = &lookout{pool: anew.pool, fresh: true}
			start(anew)
		case s := <-sightings:
			s.l.busy, s.l.seen, s.l.err, s.l.claim = false, true, s.err, s.c
			var over bool
			if taken, over = r.judge(t, known, current, anew, others, &two); over {
				return
			}
		}
	}
}

// judge acts on what the lookouts have seen; it reports whether the chase is over, and whose pool has become the master's.
func (r *Router) judge(t *topology, known position, current, anew *lookout, others []*lookout, two *bool) (taken *source, over bool) {
	best := current.claim
	if !best.writable && anew.writable {
		best = anew.claim
	}
	claims := make([]claim, len(others))
	all := current.seen
	for i, l := range others {
		claims[i] = l.claim
		all = all && l.seen
	}
	to, both := follow(t.dialect, best, known, claims)
	if both != *two {
		*two = both
		var why error
		if both {
			why = twoMasters(append([]claim{best}, claims...))
		}
		r.refuse(t, why)
	}
	switch {
	case both:
		return nil, false
	case to >= 0:
		return r.adopt(t, t.layout.promote(claims[to].dsn), others[to].pool)
	case current.writable:
		return nil, all // others may claim to be the master, too
	case anew.writable:
		return r.adopt(t, t.layout, anew.pool)
	}
	return nil, false
}

// refuse has calls of the master fail with why, or ends that.
func (r *Router) refuse(t *topology, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.top.Load()
	if now.closed || now.generation != t.generation {
		return
	}
	next := *now
	next.refuse = why
	r.top.Store(&next)
	if why != nil {
		r.log(t).Error("two masters", "error", why)
	}
}

// adopt makes a layout current whose master, of which pool has a connection, accepts writes; replicas that stay are used on.
func (r *Router) adopt(was *topology, l layout, pool *source) (taken *source, over bool) {
	r.change.Lock()
	defer r.change.Unlock()
	old := r.top.Load()
	if old.closed || old.generation != was.generation {
		return nil, true
	}
	t, err := newTopology(old.cfg, l, old, pool)
	if err != nil {
		r.log(old).Warn("new master not adopted", "source", redact(l.master), "error", err)
		return nil, false
	}
	for _, s := range t.sources()[1:] {
		if !contains(old.sources(), s) {
			s.exclude(errors.New("it was the master, and has not been seen as a replica yet"))
			s.mu.Lock()
			s.deposed = true
			s.mu.Unlock()
		}
	}
	r.install(t.choices())
	r.log(t).Info("master adopted", "source", t.master.name, "generation", r.top.Load().generation)
	return pool, true
}
