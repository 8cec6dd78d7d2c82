package wsfanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"time"
)

// Transport carries frames between hubs; *cluster.Node satisfies it. For each ordered pair of processes what is posted arrives in order and
// without loss, or the Fate of the process at the other end becomes dead or failed.
type Transport interface {
	ID() string            // of this process start, never used again
	Alive() []string       // members, this process included; nil until the first look around is done
	Fate(id string) string // alive, suspect, draining, left, dead, failed
	Notify(c chan<- struct{}) (stop func())
	Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func())
	Post(ctx context.Context, to, topic string, payload []byte) error
	TryPost(to, topic string, payload []byte) error
	PostBulk(ctx context.Context, to, topic string, payload []byte) error
}

// Identity is who is at the other end of a socket.
type Identity struct {
	User    string // names the user for ExceptUsers, Presence, Revoke and MaxPerUser
	Session string // for Revoke; may be empty
	Data    any    // the application's own
}

// Config of a Hub. Authenticate or AuthenticateFrame is required; zero values are the defaults.
type Config struct {
	Transport Transport // nil: this process is alone

	// Authenticate tells who asks for a socket. An error refuses with 401; errors that wrap ErrForbidden with 403.
	Authenticate func(r *http.Request) (Identity, error)
	// AuthenticateFrame does it from the first message of the socket, which must come within 5 s. It is asked when Authenticate is nil.
	AuthenticateFrame func(ctx context.Context, first []byte) (Identity, error)
	// Authorize tells whether a client may subscribe to a topic. nil: clients cannot, only Conn.Subscribe does it for them.
	Authorize func(ctx context.Context, id Identity, topic string) error
	// Reauthorize is asked about every socket after this node was out of reach of others, or stood still, and may have missed a Revoke: before anything
	// is shown again, at most 16 at once. Authorize is then asked about each topic that a client has subscribed to. ErrForbidden closes the
	// socket with 4003, or ends the subscription; other errors are asked again for 10 s, then the socket is closed with 1013. nil: whoever was
	// authenticated still is.
	Reauthorize func(ctx context.Context, id Identity) error
	// OnConnect runs once for each socket, before its first frame is read. It may subscribe. An error closes the socket.
	OnConnect func(ctx context.Context, c *Conn) error
	// OnMessage gets what a client publishes, one at a time for each socket. nil: clients cannot send. It decides what becomes of it, mostly
	// Hub.Publish. An error is told to the client: the text of one that wraps ErrForbidden, of others only that it failed.
	OnMessage func(ctx context.Context, c *Conn, topic string, data []byte) error
	// OnGap returns what the client missed, from the application's database: everything after the message with the ID after ("" when it never
	// had one), in order. It is shown before what follows, and a record with one of these IDs is not shown again on this connection. At most 8 run at
	// once. An error leaves the gap unfilled and told as such: return one when not all of it can be given.
	OnGap func(ctx context.Context, id Identity, topic, after string) ([]Message, error)

	// Topic tells how a topic is treated. It is asked at each subscription of a topic, must be fast, and say the same on all nodes. nil: the zero
	// TopicOptions for all.
	Topic func(topic string) TopicOptions

	Origins []string // patterns of hosts besides the own one that pages may come from, as in path.Match ("*.example.com"). Default: same origin only
	Logger  *slog.Logger

	Node          string // label of this node in the hello frame; default: the transport's ID
	Version       string // of the application, in the hello frame
	ConfigVersion string // pages reload when it changes, see the clients; "" never

	MinCopies  int // 1, or 2: a publish fails with ErrNoReplica rather than be on one node only. 1 goes on and says so in Position.Copies
	MinMembers int // nodes without which no node takes topics over; default 1: the last one goes on

	MaxPresence   int // users of a topic whose names are told; default 200. Above it only their number is, once a second
	MaxConns      int // sockets of this node; default 50,000. Above it 503 with Retry-After
	MaxPerUser    int // sockets of one user on this node; default 100. Above it 503 with Retry-After
	MaxPerAddress int // sockets from one address on this node; default no limit: an office or a proxy is one address. Above it 503 with Retry-After
	// RemoteAddr tells which address counts for MaxPerAddress. Default: that of the TCP connection. Behind a proxy read what it writes, and
	// nothing that a client can.
	RemoteAddr   func(r *http.Request) string
	MaxTopics    int   // topics of one socket; default 1,000
	MaxMessage   int   // bytes of a published message; default 1 MiB, which is also the most
	MaxFrame     int64 // bytes of a frame from a client; default 32 KiB. A resume of many topics must fit
	MaxPerSecond int   // frames a second from one client, five seconds' worth at once; default 20. Above it 1008
	// MaxBytesPerSecond from one client, five seconds' worth at once; default 128 KiB. A resume of all topics must fit. Above it 1008.
	MaxBytesPerSecond int

	// Compress offers permessage-deflate without context takeover: each frame of 512 bytes or more is compressed once for all sockets that take it.
	// Off by default: who can have text of his own put into a frame beside a secret, and sees how long it becomes, can find the secret out.
	Compress bool

	PingInterval time.Duration // of silence before a client is pinged; default 25 s. After three of them it is dropped
	DrainSpread  time.Duration // over which Shutdown closes sockets; default 5 s, less for few sockets
}

const (
	authTimeout   = 5 * time.Second
	drainTime     = 10 * time.Second // for the hand-over of homes
	pauseAfter    = 1500 * time.Millisecond
	tickInterval  = 100 * time.Millisecond
	retryMin      = 3 // seconds, of a 503; up to twice as much
	highWater     = 256 << 10
	maxTopicLen   = 255
	maxIDLen      = 255
	maxPending    = 4 << 20
	presenceDelay = 5 * time.Second
	fillsAtOnce   = 8
	outboxFull    = 256 // events of the protocol that are not carried out yet
)

func (c Config) validate() error {
	var errs []error
	if c.Authenticate == nil && c.AuthenticateFrame == nil {
		errs = append(errs, errors.New("Config.Authenticate is nil: set it, or AuthenticateFrame; without one nobody can be told apart"))
	}
	if v := reflect.ValueOf(c.Transport); c.Transport != nil && v.Kind() == reflect.Pointer && v.IsNil() {
		errs = append(errs, fmt.Errorf("Config.Transport is a nil %T: give a running one, or leave the field out for one node", c.Transport))
	}
	for _, o := range c.Origins {
		if _, err := path.Match(o, ""); err != nil || o == "" {
			errs = append(errs, fmt.Errorf("Config.Origins has %q: give host patterns such as chat.example.com or *.example.com", o))
		}
	}
	if c.MinCopies < 0 || c.MinCopies > 2 {
		errs = append(errs, fmt.Errorf("MinCopies is %d: give 1 or 2", c.MinCopies))
	}
	if c.MinCopies == 2 && c.Transport == nil {
		errs = append(errs, errors.New("MinCopies is 2 without a Transport: one node has one copy; set Transport or MinCopies 1"))
	}
	if c.MaxMessage > 1<<20 {
		errs = append(errs, fmt.Errorf("MaxMessage is %d: give at most 1048576 and send a reference to what is larger", c.MaxMessage))
	}
	for name, n := range map[string]int64{
		"MinMembers": int64(c.MinMembers), "MaxConns": int64(c.MaxConns), "MaxPerUser": int64(c.MaxPerUser), "MaxPerAddress": int64(c.MaxPerAddress), "MaxPresence": int64(c.MaxPresence), "MaxBytesPerSecond": int64(c.MaxBytesPerSecond), "MaxTopics": int64(c.MaxTopics),
		"MaxMessage": int64(c.MaxMessage), "MaxFrame": c.MaxFrame, "MaxPerSecond": int64(c.MaxPerSecond),
		"PingInterval": int64(c.PingInterval), "DrainSpread": int64(c.DrainSpread),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is %d: leave it 0 for the default or give a positive one", name, n))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("wsfanout: invalid configuration:\n%w", err)
	}
	return nil
}

func (c *Config) fill() {
	def := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&c.MinCopies, 1)
	def(&c.MinMembers, 1)
	def(&c.MaxConns, 50_000)
	def(&c.MaxPresence, 200)
	def(&c.MaxPerUser, 100)
	def(&c.MaxTopics, 1000)
	def(&c.MaxMessage, 1<<20)
	def(&c.MaxPerSecond, 20)
	def(&c.MaxBytesPerSecond, 128<<10)
	if c.RemoteAddr == nil {
		c.RemoteAddr = remoteHost
	}
	if c.MaxFrame == 0 {
		c.MaxFrame = 32 << 10
	}
	if c.PingInterval == 0 {
		c.PingInterval = 25 * time.Second
	}
	if c.DrainSpread == 0 {
		c.DrainSpread = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}
