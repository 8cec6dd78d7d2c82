package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/nines-go/nines/cluster/config"
)

const (
	settingsTopic = "nines.console.settings"
	historyTopic  = "nines.console.history"
)

func (h *Handler) answerSettings(context.Context, string, struct{}) ([]config.Setting, error) {
	if h.cfg.Settings == nil {
		return nil, errors.New("this node shows no settings: set Config.Settings")
	}
	return h.ownSettings(), nil
}

// ownSettings are the settings without what looks like a secret and is not marked as one.
func (h *Handler) ownSettings() []config.Setting {
	hide := newHider(h.cfg.Secrets)
	list := h.cfg.Settings()
	for i := range list {
		if !list[i].Secret {
			list[i].Value, list[i].Override = hide.text(list[i].Value), hide.text(list[i].Override)
		}
	}
	return list
}

// serveSettings answers settings.json: the settings of all nodes, with their sources.
func (h *Handler) serveSettings(w http.ResponseWriter, r *http.Request) {
	sendJSON(w, map[string]any{"nodes": ask[[]config.Setting](r.Context(), h.cfg.Node, "", settingsTopic, struct{}{})})
}

// happening is one cluster event as a node saw it.
type happening struct {
	At    time.Time `json:"at"`
	Kind  string    `json:"kind"`
	ID    string    `json:"id"`
	Name  string    `json:"name"`
	Cause string    `json:"cause,omitempty"`
}

func (h *Handler) answerHistory(context.Context, string, struct{}) ([]happening, error) {
	list := []happening{}
	for _, e := range h.cfg.Node.Events() {
		list = append(list, happening{e.At, e.Kind, e.Member.ID, e.Member.Name, e.Member.Cause})
	}
	return list, nil
}

// serveHistory answers history.json: the last events as every node saw them.
func (h *Handler) serveHistory(w http.ResponseWriter, r *http.Request) {
	sendJSON(w, map[string]any{"nodes": ask[[]happening](r.Context(), h.cfg.Node, "", historyTopic, struct{}{})})
}

func sendJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}
