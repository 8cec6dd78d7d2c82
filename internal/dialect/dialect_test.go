package dialect_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/dialect"
)

func TestOf(t *testing.T) {
	for driver, want := range map[string]dialect.Dialect{
		"postgres": dialect.Postgres, "pgx": dialect.Postgres, "mysql": dialect.MySQL, "sqlite": dialect.SQLite, "sqlite3": dialect.SQLite,
	} {
		got, err := dialect.Of(driver)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := dialect.Of("oracle")
	require.ErrorContains(t, err, `"oracle"`)
}

func TestRebind(t *testing.T) {
	require.Equal(t, "a=$1 AND b=$2", dialect.Postgres.Rebind("a=? AND b=?"))
	require.Equal(t, "a=? AND b=?", dialect.MySQL.Rebind("a=? AND b=?"))
	require.Equal(t, "a=? AND b=?", dialect.SQLite.Rebind("a=? AND b=?"))
}
