package s3store

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// bodyTime is how long a failed request is waited for until it has let go of its body.
const bodyTime = time.Second

// sentBodies is a RoundTripper that returns a failure only when the request's body is read no more. The one of net/http may go on reading after
// RoundTrip has returned, and the client then sends what is left, from a place in the middle, with its next attempt.
type sentBodies struct{ next http.RoundTripper }

func (t sentBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return t.next.RoundTrip(r)
	}
	body := &sentBody{ReadCloser: r.Body, closed: make(chan struct{})}
	out := *r
	out.Body = body
	res, err := t.next.RoundTrip(&out)
	if err == nil && res.StatusCode < http.StatusInternalServerError {
		return res, nil
	}
	timer := time.NewTimer(bodyTime)
	defer timer.Stop()
	select {
	case <-body.closed:
	case <-r.Context().Done(): // there is no next attempt
	case <-timer.C:
	}
	return res, err
}

type sentBody struct {
	io.ReadCloser
	once   sync.Once
	closed chan struct{}
}

func (b *sentBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { close(b.closed) })
	return err
}
