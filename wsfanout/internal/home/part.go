package home

import (
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

type role uint8

const (
	idle role = iota
	preparing
	installing
	leading // the home
)

func (r role) String() string { return [...]string{"idle", "preparing", "installing", "home"}[r] }

// A part is what this node knows and does about one partition.
type part struct {
	n  *Node
	id int

	first, second string // rendezvous order over the eligible members; second leaves out this node

	promised wire.Open   // the highest term promised or heard of
	open     []wire.Open // terms promised above active
	active   wire.Open   // the highest term that was activated; its proposer is the home
	offered  Term        // the highest term offered to this node

	role    role
	g       Term   // own term, unless idle
	replica string // of it; "" when alone

	cp       *copyLog   // nil: none
	orphans  []wire.Tip // ends of branches that this node gave up
	returned *returned  // what was sent to the home of active

	fetch  *fetching // older records of cp that were asked for
	moving bool      // counts among Node.moves
	queued bool      // a planned move waits for its turn

	prep *prep // preparing
	lead *lead // leading

	edges []*edge    // subscriptions of this node
	pubs  []*pending // publishes of this node, in order
	bytes int        // of cp, corrected when trimming
	look  time.Duration
}

// returned is a RETURN that was sent and not answered.
type returned struct {
	g    Term
	tips []wire.Tip // the orphans in it
	cp   *copyLog   // the copy that it was about
}

func (p *part) send(to string, m wire.Message) { p.n.send(to, m) }

func (p *part) head() wire.P { return wire.P{Part: p.id} }

// promise records a term that was promised or heard of.
func (p *part) promise(t wire.Open) {
	if t.Term.Compare(p.promised.Term) > 0 {
		p.promised = t
	}
	if t.Term.Compare(p.active.Term) <= 0 {
		return
	}
	if t.Known && p.n.byes[t.Replica] {
		t.Left = true
	}
	for i := range p.open {
		if o := &p.open[i]; o.Term == t.Term {
			if t.Known && !o.Known {
				o.Replica, o.Known = t.Replica, true
			}
			o.Left = o.Left || t.Left
			return
		}
	}
	p.open = append(p.open, t)
}

// highest returns what this node knows of the highest term.
func (p *part) highest() wire.Open {
	if p.active.Term.Compare(p.promised.Term) >= 0 {
		return p.active
	}
	for _, o := range p.open {
		if o.Term == p.promised.Term {
			return o
		}
	}
	return p.promised
}

// stepDown ends this node's part in a term. What waited for it comes back at the next ACTIVE.
func (p *part) stepDown() {
	p.role, p.prep, p.lead = idle, nil, nil
	p.g, p.replica = Term{}, ""
	p.moved()
}

func (p *part) setCopy(c *copyLog) {
	p.cp = c
	b := c.bytes()
	p.n.ringBytes += b - p.bytes
	p.bytes = b
}

func (p *part) addOrphans(tips []wire.Tip) {
	for _, t := range tips {
		if !slices.Contains(p.orphans, t) {
			p.orphans = append(p.orphans, t)
		}
	}
}

// replaceCopy gives up the own copy for another; ends of it that the other lacks are remembered (R4, R7).
func (p *part) replaceCopy(c *copyLog) {
	if p.cp != nil {
		p.addOrphans(c.missing(p.cp.tips()))
	}
	p.setCopy(c)
}
