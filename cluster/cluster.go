// Package cluster: who is here, are they healthy and alike, ordered messages between nodes.
package cluster

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"time"
)

var (
	ErrClosed       = errors.New("cluster: node closed")
	ErrNoMember     = errors.New("cluster: no such member")
	ErrBackpressure = errors.New("cluster: peer has no credit left")
	ErrTooLarge     = errors.New("cluster: message larger than MaxMessage")
	ErrNoHandler    = errors.New("cluster: peer has no handler for the topic")
)

// Config: ClusterName and Discovery are required, and Keys or InsecureNoKeys.
type Config struct {
	ClusterName                               string // required
	Single                                    bool   // one node: no listener, no discovery, no keys
	NodeName                                  string // label; os.Hostname
	Version                                   string
	Schema                                    int
	Discovery                                 Discovery // required
	Keys                                      [][]byte
	InsecureNoKeys                            bool
	BindAddr, AdvertiseAddr, OverrideHostname string
	NetworkInterface                          string
	UseHostname                               bool // page: UseIpAddress=false
	GossipPort                                int  // 8074
	ServicePort                               int
	RetryInterval                             time.Duration
	MaxMessage                                int
	Profile                                   Profile
	Network                                   Network
	Logger                                    *slog.Logger
	Hooks                                     Hooks
}

// Network is where a Node listens and dials; nil is the host's. clustertest and fault injection put theirs here.
type Network interface {
	Listen(ctx context.Context, addr string) (net.Listener, error)
	ListenPacket(ctx context.Context, addr string) (net.PacketConn, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

type Profile int

const (
	LAN Profile = iota
	Local
	WAN
)

type Hooks struct{}

// Node is the local running participant.
type Node struct{}

func New(cfg Config) (*Node, error) { return &Node{}, nil }

func (n *Node) Run(ctx context.Context) error      { return nil }
func (n *Node) Drain(ctx context.Context) error    { return nil }
func (n *Node) Shutdown(ctx context.Context) error { return nil }

// identity and view; basic types only, so that other products' interfaces fit
func (n *Node) ID() string                             { return "" }
func (n *Node) Alive() []string                        { return nil }
func (n *Node) Fate(id string) string                  { return "" }
func (n *Node) Notify(c chan<- struct{}) (stop func()) { return func() {} }
func (n *Node) Tag(id, key string) string              { return "" }
func (n *Node) SetTag(key, value string) error         { return nil }
func (n *Node) WaitReady(ctx context.Context) error    { return nil }
func (n *Node) Check(ctx context.Context) error        { return nil }

// rich view for people
func (n *Node) Self() Member      { return Member{} }
func (n *Node) Members() []Member { return nil }
func (n *Node) Status() Status    { return Status{} }
func (n *Node) Stats() Stats      { return Stats{} }

// messages; basic types only
func (n *Node) Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func()) {
	return func() {}
}
func (n *Node) Send(ctx context.Context, to, topic string, payload []byte) error     { return nil }
func (n *Node) Post(ctx context.Context, to, topic string, payload []byte) error     { return nil }
func (n *Node) TryPost(to, topic string, payload []byte) error                       { return nil }
func (n *Node) PostBulk(ctx context.Context, to, topic string, payload []byte) error { return nil }
func (n *Node) Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error) {
	return nil, nil
}
func (n *Node) Broadcast(ctx context.Context, topic string, payload []byte) error { return nil }
func (n *Node) TryBroadcast(topic string, payload []byte)                         {}
func (n *Node) Gather(ctx context.Context, topic string, payload []byte) map[string]Reply {
	return nil
}

type Reply struct {
	Payload []byte
	Err     error
}

// PeersError is Broadcast's partial failure.
type PeersError struct{ Failed map[string]error }

func (e *PeersError) Error() string { return "" }

// HandleJSON and RequestJSON are the typed helpers.
func HandleJSON[Q, A any](n *Node, topic string, fn func(ctx context.Context, from string, q Q) (A, error)) (stop func()) {
	return func() {}
}
func RequestJSON[A, Q any](ctx context.Context, n *Node, to, topic string, q Q) (A, error) {
	var a A
	return a, nil
}

type State int
type Member struct {
	ID, Name, Addr, Version string
	Schema                  int
	State                   State
	Started, LastSeen       time.Time
	ClockOffset             time.Duration
	Draining                bool
	Tags                    map[string]string
}
type Level int
type Reason struct{ Code, Text, Remedy string }
type MemberStatus struct {
	Member  Member
	Level   Level
	Reasons []Reason
}
type Status struct {
	Level   Level
	Members []MemberStatus
}
type Stats struct{}

// Discovery is the implementers' interface.
type Discovery interface {
	Register(ctx context.Context, e Entry) error
	Heartbeat(ctx context.Context, id string) error
	Seeds(ctx context.Context, clusterName string) ([]Entry, error)
	Deregister(ctx context.Context, id string) error
}
type Entry struct {
	ID, Type, ClusterName, Hostname string
	GossipPort, Port                int
	CreateAt, LastPingAt            time.Time
}

// DB is what SQLDiscovery needs: *sqlx.DB and *dbrouter.Master satisfy it.
type DB interface {
	DriverName() string
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	Conn(ctx context.Context) (*sql.Conn, error)
}

func SQLDiscovery(db DB) Discovery              { return nil }
func StaticDiscovery(addrs ...string) Discovery { return nil }
func DNSDiscovery(name string) Discovery        { return nil }

// Migrations is the SQL of the discovery table by dialect; SQLDiscovery applies it under a lock unless told not to.
func Migrations() fs.FS { return nil }
