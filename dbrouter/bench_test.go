package dbrouter_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// A read of one row through the router, beside the same read on database/sql's own pool.
func BenchmarkGet(b *testing.B) {
	for _, driver := range []string{"postgres", "pgx"} {
		_, dsn := lab.Database(b)
		r, err := dbrouter.Open(b.Context(), dbrouter.Config{DriverName: driver, DataSource: dsn, DataSourceReplicas: others(b, 1), Logger: quiet()})
		require.NoError(b, err)
		defer r.Close()
		direct := dbrouter.Direct(driver, dsn)
		defer direct.Close()
		ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
		defer cancel()
		var v int
		b.Run(driver+"/sqlx", func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, direct.GetContext(ctx, &v, "SELECT 1"))
			}
		})
		b.Run(driver+"/router", func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, r.Replica().GetContext(ctx, &v, "SELECT 1"))
			}
		})
	}
}
