package dbrouter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nines-go/nines/internal/dialect"
)

// layout is which data source has which role. It begins as the configuration says and changes when the router follows the master.
type layout struct {
	master           string
	replicas, search []string
}

func (cfg Config) layout() layout {
	return layout{cfg.DataSource, slices.Clone(cfg.DataSourceReplicas), slices.Clone(cfg.DataSourceSearchReplicas)}
}

// promote returns the layout in which dsn is the master, and the old one takes its place.
func (l layout) promote(dsn string) layout {
	swap := func(list []string) []string {
		list = slices.Clone(list)
		for i, d := range list {
			if d == dsn {
				list[i] = l.master
			}
		}
		return list
	}
	return layout{dsn, swap(l.replicas), swap(l.search)}
}

// all lists the data sources, each once, the master first.
func (l layout) all() []string {
	list := slices.Concat([]string{l.master}, l.replicas, l.search)
	var once []string
	for _, d := range list {
		if !slices.Contains(once, d) {
			once = append(once, d)
		}
	}
	return once
}

// topology is what calls choose from. It never changes: Reconfigure and the probers replace it, and a call needs one atomic load.
type topology struct {
	cfg        *Config
	layout     layout
	dialect    dialect.Dialect
	generation uint64
	closed     bool
	timed      bool          // somebody wants to know how long statements take
	gone       chan struct{} // closed when another generation takes over
	hold       chan struct{} // calls of the master wait for its closing, while the old one is drained; nil: they need not
	refuse     error         // why calls of the master are refused, or nil

	master   *source
	read     *source // SQLite's query_only pool; else the master
	replicas []*source
	search   []*source

	replicasInUse, searchInUse []*source
	lagging                    bool // some replica is out of use for its lag alone
	leastRead, leastSearch     *source

	// What reads choose from, over and over until the length is a power of two, so that a turn is a mask and no division. Empty where
	// every replica trails and the policy decides.
	reads, searches []*source
}

// newTopology opens the pools of a configuration; nothing is dialled. Sources of old that have the same place are used again, and master when
// it is not nil.
func newTopology(cfg *Config, l layout, old *topology, master *source) (*topology, error) {
	d, err := dialect.Of(cfg.DriverName)
	if err != nil {
		return nil, err
	}
	t := &topology{cfg: cfg, layout: l, dialect: d, gone: make(chan struct{}), timed: cfg.Trace || cfg.SlowQuery > 0}
	var errs []error
	open := func(r role, field, dsn string) *source {
		if old != nil {
			for _, s := range slices.Concat(old.replicas, old.search) {
				if s.role == r && s.dsn == dsn {
					return s
				}
			}
		}
		s, err := newSource(cfg, d, r, field, dsn)
		if err != nil {
			errs = append(errs, err)
		}
		return s
	}
	if t.master = master; master == nil {
		t.master = open(roleMaster, "DataSource", l.master)
	}
	t.read = t.master
	if d == dialect.SQLite && !inMemory(l.master) {
		t.read = open(roleRead, "DataSource", l.master)
	}
	for i, dsn := range l.replicas {
		t.replicas = append(t.replicas, open(roleReplica, fmt.Sprintf("DataSourceReplicas[%d]", i), dsn))
	}
	for i, dsn := range l.search {
		t.search = append(t.search, open(roleSearch, fmt.Sprintf("DataSourceSearchReplicas[%d]", i), dsn))
	}
	if err := errors.Join(errs...); err != nil {
		if master != nil {
			t.master, t.read = old.master, old.master // it is not ours to close
		}
		t.discard(old)
		return nil, fmt.Errorf("%w: correct the data source", err)
	}
	return t.choices(), nil
}

// discard closes what is not part of old.
func (t *topology) discard(old *topology) {
	for _, s := range t.sources() {
		if s != nil && (old == nil || !contains(old.sources(), s)) {
			_ = s.close()
		}
	}
}

// sources lists all, the master first.
func (t *topology) sources() []*source {
	list := []*source{t.master}
	if t.read != t.master {
		list = append(list, t.read)
	}
	return slices.Concat(list, t.replicas, t.search)
}

// choices returns a copy of t that knows which sources are in use now.
func (t *topology) choices() *topology {
	c := *t
	var lagRead, lagSearch []*source
	c.replicasInUse, lagRead = sort(t.replicas)
	c.searchInUse, lagSearch = sort(t.search)
	c.lagging = len(lagRead)+len(lagSearch) > 0
	c.leastRead, c.leastSearch = least(lagRead), least(slices.Concat(lagSearch, lagRead))
	c.reads = t.policy(c.replicasInUse, c.leastRead)
	c.searches = ring(c.searchInUse)
	if len(c.searches) == 0 {
		c.searches = t.policy(c.replicasInUse, c.leastSearch)
	}
	return &c
}

// policy returns what reads choose from, of which inUse are in use and least trails least.
func (t *topology) policy(inUse []*source, least *source) []*source {
	switch {
	case len(inUse) > 0:
		return ring(inUse)
	case least == nil:
		return []*source{t.read}
	case t.cfg.WhenLagging == LaggingLeast:
		return []*source{least}
	}
	return nil
}

// sort tells the sources in use from those that trail too far.
func sort(list []*source) (inUse, lagging []*source) {
	for _, s := range list {
		s.mu.Lock()
		switch {
		case s.healthy:
			inUse = append(inUse, s)
		case s.lags:
			lagging = append(lagging, s)
		}
		s.mu.Unlock()
	}
	return inUse, lagging
}

// least returns the source that trails least, or nil.
func least(list []*source) *source {
	if len(list) == 0 {
		return nil
	}
	type lag struct{ age, bytes int64 }
	of := func(s *source) lag {
		s.mu.Lock()
		defer s.mu.Unlock()
		return lag{int64(s.state.age), s.state.lag}
	}
	best, found := list[0], of(list[0])
	for _, s := range list[1:] {
		if l := of(s); l.bytes < found.bytes || l.bytes == found.bytes && l.age < found.age {
			best, found = s, l
		}
	}
	return best
}

// ring repeats list by the weights of its entries, each as evenly spread as it can be; no entry has more than a twentieth more turns
// than its share.
func ring(list []*source) []*source {
	if len(list) < 2 {
		return list
	}
	total := 0
	weights, credit := make([]int, len(list)), make([]int, len(list))
	for i, s := range list {
		s.mu.Lock()
		weights[i] = max(s.weight, 1)
		s.mu.Unlock()
		total += weights[i]
	}
	size := 64
	for size < 20*len(list) {
		size *= 2
	}
	r := make([]*source, size)
	for i := range r {
		best := 0
		for j := range list {
			if credit[j] += weights[j]; credit[j] > credit[best] {
				best = j
			}
		}
		credit[best] -= total
		r[i] = list[best]
	}
	return r
}

// inUse lists the replicas that may serve, in the order of the tiers.
func (t *topology) inUse(search bool) []*source {
	if search {
		return slices.Concat(t.searchInUse, t.replicasInUse)
	}
	return t.replicasInUse
}

// serves reports whether a replica is one of those that should serve now.
func (t *topology) serves(s *source, search bool) bool {
	if search && len(t.searchInUse) > 0 {
		return contains(t.searchInUse, s)
	}
	return contains(t.replicasInUse, s)
}

// other returns a source for a read that has been tried on all of tried, or nil: one in use of the tiers in their order, at last the master.
func (t *topology) other(search bool, tried []*source) *source {
	for _, s := range slices.Concat(t.inUse(search), []*source{t.read}) {
		if contains(tried, s) {
			continue
		}
		if s == t.read || s.inUse() {
			return s
		}
	}
	return nil
}
