package cluster

import (
	"slices"
	"sync"
)

// judges are the functions given to Judge.
type judges struct {
	mu  sync.Mutex
	all []*func(m Member) []Reason
}

// Judge has fn asked in each Status and Check what it finds about a process, this node's own included, until stop is called: what it returns
// stands with that member, as if the Node had found it. It is how something that compares tags, such as package config, turns a node red.
// fn runs on the goroutine that asked and beside itself; it must neither block nor call Status or Check. A nil fn panics.
func (n *Node) Judge(fn func(m Member) []Reason) (stop func()) {
	if fn == nil {
		panic("cluster: Judge of a nil func")
	}
	entry := &fn
	n.judges.mu.Lock()
	n.judges.all = append(slices.Clone(n.judges.all), entry)
	n.judges.mu.Unlock()
	return func() {
		n.judges.mu.Lock()
		defer n.judges.mu.Unlock()
		n.judges.all = slices.DeleteFunc(slices.Clone(n.judges.all), func(e *func(Member) []Reason) bool { return e == entry })
	}
}

// judged adds what the judges find.
func (n *Node) judged(s Status) Status {
	n.judges.mu.Lock()
	all := n.judges.all
	n.judges.mu.Unlock()
	if len(all) == 0 {
		return s
	}
	for i := range s.Members {
		m := &s.Members[i]
		for _, fn := range all {
			found := (*fn)(m.Member)
			m.Reasons = append(m.Reasons, found...)
			s.Reasons = append(s.Reasons, found...)
		}
		sortReasons(m.Reasons)
		m.Level = worst(m.Reasons)
	}
	sortReasons(s.Reasons)
	s.Level = worst(s.Reasons)
	return s
}
