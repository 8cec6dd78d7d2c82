package dbrouter_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// Choosing a source: the limit is 25 ns and no allocation.
func BenchmarkChoose(b *testing.B) {
	_, dsn := lab.Database(b)
	r, err := dbrouter.Open(b.Context(), dbrouter.Config{DriverName: "postgres", DataSource: dsn, DataSourceReplicas: others(b, 2), Logger: quiet()})
	require.NoError(b, err)
	defer r.Close()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	rd := r.Replica()
	b.ReportAllocs()
	for b.Loop() {
		rd.Choose(ctx, "SELECT 1")
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	_, dsn := lab.Database(t)
	r := open(t, dbrouter.Config{DriverName: "postgres", DataSource: dsn, DataSourceReplicas: others(t, 2)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	rd := r.Search()
	require.Zero(t, testing.AllocsPerRun(1000, func() { rd.Choose(ctx, "SELECT 1") }))
}

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
