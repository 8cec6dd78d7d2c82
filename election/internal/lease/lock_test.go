package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nines-go/nines/election/internal/lease"
	"github.com/stretchr/testify/require"
)

// Who waits for the lock of a term learns that the holder's session has ended, all of them and at once; a lock of another term or
// another session's name tells nothing.
func TestSessionLock(t *testing.T) {
	for name, at := range map[string]func(t *testing.T) place{"postgres": postgresAt, "mariadb": func(t *testing.T) place { return mariadbAt(t, "") }} {
		t.Run(name, func(t *testing.T) {
			p := at(t)
			holder := lease.NewLock(p.store(time.Second))
			ctx, end := context.WithCancel(t.Context())
			taken := make(chan string, 1)
			var wg sync.WaitGroup
			defer wg.Wait()
			defer end()
			wg.Go(func() {
				_ = holder.Hold(ctx, 7, func(session string) { taken <- session })
			})
			session := <-taken
			again := lease.NewLock(p.store(time.Second))
			require.Error(t, again.Hold(ctx, 7, func(string) {}), "two hold one term")
			require.ErrorContains(t, again.Wait(ctx, 7, "elsewhere#1"), "another server")

			freed := make(chan time.Time, 3)
			for range 3 {
				w := lease.NewLock(p.store(time.Second))
				wg.Go(func() {
					if err := w.Wait(ctx, 7, session); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					freed <- time.Now()
					w.Close()
				})
			}
			// one that is cut off while it waits does not keep the others from learning
			short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			require.Error(t, again.Wait(short, 7, session))
			cancel()
			require.Empty(t, freed)
			ended := time.Now()
			holder.Close() // ends the session, as a crash does
			for range 3 {
				took := (<-freed).Sub(ended)
				t.Logf("learned after %v", took.Round(time.Millisecond))
				require.Less(t, took, 5*time.Second)
			}
		})
	}
}
