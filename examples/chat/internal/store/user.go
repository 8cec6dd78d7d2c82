package store

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// User is one account.
type User struct {
	ID       string `db:"id" json:"id"`
	Name     string `db:"name" json:"username"`
	Password string `db:"password" json:"-"` // bcrypt; empty: no password signs in
}

// CreateUser adds an account, or answers ErrTaken.
func (s *Store) CreateUser(ctx context.Context, name, password string) (User, error) {
	u := User{ID: uuid.NewString(), Name: name, Password: password}
	ok, err := s.insert(ctx, `chat_users (id, name, password, created_at) VALUES (?,?,?,?)`, u.ID, u.Name, u.Password, millis(time.Now()))
	if err == nil && !ok {
		err = ErrTaken
	}
	return u, err
}

// User finds an account by its name.
func (s *Store) User(ctx context.Context, name string) (User, error) {
	var u User
	err := s.find(ctx, &u, `SELECT id, name, password FROM chat_users WHERE name=?`, name)
	return u, err
}

// AddSession remembers a session by the hash of its token.
func (s *Store) AddSession(ctx context.Context, token, user string, expires time.Time) error {
	_, err := s.insert(ctx, `chat_sessions (token, user_id, expires_at) VALUES (?,?,?)`, token, user, millis(expires))
	return err
}

// Session finds whose session it is.
func (s *Store) Session(ctx context.Context, token string) (User, error) {
	var u User
	err := s.find(ctx, &u, `SELECT u.id, u.name, u.password FROM chat_sessions s JOIN chat_users u ON u.id=s.user_id WHERE s.token=? AND s.expires_at>?`,
		token, millis(time.Now()))
	return u, err
}

// EndSession forgets a session.
func (s *Store) EndSession(ctx context.Context, token string) error {
	m := s.db.Master()
	_, err := m.ExecContext(ctx, m.Rebind(`DELETE FROM chat_sessions WHERE token=?`), token)
	return err
}

// EndExpired forgets the sessions that have expired.
func (s *Store) EndExpired(ctx context.Context) error {
	m := s.db.Master()
	_, err := m.ExecContext(ctx, m.Rebind(`DELETE FROM chat_sessions WHERE expires_at<=?`), millis(time.Now()))
	return err
}
