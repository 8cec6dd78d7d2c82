package dbrouter

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// Config is what a Router is opened with. Bounds on connections are per data source and per process: the databases must allow
// MaxOpenConns × processes, and a few more for the router's own probes.
type Config struct {
	DriverName               string   // required: postgres, pgx, mysql, sqlite or sqlite3; the program imports the driver
	DataSource               string   // required: the master
	DataSourceReplicas       []string // read replicas; none: the master serves reads
	DataSourceSearchReplicas []string // replicas for searches; none: the read replicas serve them

	MaxOpenConns    int           // per data source, 100 by default; more wait. SQLite's master has one.
	MaxIdleConns    int           // kept open when idle, 50 by default, at most MaxOpenConns; negative: none
	ConnMaxLifetime time.Duration // 1 h by default: how long a server that is to be retired keeps its connections; negative: for ever
	ConnMaxIdleTime time.Duration // 5 min by default; negative: for ever

	// QueryTimeout bounds a statement, 30 s by default; negative: not at all. Get, Select, Exec and NamedExec get it as a deadline when
	// the context has no earlier one. Query, Queryx, QueryRow and transactions have the server's own statement timeout, which the router
	// sets on each connection (SQLite has none).
	QueryTimeout time.Duration

	MonitorInterval time.Duration // between two probes of a data source, 1 s by default
	MaxLag          Lag           // a replica that trails further serves no reads
	DrainTimeout    time.Duration // how long a replaced pool waits for its users before it is closed, 30 s by default

	// Pooler says that a transaction pooler stands before the databases: no session settings are made, Get, Select and BeginReadx on
	// replicas run in READ ONLY transactions, a replica that accepts writes serves no reads, and every call gets QueryTimeout as a deadline.
	Pooler bool

	// ReadOnlySession returns the statement that makes a session read only, for a server that does not understand the dialect's own.
	// nil or "": the dialect's own.
	ReadOnlySession func(dialect string) string

	Classify func(err error) Fault // asked first what an error means; FaultNone leaves it to the router. It must be quick and not block.

	Trace  bool         // log every statement with its arguments and duration: for development, since arguments are users' data
	Logger *slog.Logger // nil: slog.Default()
}

// Lag is how far a replica may trail the master. It returns to use when it trails by less than half as much.
type Lag struct {
	Bytes int64 // of the write-ahead log, 8 MiB by default; negative: no bound. PostgreSQL only.
}

func (cfg Config) withDefaults() Config {
	number := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	duration := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	number(&cfg.MaxOpenConns, 100)
	number(&cfg.MaxIdleConns, 50)
	cfg.MaxIdleConns = min(cfg.MaxIdleConns, cfg.MaxOpenConns)
	duration(&cfg.ConnMaxLifetime, time.Hour)
	duration(&cfg.ConnMaxIdleTime, 5*time.Minute)
	duration(&cfg.QueryTimeout, 30*time.Second)
	duration(&cfg.MonitorInterval, time.Second)
	duration(&cfg.DrainTimeout, 30*time.Second)
	if cfg.MaxLag.Bytes == 0 {
		cfg.MaxLag.Bytes = 8 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.DataSourceReplicas = slices.Clone(cfg.DataSourceReplicas)
	cfg.DataSourceSearchReplicas = slices.Clone(cfg.DataSourceSearchReplicas)
	return cfg
}

// validate returns every fault of the configuration at once.
func (cfg Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	d, err := dialect.Of(cfg.DriverName)
	registered := slices.Clone(sql.Drivers())
	slices.Sort(registered)
	have := strings.Join(registered, ", ")
	if have == "" {
		have = "none"
	}
	switch {
	case cfg.DriverName == "":
		fault(`DriverName is empty: set it to one of the registered drivers (%s)`, have)
	case err != nil:
		fault(`DriverName: %w; registered here: %s`, err, have)
	case !slices.Contains(registered, cfg.DriverName):
		fault(`DriverName %q is not registered: import its driver, or use one of the registered ones (%s)`, cfg.DriverName, have)
	}
	if cfg.DataSource == "" {
		fault("DataSource is empty: set it to the data source of the master")
	}
	for name, list := range map[string][]string{"DataSourceReplicas": cfg.DataSourceReplicas, "DataSourceSearchReplicas": cfg.DataSourceSearchReplicas} {
		if d == dialect.SQLite && len(list) > 0 {
			fault("%s has %d entries: SQLite has no replicas, leave it empty", name, len(list))
		}
		for i, dsn := range list {
			if dsn == "" {
				fault("%s[%d] is empty: set it to a data source or remove it", name, i)
			}
		}
	}
	if cfg.MaxOpenConns < 0 {
		fault("MaxOpenConns is %d: use a positive number, or 0 for 100", cfg.MaxOpenConns)
	}
	if cfg.MonitorInterval < 0 {
		fault("MonitorInterval is %v: use a positive duration, or 0 for 1 s", cfg.MonitorInterval)
	}
	if cfg.DrainTimeout < 0 {
		fault("DrainTimeout is %v: use a positive duration, or 0 for 30 s", cfg.DrainTimeout)
	}
	return errors.Join(faults...)
}
