package s3store_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore/s3store"
)

// late answers at once and reads the body for a while longer, as the transport of net/http may.
type late struct {
	status int
	read   *bool
}

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	go func() {
		time.Sleep(100 * time.Millisecond)
		*l.read = true
		_ = r.Body.Close()
	}()
	if l.status == 0 {
		return nil, errors.New("reset")
	}
	return &http.Response{StatusCode: l.status, Body: http.NoBody}, nil
}

// Who is told of a failure may rewind the body for the next attempt; who is told of success does not wait.
func TestAFailureLetsGoOfTheBody(t *testing.T) {
	for status, waits := range map[int]bool{0: true, http.StatusServiceUnavailable: true, http.StatusOK: false} {
		synctest.Test(t, func(t *testing.T) {
			read := false
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://store.test/a", io.NopCloser(strings.NewReader("body")))
			require.NoError(t, err)
			begun := time.Now()
			_, err = s3store.SentBodies(late{status, &read}).RoundTrip(r)
			require.Equal(t, status == 0, err != nil)
			require.Equal(t, waits, time.Since(begun) > 0, "status %d", status)
			if waits {
				require.True(t, read)
			}
			synctest.Wait()
			time.Sleep(time.Second)
		})
	}
}
