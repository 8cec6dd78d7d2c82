package dbrouter

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// imports are what a program adds to have a driver.
var imports = map[string]string{
	"postgres": "github.com/lib/pq",
	"pgx":      "github.com/jackc/pgx/v5/stdlib",
	"pgx/v5":   "github.com/jackc/pgx/v5/stdlib",
	"mysql":    "github.com/go-sql-driver/mysql",
	"sqlite":   "modernc.org/sqlite",
	"sqlite3":  "github.com/mattn/go-sqlite3",
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
	case cfg.Connector == nil && !slices.Contains(registered, cfg.DriverName):
		fault("DriverName %q is not registered: import its driver, _ %q, or use one of the registered ones (%s)", cfg.DriverName, imports[cfg.DriverName], have)
	}
	if cfg.DataSource == "" {
		fault("DataSource is empty: set it to the data source of the master")
	} else if err == nil {
		if why := unfit(d, cfg.DataSource); why != "" && cfg.Connector == nil {
			fault("DataSource %q %s", redact(cfg.DataSource), why)
		}
	}
	master := endpoint(d, cfg.DataSource)
	for _, list := range []struct {
		name string
		dsns []string
	}{{"DataSourceReplicas", cfg.DataSourceReplicas}, {"DataSourceSearchReplicas", cfg.DataSourceSearchReplicas}} {
		if d == dialect.SQLite && len(list.dsns) > 0 {
			fault("%s has %d entries: SQLite has no replicas, leave it empty", list.name, len(list.dsns))
			continue
		}
		seen := map[string]int{}
		for i, dsn := range list.dsns {
			field := fmt.Sprintf("%s[%d]", list.name, i)
			if dsn == "" {
				fault("%s is empty: set it to a data source or remove it", field)
				continue
			}
			if why := unfit(d, dsn); err == nil && why != "" && cfg.Connector == nil {
				fault("%s %q %s", field, redact(dsn), why)
			}
			e := endpoint(d, dsn)
			if e == master {
				fault("%s %q is the server of DataSource: remove it, reads go to the master where there are no replicas", field, redact(dsn))
			}
			if j, ok := seen[e]; ok {
				fault("%s %q is the server of %s[%d], too: remove one", field, redact(dsn), list.name, j)
			}
			seen[e] = i
		}
	}
	if cfg.MaxOpenConns < 0 {
		fault("MaxOpenConns is %d: use a positive number, or 0 for 100", cfg.MaxOpenConns)
	}
	for _, f := range []struct {
		name  string
		value time.Duration
		usual string
	}{{"MonitorInterval", cfg.MonitorInterval, "1 s"}, {"DrainTimeout", cfg.DrainTimeout, "30 s"}, {"TokenTTL", cfg.TokenTTL, "1 h"},
		{"FenceOldMaster", cfg.FenceOldMaster, "no fencing"}, {"SlowQuery", cfg.SlowQuery, "none"}} {
		if f.value < 0 {
			fault("%s is %v: use a positive duration, or 0 for %s", f.name, f.value, f.usual)
		}
	}
	if cfg.MonitorInterval > 0 && cfg.MonitorInterval < 5*time.Millisecond {
		fault("MonitorInterval is %v: use at least 5 ms, or 0 for 1 s", cfg.MonitorInterval)
	}
	if cfg.WhenLagging < LaggingMaster || cfg.WhenLagging > LaggingError {
		fault("WhenLagging is %d: use LaggingMaster, LaggingLeast or LaggingError", cfg.WhenLagging)
	}
	if n := len(cfg.TokenKey); n > 0 && n < 16 {
		fault("TokenKey has %d bytes: use at least 16, better 32 random ones, or none", n)
	}
	return errors.Join(faults...)
}

// unfit says why a data source cannot be one of a dialect, or "".
func unfit(d dialect.Dialect, dsn string) string {
	scheme, _, isURL := strings.Cut(dsn, "://")
	isURL = isURL && !strings.ContainsAny(scheme, " =@/?:")
	postgres := isURL && (scheme == "postgres" || scheme == "postgresql")
	mysql := strings.Contains(dsn, "@tcp(") || strings.Contains(dsn, "@unix(") || strings.HasPrefix(dsn, "tcp(") || scheme == "mysql" && isURL
	switch d {
	case dialect.Postgres:
		switch {
		case mysql:
			return "is one for MySQL: use host=… user=… dbname=…, or postgres://…, or DriverName mysql"
		case strings.HasPrefix(dsn, "file:") || strings.Contains(dsn, ":memory:"):
			return "is one for SQLite: use host=… user=… dbname=…, or postgres://…, or DriverName sqlite"
		case isURL && !postgres:
			return "has another scheme than postgres://: correct it"
		case postgres:
			if _, err := url.Parse(withoutHosts(dsn)); err != nil {
				return "is not a URL (" + redactIn(err.Error(), dsn) + "): correct it; in a user or password write % as %25, @ as %40, / as %2F"
			}
		case !strings.Contains(dsn, "="):
			return "is neither key=value pairs nor a URL: use host=… user=… dbname=…, or postgres://…"
		}
	case dialect.MySQL:
		switch {
		case isURL:
			return "is a URL: the MySQL driver wants user:password@tcp(host:3306)/database"
		case !mysql && strings.Contains(dsn, "host=") && strings.Contains(dsn, " "):
			return "is one for PostgreSQL: use user:password@tcp(host:3306)/database, or DriverName postgres"
		case strings.HasPrefix(dsn, "file:"):
			return "is one for SQLite: use user:password@tcp(host:3306)/database, or DriverName sqlite"
		}
	case dialect.SQLite:
		switch {
		case isURL && scheme != "file":
			return "is a URL of a server: use a file name or file:…, or the DriverName of that server"
		case mysql:
			return "is one for MySQL: use a file name or file:…, or DriverName mysql"
		case strings.Contains(dsn, "host=") && strings.Contains(dsn, " "):
			return "is one for PostgreSQL: use a file name or file:…, or DriverName postgres"
		}
	}
	return ""
}

// withoutHosts replaces a list of hosts, which only PostgreSQL's URLs may have, by one.
func withoutHosts(dsn string) string {
	scheme, rest, _ := strings.Cut(dsn, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority := rest[:end]
	at := strings.LastIndexByte(authority, '@')
	if hosts := authority[at+1:]; strings.Contains(hosts, ",") {
		authority = authority[:at+1] + "host"
	}
	return scheme + "://" + authority + rest[end:]
}

// endpoint is the server and database that a data source names, so that two spellings of one are found; the text itself where it cannot be
// told.
func endpoint(d dialect.Dialect, dsn string) string {
	database, port := "", "5432"
	switch {
	case d == dialect.MySQL:
		port = "3306"
		if _, rest, ok := strings.Cut(dsn, ")/"); ok {
			database, _, _ = strings.Cut(rest, "?")
		}
	case d != dialect.Postgres:
		return dsn
	case strings.Contains(dsn, "://"):
		u, err := url.Parse(withoutHosts(dsn))
		if err != nil {
			return dsn
		}
		database = strings.TrimPrefix(u.Path, "/")
	default:
		database = keyValues(dsn)["dbname"]
	}
	hosts := hostsOf(dsn)
	if len(hosts) != 1 {
		return dsn
	}
	host, p, err := net.SplitHostPort(hosts[0])
	if err != nil {
		host, p = hosts[0], port
	}
	return strings.ToLower(host) + " " + p + " " + database
}
