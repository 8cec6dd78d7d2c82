package election

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

// Membership is what an Elector needs from a cluster; *cluster.Node satisfies it.
type Membership interface {
	ID() string                             // of this process, at most 150 bytes of ASCII; fixed once Alive is not nil
	Alive() []string                        // ascending, this process included; nil until the first settled view
	Fate(id string) string                  // "suspect" is passed over, "draining" is not eligible, "dead" and "left" make a lease void
	Notify(c chan<- struct{}) (stop func()) // a non-blocking send after each change of Alive, a Fate or a tag
	Tag(id, key string) string
	SetTag(key, value string) error
	Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) (stop func())
	Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error)
}

// DB is the master database; *sqlx.DB and *dbrouter.Master satisfy it. When it has a method Generation() uint64, a change of that number
// makes the Elector give its connections back and take new ones.
type DB interface {
	DriverName() string
	Conn(ctx context.Context) (*sql.Conn, error)
}

// Config configures an Elector. Electors of one name on one database must have the same TTL.
type Config struct {
	// Members is the cluster. Required.
	Members Membership
	// DB decides who leads, by a row. nil: leadership is advisory, see the package's comment on what can go wrong then.
	DB DB
	// Name tells elections apart that share a database and a cluster; "" is "default". At most 128 bytes.
	Name string
	// TTL is how long a leader that has fallen silent is waited for; 0 is 3 s, from 1 s to 5 min. The leader renews each third of it
	// and stops trusting its lease a sixth before its end. A shorter one fails over faster, and loses the leadership in shorter
	// pauses of a process or its database.
	TTL time.Duration
	// NonCandidate: this node never leads. It is told to the others by the tag election.candidate of the whole node.
	NonCandidate bool
	// Quorum is the expected number of members: without a majority of it alive nobody leads. Only without a DB; 0 is none, and both
	// sides of a partition have a leader.
	Quorum int
	// EarlyLead says when Lead may start after a leader was lost. The default is Quiet.
	EarlyLead EarlyLead
	// StableFor is how long a lower ID that came to an existing leader has to be eligible before leadership is handed over to it;
	// 0 is 10 s.
	StableFor time.Duration
	// Logger receives changes of leadership and faults of the database; nil is slog.Default().
	Logger *slog.Logger
}

// EarlyLead says when Lead, which is not fenced, may start after another leader was lost.
type EarlyLead int

const (
	// Quiet: only when nobody else can still be acting. The default.
	Quiet EarlyLead = iota
	// Proven: also when the leader's session in the database has ended, its process is proven dead to this member, and, in a cluster of
	// three or more, to another one too. That is all that can be known from outside, and no proof: a firewall that answers with resets in
	// place of a host can forge it. Then two act for as long as the leader takes to find its session lost, which is 0.4 s. PostgreSQL and
	// MariaDB only; elsewhere it is Quiet.
	Proven
)

const (
	defaultTTL       = 3 * time.Second
	minTTL           = time.Second
	maxTTL           = 5 * time.Minute
	defaultStableFor = 10 * time.Second
	maxName          = 128
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
		faults = append(faults, fmt.Errorf("election: Config.%s is %v: %s", field, value, remedy))
	}
	var d dialect.Dialect
	if c.Members == nil {
		bad("Members", "nil", "set it to the cluster node")
	} else if isNil(c.Members) {
		bad("Members", fmt.Sprintf("a nil %T", c.Members), "set it to a cluster node that was made without an error")
	}
	if c.DB != nil {
		if isNil(c.DB) {
			bad("DB", fmt.Sprintf("a nil %T", c.DB), "set it to an open database, or leave the field out for advisory leadership")
		} else {
			d = driverOf(c.DB, bad)
		}
	}
	if err := validName(c.Name); err != nil {
		bad("Name", fmt.Sprintf("%q", c.Name), err.Error())
	}
	if c.TTL != 0 && (c.TTL < minTTL || c.TTL > maxTTL) {
		bad("TTL", c.TTL, fmt.Sprintf("use %v to %v, or 0 for %v", minTTL, maxTTL, defaultTTL))
	}
	if c.StableFor < 0 {
		bad("StableFor", c.StableFor, fmt.Sprintf("use a positive duration, or 0 for %v", defaultStableFor))
	}
	if c.Quorum < 0 {
		bad("Quorum", c.Quorum, "use the expected number of members, or 0")
	}
	if c.Quorum > 0 && c.DB != nil {
		bad("Quorum", c.Quorum, "leave it 0 with a DB: there the lease decides")
	}
	switch {
	case c.EarlyLead != Quiet && c.EarlyLead != Proven:
		bad("EarlyLead", int(c.EarlyLead), "use Quiet or Proven")
	case c.EarlyLead == Proven && c.DB == nil:
		bad("EarlyLead", "Proven", "leave it out without a DB: nobody is waited for there")
	}
	if len(faults) > 0 {
		return d, errors.Join(faults...)
	}
	if c.Name == "" {
		c.Name = "default"
	}
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	if c.StableFor == 0 {
		c.StableFor = defaultStableFor
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return d, nil
}

func driverOf(db DB, bad func(field string, value any, remedy string)) dialect.Dialect {
	d, err := dialect.Of(db.DriverName())
	if err != nil {
		bad("DB", fmt.Sprintf("of driver %q", db.DriverName()), "use a database opened with driver postgres, pgx, sqlite, sqlite3 or mysql")
	}
	return d
}

func validName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("use at most %d bytes", maxName)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' {
			return errors.New("use printable ASCII without spaces")
		}
	}
	return nil
}
