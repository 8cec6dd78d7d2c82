package dbrouter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// Stats is the state of a router.
type Stats struct {
	Generation    uint64        // counts the replacements of the pools
	Sources       []SourceStats // the master first
	Master        string        // the data source that is the master now, without its password; it changes with FollowMaster
	ReadsMoved    uint64        // attempts of reads that were made again on another source
	ReadsToMaster uint64        // statements of Readers that write or lock, and ran on the master
	ReadsExtra    int           // reads under way on the master because all replicas trail too far
	OwnWaited     uint64        // reads of sessions for which a replica had to be waited for, or asked
	OwnOnMaster   uint64        // reads of sessions that the master served because no replica had come so far
	MasterSought  time.Time     // since when a master that accepts writes is being looked for; zero: it is there
	DrainingPools int           // replaced, and not closed or still holding connections
	DrainingConns int           // connections in use there
}

// SourceStats is the state of one data source.
type SourceStats struct {
	Role      string        // master, replica, search replica; for SQLite also "reads of the master"
	Address   string        // the data source without its password
	Server    string        // its host:port/database, where the data source tells one; else as Address. It is made for labels.
	Healthy   bool          // in use; for the master: it answered the last probe
	Standby   bool          // when last seen it followed another server, or was read only
	Lagging   bool          // out of use for its lag alone
	Share     int           // of its reads after coming back, in eighths
	Lag       int64         // bytes of log that it trails the master by; -1: unknown
	LagTime   time.Duration // since when the master has what it has not; -1 ns: unknown
	Latency   time.Duration // of the last probe
	Failed    uint64        // calls that met it away
	MovedHere uint64        // reads that it took over from others that were away
	Slow      uint64        // statements that took longer than SlowQuery
	Frozen    int           // connections left behind in calls that the server does not answer
	LastError string
	ErrorAt   time.Time
	Pool      sql.DBStats
}

// Stats returns the state now. It asks no server: probes keep it fresh within MonitorInterval.
func (r *Router) Stats() Stats {
	t := r.top.Load()
	st := Stats{Generation: t.generation, Master: t.master.name, ReadsMoved: r.moved.Load(), ReadsToMaster: r.toMaster.Load(),
		ReadsExtra: int(r.extra.Load()), OwnWaited: r.own.waited.Load(), OwnOnMaster: r.own.master.Load()}
	r.mu.Lock()
	if r.chase != nil {
		st.MasterSought = r.chase.since
	}
	r.mu.Unlock()
	for _, s := range t.sources() {
		st.Sources = append(st.Sources, s.stats())
	}
	r.drainMu.Lock()
	defer r.drainMu.Unlock()
	st.DrainingPools = len(r.draining)
	for s := range r.draining {
		st.DrainingConns += s.db.Stats().InUse
	}
	return st
}

func (s *source) stats() SourceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SourceStats{Role: string(s.role), Address: s.name, Server: serverOf(s), Healthy: s.healthy, Standby: s.state.last.standby,
		Lagging: s.lags, Share: s.weight, Lag: s.state.lag, LagTime: s.state.age, Latency: s.state.last.latency,
		Failed: s.counts.failed.Load(), MovedHere: s.counts.moved.Load(), Slow: s.counts.slow.Load(), Frozen: int(s.conns.left.Load()), ErrorAt: s.state.errAt, Pool: s.db.Stats()}
	if s.state.err != nil {
		st.LastError = redactIn(s.state.err.Error(), s.dsn)
	}
	return st
}

// checkError is an error of Check with what to do about it.
type checkError struct {
	err     error
	remedy  string
	warning bool
}

func (e *checkError) Error() string  { return e.err.Error() }
func (e *checkError) Unwrap() error  { return e.err }
func (e *checkError) Remedy() string { return e.remedy }
func (e *checkError) Warning() bool  { return e.warning }

// Check returns nil when every data source is in use. The error says Warning() when only replicas are not: reads are served elsewhere.
func (r *Router) Check(ctx context.Context) error {
	t := r.top.Load()
	if t.closed {
		return ErrClosed
	}
	if t.dialect == dialect.SQLite {
		if err := r.Replica().GetContext(ctx, new(int), "SELECT 1"); err != nil {
			return &checkError{err: fmt.Errorf("dbrouter: check: %w", t.read.wrap("DataSource", err)), remedy: "check that the file can be read and its disk is not full"}
		}
		return nil
	}
	if t.refuse != nil {
		return &checkError{err: fmt.Errorf("dbrouter: check: %w", t.refuse), remedy: "make all data sources but the master read only, or take the others out of the configuration and reload"}
	}
	m := t.master.stats()
	if !m.Healthy || m.Standby {
		return &checkError{err: fmt.Errorf("dbrouter: check: master %q: %s", m.Address, m.LastError), remedy: "start the database, or set DataSource to the server that accepts writes and reload"}
	}
	var out []error
	for _, s := range append(append([]*source(nil), t.replicas...), t.search...) {
		if st := s.stats(); !st.Healthy {
			out = append(out, fmt.Errorf("dbrouter: check: %s %q: %s", st.Role, st.Address, st.LastError))
		}
	}
	if len(out) > 0 {
		return &checkError{err: errors.Join(out...), remedy: "start the replica, or take it out of the configuration and reload; reads are served by the other sources meanwhile", warning: true}
	}
	return nil
}

// serverOf names the server and database of a source.
func serverOf(s *source) string {
	if e := endpoint(s.dialect, s.dsn); e != s.dsn {
		if f := strings.Split(e, " "); len(f) == 3 {
			return net.JoinHostPort(f[0], f[1]) + "/" + f[2]
		}
	}
	return s.name
}
