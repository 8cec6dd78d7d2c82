package wsfanout

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"
)

// A revocation names sockets to close. Nodes pass it on, and keep it for those that are out of reach: it is the first that they hear.
type revocation struct {
	ID      string        `json:"id"`
	User    string        `json:"user"`
	Session string        `json:"session,omitempty"`
	Age     time.Duration `json:"age"` // when it was sent: clocks are never compared

	at     time.Duration // on this hub's clock
	number uint64        // in the order of this hub
}

const (
	revokedAge  = 24 * time.Hour
	revokedMost = 10_000
)

// revocations is what this node knows of. It is guarded by hub.mu.
type revocations struct {
	all    []*revocation // oldest first
	ids    map[string]bool
	user   map[string][]*revocation
	number uint64 // of the newest
}

// add reports whether it is news.
func (r *revocations) add(v *revocation, now time.Duration) bool {
	if r.ids[v.ID] {
		return false
	}
	if r.ids == nil {
		r.ids, r.user = map[string]bool{}, map[string][]*revocation{}
	}
	for len(r.all) > 0 && (len(r.all) >= revokedMost || now-r.all[0].at > revokedAge) {
		old := r.all[0]
		r.all = r.all[1:]
		delete(r.ids, old.ID)
		if r.user[old.User] = r.user[old.User][1:]; len(r.user[old.User]) == 0 {
			delete(r.user, old.User)
		}
	}
	r.number++
	v.number = r.number
	r.all = append(r.all, v)
	r.ids[v.ID] = true
	r.user[v.User] = append(r.user[v.User], v)
	return true
}

// hits reports whether who was authenticated at a time has been revoked since.
func (r *revocations) hits(who Identity, at time.Duration) bool {
	for _, v := range r.user[who.User] {
		if v.hits(who, at) {
			return true
		}
	}
	return false
}

func (v *revocation) hits(who Identity, at time.Duration) bool {
	return v.User == who.User && (v.Session == "" || v.Session == who.Session) && at <= v.at
}

// tellRevoked queues for a peer what it has not been told; h.mu is held. A process that has come since has nobody authenticated before.
func (p *peer) tellRevoked() {
	r := &p.h.revoked
	if p.told == r.number {
		return
	}
	now := p.h.now()
	c := &control{}
	for _, v := range r.all {
		if v.number > p.told && v.at+10*time.Second > p.first {
			w := *v
			w.Age = now - v.at
			c.Revoked = append(c.Revoked, w)
		}
	}
	if p.told = r.number; len(c.Revoked) > 0 {
		p.items = append(p.items, item{control: c})
	}
}

// takeover says that a client has a newer socket.
type takeover struct {
	Key    string `json:"key"`
	Number uint64 `json:"number"`
}

func clientKey(user, client string) string { return strconv.Quote(user) + client }

// Revoke closes all sockets of the user on all nodes, or with a session only those of that session. The clients do not come back by themselves;
// Authenticate must refuse those that do. A node that is out of reach hears of it before anything else when it is back, if that is within 24 h, and
// shows nothing to anyone in between; see Config.Reauthorize. It returns when the sockets of this node are closing.
func (h *Hub) Revoke(ctx context.Context, user, session string) error {
	if h.closed() {
		return ErrClosed
	}
	h.revoke([]revocation{{ID: rand.Text(), User: user, Session: session}})
	return nil
}

// revoke carries out what is news, and passes it on.
func (h *Hub) revoke(all []revocation) {
	var fresh []*revocation
	h.mu.Lock()
	now := h.now()
	for i := range all {
		v := &all[i]
		v.at = now - max(0, v.Age) // or later, by what it was under way: nobody is missed
		if h.revoked.add(v, now) {
			fresh = append(fresh, v)
		}
	}
	if len(fresh) > 0 && h.node != nil {
		for _, id := range h.viewLocked().Alive {
			if id != h.id {
				h.peerLocked(id).push(nil, nil)
			}
		}
	}
	h.mu.Unlock()
	h.with(func() {
		for _, v := range fresh {
			for c := range h.users[v.User] {
				if v.hits(c.who, c.since) {
					c.sock.Close(closeRevoked, "revoked")
				}
			}
		}
	})
}

func (h *Hub) closeOlder(t takeover) {
	if v, ok := h.takeover.Load(t.Key); ok {
		if c := v.(*Conn); c.number < t.Number {
			c.sock.Close(closeReplaced, "replaced by a newer connection of this client")
		}
	}
}
