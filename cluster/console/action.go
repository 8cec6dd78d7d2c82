package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// press is the body of POST action, and what consoles send each other.
type press struct {
	Card   string `json:"card"`
	Action string `json:"action"`
	Arg    string `json:"arg"`
	Node   string `json:"node"` // ID; "" is the node that answers. An action with Every runs on all nodes.
}

// serveAction runs an action and answers {"results": {node ID: error or ""}}.
func (h *Handler) serveAction(w http.ResponseWriter, r *http.Request) {
	var p press
	if !h.accept(w, r, &p) {
		return
	}
	a, err := h.find(p)
	if err != nil {
		http.Error(w, "console: "+err.Error(), http.StatusNotFound)
		return
	}
	h.log.Info("action", "card", p.Card, "action", p.Action, "node", p.Node, "every", a.Every, "client", r.RemoteAddr)
	sendJSON(w, map[string]any{"results": h.run(r.Context(), a, p)})
}

// accept lets a request in that changes something, and decodes its body into v. It answers what it refuses.
func (h *Handler) accept(w http.ResponseWriter, r *http.Request, v any) bool {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "console: use POST", http.StatusMethodNotAllowed)
		return false
	}
	if !h.cfg.AllowActions {
		http.Error(w, "console: actions are off: set Config.AllowActions", http.StatusForbidden)
		return false
	}
	if err := sameOrigin(r); err != nil {
		http.Error(w, "console: "+err.Error(), http.StatusForbidden)
		return false
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(v); err != nil {
		http.Error(w, "console: the body is not what is expected here: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// sameOrigin refuses what a page of another site makes a browser send.
func sameOrigin(r *http.Request) error {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return errors.New("the request comes from another site")
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if _, host, ok := strings.Cut(origin, "://"); !ok || host != r.Host {
			return fmt.Errorf("the request comes from %q, not from %q", origin, r.Host)
		}
	}
	if t := r.Header.Get("Content-Type"); !strings.HasPrefix(t, "application/json") {
		return fmt.Errorf("the content type is %q: send application/json", t)
	}
	return nil
}

func (h *Handler) find(p press) (Action, error) {
	for _, c := range h.cfg.Cards {
		for _, a := range c.Actions {
			if c.Name == p.Card && a.Name == p.Action {
				return a, nil
			}
		}
	}
	return Action{}, fmt.Errorf("there is no action %q on card %q", p.Action, p.Card)
}

// run returns an error text, or "", for each node that the action ran on.
func (h *Handler) run(ctx context.Context, a Action, p press) map[string]string {
	results := map[string]string{}
	self := h.cfg.Node.ID()
	text := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	body, err := json.Marshal(p)
	if err != nil {
		return map[string]string{self: err.Error()}
	}
	switch {
	case a.Every:
		for id, reply := range h.cfg.Node.Gather(ctx, actionTopic, body) {
			results[id] = text(reply.Err)
		}
		results[self] = text(h.press(ctx, a, p))
	case p.Node == "" || p.Node == self:
		results[self] = text(h.press(ctx, a, p))
	default:
		_, err := h.cfg.Node.Request(ctx, p.Node, actionTopic, body)
		results[p.Node] = text(err)
	}
	return results
}

// press runs an action here.
func (h *Handler) press(ctx context.Context, a Action, p press) error {
	return h.safely("action "+p.Card+", "+a.Name, func() error { return a.Run(ctx, p.Arg) })
}

// answerAction runs an action for the console of another node, which has authorized it.
func (h *Handler) answerAction(ctx context.Context, from string, payload []byte) ([]byte, error) {
	if from == h.cfg.Node.ID() {
		return nil, nil // Gather may ask this node too: run has done it
	}
	if !h.cfg.AllowActions {
		return nil, errors.New("actions are off on this node")
	}
	var p press
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	a, err := h.find(p)
	if err != nil {
		return nil, err
	}
	return nil, h.press(ctx, a, p)
}
