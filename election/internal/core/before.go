package core

import "time"

// before is the leader that this process took the lease from, and what is known about its end. When its session lock was freed, its process is
// proven dead to this member and to another one, and its own term was old enough for nobody before it to act, then there is nobody to wait for.
// All of it together is no proof either: a firewall that answers with resets in place of a host can look like this.
type before struct {
	id, session string
	term        uint64
	two         bool // the cluster had no other members

	alone bool // its term had been seen for a TTL: whoever was before it has lapsed
	lock  bool // its session has ended
	dead  bool // its process is proven dead
	other bool // to another member too, or there is none
	asked bool
	askAt time.Duration
}

func (b *before) proven() bool { return b != nil && b.alone && b.lock && b.dead && b.other }

func (b *before) ended(ev Evidence, server string) {
	if b != nil && ev.Term == b.term && ev.Session == b.session && b.session != "" && sessionServer(b.session) == server {
		b.lock = true
	}
}

func (b *before) saw(v View) {
	if b == nil {
		return
	}
	b.dead = v.Dead == b.id && b.id != ""
	if _, here := v.find(b.id); here {
		b.dead = false
	}
	if !b.dead {
		b.other = false
	}
}

// confirm asks the other members once the rest is known.
func (b *before) confirm(now Now, v View) []Action {
	if b == nil || !b.alone || !b.lock || !b.dead || b.other || b.asked || now.Mono < b.askAt {
		return nil
	}
	if b.two {
		b.other = true // nobody else can say
		return nil
	}
	b.asked = true
	return []Action{Confirm{ID: b.id}}
}

func (b *before) confirmed(now Now, ev Confirmed, again time.Duration) {
	if b == nil || ev.ID != b.id {
		return
	}
	b.asked, b.other = false, ev.Yes && b.dead
	b.askAt = now.Mono + again
}

// Before names the process whose death would let this one act at once, "" for none.
func (m *Lease) Before() string {
	if m.before == nil {
		return ""
	}
	return m.before.id
}

// widen notes how many members there are while the holder is one of them.
func (m *Lease) widen() {
	if _, here := m.view.find(HolderID(m.row.Holder)); here {
		m.width = len(m.view.Members)
	}
}
