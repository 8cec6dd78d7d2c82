package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
)

// Config of a Client. URLs is required; zero values are the defaults. The functions are called one at a time and in order, by the client's one
// goroutine: while one runs, nothing is read. They must not call Close.
type Config struct {
	URLs    []string          // ws, wss, http or https; a failed one is followed by the next
	Header  http.Header       // of every handshake
	Topics  []string          // to subscribe to from now on
	Cursors map[string]string // to resume: topic → what Cursors returned

	OnMessage func(Message)
	OnGap     func(Gap)
	OnState   func(State)
	OnHello   func(Hello)
	OnDenied  func(topic, reason string)
	// OnPresence is told who is subscribed to topics for which the hub tells it.
	OnPresence func(Presence)
	OnFrame    func(frame []byte) // every frame as it came, before anything is dropped; for tools that count for themselves

	Compress bool // offer permessage-deflate

	First        func() []byte // the first frame of every connection, for servers with AuthenticateFrame; nil: none
	HTTPClient   *http.Client  // of the handshake
	MinRetry     time.Duration // 3 s: the first pause after the attempt that follows a lost connection at once
	MaxRetry     time.Duration // 5 min; pauses double up to it, each is cut short at random
	Silence      time.Duration // 80 s without a frame, after which a connection is given up; a hub pings every 25 s
	MaxFrame     int64         // bytes of one frame from the hub; 4 MiB
	WriteTimeout time.Duration // 10 s
}

// Message is one message of a topic.
type Message struct {
	Topic     string
	ID        string // publish ID
	Epoch     string // with Offset its position; "" when it has none
	Offset    uint64
	Data      []byte
	Ephemeral bool
	Filled    bool // from the application after a gap, not from the topic's log
}

// Gap says that something was missed. Filled: all of it follows as messages.
type Gap struct {
	Topic  string
	Reason string
	After  string // ID of the last message before it
	Epoch  string // with Offset where the topic goes on
	Offset uint64
	Filled bool
}

// Presence is who is subscribed to a topic, or how that has changed. With Full, Users are all there are, or none are named because they are too many;
// Count is always right.
type Presence struct {
	Topic       string
	Full        bool
	Users       []string
	Join, Leave []string
	Count       int
}

// Hello is how a hub greets.
type Hello struct {
	Conn    string // ID of the connection
	Node    string
	Version string
	Config  string // version of the application's configuration
	Count   int    // connections of this client so far
}

// State of the connection.
type State string

// States. Closed is the last.
const (
	Connecting State = "connecting"
	Connected  State = "connected"
	Waiting    State = "waiting"
	Closed     State = "closed"
)

func (c *Config) validate() error {
	var errs []error
	if len(c.URLs) == 0 {
		errs = append(errs, errors.New("URLs is empty: give at least one, such as wss://chat.example.com/ws"))
	}
	for _, s := range c.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || !strings.Contains(" ws wss http https ", " "+u.Scheme+" ") {
			errs = append(errs, fmt.Errorf("URLs has %q: give ws://, wss://, http:// or https:// with a host", redact(s)))
		}
	}
	for t, s := range c.Cursors {
		if _, err := cursor.Parse(s); err != nil {
			errs = append(errs, fmt.Errorf("Config.Cursors[%q] is %q: give what Cursors returned, or nothing", t, s))
		}
	}
	for name, d := range map[string]int64{"MinRetry": int64(c.MinRetry), "MaxRetry": int64(c.MaxRetry), "Silence": int64(c.Silence), "MaxFrame": c.MaxFrame, "WriteTimeout": int64(c.WriteTimeout)} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: leave it 0 for the default", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("client: invalid configuration:\n%w", err)
	}
	return nil
}

// redact hides a password in the URL.
func redact(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	return "(unreadable)"
}

func (c *Config) fill() {
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	def(&c.MinRetry, 3*time.Second)
	def(&c.MaxRetry, 5*time.Minute)
	def(&c.Silence, 80*time.Second)
	def(&c.WriteTimeout, 10*time.Second)
	if c.MaxFrame == 0 {
		c.MaxFrame = 4 << 20
	}
}
