package wsfanout

import (
	"context"
	"maps"
	"slices"
	"time"
)

// presence is who is subscribed to what: here as counted, elsewhere as told. Each node tells only about its own sockets, so nobody is left
// over when it is gone. It is guarded by hub.exec.
type presence struct {
	here    map[string]map[string]int                 // topic → user → sockets
	leaving map[[2]string]time.Time                   // topic, user: gone here since
	remote  map[string]map[string]map[string]struct{} // node → topic → users
}

func (p *presence) init() {
	p.here = map[string]map[string]int{}
	p.leaving = map[[2]string]time.Time{}
	p.remote = map[string]map[string]map[string]struct{}{}
}

// Presence returns the users with a socket that is subscribed to the topic, on any node, in order. A user that has left stays for 5 s, so that
// coming back elsewhere is no leaving.
func (h *Hub) Presence(ctx context.Context, topic string) ([]string, error) {
	if h.closed() {
		return nil, ErrClosed
	}
	all := map[string]struct{}{}
	h.with(func() {
		for u := range h.presence.here[topic] {
			all[u] = struct{}{}
		}
		for _, topics := range h.presence.remote {
			maps.Copy(all, topics[topic])
		}
	})
	return slices.Sorted(maps.Keys(all)), nil
}

func (h *Hub) presenceAddLocked(r *room, user string) {
	if r.opts.Presence == Hidden {
		return
	}
	topic := r.topic
	p := &h.presence
	users := p.here[topic]
	if users == nil {
		users = map[string]int{}
		p.here[topic] = users
	}
	_, known := users[user]
	users[user]++
	delete(p.leaving, [2]string{topic, user})
	if !known {
		h.tell(&control{Present: map[string][]string{topic: {user}}})
	}
}

func (h *Hub) presenceRemoveLocked(r *room, user string) {
	if r.opts.Presence == Hidden {
		return
	}
	topic := r.topic
	p := &h.presence
	if p.here[topic][user]--; p.here[topic][user] == 0 {
		p.leaving[[2]string{topic, user}] = time.Now()
	}
}

// presenceTick lets those go that have been away for long enough.
func (h *Hub) presenceTick() {
	absent := map[string][]string{}
	h.with(func() {
		p := &h.presence
		for k, since := range p.leaving {
			if time.Since(since) < presenceDelay {
				continue
			}
			delete(p.leaving, k)
			if delete(p.here[k[0]], k[1]); len(p.here[k[0]]) == 0 {
				delete(p.here, k[0])
			}
			absent[k[0]] = append(absent[k[0]], k[1])
		}
		if len(absent) > 0 {
			h.tell(&control{Absent: absent}) // in the same section: order against Present matters
		}
	})
}

// presenceTell tells a hub that has just come about all users here.
func (h *Hub) presenceTell(to string) {
	h.with(func() {
		present := map[string][]string{}
		for t, users := range h.presence.here {
			present[t] = slices.Collect(maps.Keys(users))
		}
		if len(present) == 0 {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.peerLocked(to).push(nil, &control{Present: present})
	})
}

func (h *Hub) presenceHear(from string, present, absent map[string][]string) {
	h.with(func() {
		topics := h.presence.remote[from]
		if topics == nil {
			topics = map[string]map[string]struct{}{}
			h.presence.remote[from] = topics
		}
		for t, users := range present {
			if topics[t] == nil {
				topics[t] = map[string]struct{}{}
			}
			for _, u := range users {
				topics[t][u] = struct{}{}
			}
		}
		for t, users := range absent {
			for _, u := range users {
				delete(topics[t], u)
			}
			if len(topics[t]) == 0 {
				delete(topics, t)
			}
		}
	})
}

// presenceKeep drops what nodes told that are gone.
func (h *Hub) presenceKeep(alive []string) {
	h.with(func() {
		for id := range h.presence.remote {
			if !slices.Contains(alive, id) {
				delete(h.presence.remote, id)
			}
		}
	})
}
