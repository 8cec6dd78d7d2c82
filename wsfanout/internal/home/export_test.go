package home

import (
	"fmt"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// Without takes rules out of a node.
func (n *Node) Without(rules ...Rule) {
	for _, r := range rules {
		n.off |= 1 << r
	}
}

// Order gives the rendezvous order of all partitions.
func (n *Node) Order(ids ...string) { n.order = ids }

// Rank returns first and second of nodes for a partition, as self sees them.
func Rank(part int, nodes []string, self string) (first, second string) {
	var hashes []uint64
	for _, id := range nodes {
		hashes = append(hashes, fnv1a(id))
	}
	return rank(part, nodes, hashes, self)
}

// Rule is the name of a rule for tests.
type Rule = rule

// The rules that can be taken out.
const (
	RuleReplicateFirst  = ruleReplicateFirst
	RuleToken           = ruleToken
	RuleFence           = ruleFence
	RuleNackStops       = ruleNackStops
	RuleTokenLeaves     = ruleTokenLeaves
	RuleOneStep         = ruleOneStep
	RuleWindowCopied    = ruleWindowCopied
	RuleConfirm         = ruleConfirm
	RuleExactTerm       = ruleExactTerm
	RuleEmptyPosition   = ruleEmptyPosition
	RuleEpochCompared   = ruleEpochCompared
	RuleSameTerm        = ruleSameTerm
	RuleNewerRequest    = ruleNewerRequest
	RuleReturn          = ruleReturn
	RuleOrphansKept     = ruleOrphansKept
	RulePairCheck       = rulePairCheck
	RuleClosure         = ruleClosure
	RuleContact         = ruleContact
	RuleLeftCounts      = ruleLeftCounts
	RuleOffer           = ruleOffer
	RuleTimer           = ruleTimer
	RuleReplicaGone     = ruleReplicaGone
	RuleLatePromise     = ruleLatePromise
	RuleActivationCheck = ruleActivationCheck
	RulePredecessor     = rulePredecessor
	RuleGapRecord       = ruleGapRecord
	RuleBackfill        = ruleBackfill
	RuleHold            = ruleHold
	RuleSourceKept      = ruleSourceKept
)

// A PartState is what a test sees of a partition.
type PartState struct {
	Role           string
	G              Term
	Promised       Term
	Active         Term
	Replica        string // of Active
	First, Second  string
	Acc            Term
	Length         uint64
	Token          bool
	HasCopy        bool
	Lineage        []wire.Lineage
	Orphans        int
	Topics         map[string]TopicState
	Members        []string
	MyReplica      string
	OpenTerms      []wire.Open
	Waiting        int
	PendingReturns bool
}

// A TopicState is one topic of a copy.
type TopicState struct {
	Base      Position
	Born      Position
	Records   []*Record
	Committed uint64
}

// State returns a partition's state.
func (n *Node) State(part int) PartState {
	p := &n.parts[part]
	s := PartState{
		Role: p.role.String(), G: p.g, Promised: p.promised.Term, Active: p.active.Term, Replica: p.active.Replica,
		First: p.first, Second: p.second, Orphans: len(p.orphans), Members: n.members, MyReplica: p.replica,
		OpenTerms: p.open, HasCopy: p.cp != nil, PendingReturns: p.returned != nil,
	}
	if p.cp != nil {
		s.Acc, s.Length, s.Token, s.Lineage = p.cp.acc, p.cp.length, p.cp.token, p.cp.lineage
		s.Topics = map[string]TopicState{}
		for name, l := range p.cp.topics {
			s.Topics[name] = TopicState{Base: l.base, Born: l.born, Records: l.recs, Committed: l.committed}
		}
	}
	return s
}

// Parts is how many partitions the node has.
func (n *Node) Parts() int { return len(n.parts) }

// EdgePos returns where this node stands in a topic, and whether it is subscribed.
func (n *Node) EdgePos(topic string) (Position, bool) {
	e := n.edges[topic]
	if e == nil {
		return Position{}, false
	}
	return e.cur.Pos, e.state == subscribed
}

// BooksBalance reports a difference between the counted and the real size of all rings.
func (n *Node) BooksBalance() error {
	sum := 0
	for i := range n.parts {
		p := &n.parts[i]
		b := p.cp.bytes()
		if b != p.bytes {
			return fmt.Errorf("partition %d: %d bytes counted, %d there", i, p.bytes, b)
		}
		sum += b
		for _, e := range p.edges {
			if e.log != nil {
				sum += e.log.bytes
			}
		}
	}
	if sum != n.ringBytes {
		return fmt.Errorf("node: %d bytes counted, %d there", n.ringBytes, sum)
	}
	return nil
}
