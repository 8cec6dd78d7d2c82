package dbrouter

import (
	"fmt"
	"strings"

	"github.com/nines-go/nines/internal/dialect"
)

// session returns the statements that a new connection needs, in groups of which the first that succeeds is enough.
func (cfg Config) session(d dialect.Dialect, readOnly bool) [][]string {
	if cfg.Pooler && d != dialect.SQLite {
		return nil
	}
	var groups [][]string
	own := ""
	if readOnly && cfg.ReadOnlySession != nil {
		own = cfg.ReadOnlySession(string(d))
	}
	timeout := max(cfg.QueryTimeout, 0)
	switch d {
	case dialect.Postgres:
		if timeout > 0 {
			groups = append(groups, []string{fmt.Sprintf("SET statement_timeout = %d", max(timeout.Milliseconds(), 1))})
		}
		if readOnly && own == "" {
			own = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY" // the same as default_transaction_read_only=on
		}
	case dialect.MySQL:
		if timeout > 0 {
			groups = append(groups, []string{
				fmt.Sprintf("SET SESSION max_execution_time = %d", max(timeout.Milliseconds(), 1)), // MySQL
				fmt.Sprintf("SET SESSION max_statement_time = %f", timeout.Seconds()),              // MariaDB
				"DO 0", // an older server has neither
			})
		}
		if readOnly && own == "" {
			own = "SET SESSION TRANSACTION READ ONLY"
		}
	case dialect.SQLite:
		if readOnly && own == "" {
			own = "PRAGMA query_only = 1"
		}
	}
	if own != "" {
		groups = append(groups, []string{own})
	}
	return groups
}

// sqliteSource adds what the master's file needs: write locks taken at BEGIN, a write-ahead log, patience with other processes.
func sqliteSource(driverName, dsn string) string {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(strings.ToLower(dsn), w) {
				return true
			}
		}
		return false
	}
	var add []string
	if !has("_txlock") {
		add = append(add, "_txlock=immediate")
	}
	pragma := func(name, value string) string {
		if driverName == "sqlite3" {
			return "_" + name + "=" + value
		}
		return "_pragma=" + name + "(" + value + ")"
	}
	if !has("busy_timeout", "_timeout") {
		add = append(add, pragma("busy_timeout", "5000"))
	}
	if !has("journal_mode", "_journal", ":memory:", "mode=memory", "mode=ro", "immutable") {
		add = append(add, pragma("journal_mode", "WAL"))
	}
	if len(add) == 0 {
		return dsn
	}
	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	return dsn + sep + strings.Join(add, "&")
}

// inMemory reports whether a second pool would see another database.
func inMemory(dsn string) bool {
	return strings.Contains(dsn, ":memory:") || strings.Contains(dsn, "mode=memory")
}
