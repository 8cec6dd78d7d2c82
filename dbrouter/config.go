package dbrouter

import (
	"database/sql/driver"
	"log/slog"
	"slices"
	"time"
)

// Config is what a Router is opened with. Bounds on connections are per data source and per process: the databases must allow
// MaxOpenConns × processes, and a few more for the router's own probes.
type Config struct {
	DriverName               string   // required: postgres, pgx, mysql, sqlite or sqlite3; the program imports the driver
	DataSource               string   // required: the master
	DataSourceReplicas       []string // read replicas; none: the master serves reads
	DataSourceSearchReplicas []string // replicas for searches; none: the read replicas serve them. A replica may be in both lists.

	// Connector makes connectors instead of the registered driver, for drivers that are wrapped (tracing, passwords that change) or
	// registered under another name. DriverName then only says which SQL is spoken.
	Connector func(dataSource string) (driver.Connector, error)

	MaxOpenConns    int           // per data source, 100 by default; more wait. SQLite's master has one.
	MaxIdleConns    int           // kept open when idle, 50 by default, at most MaxOpenConns; negative: none
	ConnMaxLifetime time.Duration // 1 h by default: how long a server that is to be retired keeps its connections; negative: for ever
	ConnMaxIdleTime time.Duration // 5 min by default; negative: for ever

	// QueryTimeout bounds a statement, 30 s by default; negative: not at all. Get, Select, Exec and NamedExec get it as a deadline when
	// the context has no earlier one. Query, Queryx, QueryRow and transactions have the server's own statement timeout, which the router
	// sets on each connection (SQLite has none).
	QueryTimeout time.Duration

	MonitorInterval time.Duration // between two probes of a data source, 1 s by default; at least 5 ms
	DrainTimeout    time.Duration // how long a replaced pool waits for its users before it is closed, 30 s by default

	MaxLag        Lag         // a replica that trails further serves no reads
	WhenLagging   WhenLagging // what reads do when all replicas trail further: LaggingMaster by default
	MaxExtraReads int         // that LaggingMaster sends to the master at once, half of MaxOpenConns by default; negative: none

	// FollowMaster has the router look for the master itself: when the one it has is away or read only and exactly one of the other data
	// sources accepts writes, that becomes the master and the old one takes its place, within 50 ms of the promotion when
	// all goes well. The router promotes nobody. While two accept writes and nothing tells which is the master, calls of Master
	// fail with ErrTwoMasters. Replicas must be read only on the server (PostgreSQL's standbys are; MySQL and MariaDB: read_only=1).
	FollowMaster bool

	// MasterWait is how long calls of Master that have not begun, and RunTx, wait for a master while it refuses connections or is read only,
	// counted from when that was noticed; 10 s by default; negative: they fail at once.
	MasterWait time.Duration

	// FenceOldMaster holds calls of Master back when the master becomes another data source, until nothing is under way on the old one, but no
	// longer than this; then what is still under way there is cancelled. 0: not at all. It keeps this process from writing to
	// both at once; only the server can do that for all.
	FenceOldMaster time.Duration

	// Pooler says that a transaction pooler stands before the databases: no session settings are made, Get, Select and BeginReadx on
	// replicas run in READ ONLY transactions, a replica that accepts writes serves no reads, and every call gets QueryTimeout as a deadline.
	Pooler bool

	// TokenKey signs the tokens of sessions, the same on all servers: 16 bytes at least, 32 random ones recommended. Middleware needs it.
	TokenKey []byte
	TokenTTL time.Duration // how long a token is good for, 1 h by default; an older one means the master

	// ReadOnlySession returns the statement that makes a session read only, for a server that does not understand the dialect's own.
	// nil or "": the dialect's own.
	ReadOnlySession func(dialect string) string

	Classify func(err error) Fault // asked first what an error means; FaultNone leaves it to the router. It must be quick and not block.

	Trace          bool          // log every statement with its duration, at level Info
	TraceArguments bool          // log the arguments of traced and slow statements, too: for development, since they are users' data
	SlowQuery      time.Duration // statements that take longer are logged at level Warn; 0: none
	Logger         *slog.Logger  // nil: slog.Default()
}

// Lag is how far a replica may trail the master. It returns to use when it trails by less than half as much.
type Lag struct {
	Bytes int64         // of PostgreSQL's write-ahead log, 8 MiB by default; negative: no bound
	Time  time.Duration // since the master was first seen to have what the replica has not, 10 s by default; negative: no bound. It is as exact as MonitorInterval.
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
	duration(&cfg.MaxLag.Time, 10*time.Second)
	duration(&cfg.MasterWait, 10*time.Second)
	duration(&cfg.TokenTTL, time.Hour)
	number(&cfg.MaxExtraReads, max(cfg.MaxOpenConns/2, 1))
	if cfg.MaxLag.Bytes == 0 {
		cfg.MaxLag.Bytes = 8 << 20
	}
	cfg.TokenKey = slices.Clone(cfg.TokenKey)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.DataSourceReplicas = slices.Clone(cfg.DataSourceReplicas)
	cfg.DataSourceSearchReplicas = slices.Clone(cfg.DataSourceSearchReplicas)
	return cfg
}
