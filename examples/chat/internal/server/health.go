package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

var errDraining = errors.New("this server is being stopped: other servers take its work")

// counters are figures of the HTTP API since the start.
type counters struct {
	posts, repeats, uncertain, refused, uploads, deleted atomic.Int64
}

// Figures are shown on the console.
type Figures struct {
	Posts     int64 // messages taken
	Repeats   int64 // of them again, with the same ID
	Uncertain int64 // posts answered with 503 for the client to repeat
	Refused   int64 // requests answered with 503 because MaxRequests were served
	InFlight  int   // requests being served
	Uploads   int64
	Deleted   int64 // messages that the retention job deleted here

	Heartbeats    int64     `json:",omitempty"` // runs of the heartbeat job in the whole cluster, each counted once
	LastHeartbeat time.Time `json:",omitzero"`
	HeartbeatNode string    `json:",omitempty"`
}

func (s *Server) figures() Figures {
	f := Figures{
		Posts: s.stats.posts.Load(), Repeats: s.stats.repeats.Load(), Uncertain: s.stats.uncertain.Load(), Refused: s.stats.refused.Load(),
		InFlight: len(s.requests), Uploads: s.stats.uploads.Load(), Deleted: s.stats.deleted.Load(),
	}
	if s.opts.Demo {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if runs, node, at, err := s.store.Heartbeat(ctx); err == nil && runs > 0 {
			f.Heartbeats, f.HeartbeatNode, f.LastHeartbeat = runs, node, at
		}
	}
	return f
}

// check is the server's own part of its readiness.
func (s *Server) check(context.Context) error {
	if s.draining.Load() {
		return errDraining
	}
	return nil
}

// unready is why the server should get no work, or nil. Warnings are no reason.
func (s *Server) unready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, c := range []struct {
		name  string
		check func(context.Context) error
	}{
		{"chat", s.check}, {"cluster", s.node.Check}, {"database", s.db.Check}, {"sockets", s.hub.Check}, {"files", s.proof.Check},
		{"leader", s.lead.Check}, {"jobs", s.work.Check},
	} {
		if err := c.check(ctx); err != nil && !isWarning(err) {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func isWarning(err error) bool {
	var w interface{ Warning() bool }
	return errors.As(err, &w) && w.Warning()
}

// ping is for load balancers: 200 only while the server takes work.
func (s *Server) ping(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if err := s.unready(r.Context()); err != nil {
		w.Header().Set("Retry-After", "1")
		reply(w, http.StatusServiceUnavailable, map[string]string{"status": "UNHEALTHY", "reason": err.Error()})
		return
	}
	reply(w, http.StatusOK, map[string]string{"status": "OK", "node": s.nodeName()})
}
