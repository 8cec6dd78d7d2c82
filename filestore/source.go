package filestore

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
)

// sourceBuffer is how much of a source is read at once. Two of them are in use, so that the source is read while the storage writes.
const sourceBuffer = 256 << 10

var sourceBuffers = sync.Pool{New: func() any { return new([sourceBuffer]byte) }}

// source reads from r in a goroutine of its own, so that a Put ends with its context even while r does not answer.
type source struct {
	ctx  context.Context
	full chan chunk               // read, not yet consumed
	free chan *[sourceBuffer]byte // consumed
	stop chan struct{}            // closed by close
	wg   sync.WaitGroup

	now  chunk
	rest []byte // of now, not yet consumed
}

type chunk struct {
	buf *[sourceBuffer]byte
	n   int
	err error // after these bytes
}

// newSource returns a reader that ends with ctx, and what gives back its parts.
func newSource(ctx context.Context, r io.Reader) (io.Reader, func()) {
	switch r.(type) {
	case *bytes.Reader, *bytes.Buffer, *strings.Reader: // never wait
		return ctxReader{ctx, r}, func() {}
	}
	if ctx.Done() == nil {
		return r, func() {}
	}
	s := &source{ctx: ctx, full: make(chan chunk, 1), free: make(chan *[sourceBuffer]byte, 2), stop: make(chan struct{})}
	s.free <- sourceBuffers.Get().(*[sourceBuffer]byte)
	s.free <- sourceBuffers.Get().(*[sourceBuffer]byte)
	s.wg.Go(func() { s.pump(r) })
	return s, s.close
}

func (s *source) pump(r io.Reader) {
	for {
		var c chunk
		select {
		case c.buf = <-s.free:
		case <-s.stop:
			return
		}
		for c.n == 0 && c.err == nil {
			c.n, c.err = r.Read(c.buf[:])
		}
		select {
		case s.full <- c:
		case <-s.stop:
			return
		}
		if c.err != nil {
			return
		}
	}
}

func (s *source) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if err := s.ctx.Err(); err != nil {
			return 0, s.ctx.Err()
		}
		if s.now.err != nil {
			return 0, s.now.err
		}
		if s.now.buf != nil {
			s.free <- s.now.buf
			s.now.buf = nil
		}
		select {
		case s.now = <-s.full:
			s.rest = s.now.buf[:s.now.n]
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// close waits for the goroutine, so that the caller may use its reader again; only where the context ended may one Read still be going on.
func (s *source) close() {
	close(s.stop)
	if s.ctx.Err() != nil {
		return
	}
	s.wg.Wait()
	if s.now.buf != nil {
		sourceBuffers.Put(s.now.buf)
	}
	for {
		select {
		case c := <-s.full:
			sourceBuffers.Put(c.buf)
		case b := <-s.free:
			sourceBuffers.Put(b)
		default:
			return
		}
	}
}

// ctxReader stops with its context, between two reads.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	return r.r.Read(b)
}
