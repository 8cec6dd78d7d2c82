package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nines-go/nines/examples/chat/internal/store"
	"github.com/nines-go/nines/wsfanout"
)

const (
	maxText        = 4000 // characters
	maxList        = 200
	publishTimeout = 5 * time.Second
	// A message that was stored longer ago has been published, or its page has given up long since. It is younger than the hub's memory of
	// IDs, so what is published again is shown once.
	republishFor = 4 * time.Minute
)

func (s *Server) listRooms(w http.ResponseWriter, r *http.Request, _ store.User) {
	rooms, err := s.store.Rooms(r.Context())
	if err != nil {
		s.broken(w, r, err)
		return
	}
	reply(w, http.StatusOK, rooms)
}

func (s *Server) createRoom(w http.ResponseWriter, r *http.Request, _ store.User) {
	var in struct {
		Name string `json:"name"`
	}
	if !read(w, r, &in) {
		return
	}
	in.Name = strings.Join(strings.Fields(in.Name), " ")
	if n := utf8.RuneCountInString(in.Name); n == 0 || n > 64 || !utf8.ValidString(in.Name) {
		fail(w, http.StatusBadRequest, "a room's name has 1 to 64 characters")
		return
	}
	room, err := s.store.CreateRoom(r.Context(), in.Name)
	switch {
	case errors.Is(err, store.ErrTaken):
		fail(w, http.StatusConflict, "there is a room of that name")
		return
	case err != nil:
		s.broken(w, r, err)
		return
	}
	s.rooms.Store(room.ID, struct{}{})
	data, err := json.Marshal(room)
	if err == nil {
		_, err = s.publish(r.Context(), roomsTopic, data, room.ID)
	}
	if err != nil {
		s.log.Warn("new room not published", "room", room.ID, "error", err) // pages see it when they next list the rooms
	}
	s.wrote(w, r)
	reply(w, http.StatusCreated, room)
}

// query reads a whole number from the URL, or answers why not.
func query(w http.ResponseWriter, r *http.Request, name string, fallback, highest int64) (int64, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, true
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		fail(w, http.StatusBadRequest, name+" is not a whole number")
		return 0, false
	}
	return min(n, highest), true
}

const maxSeq = 1<<63 - 1

func (s *Server) listMessages(w http.ResponseWriter, r *http.Request, _ store.User) {
	before, ok1 := query(w, r, "before", 0, maxSeq)
	if !ok1 {
		return
	}
	after, ok2 := query(w, r, "after", 0, maxSeq)
	if !ok2 {
		return
	}
	limit, ok3 := query(w, r, "limit", 50, maxList)
	if !ok3 || !s.inRoom(w, r, r.PathValue("room")) {
		return
	}
	list, err := s.store.Messages(r.Context(), r.PathValue("room"), before, after, int(limit))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	reply(w, http.StatusOK, list)
}

// inRoom reports whether there is such a room, or answers that there is none.
func (s *Server) inRoom(w http.ResponseWriter, r *http.Request, room string) bool {
	err := s.roomExists(r.Context(), room)
	switch {
	case errors.Is(err, store.ErrNotFound):
		fail(w, http.StatusNotFound, "there is no such room")
	case err != nil:
		s.broken(w, r, err)
	}
	return err == nil
}

func (s *Server) presence(w http.ResponseWriter, r *http.Request, _ store.User) {
	room := r.PathValue("room")
	if !s.inRoom(w, r, room) {
		return
	}
	users, err := s.hub.Presence(r.Context(), roomPrefix+room)
	if err != nil {
		s.broken(w, r, err)
		return
	}
	if users == nil {
		users = []string{}
	}
	reply(w, http.StatusOK, users)
}

func (s *Server) search(w http.ResponseWriter, r *http.Request, _ store.User) {
	text := r.URL.Query().Get("q")
	if text == "" || utf8.RuneCountInString(text) > 200 {
		fail(w, http.StatusBadRequest, "q has 1 to 200 characters")
		return
	}
	limit, ok := query(w, r, "limit", 50, maxList)
	if !ok {
		return
	}
	list, err := s.store.Search(r.Context(), r.URL.Query().Get("room"), text, int(limit))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	reply(w, http.StatusOK, list)
}

var messageID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

type postRequest struct {
	Room   string `json:"room"`
	Text   string `json:"text"`
	ID     string `json:"id"` // the client's: the same again is the same message
	File   string `json:"file"`
	Client string `json:"client"`
	Number int64  `json:"n"`
}

func (p *postRequest) fault() string {
	switch {
	case !messageID.MatchString(p.ID):
		return "id has 1 to 64 letters, digits, dots, colons, dashes and underscores; make a new one for each message"
	case p.Client != "" && !messageID.MatchString(p.Client):
		return "client has at most 64 letters, digits, dots, colons, dashes and underscores"
	case p.Text == "" && p.File == "":
		return "a message has a text or a file"
	case utf8.RuneCountInString(p.Text) > maxText:
		return "a message has at most 4000 characters"
	case strings.ContainsRune(p.Text, 0):
		return "a message has no zero bytes"
	case p.File != "" && !fileKey.MatchString(p.File):
		return "file is not the key of an upload"
	case p.Number < 0:
		return "n is not negative"
	}
	return ""
}

// postReply is what a client learns of its message.
type postReply struct {
	ID     string `json:"id"`
	Seq    int64  `json:"seq"`
	At     int64  `json:"at"`
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
	Copies int    `json:"copies"` // nodes that had it when it was acknowledged; 0 for a repeat of an old message
	Home   string `json:"home"`   // ID of the node that counts the room's messages
}

// post stores a message and then publishes it. Whatever fails in between, the client repeats it with the same ID.
func (s *Server) post(w http.ResponseWriter, r *http.Request, user store.User) {
	var in postRequest
	if !read(w, r, &in) {
		return
	}
	if fault := in.fault(); fault != "" {
		fail(w, http.StatusBadRequest, fault)
		return
	}
	if !s.inRoom(w, r, in.Room) {
		return
	}
	m, added, err := s.store.AddMessage(r.Context(), store.Message{
		ID: in.ID, Room: in.Room, User: user.Name, Client: in.Client, Number: in.Number, Text: in.Text, File: in.File,
	})
	switch {
	case errors.Is(err, store.ErrConflict):
		fail(w, http.StatusConflict, "the id belongs to another message")
		return
	case err != nil:
		s.broken(w, r, err)
		return
	}
	answer := postReply{ID: m.ID, Seq: m.Seq, At: m.At}
	code := http.StatusCreated
	if !added {
		s.stats.repeats.Add(1)
		code = http.StatusOK
	}
	if added || time.Since(time.UnixMilli(m.At)) < republishFor {
		data, err := json.Marshal(m)
		if err != nil {
			s.broken(w, r, err)
			return
		}
		pos, err := s.publish(r.Context(), roomPrefix+m.Room, data, m.ID)
		if err != nil {
			s.stats.uncertain.Add(1)
			s.broken(w, r, err)
			return
		}
		answer.Epoch, answer.Offset, answer.Copies, answer.Home = pos.Epoch, pos.Offset, pos.Copies, s.hub.Home(roomPrefix+m.Room)
	}
	s.stats.posts.Add(1)
	s.wrote(w, r)
	reply(w, code, answer)
}

// publish goes on when the client hangs up: what is stored is to be shown, even if nobody repeats it.
func (s *Server) publish(ctx context.Context, topic string, data []byte, id string) (wsfanout.Position, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	return s.hub.Publish(ctx, topic, data, &wsfanout.PublishOptions{ID: id})
}
