package dbrouter_test

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
)

// Close may come at any moment: calls end or answer ErrClosed, and no goroutine stays.
func TestCloseAtAnyMoment(t *testing.T) {
	databases(t, func(t *testing.T, cfg dbrouter.Config) {
		if cfg.DriverName != "sqlite" {
			cfg.DataSourceReplicas = others(t, 2)
		}
		cfg.Logger, cfg.MonitorInterval = quiet(), 5*time.Millisecond
		for range 2 {
			r, err := dbrouter.Open(t.Context(), cfg)
			require.NoError(t, err)
			closed := func(err error) {
				if err != nil && !errors.Is(err, dbrouter.ErrClosed) && !strings.Contains(err.Error(), "database is closed") {
					assert.NoError(t, err)
				}
			}
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					for err := error(nil); err == nil; closed(err) {
						switch i {
						case 0:
							err = r.Recycle(t.Context())
						case 1:
							err = r.Reconfigure(t.Context(), cfg)
						case 2:
							_, err = r.Master().ExecContext(t.Context(), "SELECT 1")
						case 3:
							err = r.Replica().SelectContext(t.Context(), &[]int{}, "SELECT 1")
						case 4:
							tx, e := r.Search().BeginReadx(t.Context())
							if err = e; err == nil {
								err = tx.Commit()
							}
						case 5:
							r.Stats()
							if e := r.Check(t.Context()); errors.Is(e, dbrouter.ErrClosed) {
								err = e // others are of probes that took too long
							}
						}
					}
				})
			}
			for range 20 {
				require.NoError(t, r.Master().PingContext(t.Context()))
			}
			wg.Go(func() { closed(r.Close()) })
			require.NoError(t, r.Close())
			wg.Wait()
		}
		eventually(t, "no goroutine stays", func() bool { return !strings.Contains(stacks(), "dbrouter.(*") })
	})
}

// stacks are those of all goroutines but this one.
func stacks() string {
	b := make([]byte, 1<<20)
	b = b[:runtime.Stack(b, true)]
	_, others, _ := strings.Cut(string(b), "\n\n")
	return others
}
