// Package frame is what hub and client say to each other: one JSON object a WebSocket text message.
//
// Server to client, by "type":
//
//	hello       conn, node, version, config: the first frame
//	subscribed  topic, kind (fresh, resumed, gap), n records follow, epoch and offset of the start; for gap also reason, after and filled; ref of the request
//	message     topic, epoch, offset, id, data
//	fill        topic, id, data: from the application after a gap, without a position
//	skip        topic, epoch, offset: a record that this client is not shown; with n the last of n of the same epoch that follow each other
//	gap         topic, epoch, offset, reason, after, filled: the client now stands there; with n 1 it is a record of the log, which stands for
//	            what is lost before it
//	ephemeral   topic, data: no position, may be dropped
//	presence    topic, count, and users with full, or join and leave: who is subscribed, where the server tells; of large topics only the count
//	denied      topic, ref, code, error: the subscription was refused, or ended
//	done        ref, code, error: the answer to publish
//	error       ref, code, error: the frame was understood as JSON, but not what it wants
//	bye         retry: milliseconds that the client waits before it comes back
//	ping        says that the server lives
//
// Client to server:
//
//	subscribe    ref, topics: {topic: cursor}; an empty cursor asks for what comes from now on
//	unsubscribe  names: [topic]
//	publish      ref, topic, data
//
// The client ID and the count of its connections travel in the URL of the handshake (client, count).
//
// Data that is JSON travels as it is; other UTF-8 as a string with "text":true; anything else as base64 with "base64":true.
package frame

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
)

// Types of frames.
const (
	Hello       = "hello"
	Subscribed  = "subscribed"
	Message     = "message"
	Fill        = "fill"
	Skip        = "skip"
	Gap         = "gap"
	Ephemeral   = "ephemeral"
	Denied      = "denied"
	Done        = "done"
	Bye         = "bye"
	Ping        = "ping"
	Error       = "error"
	Presence    = "presence"
	Subscribe   = "subscribe"
	Unsubscribe = "unsubscribe"
	Publish     = "publish"
)

// Codes of denied, done and error.
const (
	Forbidden     = "forbidden"       // the application says no; error is its text
	Failed        = "failed"          // the application could not tell; try again
	BadTopic      = "bad_topic"       // empty, too long, or not UTF-8
	BadCursor     = "bad_cursor"      // not what a server sent
	BadData       = "bad_data"        // not what its flag says, or none
	TooManyTopics = "too_many_topics" // of one socket
	UnknownType   = "unknown_type"    // of a newer version, mostly
)

// Kinds of subscribed.
const (
	Fresh   = "fresh"
	Resumed = "resumed"
	Lost    = "gap"
)

// Server is any frame of a server.
type Server struct {
	Type    string          `json:"type"`
	Topic   string          `json:"topic,omitempty"`
	Epoch   string          `json:"epoch,omitempty"`
	Offset  uint64          `json:"offset,omitempty"`
	ID      string          `json:"id,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	Text    bool            `json:"text,omitempty"`
	Base64  bool            `json:"base64,omitempty"`
	Kind    string          `json:"kind,omitempty"`
	N       int             `json:"n,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	After   string          `json:"after,omitempty"`
	Filled  bool            `json:"filled,omitempty"` // of a gap: all that was missed follows
	Conn    string          `json:"conn,omitempty"`
	Node    string          `json:"node,omitempty"`
	Version string          `json:"version,omitempty"`
	Config  string          `json:"config,omitempty"`
	Ref     uint64          `json:"ref,omitempty"`
	Code    string          `json:"code,omitempty"`
	Error   string          `json:"error,omitempty"`
	Retry   int64           `json:"retry,omitempty"`
	Users   []string        `json:"users,omitempty"`
	Join    []string        `json:"join,omitempty"`
	Leave   []string        `json:"leave,omitempty"`
	Count   int             `json:"count,omitempty"`
	Full    bool            `json:"full,omitempty"`
}

// Client is any frame of a client.
type Client struct {
	Type   string            `json:"type"`
	Topics map[string]string `json:"topics,omitempty"`
	Names  []string          `json:"names,omitempty"`
	Ref    uint64            `json:"ref,omitempty"`
	Topic  string            `json:"topic,omitempty"`
	Data   json.RawMessage   `json:"data,omitempty"`
	Text   bool              `json:"text,omitempty"`
	Base64 bool              `json:"base64,omitempty"`
}

// Position of the frame.
func (s *Server) Position() (cursor.Position, error) {
	t, err := cursor.ParseTerm(s.Epoch)
	return cursor.Position{Epoch: t, Offset: s.Offset}, err
}

// Marshal encodes a frame of fields that always encode.
func Marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a RawMessage that SetData or AppendData did not make
	}
	return b
}

// AppendMessage builds a message, fill or ephemeral frame. An epoch of "" leaves the position out.
func AppendMessage(b []byte, typ, topic, epoch string, offset uint64, id string, data []byte) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, typ...)
	b = append(b, `","topic":`...)
	b = appendString(b, topic)
	if epoch != "" {
		b = append(b, `,"epoch":`...)
		b = appendString(b, epoch)
		b = append(b, `,"offset":`...)
		b = strconv.AppendUint(b, offset, 10)
	}
	if id != "" {
		b = append(b, `,"id":`...)
		b = appendString(b, id)
	}
	b = append(b, `,"data":`...)
	switch {
	case json.Valid(data) && utf8.Valid(data):
		b = append(b, data...)
	case utf8.Valid(data):
		b = appendString(b, string(data))
		b = append(b, `,"text":true`...)
	default:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, data)
		b = append(b, `","base64":true`...)
	}
	return append(b, '}')
}

func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			q, _ := json.Marshal(s) // a string always encodes
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

var errData = errors.New("frame: data is not what its flag says")

// Data restores the bytes that were published.
func Data(raw json.RawMessage, text, b64 bool) ([]byte, error) {
	if !text && !b64 {
		return raw, nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return nil, errData
	}
	if text {
		return []byte(s), nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errData
	}
	return b, nil
}

// SetData is the counterpart for a frame of a client.
func (c *Client) SetData(data []byte) {
	switch {
	case json.Valid(data) && utf8.Valid(data):
		c.Data = data
	case utf8.Valid(data):
		c.Data, _ = json.Marshal(string(data))
		c.Text = true
	default:
		c.Data, _ = json.Marshal(data) // []byte encodes as base64
		c.Base64 = true
	}
}
