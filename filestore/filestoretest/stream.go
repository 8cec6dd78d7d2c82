package filestoretest

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
)

// Stream puts a stream of n bytes whose length is not told, reads it back, and checks that the process never held more than limit bytes more
// than before.
func Stream(t *testing.T, s *filestore.Store, n, limit int64) {
	in := &stream{left: n}
	h := sha256.New()
	peak := watch(t)
	o, err := s.Put(t.Context(), "stream", io.TeeReader(in, h), nil)
	require.NoError(t, err)
	require.Equal(t, n, o.Size)
	written := peak()
	if o.SHA256 != nil {
		require.Equal(t, h.Sum(nil), o.SHA256)
	}
	peak = watch(t)
	r, _, err := s.Get(t.Context(), "stream", nil)
	require.NoError(t, err)
	defer r.Close()
	back := sha256.New()
	m, err := io.Copy(back, r)
	require.NoError(t, err)
	require.Equal(t, n, m)
	require.Equal(t, h.Sum(nil), back.Sum(nil))
	read := peak()
	t.Logf("a stream of %d MiB took %.1f MiB of memory to write and %.1f MiB to read", n>>20, float64(written)/(1<<20), float64(read)/(1<<20))
	require.Less(t, written, limit)
	require.Less(t, read, limit)
	require.NoError(t, s.Delete(t.Context(), "stream"))
}

// stream gives bytes that are all different from part to part.
type stream struct {
	left, at int64
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), s.left)
	for i := int64(0); i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(s.at+i)*0x9e3779b97f4a7c15)
	}
	s.left -= n
	s.at += n
	return int(n), nil
}

// watch returns what tells by how many bytes the heap was larger, at most, than when it was called.
func watch(t *testing.T) func() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := int64(m.HeapInuse)
	var most atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	look := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most.Store(max(most.Load(), int64(m.HeapInuse)-before))
	}
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				look()
			case <-done:
				return
			}
		}
	}()
	return func() int64 {
		close(done)
		<-ended
		look()
		return most.Load()
	}
}
