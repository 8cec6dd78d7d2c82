package jobstest_test

import (
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/jobs/jobstest"
)

func TestConformance(t *testing.T) {
	for name, database := range map[string]func(testing.TB) (driver, dsn string){
		"postgres": lab.Database, "mariadb": lab.MySQL,
		"sqlite": func(t testing.TB) (driver, dsn string) { // writers are patient: the machines that run the tests are slow and shared
			driver, dsn = lab.SQLite(t)
			return driver, strings.Replace(dsn, "busy_timeout(5000)", "busy_timeout(60000)", 1) + "&_pragma=synchronous(off)"
		},
		"pgx": func(t testing.TB) (driver, dsn string) {
			_, dsn = lab.Database(t)
			return "pgx", dsn
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			jobstest.Run(t, func(t testing.TB) func() jobs.DB {
				driver, dsn := database(t)
				return func() jobs.DB {
					db, err := sqlx.Open(driver, dsn)
					require.NoError(t, err)
					if driver == "sqlite" {
						db.SetMaxOpenConns(1)
					}
					t.Cleanup(func() { db.Close() })
					return db
				}
			})
		})
	}
}
