package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// DB is the master database; *sqlx.DB and *dbrouter.Master satisfy it. A DB that also has a method NowUS() int64, microseconds since 1970, is
// asked for the time instead of the database's own clock: jobstest has one.
type DB interface {
	DriverName() string
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
	Conn(ctx context.Context) (*sql.Conn, error)
}

// Tx is the caller's transaction: *sql.Tx, *sqlx.Tx. What has a method BeginTx (a database, a connection) is refused: it is none.
type Tx = interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Leader runs fn while this process leads, and again when it leads again; *election.Elector satisfies it.
type Leader interface {
	LeadFenced(ctx context.Context, fn func(ctx context.Context, term uint64) error) error
}

// Cluster makes wake-ups, cancels and rescues quick; *cluster.Node satisfies it. Topics nines.jobs.* are the Runner's: one Runner a node.
type Cluster interface {
	ID() string
	Alive() []string // nil until the first settled view
	Notify(c chan<- struct{}) (stop func())
	Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func())
	TryBroadcast(topic string, payload []byte)
}

// Config configures a Runner.
type Config struct {
	// DB is the master database. Required.
	DB DB
	// Leader lets one process of the cluster do the scheduling. nil: this process schedules too; slots stay unique, schedulers collide.
	Leader Leader
	// Cluster carries wake-ups, cancels and the news that a node is gone. nil: polls and leases only.
	Cluster Cluster
	// NoWorkers: this process runs no jobs. It may schedule, enqueue and manage them.
	NoWorkers bool
	// NoScheduler: this process never schedules. A process that may lead without scheduling leaves the cluster without a scheduler:
	// set election.Config.NonCandidate with it.
	NoScheduler bool
	// Queues is how many jobs of each queue this process runs at once, up to 10,000; queues that are not named are not served here.
	// nil is {"default": 100}.
	Queues map[string]int
	// ClusterLimits is how many jobs of a queue all nodes together run at once, 1 to 1,000,000; queues that are not named have no such
	// limit. Each node heeds its own: give all the same. Claims of such a queue take turns, which costs throughput.
	ClusterLimits map[string]int
	// Poll is the longest time until work is seen of which no message told; 0 is 1 s, at least 10 ms. Shorter costs queries.
	Poll time.Duration
	// Keep is how long finished jobs stay listed; 0 is 7 days, at least 1 min.
	Keep time.Duration
	// Logger receives failed jobs, rescues and faults of the database; nil is slog.Default().
	Logger *slog.Logger
}

const (
	defaultQueue       = "default"
	defaultLimit       = 100
	maxLimit           = 10_000
	defaultPoll        = time.Second
	minPoll            = 10 * time.Millisecond
	defaultKeep        = 7 * 24 * time.Hour
	minKeep            = time.Minute
	defaultMaxAttempts = 20
	defaultTimeout     = time.Hour
	defaultBackoff     = time.Second
	maxBackoff         = time.Hour
	maxName            = 128
	maxArgs            = 1 << 20
	maxErrorText       = 16 << 10
	maxCount           = 1_000_000
)

// isNil reports whether an interface holds nothing, or a pointer to nothing.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Interface, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}

// validate fills in the defaults and reports every fault.
func (c *Config) validate() (dialect.Dialect, error) {
	var faults []error
	bad := func(field string, value any, remedy string) {
		faults = append(faults, fmt.Errorf("jobs: Config.%s is %v: %s", field, value, remedy))
	}
	var d dialect.Dialect
	switch {
	case c.DB == nil:
		bad("DB", "nil", "set it to the open master database")
	case isNil(c.DB):
		bad("DB", fmt.Sprintf("a nil %T", c.DB), "set it to an open database")
	default:
		var err error
		if d, err = dialect.Of(c.DB.DriverName()); err != nil {
			bad("DB", fmt.Sprintf("of driver %q", c.DB.DriverName()), "use a database opened with driver postgres, pgx, sqlite, sqlite3 or mysql")
		}
	}
	if c.Leader != nil && isNil(c.Leader) {
		bad("Leader", fmt.Sprintf("a nil %T", c.Leader), "set it to an elector that was made without an error, or leave the field out")
	}
	if c.Cluster != nil && isNil(c.Cluster) {
		bad("Cluster", fmt.Sprintf("a nil %T", c.Cluster), "set it to a node that was made without an error, or leave the field out")
	}
	if c.Queues != nil && len(c.Queues) == 0 && !c.NoWorkers {
		bad("Queues", "empty", "name a queue, leave the field nil, or set NoWorkers")
	}
	for name, limit := range c.Queues {
		if err := validName(name); err != nil {
			bad("Queues", fmt.Sprintf("%q", name), err.Error())
		}
		if limit < 1 || limit > maxLimit {
			bad("Queues", fmt.Sprintf("%d for %q", limit, name), fmt.Sprintf("use 1 to %d", maxLimit))
		}
	}
	for name, limit := range c.ClusterLimits {
		if err := validName(name); err != nil {
			bad("ClusterLimits", fmt.Sprintf("%q", name), err.Error())
		}
		if limit < 1 || limit > maxCount {
			bad("ClusterLimits", fmt.Sprintf("%d for %q", limit, name), fmt.Sprintf("use 1 to %d, or leave it out", maxCount))
		}
	}
	if c.Poll != 0 && c.Poll < minPoll {
		bad("Poll", c.Poll, fmt.Sprintf("use at least %v, or 0 for %v", minPoll, defaultPoll))
	}
	if c.Keep != 0 && c.Keep < minKeep {
		bad("Keep", c.Keep, fmt.Sprintf("use at least %v, or 0 for %v", minKeep, defaultKeep))
	}
	if len(faults) > 0 {
		return d, errors.Join(faults...)
	}
	if c.Queues == nil {
		c.Queues = map[string]int{defaultQueue: defaultLimit}
	}
	if c.Poll == 0 {
		c.Poll = defaultPoll
	}
	if c.Keep == 0 {
		c.Keep = defaultKeep
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return d, nil
}

func validName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("use 1 to %d bytes", maxName)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' {
			return errors.New("use printable ASCII without spaces")
		}
	}
	return nil
}
