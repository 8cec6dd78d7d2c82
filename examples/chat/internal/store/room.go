package store

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Room is where people talk.
type Room struct {
	ID   string `db:"id" json:"id"`
	Name string `db:"name" json:"name"`
}

// MaxRooms bounds the list of rooms.
const MaxRooms = 500

// Rooms lists the rooms, the oldest first.
func (s *Store) Rooms(ctx context.Context) ([]Room, error) {
	rooms := []Room{}
	m := s.db.Master()
	err := s.db.Replica().SelectContext(ctx, &rooms, m.Rebind(`SELECT id, name FROM chat_rooms ORDER BY created_at, id LIMIT ?`), MaxRooms)
	return rooms, err
}

// Room finds a room by its ID.
func (s *Store) Room(ctx context.Context, id string) (Room, error) {
	var r Room
	err := s.find(ctx, &r, `SELECT id, name FROM chat_rooms WHERE id=?`, id)
	return r, err
}

// CreateRoom adds a room, or answers ErrTaken.
func (s *Store) CreateRoom(ctx context.Context, name string) (Room, error) {
	r := Room{ID: uuid.NewString(), Name: name}
	ok, err := s.insert(ctx, `chat_rooms (id, name, created_at) VALUES (?,?,?)`, r.ID, r.Name, millis(time.Now()))
	if err == nil && !ok {
		err = ErrTaken
	}
	return r, err
}
