package wsfanout

import (
	"context"
	"strconv"
)

// revocation names the sockets to close.
type revocation struct {
	User    string `json:"user"`
	Session string `json:"session,omitempty"`
}

// takeover says that a client has a newer socket.
type takeover struct {
	Key    string `json:"key"`
	Number uint64 `json:"number"`
}

func clientKey(user, client string) string { return strconv.Quote(user) + client }

// Revoke closes all sockets of the user on all nodes, or with a session only those of that session. The clients do not come back by themselves;
// Authenticate must refuse those that do. Nodes that are out of reach are told when their link is back; one that has left the view is not.
func (h *Hub) Revoke(ctx context.Context, user, session string) error {
	if h.closed() {
		return ErrClosed
	}
	r := revocation{User: user, Session: session}
	h.tell(&control{Revoke: &r})
	h.closeRevoked(r)
	return nil
}

func (h *Hub) closeRevoked(r revocation) {
	h.with(func() {
		for c := range h.users[r.User] {
			if r.Session == "" || r.Session == c.who.Session {
				c.sock.Close(closeRevoked, "revoked")
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
