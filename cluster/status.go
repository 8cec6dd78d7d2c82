package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State is a member's fate: alive, suspect, draining, left, dead or failed.
type State string

// Level says how well something is.
type Level int

// The levels.
const (
	Green Level = iota
	Amber       // works, and somebody should look
	Red         // does not do what it should
)

// String is "green", "amber" or "red".
func (l Level) String() string {
	switch l {
	case Green:
		return "green"
	case Amber:
		return "amber"
	}
	return "red"
}

// MarshalText makes the level readable in JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Member is one process of the cluster as this node sees it.
type Member struct {
	ID, Name, Addr, Version string
	Schema, ServicePort     int
	State                   State
	Since                   time.Time     // of State
	Cause                   string        // of State dead or failed
	Started                 time.Time     // by its own clock
	LastSeen                time.Time     // last sign of life, to a second; this node's own is now
	ClockOffset             time.Duration // its clock minus ours, ± half the round trip; 0 until measured
	Linked                  bool          // there is a connection to it now
	Relay                   string        // ID of the member through which that connection goes; empty where it is direct
	Draining                bool
	Tags                    map[string]string
}

// Reason is one finding, with what to do about it. Code is stable, for machines.
type Reason struct {
	Code     string // one of the Code constants, or that of a judge
	Text     string // for people
	Remedy   string // what to do about it
	Level    Level  // Amber or Red
	NotReady bool   // the node that reports it must not serve
}

// MemberStatus is a member with what is to be said about it.
type MemberStatus struct {
	Member  Member   // itself
	Level   Level    // of the worst reason; Green without any
	Reasons []Reason // worst first
}

// Status is the state of the cluster as one node sees it. What concerns no other member in particular stands with the node's own.
type Status struct {
	Level   Level          // of the worst reason
	Reasons []Reason       // all of them, worst first
	Members []MemberStatus // oldest first
	Flags   []Flag         // that are set
}

// Codes of reasons.
const (
	CodeStarting    = "starting"     // the view has not settled
	CodePaused      = "paused"       // the process was paused and is not acknowledged again
	CodeDraining    = "draining"     // takes no new work
	CodeDiscovery   = "discovery"    // discovery cannot be read or written
	CodeKeyless     = "keyless"      // runs without keys
	CodeAddress     = "address"      // no address but loopback
	CodeDown        = "down"         // a member is dead or failed
	CodeSuspect     = "suspect"      // a member is silent
	CodeNoLink      = "no_link"      // a member is here, and there is no connection to it
	CodeVersion     = "version"      // a member has another version
	CodeSchema      = "schema"       // a member has another schema version
	CodeClock       = "clock"        // a member's clock is more than 1 s off
	CodeUnreachable = "unreachable"  // in the discovery table, running, and not reachable
	CodeRelayed     = "relayed"      // a member is reached through another one
	CodeDatagrams   = "datagrams"    // a member answers on TCP and not on UDP
	CodeSeed        = "seed"         // a seed of a list or a name does not answer
	CodeStore       = "store"        // a member has another file store
	CodeNobodyLeads = "nobody_leads" // no member is a candidate for leadership
)

// Tags of other products that tell something about the cluster as a whole.
const (
	tagStore     = "filestore.id"
	tagCandidate = "election.candidate"
)

// nobodySchedules reports whether every member says that it is no candidate for leadership.
func (t *table) nobodySchedules() bool {
	said := false
	for _, e := range t.members {
		if !e.shown {
			continue
		}
		if e.info == nil || e.info.Tags[tagCandidate] != "no" {
			return false
		}
		said = true
	}
	return said
}

const maxClockOffset = time.Second

func worst(reasons []Reason) Level {
	top := Green
	for _, r := range reasons {
		top = max(top, r.Level)
	}
	return top
}

func sortReasons(reasons []Reason) {
	slices.SortStableFunc(reasons, func(a, b Reason) int {
		if a.NotReady != b.NotReady {
			if a.NotReady {
				return -1
			}
			return 1
		}
		return int(b.Level) - int(a.Level)
	})
}

// compareVersions tells how far two versions "10.4.2" are apart.
func compareVersions(own, other string) (Level, string) {
	if own == other {
		return Green, ""
	}
	a, okA := majorMinor(own)
	b, okB := majorMinor(other)
	switch {
	case !okA || !okB:
		return Red, fmt.Sprintf("runs version %q, this node %q", other, own)
	case a == b:
		return Amber, fmt.Sprintf("runs version %s, this node %s", other, own)
	case a[0] == b[0] && (a[1]-b[1] == 1 || b[1]-a[1] == 1):
		return Amber, fmt.Sprintf("runs version %s, one minor version from this node's %s", other, own)
	}
	return Red, fmt.Sprintf("runs version %s, more than one minor version from this node's %s", other, own)
}

func majorMinor(v string) (mm [2]int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 2 {
		return mm, false
	}
	for i := range 2 {
		n, err := strconv.Atoi(strings.TrimLeft(parts[i], " "))
		if err != nil {
			return mm, false
		}
		mm[i] = n
	}
	return mm, true
}

// about is what is to be said about another process.
func (t *table) about(e *entry, now time.Time) (reasons []Reason) {
	name := e.id
	if e.info != nil && e.info.Name != "" {
		name = e.info.Name
	}
	add := func(level Level, code, text, remedy string) {
		reasons = append(reasons, Reason{Code: code, Text: name + " " + text, Remedy: remedy, Level: level})
	}
	switch e.fate {
	case FateDead, FateFailed:
		add(Red, CodeDown, "is down since "+clock(e.since, now)+why(e), "start it again, or wait for it to come back; nothing is to be done on this node")
		return reasons
	case FateLeft, "":
		return nil
	case FateSuspect:
		add(Amber, CodeSuspect, "has been silent for "+now.Sub(e.heard).Round(100*time.Millisecond).String(), "wait a second: it is either back or called down then")
	}
	if e.relay != "" {
		via := e.relay
		if r := t.members[via]; r != nil && r.info != nil && r.info.Name != "" {
			via = r.info.Name
		}
		add(Amber, CodeRelayed, "cannot be reached from here, and what is sent to it goes through "+via, "let its port be reached over TCP from this host, and this node's from there")
	} else if !e.linked && e.fate != FateSuspect && now.Sub(e.joined) > silentAfter {
		add(Amber, CodeNoLink, "has no connection to this node", "let its port be reached over TCP from this host, and this node's from there")
	}
	if e.info == nil {
		return reasons
	}
	own := t.members[t.self].info
	if level, text := compareVersions(own.Version, e.info.Version); level > Green {
		remedy := "finish the rolling upgrade"
		text += ", since " + time.UnixMilli(max(own.Started, e.info.Started)).Format(time.DateTime)
		if level == Red {
			remedy = "run versions that are at most one minor version apart"
		}
		add(level, CodeVersion, text, remedy)
	}
	if own.Schema != e.info.Schema {
		add(Red, CodeSchema, fmt.Sprintf("has schema version %d, this node %d", e.info.Schema, own.Schema), "finish the upgrade, so that all nodes know the same schema")
	}
	if a, b := own.Tags[tagStore], e.info.Tags[tagStore]; a != "" && b != "" && a != b {
		add(Red, CodeStore, "has another file store than this node", "let all nodes use one directory or bucket: files that one writes are not there for the other")
	}
	if e.measured && (e.offset > maxClockOffset || e.offset < -maxClockOffset) {
		add(Amber, CodeClock, fmt.Sprintf("has a clock that is %v off", e.offset.Round(10*time.Millisecond)), "set the clocks of all hosts, for example with NTP")
	}
	return reasons
}

// clock is the time of day, with the day where that is another.
func clock(at, now time.Time) string {
	if now.Sub(at) > 12*time.Hour {
		return at.Format(time.DateTime)
	}
	return at.Format(time.TimeOnly)
}

func why(e *entry) string {
	if e.cause == "" {
		return ""
	}
	return " (" + e.cause + ")"
}

// replaced reports whether a process that is down has a successor: the same name or address, alive or younger.
func (t *table) replaced(e *entry) bool {
	for _, o := range t.members {
		if o.id == e.id || !o.shown && o.id < e.id {
			continue
		}
		if e.addr != "" && o.addr == e.addr {
			return true
		}
		if e.info != nil && o.info != nil && o.info.Name == e.info.Name && o.id > e.id && o.info.Started > e.info.Started {
			return true
		}
	}
	return false
}

func (t *table) member(e *entry, now time.Time) Member {
	m := Member{
		ID: e.id, Addr: e.addr, State: State(e.fate), Since: e.since, Cause: e.cause,
		LastSeen: e.seen, ClockOffset: e.offset, Linked: e.linked, Relay: e.relay,
	}
	if e.id == t.self {
		m.Linked = true
	}
	if m.Linked { // a link that is silent for a second is none
		m.LastSeen = now
	}
	if in := e.info; in != nil {
		m.Name, m.Version, m.Schema, m.ServicePort = in.Name, in.Version, in.Schema, in.ServicePort
		m.Started, m.Draining = in.started(), in.Draining
		m.Tags = make(map[string]string, len(in.Tags))
		maps.Copy(m.Tags, in.Tags)
		if m.Addr == "" {
			m.Addr = in.Addr
		}
	}
	return m
}
