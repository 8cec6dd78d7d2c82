package server

import "net/http"

// demoState is what the demo's supervisor asks for, only with Options.Demo.
type demoState struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Leader  string            `json:"leader"` // node ID; empty while unknown
	Term    uint64            `json:"term"`
	Leading bool              `json:"leading"`
	Alive   []string          `json:"alive"`
	Settled bool              `json:"settled"`
	Home    map[string]string `json:"home"` // topic → node ID, for each ?topic=
}

func (s *Server) demoState(w http.ResponseWriter, r *http.Request) {
	lead := s.lead.State()
	state := demoState{
		ID: s.node.ID(), Name: s.nodeName(), Leader: lead.LeaderID, Term: lead.Term, Leading: lead.Leading, Alive: s.node.Alive(),
		Settled: s.hub.Stats().Settled, Home: map[string]string{},
	}
	for _, topic := range r.URL.Query()["topic"] {
		state.Home[topic] = s.hub.Home(topic)
	}
	w.Header().Set("Cache-Control", "no-store")
	reply(w, http.StatusOK, state)
}
