package filestoretest

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
)

// bound is how long a call may go on after its context ended.
const bound = 100 * time.Millisecond

// cancellation: a Put whose source stands still, and every other call, ends with its context.
func cancellation(t *testing.T, s *filestore.Store) {
	put(t, s, "k", "old")
	var took []time.Duration
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		source, feed := io.Pipe()
		done := make(chan error, 1)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := s.Put(ctx, "k", source, nil)
			done <- err
		})
		_, err := feed.Write(bytes.Repeat([]byte("x"), 300<<10)) // the Put is under way
		require.NoError(t, err)
		<-time.After(20 * time.Millisecond) // until it most likely stands in its read: a Put that is cancelled before that has it easier
		began := time.Now()
		cancel()
		err = <-done
		took = append(took, time.Since(began))
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, feed.Close())
		wg.Wait()
		require.Equal(t, "old", get(t, s, "k"))
	}
	t.Log("a Put ended after", took)
	require.Less(t, min(took[0], took[1], took[2]), bound)

	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := s.Get(ctx, "k", nil)
	require.NoError(t, err)
	defer r.Close()
	cancel()
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Stat(ctx, "k")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Delete(ctx, "k"), context.Canceled)
	_, err = s.Copy(ctx, "k", "l")
	require.ErrorIs(t, err, context.Canceled)
	for _, err := range s.List(ctx, "", "") {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Equal(t, []string{"k"}, listed(t, s, "", ""))
}

// sources: whatever a source does, the object is its content or nothing.
func sources(t *testing.T, s *filestore.Store) {
	content := make([]byte, 700<<10)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	for name, r := range map[string]io.Reader{
		"known kind":    bytes.NewReader(content),
		"unknown kind":  struct{ io.Reader }{bytes.NewReader(content)},
		"small pieces":  &pieces{r: bytes.NewReader(content), max: 700},
		"empty pieces":  &pieces{r: bytes.NewReader(content), max: 64 << 10, empty: true},
		"end with data": &pieces{r: bytes.NewReader(content), max: 1 << 20, early: true},
	} {
		for _, size := range []int64{0, int64(len(content))} {
			if seeker, ok := r.(io.Seeker); ok {
				_, err := seeker.Seek(0, io.SeekStart)
				require.NoError(t, err)
			} else if size != 0 {
				continue
			}
			o, err := s.Put(t.Context(), "k", r, &filestore.PutOptions{Size: size})
			require.NoError(t, err, name)
			require.EqualValues(t, len(content), o.Size, name)
			require.True(t, bytes.Equal(content, []byte(get(t, s, "k"))), name)
		}
	}
	// What a request's body returns when its client goes away must not be taken for the end.
	for _, n := range []int64{0, 10, 300 << 10} {
		for _, fault := range []error{io.ErrUnexpectedEOF, io.ErrClosedPipe} {
			_, err := s.Put(t.Context(), "k", io.MultiReader(io.LimitReader(bytes.NewReader(content), n), failing{fault}), nil)
			require.ErrorIs(t, err, fault)
		}
	}
	require.True(t, bytes.Equal(content, []byte(get(t, s, "k"))))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type pieces struct {
	r            *bytes.Reader
	max          int
	empty, early bool
	odd          bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.odd = !p.odd; p.odd && p.empty {
		return 0, nil
	}
	n, err := p.r.Read(b[:min(len(b), p.max)])
	if p.early && err == nil && p.r.Len() == 0 {
		err = io.EOF
	}
	return n, err
}

func metadataNames(t *testing.T, s *filestore.Store) {
	m := map[string]string{"plain": "a b", "long-name-1": "a=b?c", "umlaut": "ä ö 日本", "empty": ""}
	_, err := s.WriteFile(t.Context(), "k", []byte("x"), &filestore.PutOptions{Metadata: m, ContentType: "application/octet-stream"})
	require.NoError(t, err)
	o, err := s.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, m, o.Metadata)
	require.Equal(t, "application/octet-stream", o.ContentType)
	for _, bad := range []map[string]string{{"Upper": "x"}, {"": "x"}, {"a b": "x"}, {"x": "a\nb"}, {"x": " a"}, {"x": "\xff"}, {"x": "=?utf-8?b?eA==?="}, {"x": strings.Repeat("y", 2000)}, {"nines-sha256": "x"}} {
		_, err := s.WriteFile(t.Context(), "k", []byte("y"), &filestore.PutOptions{Metadata: bad})
		require.Error(t, err, bad)
	}
	_, err = s.WriteFile(t.Context(), "k", []byte("y"), &filestore.PutOptions{ContentType: "a\r\nb"})
	require.Error(t, err)
	require.Equal(t, "x", get(t, s, "k"))
}

func copyAndMove(t *testing.T, s *filestore.Store) {
	ctx := t.Context()
	m := map[string]string{"by": "me"}
	from, err := s.WriteFile(ctx, "a/from", []byte("text"), &filestore.PutOptions{ContentType: "text/plain", Metadata: m})
	require.NoError(t, err)
	for range 2 { // the second one replaces
		to, err := s.Copy(ctx, "a/from", "b/to +ä%2f")
		require.NoError(t, err)
		require.Equal(t, "b/to +ä%2f", to.Key)
		stat, err := s.Stat(ctx, "b/to +ä%2f")
		require.NoError(t, err)
		require.Equal(t, "text/plain", stat.ContentType)
		require.Equal(t, m, stat.Metadata)
		require.Equal(t, from.SHA256, stat.SHA256)
		require.Equal(t, "text", get(t, s, "b/to +ä%2f"))
	}
	same, err := s.Copy(ctx, "a/from", "a/from")
	require.NoError(t, err)
	require.EqualValues(t, 4, same.Size)
	_, err = s.Copy(ctx, "none", "some")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Copy(ctx, "a/from", "../x")
	require.ErrorIs(t, err, filestore.ErrInvalidKey)
	require.ErrorIs(t, s.Move(ctx, "none", "none"), fs.ErrNotExist)
	require.Equal(t, []string{"a/from", "b/to +ä%2f"}, listed(t, s, "", ""))
}

func appending(t *testing.T, s *filestore.Store) {
	ctx := t.Context()
	_, err := s.Append(ctx, "k", strings.NewReader("x"), nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	m := map[string]string{"by": "me"}
	_, err = s.WriteFile(ctx, "k", []byte("one"), &filestore.PutOptions{ContentType: "text/plain", Metadata: m})
	require.NoError(t, err)
	o, err := s.Append(ctx, "k", strings.NewReader(" two"), &filestore.AppendOptions{At: 3, Size: 4})
	require.NoError(t, err)
	require.EqualValues(t, 7, o.Size)
	_, err = s.Append(ctx, "k", struct{ io.Reader }{strings.NewReader(" three")}, nil)
	require.NoError(t, err)
	require.Equal(t, "one two three", get(t, s, "k"))
	o, err = s.Stat(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "text/plain", o.ContentType)
	require.Equal(t, m, o.Metadata)
	_, err = s.Append(ctx, "k", strings.NewReader(" two"), &filestore.AppendOptions{At: 3}) // arrives twice
	require.ErrorIs(t, err, filestore.ErrPrecondition)
	_, err = s.Append(ctx, "k", strings.NewReader("!"), &filestore.AppendOptions{Size: 2})
	require.ErrorIs(t, err, filestore.ErrCorrupt)
	_, err = s.Append(ctx, "k", failing{io.ErrUnexpectedEOF}, nil)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "one two three", get(t, s, "k"))
	require.Equal(t, []string{"k"}, listed(t, s, "", ""))
	if !s.Capabilities().IfMatch {
		return
	}
	var wg sync.WaitGroup
	for range 4 { // nothing is lost where the storage can compare
		wg.Go(func() {
			for done := 0; done < 5; {
				_, err := s.Append(ctx, "k", strings.NewReader("."), nil)
				if err == nil {
					done++
				} else if !errors.Is(err, filestore.ErrPrecondition) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, "one two three"+strings.Repeat(".", 20), get(t, s, "k"))
}

func zipping(t *testing.T, s *filestore.Store) {
	want := map[string]string{"1.txt": "one", "b/2.bin": strings.Repeat("two", 1000)}
	for name, text := range want {
		put(t, s, "a/"+name, text)
	}
	put(t, s, "ab", "not this")
	for _, opts := range []*filestore.ZipOptions{nil, {NoCompression: true}} {
		var b bytes.Buffer
		require.NoError(t, s.Zip(t.Context(), &b, "a/", opts))
		z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
		require.NoError(t, err)
		got := map[string]string{}
		for _, f := range z.File {
			r, err := f.Open()
			require.NoError(t, err)
			text, err := io.ReadAll(r)
			require.NoError(t, err)
			got[f.Name] = string(text)
		}
		require.Equal(t, want, got)
	}
	var b bytes.Buffer
	require.NoError(t, s.Zip(t.Context(), &b, "", nil))
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	require.Len(t, z.File, 3)
	require.ErrorIs(t, s.Zip(t.Context(), io.Discard, "..", nil), filestore.ErrInvalidKey)
}

func seeking(t *testing.T, s *filestore.Store) {
	put(t, s, "k.txt", "0123456789")
	f, err := s.Open(t.Context(), "k.txt")
	require.NoError(t, err)
	for _, c := range []struct {
		offset int64
		whence int
		want   string
	}{{3, io.SeekStart, "3456789"}, {-2, io.SeekEnd, "89"}, {-5, io.SeekCurrent, "56789"}, {20, io.SeekStart, ""}, {0, io.SeekStart, "0123456789"}} {
		_, err := f.Seek(c.offset, c.whence)
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, err)
		require.Equal(t, c.want, string(b))
	}
	_, err = f.Seek(-1, io.SeekStart)
	require.Error(t, err)
	part := make([]byte, 4)
	n, err := f.ReadAt(part, 8)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "89", string(part[:n]))
	_, err = f.ReadAt(part, 2)
	require.NoError(t, err)
	require.Equal(t, "2345", string(part))
	_, err = f.ReadAt(part, 10)
	require.ErrorIs(t, err, io.EOF)
	put(t, s, "k.txt", "replaced!!")
	_, err = f.ReadAt(part, 2)
	require.ErrorIs(t, err, filestore.ErrPrecondition, "never a mixture of two versions")
	require.NoError(t, f.Close())
	_, err = f.Read(part)
	require.ErrorIs(t, err, fs.ErrClosed)

	server := httptest.NewServer(http.FileServerFS(s.FS(t.Context())))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/k.txt", nil)
	require.NoError(t, err)
	req.Header.Set("Range", "bytes=2-4")
	answer, err := server.Client().Do(req)
	require.NoError(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusPartialContent, answer.StatusCode)
	require.Equal(t, "pla", string(b))
}

func views(t *testing.T, s *filestore.Store) {
	ctx := t.Context()
	put(t, s, "exports2/x", "other")
	sub, err := s.Sub("exports")
	require.NoError(t, err)
	put(t, sub, "a/b", "text")
	require.Equal(t, "text", get(t, s, "exports/a/b"))
	require.Equal(t, []string{"a/b"}, listed(t, sub, "", ""))
	require.Equal(t, []string{"a/"}, listed(t, sub, "", "/"))
	require.NoError(t, sub.Check(ctx))
	o, err := sub.Copy(ctx, "a/b", "c")
	require.NoError(t, err)
	require.Equal(t, "c", o.Key)
	o, err = sub.Append(ctx, "c", strings.NewReader("!"), nil)
	require.NoError(t, err)
	require.Equal(t, "c", o.Key)
	require.Equal(t, "text!", get(t, sub, "c"))
	_, err = sub.WriteFile(ctx, "../x", nil, nil)
	require.ErrorIs(t, err, filestore.ErrInvalidKey)
	_, err = sub.WriteFile(ctx, strings.TrimSuffix(strings.Repeat(strings.Repeat("y", 100)+"/", 9), "/"), nil, nil)
	require.NoError(t, err)
	_, err = sub.WriteFile(ctx, strings.Repeat(strings.Repeat("y", 100)+"/", 10)+"xxxxxxxxx", nil, nil)
	require.ErrorIs(t, err, filestore.ErrInvalidKey, "too long with what stands before it")
	_, err = s.Sub("../x")
	require.ErrorIs(t, err, filestore.ErrInvalidKey)
	_, err = sub.RemovePrefix(ctx, strings.Repeat("y", 100))
	require.NoError(t, err)
	require.NoError(t, sub.Close())
	require.Equal(t, []string{"exports/a/b", "exports/c", "exports2/x"}, listed(t, s, "", ""))

	var mu sync.Mutex
	seen := map[string]filestore.Operation{}
	watched := filestore.Observe(s, func(op filestore.Operation) {
		mu.Lock()
		defer mu.Unlock()
		seen[op.Name] = op
	})
	put(t, watched, "w", "four")
	get(t, watched, "w")
	_, err = watched.Stat(ctx, "none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	listed(t, watched, "w", "")
	require.NoError(t, watched.Delete(ctx, "w"))
	require.EqualValues(t, 4, seen["put"].Bytes)
	require.EqualValues(t, 4, seen["get"].Bytes)
	require.Equal(t, "w", seen["get"].Key)
	require.ErrorIs(t, seen["stat"].Err, fs.ErrNotExist)
	require.Contains(t, seen, "list")
	require.Contains(t, seen, "delete")
}

func signing(t *testing.T, s *filestore.Store) {
	ctx := t.Context()
	put(t, s, "a/k ä.txt", "text")
	url, err := s.SignedURL(ctx, "a/k ä.txt", &filestore.SignOptions{TTL: time.Hour, Filename: "ü.txt", ContentType: "text/html"})
	if !s.Capabilities().SignedURL {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	fetch := func(method, url, body string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		require.NoError(t, err)
		answer, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer, string(b)
	}
	answer, text := fetch(http.MethodGet, url, "")
	require.Equal(t, http.StatusOK, answer.StatusCode, text)
	require.Equal(t, "text", text)
	answer, _ = fetch(http.MethodGet, strings.Replace(url, "k%20", "l%20", 1), "")
	require.Equal(t, http.StatusForbidden, answer.StatusCode, "the link is for one object")
	upload, err := s.SignedURL(ctx, "a/up", &filestore.SignOptions{Method: "PUT"})
	require.NoError(t, err)
	answer, text = fetch(http.MethodPut, upload, "uploaded")
	require.Equal(t, http.StatusOK, answer.StatusCode, text)
	require.Equal(t, "uploaded", get(t, s, "a/up"))
	for _, bad := range []*filestore.SignOptions{{TTL: time.Millisecond}, {TTL: 1000 * time.Hour}, {Method: "DELETE"}} {
		_, err := s.SignedURL(ctx, "k", bad)
		require.Error(t, err, fmt.Sprint(bad))
	}
}
