package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Message is what was said. Client and Number are the sender's: each page counts its messages to a room from 1, so that a reader can tell
// that one is missing.
type Message struct {
	Seq    int64  `db:"seq" json:"seq"`
	ID     string `db:"id" json:"id"`
	Room   string `db:"room" json:"room"`
	User   string `db:"user_name" json:"user"`
	Client string `db:"client" json:"client,omitempty"`
	Number int64  `db:"number" json:"n,omitempty"`
	Text   string `db:"text" json:"text"`
	File   string `db:"file" json:"file,omitempty"` // key of an upload
	At     int64  `db:"created_at" json:"at"`       // milliseconds since 1970
}

const columns = `seq, id, room, user_name, client, number, text, file, created_at`

// AddMessage stores m unless its ID is there, and returns what is stored. The same message again is harmless; another one with the same ID is
// answered with ErrConflict.
func (s *Store) AddMessage(ctx context.Context, m Message) (stored Message, added bool, err error) {
	if m.At == 0 {
		m.At = millis(time.Now())
	}
	added, err = s.insert(ctx, `chat_messages (id, room, user_name, client, number, text, file, created_at) VALUES (?,?,?,?,?,?,?,?)`,
		m.ID, m.Room, m.User, m.Client, m.Number, m.Text, m.File, m.At)
	if err != nil {
		return Message{}, false, err
	}
	master := s.db.Master()
	if err := master.GetContext(ctx, &stored, master.Rebind(`SELECT `+columns+` FROM chat_messages WHERE id=?`), m.ID); err != nil {
		return Message{}, false, err
	}
	m.Seq, m.At = stored.Seq, stored.At
	if m != stored {
		return Message{}, false, ErrConflict
	}
	return stored, added, nil
}

// Messages returns up to limit messages of a room, oldest first: those before a Seq, those after one, or the newest when both are 0.
func (s *Store) Messages(ctx context.Context, room string, before, after int64, limit int) ([]Message, error) {
	list := []Message{}
	where, order, args := "", "DESC", []any{room}
	switch {
	case after > 0:
		where, order, args = " AND seq>?", "ASC", append(args, after)
	case before > 0:
		where, args = " AND seq<?", append(args, before)
	}
	query := `SELECT ` + columns + ` FROM chat_messages WHERE room=?` + where + ` ORDER BY seq ` + order + ` LIMIT ?`
	err := s.db.Replica().SelectContext(ctx, &list, s.db.Master().Rebind(query), append(args, limit)...)
	if order == "DESC" {
		slices.Reverse(list)
	}
	return list, err
}

// overlap is how far before the last message that a client had its missing messages may have been stored: on the other side of a partition,
// or by a server that stored first and published later.
const overlap = 5 * time.Minute

// Missing returns what a client that had the message after (or none) may not have, oldest first. Some of it the client has: it knows it by the
// ID. It asks the master, as the client has just been told that something is missing.
func (s *Store) Missing(ctx context.Context, room, after string, limit int) ([]Message, error) {
	m := s.db.Master()
	var since []int64
	if after != "" {
		if err := m.SelectContext(ctx, &since, m.Rebind(`SELECT created_at FROM chat_messages WHERE id=? AND room=?`), after, room); err != nil {
			return nil, err
		}
	}
	from := millis(time.Now().Add(-overlap))
	if len(since) > 0 {
		from = min(from, since[0]-overlap.Milliseconds())
	}
	var list []Message
	err := m.SelectContext(ctx, &list, m.Rebind(`SELECT `+columns+` FROM chat_messages WHERE room=? AND created_at>=? ORDER BY seq DESC LIMIT ?`), room, from, limit)
	slices.Reverse(list)
	return list, err
}

// Search finds the newest messages with all words of text, each as the beginning of a word, in one room or in all.
func (s *Store) Search(ctx context.Context, room, text string, limit int) ([]Message, error) {
	list := []Message{}
	words := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) })
	if len(words) == 0 {
		return list, nil
	}
	words = words[:min(len(words), 16)]
	var match string
	var args []any
	switch s.driver {
	case "sqlite":
		match = `seq IN (SELECT rowid FROM chat_search WHERE chat_search MATCH ?)`
		args = append(args, `"`+strings.Join(words, `"* "`)+`"*`)
	case "postgres":
		match = `to_tsvector('simple', text) @@ to_tsquery('simple', ?)`
		args = append(args, strings.Join(words, ":* & ")+":*")
	default:
		likes := make([]string, len(words))
		for i, w := range words {
			likes[i] = `text LIKE ?`
			args = append(args, "%"+w+"%")
		}
		match = strings.Join(likes, " AND ")
	}
	if room != "" {
		match += ` AND room=?`
		args = append(args, room)
	}
	query := fmt.Sprintf(`SELECT %s FROM chat_messages WHERE %s ORDER BY seq DESC LIMIT ?`, columns, match)
	err := s.db.Search().SelectContext(ctx, &list, s.db.Master().Rebind(query), append(args, limit)...)
	return list, err
}

// DeleteBefore deletes at most limit messages that are older than cutoff and reports how many.
func (s *Store) DeleteBefore(ctx context.Context, cutoff time.Time, limit int) (int64, error) {
	m := s.db.Master()
	query := `DELETE FROM chat_messages WHERE seq IN (SELECT seq FROM (SELECT seq FROM chat_messages WHERE created_at<? ORDER BY created_at LIMIT ?) AS old)`
	res, err := m.ExecContext(ctx, m.Rebind(query), millis(cutoff), limit)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
