package dbrouter

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nines-go/nines/internal/dialect"
)

// topology is what calls choose from. It never changes: Reconfigure and the probers replace it, and a call needs one atomic load.
type topology struct {
	cfg        *Config
	dialect    dialect.Dialect
	generation uint64
	closed     bool

	master   *source
	read     *source // SQLite's query_only pool; else the master
	replicas []*source
	search   []*source

	// What is in use, over and over until the length is a power of two, so that a turn is a mask and no division. Never empty: the master
	// ends both.
	reads, searches []*source
}

// newTopology opens the pools of a configuration; nothing is dialled.
func newTopology(cfg Config) (*topology, error) {
	d, err := dialect.Of(cfg.DriverName)
	if err != nil {
		return nil, err
	}
	t := &topology{cfg: &cfg, dialect: d}
	var errs []error
	open := func(r role, dsn string) *source {
		s, err := newSource(t.cfg, d, r, dsn)
		if err != nil {
			errs = append(errs, err)
		}
		return s
	}
	dsn := cfg.DataSource
	if d == dialect.SQLite {
		dsn = sqliteSource(cfg.DriverName, dsn)
	}
	t.master = open(roleMaster, dsn)
	t.read = t.master
	if d == dialect.SQLite && !inMemory(dsn) {
		t.read = open(roleRead, dsn)
	}
	for _, dsn := range cfg.DataSourceReplicas {
		t.replicas = append(t.replicas, open(roleReplica, dsn))
	}
	for _, dsn := range cfg.DataSourceSearchReplicas {
		t.search = append(t.search, open(roleSearch, dsn))
	}
	if err := errors.Join(errs...); err != nil {
		for _, s := range t.sources() {
			if s != nil {
				_ = s.close()
			}
		}
		return nil, fmt.Errorf("%w: correct the data source", err)
	}
	return t.choices(), nil
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
	c.reads, c.searches = ring(healthy(t.replicas)), ring(healthy(t.search))
	if len(c.reads) == 0 {
		c.reads = []*source{t.read}
	}
	if len(c.searches) == 0 {
		c.searches = c.reads
	}
	return &c
}

// ring repeats list; no entry has more than a twentieth more turns than another.
func ring(list []*source) []*source {
	if len(list) < 2 {
		return list
	}
	size := 64
	for size < 20*len(list) {
		size *= 2
	}
	r := make([]*source, size)
	for i := range r {
		r[i] = list[i%len(list)]
	}
	return r
}

func healthy(list []*source) []*source {
	var in []*source
	for _, s := range list {
		s.mu.Lock()
		if s.healthy {
			in = append(in, s)
		}
		s.mu.Unlock()
	}
	return in
}

// other returns a source for a read that has been tried on all of tried, or nil: a healthy one of the tiers in their order, at last the master.
func (t *topology) other(search bool, tried []*source) *source {
	lists := [][]*source{t.reads, {t.read}}
	if search {
		lists = [][]*source{t.searches, t.reads, {t.read}}
	}
	for _, list := range lists {
		for _, s := range list {
			if slices.Contains(tried, s) {
				continue
			}
			s.mu.Lock()
			ok := s.healthy || s == t.read
			s.mu.Unlock()
			if ok {
				return s
			}
		}
	}
	return nil
}
