package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/nines-go/nines/examples/chat/internal/store"
	"github.com/nines-go/nines/wsfanout"
)

// Topics: one for each room, and one that tells of new rooms.
const (
	roomsTopic = "rooms"
	roomPrefix = "room:"
)

// fillLimit is how many messages fill a gap.
const fillLimit = 1000

func (s *Server) hubConfig() wsfanout.Config {
	var origins []string
	for _, o := range s.origins() {
		if u, err := url.Parse(o); err == nil {
			origins = append(origins, u.Host)
		}
	}
	cfg := wsfanout.Config{
		Authenticate: s.authenticate, Authorize: s.authorize, OnMessage: s.onMessage, OnGap: s.onGap,
		Origins: origins, Logger: s.log, Node: s.nodeName(), Version: Version, MaxConns: s.cfg.ServiceSettings.MaxSockets,
	}
	if s.cfg.ClusterSettings.Enable {
		cfg.Transport = s.node
	}
	return cfg
}

// origins are those that pages may come from besides the server's own.
func (s *Server) origins() (origins []string) {
	if u, err := url.Parse(s.cfg.ServiceSettings.SiteURL); err == nil && u.Host != "" {
		origins = append(origins, u.Scheme+"://"+u.Host)
	}
	return append(origins, s.cfg.ServiceSettings.AllowedOrigins...)
}

func (s *Server) authenticate(r *http.Request) (wsfanout.Identity, error) {
	user, token, err := s.session(r)
	if err != nil {
		return wsfanout.Identity{}, err
	}
	return wsfanout.Identity{User: user.Name, Session: token}, nil
}

// authorize lets everyone into every room there is.
func (s *Server) authorize(ctx context.Context, _ wsfanout.Identity, topic string) error {
	if topic == roomsTopic {
		return nil
	}
	id, ok := strings.CutPrefix(topic, roomPrefix)
	if !ok {
		return fmt.Errorf("%w: there is no topic %q", wsfanout.ErrForbidden, topic)
	}
	err := s.roomExists(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: there is no room %q", wsfanout.ErrForbidden, id)
	}
	return err
}

// roomExists asks the database once for each room: rooms are never deleted.
func (s *Server) roomExists(ctx context.Context, id string) error {
	if _, ok := s.rooms.Load(id); ok {
		return nil
	}
	if _, err := s.store.Room(ctx, id); err != nil {
		return err
	}
	s.rooms.Store(id, struct{}{})
	return nil
}

// onMessage takes what pages send over the socket: that somebody types.
func (s *Server) onMessage(ctx context.Context, c *wsfanout.Conn, topic string, data []byte) error {
	var m struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(data, &m) != nil || m.Type != "typing" || !strings.HasPrefix(topic, roomPrefix) {
		return fmt.Errorf("%w: only typing is sent over the socket; messages are posted", wsfanout.ErrForbidden)
	}
	if err := s.authorize(ctx, c.Identity(), topic); err != nil {
		return err
	}
	out, err := json.Marshal(map[string]string{"type": "typing", "user": c.Identity().User})
	if err != nil {
		return err
	}
	_, err = s.hub.Publish(ctx, topic, out, &wsfanout.PublishOptions{Ephemeral: true, ExceptConns: []string{c.ID()}})
	return err
}

// onGap fills a gap from the table. What the client has already, it knows by the ID.
func (s *Server) onGap(ctx context.Context, _ wsfanout.Identity, topic, after string) ([]wsfanout.Message, error) {
	room, ok := strings.CutPrefix(topic, roomPrefix)
	if !ok {
		return nil, nil // the page lists the rooms again
	}
	missing, err := s.store.Missing(ctx, room, after, fillLimit)
	if err != nil {
		return nil, err
	}
	if len(missing) == fillLimit {
		return nil, errors.New("more is missing than a gap is filled with") // the page reads the history again
	}
	messages := make([]wsfanout.Message, 0, len(missing))
	for _, m := range missing {
		data, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		messages = append(messages, wsfanout.Message{ID: m.ID, Topic: topic, Data: data})
	}
	return messages, nil
}
