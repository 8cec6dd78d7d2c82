package client

// remembered is how many publish IDs of a topic are remembered.
const remembered = 128

// recent is the publish IDs that a topic has shown lately. What was published when a home and its replica died may be published again, and
// comes behind the gap that reports their death; so may what the application filled the gap with. Neither is shown twice.
type recent struct {
	ids    []string // a ring
	at     int
	has    map[string]bool
	gapped bool // only after a gap can anything come again
}

func (r *recent) add(id string) {
	if id == "" || r.has[id] {
		return
	}
	if r.has == nil {
		r.has = map[string]bool{}
	}
	if len(r.ids) < remembered {
		r.ids = append(r.ids, id)
	} else {
		delete(r.has, r.ids[r.at])
		r.ids[r.at] = id
		r.at = (r.at + 1) % remembered
	}
	r.has[id] = true
}

// again reports whether a message has been shown before a gap.
func (r *recent) again(id string) bool { return r.gapped && r.has[id] }
