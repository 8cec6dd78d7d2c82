// Package dialect tells the SQL dialects apart that the products speak.
package dialect

import (
	"fmt"
	"strconv"
	"strings"
)

// Dialect is one family of SQL databases. The value is also the name of its folder of migrations.
type Dialect string

// The dialects.
const (
	Postgres Dialect = "postgres"
	MySQL    Dialect = "mysql" // MariaDB too
	SQLite   Dialect = "sqlite"
)

// Of returns the dialect that a database/sql driver name stands for.
func Of(driver string) (Dialect, error) {
	switch driver {
	case "postgres", "pgx", "pgx/v5":
		return Postgres, nil
	case "mysql":
		return MySQL, nil
	case "sqlite", "sqlite3":
		return SQLite, nil
	}
	return "", fmt.Errorf("driver name %q is not known: use postgres, pgx, mysql, sqlite or sqlite3", driver)
}

// Rebind rewrites each ? of query into the placeholder of the dialect. The query must hold no ? for another purpose:
// it is for the products' own statements, not for users'.
func (d Dialect) Rebind(query string) string {
	if d != Postgres {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	n := 0
	for i := range len(query) {
		if query[i] != '?' {
			b.WriteByte(query[i])
			continue
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}
