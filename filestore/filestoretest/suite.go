// Package filestoretest has the conformance suite that every filestore driver passes.
package filestoretest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
)

// Run tests the stores that open returns. Each must be empty; the suite closes none.
func Run(t *testing.T, open func(t *testing.T) *filestore.Store) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, s *filestore.Store)
	}{
		{"PutGetStatDelete", putGetStatDelete},
		{"Attributes", attributes},
		{"Ranges", ranges},
		{"Keys", keysSuite},
		{"KeyBelowObject", keyBelowObject},
		{"List", list},
		{"IfAbsent", ifAbsent},
		{"IfMatch", ifMatch},
		{"FailedPutChangesNothing", failedPut},
		{"OverwriteIsNeverTorn", neverTorn},
		{"ReaderKeepsItsVersion", readerKeeps},
		{"Helpers", helpers},
		{"FS", fileSystem},
		{"Check", check},
		{"Cancellation", cancellation},
		{"Sources", sources},
		{"Metadata", metadataNames},
		{"CopyAndMove", copyAndMove},
		{"Append", appending},
		{"Zip", zipping},
		{"Seek", seeking},
		{"Views", views},
		{"SignedURL", signing},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, open(t)) })
	}
	t.Run("Close", func(t *testing.T) {
		s := open(t)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		_, err := s.Stat(t.Context(), "a")
		require.ErrorIs(t, err, filestore.ErrClosed)
	})
}

func put(t *testing.T, s *filestore.Store, key, text string) filestore.Object {
	o, err := s.WriteFile(t.Context(), key, []byte(text), nil)
	require.NoError(t, err)
	return o
}

func get(t *testing.T, s *filestore.Store, key string) string {
	b, err := s.ReadFile(t.Context(), key)
	require.NoError(t, err)
	return string(b)
}

func putGetStatDelete(t *testing.T, s *filestore.Store) {
	ctx := t.Context()
	for _, err := range []error{
		func() error { _, err := s.ReadFile(ctx, "a/b"); return err }(),
		func() error { _, err := s.Stat(ctx, "a/b"); return err }(),
		s.Delete(ctx, "a/b"),
	} {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	first := put(t, s, "a/b", "one")
	require.Equal(t, "one", get(t, s, "a/b"))
	second := put(t, s, "a/b", "two!")
	require.Equal(t, "two!", get(t, s, "a/b"))
	require.NotEqual(t, first.Version, second.Version)
	o, err := s.Stat(ctx, "a/b")
	require.NoError(t, err)
	require.EqualValues(t, 4, o.Size)
	require.Equal(t, second.Version, o.Version)
	require.NoError(t, s.Delete(ctx, "a/b"))
	require.ErrorIs(t, s.Delete(ctx, "a/b"), fs.ErrNotExist)
	put(t, s, "a", "now a key") // the folder of a/b is gone with it
	require.Equal(t, "", get(t, s, put(t, s, "empty", "").Key))
}

func attributes(t *testing.T, s *filestore.Store) {
	sum := sha256.Sum256([]byte("text"))
	_, err := s.WriteFile(t.Context(), "k", []byte("text"), &filestore.PutOptions{ContentType: "text/plain", Metadata: map[string]string{"by": "me"}, SHA256: sum[:]})
	require.NoError(t, err)
	o, err := s.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "text/plain", o.ContentType)
	require.Equal(t, map[string]string{"by": "me"}, o.Metadata)
	require.Equal(t, sum[:], o.SHA256)
	require.False(t, o.Modified.IsZero())
	put(t, s, "k", "text") // without attributes: the old ones must not be seen
	o, err = s.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.Empty(t, o.ContentType)
	require.Empty(t, o.Metadata)
}

func ranges(t *testing.T, s *filestore.Store) {
	put(t, s, "k", "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
	}{{0, 0, "0123456789"}, {3, 0, "3456789"}, {3, 4, "3456"}, {8, 9, "89"}, {10, 0, ""}, {99, 1, ""}} {
		r, o, err := s.Get(t.Context(), "k", &filestore.GetOptions{Offset: c.offset, Length: c.length})
		require.NoError(t, err)
		require.EqualValues(t, 10, o.Size)
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, c.want, string(b))
	}
	_, _, err := s.Get(t.Context(), "k", &filestore.GetOptions{Offset: -1})
	require.Error(t, err)
}

func keysSuite(t *testing.T, s *filestore.Store) {
	for _, key := range []string{"a", "a.b", "ä/ö/ü.txt", "with space/x", "...", "a/..b", strings.Repeat("x", filestore.MaxSegment), "日本/語", "-", "%2e%2e/%2f", `back\slash`, "c:d"} {
		put(t, s, key, key)
		require.Equal(t, key, get(t, s, key))
		require.NoError(t, s.Delete(t.Context(), key))
	}
	long := strings.TrimSuffix(strings.Repeat(strings.Repeat("y", 100)+"/", 11), "/")
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\x00b", "a\nb", "\xff", "e\u0301", long,
		strings.Repeat("x", filestore.MaxSegment+1), ".nines", ".nines/store-id",
	} {
		_, err := s.WriteFile(t.Context(), key, []byte("x"), nil)
		require.ErrorIs(t, err, filestore.ErrInvalidKey, "%q", key)
		_, err = s.ReadFile(t.Context(), key)
		require.ErrorIs(t, err, filestore.ErrInvalidKey, "%q", key)
		require.ErrorIs(t, s.Delete(t.Context(), key), filestore.ErrInvalidKey, "%q", key)
	}
}

func keyBelowObject(t *testing.T, s *filestore.Store) {
	put(t, s, "a/b", "x")
	if s.Capabilities().FlatKeys {
		put(t, s, "a", "y")
		put(t, s, "a/b/c", "z")
		require.Equal(t, []string{"a", "a/b", "a/b/c"}, listed(t, s, "", ""))
		require.Equal(t, "x", get(t, s, "a/b"))
		return
	}
	_, err := s.WriteFile(t.Context(), "a", []byte("y"), nil)
	require.ErrorIs(t, err, filestore.ErrInvalidKey)
	_, err = s.WriteFile(t.Context(), "a/b/c", []byte("y"), nil)
	require.ErrorIs(t, err, filestore.ErrInvalidKey)
	_, err = s.ReadFile(t.Context(), "a/b/c")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.ReadFile(t.Context(), "a")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, s.Delete(t.Context(), "a"), fs.ErrNotExist)
	require.Equal(t, "x", get(t, s, "a/b"))
}

func listed(t *testing.T, s *filestore.Store, prefix, delimiter string) []string {
	keys := []string{}
	for o, err := range s.List(t.Context(), prefix, delimiter) {
		require.NoError(t, err)
		keys = append(keys, o.Key)
	}
	return keys
}

func list(t *testing.T, s *filestore.Store) {
	require.Empty(t, listed(t, s, "", ""))
	all := []string{"a-b", "a/1", "a/2/x", "a/2/y", "a0", "b", "ä"}
	for _, i := range rand.Perm(len(all)) {
		put(t, s, all[i], all[i])
	}
	require.NoError(t, s.Check(t.Context())) // its own objects are not shown
	require.Equal(t, all, listed(t, s, "", ""))
	require.Equal(t, []string{"a-b", "a/", "a0", "b", "ä"}, listed(t, s, "", "/"))
	require.Equal(t, []string{"a/1", "a/2/x", "a/2/y"}, listed(t, s, "a/", ""))
	require.Equal(t, []string{"a/1", "a/2/"}, listed(t, s, "a/", "/"))
	require.Equal(t, []string{"a/2/x", "a/2/y"}, listed(t, s, "a/2", ""))
	require.Equal(t, []string{"a/2/"}, listed(t, s, "a/2", "/"))
	require.Equal(t, []string{"a-b", "a/1", "a/2/x", "a/2/y", "a0"}, listed(t, s, "a", ""))
	require.Empty(t, listed(t, s, "nothing/", ""))
	require.Empty(t, listed(t, s, "b/", "/"))
	for o, err := range s.List(t.Context(), "b", "") {
		require.NoError(t, err)
		require.EqualValues(t, 1, o.Size)
	}
	require.NoError(t, s.Delete(t.Context(), "a/2/x"))
	require.NoError(t, s.Delete(t.Context(), "a/2/y"))
	require.Equal(t, []string{"a/1"}, listed(t, s, "a/", "/"), "an empty folder is nothing")
	for range s.List(t.Context(), "", "") {
		break // stopping early is allowed
	}
	for _, err := range s.List(t.Context(), "../", "") {
		require.ErrorIs(t, err, filestore.ErrInvalidKey)
	}
	for _, err := range s.List(t.Context(), "", ",") {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

func ifAbsent(t *testing.T, s *filestore.Store) {
	if !s.Capabilities().IfAbsent {
		_, err := s.WriteFile(t.Context(), "k", nil, &filestore.PutOptions{IfAbsent: true})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	for round := range 20 {
		key := fmt.Sprintf("race/%d", round)
		var winners atomic.Int32
		var winner atomic.Value
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				text := fmt.Sprint(i)
				_, err := s.WriteFile(t.Context(), key, []byte(text), &filestore.PutOptions{IfAbsent: true, ContentType: text})
				if err == nil {
					winners.Add(1)
					winner.Store(text)
				} else if !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, winners.Load())
		require.Equal(t, winner.Load(), get(t, s, key))
		o, err := s.Stat(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, winner.Load(), o.ContentType, "the attributes are the winner's")
	}
}

func ifMatch(t *testing.T, s *filestore.Store) {
	if !s.Capabilities().IfMatch {
		_, err := s.WriteFile(t.Context(), "k", nil, &filestore.PutOptions{IfMatch: "1"})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	put(t, s, "n", "0")
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				r, o, err := s.Get(t.Context(), "n", nil)
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				_, err = fmt.Fscan(r, &n)
				r.Close()
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.WriteFile(t.Context(), "n", fmt.Append(nil, n+1), &filestore.PutOptions{IfMatch: o.Version}); err == nil {
					wins.Add(1)
				} else if !errors.Is(err, filestore.ErrPrecondition) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, fmt.Sprint(wins.Load()), get(t, s, "n"))
	_, err := s.WriteFile(t.Context(), "absent", nil, &filestore.PutOptions{IfMatch: "1"})
	require.ErrorIs(t, err, filestore.ErrPrecondition)
}

func failedPut(t *testing.T, s *filestore.Store) {
	put(t, s, "k", "old")
	broken := errors.New("broken")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	wrong := sha256.Sum256([]byte("other"))
	for name, try := range map[string]func() error{
		"source fails": func() error {
			_, err := s.Put(t.Context(), "k", io.MultiReader(strings.NewReader("new"), iotest.ErrReader(broken)), nil)
			require.ErrorIs(t, err, broken)
			return err
		},
		"too short": func() error {
			_, err := s.Put(t.Context(), "k", strings.NewReader("new"), &filestore.PutOptions{Size: 4})
			require.ErrorIs(t, err, filestore.ErrCorrupt)
			return err
		},
		"too long": func() error {
			_, err := s.Put(t.Context(), "k", strings.NewReader("new"), &filestore.PutOptions{Size: 2})
			require.ErrorIs(t, err, filestore.ErrCorrupt)
			return err
		},
		"wrong sum": func() error {
			_, err := s.Put(t.Context(), "k", strings.NewReader("new"), &filestore.PutOptions{SHA256: wrong[:]})
			require.ErrorIs(t, err, filestore.ErrCorrupt)
			return err
		},
		"cancelled": func() error {
			_, err := s.Put(canceled, "k", strings.NewReader("new"), nil)
			require.ErrorIs(t, err, context.Canceled)
			return err
		},
		"both conditions": func() error {
			_, err := s.Put(t.Context(), "k", strings.NewReader("new"), &filestore.PutOptions{IfAbsent: true, IfMatch: "1"})
			return err
		},
		"short sum": func() error {
			_, err := s.Put(t.Context(), "k", strings.NewReader("new"), &filestore.PutOptions{SHA256: []byte{1}})
			return err
		},
	} {
		require.Error(t, try(), name)
		require.Equal(t, "old", get(t, s, "k"), name)
		require.Equal(t, []string{"k"}, listed(t, s, "", ""), name)
	}
}

// neverTorn reads while the object is overwritten: every read is of one version, whole.
func neverTorn(t *testing.T, s *filestore.Store) {
	const size, readers = 64 << 10, 4
	block := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size+i%256) }
	blocks := make([][]byte, 256)
	for i := range blocks {
		blocks[i] = block(i)
	}
	put(t, s, "k", string(blocks[0]))
	var reads, versions atomic.Int64
	want := int64(Chaos(400, 1000000))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			last := -1
			for reads.Add(1) <= want {
				b, err := s.ReadFile(t.Context(), "k")
				if err != nil {
					t.Error(err)
					return
				}
				if len(b) < size || !bytes.Equal(b, blocks[b[0]]) {
					t.Errorf("torn read: %d bytes", len(b))
					return
				}
				if int(b[0]) != last {
					last = int(b[0])
					versions.Add(1)
				}
			}
		})
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if _, err := s.WriteFile(t.Context(), "k", blocks[i%256], nil); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Wait()
	close(done)
	writer.Wait()
	t.Logf("%d reads, none torn; the version changed %d times under the readers", want, versions.Load())
}

func readerKeeps(t *testing.T, s *filestore.Store) {
	put(t, s, "k", "old old old")
	r, _, err := s.Get(t.Context(), "k", nil)
	require.NoError(t, err)
	defer r.Close()
	put(t, s, "k", "new")
	require.NoError(t, s.Delete(t.Context(), "k"))
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "old old old", string(b))
}

func helpers(t *testing.T, s *filestore.Store) {
	ctx := t.Context()
	for _, key := range []string{"ab/1", "ab/2/3", "abc/1", "x"} {
		put(t, s, key, key)
	}
	n, err := s.RemovePrefix(ctx, "ab")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, []string{"abc/1", "x"}, listed(t, s, "", ""))
	ok, err := s.Exists(ctx, "x")
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, s.Move(ctx, "x", "y/z"))
	require.NoError(t, s.Move(ctx, "y/z", "y/z"))
	ok, err = s.Exists(ctx, "x")
	require.NoError(t, err)
	require.False(t, ok)
	require.Equal(t, "x", get(t, s, "y/z"))
	require.ErrorIs(t, s.Move(ctx, "none", "some"), fs.ErrNotExist)
	st := s.Stats()
	require.Positive(t, st.Puts)
	require.Positive(t, st.BytesIn)
	require.Positive(t, st.BytesOut)
	require.Zero(t, st.Failures)
}

func fileSystem(t *testing.T, s *filestore.Store) {
	names := []string{"a/1.txt", "a/b/2.txt", "c.txt"}
	for _, n := range names {
		put(t, s, n, n)
	}
	require.NoError(t, fstest.TestFS(s.FS(t.Context()), names...))
	b, err := fs.ReadFile(s.FS(t.Context()), "a/b/2.txt")
	require.NoError(t, err)
	require.Equal(t, "a/b/2.txt", string(b))
	var walked []string
	require.NoError(t, fs.WalkDir(s.FS(t.Context()), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			walked = append(walked, path)
		}
		return err
	}))
	require.True(t, slices.Equal(names, walked))
}

func check(t *testing.T, s *filestore.Store) {
	require.NoError(t, s.Check(t.Context()))
	require.Empty(t, listed(t, s, "", ""))
}
