package s3store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/s3store"
	"github.com/nines-go/nines/internal/lab"
)

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := s3store.Open(t.Context(), s3store.Config{
		Endpoint: "https://user:secret@host/", Prefix: "../x", AccessKey: "key", SSE: "x", KMSKeyID: "y", Checksum: "z", PartSize: 1, RequestTimeout: 1, MaxRetries: -1,
	})
	for _, field := range []string{"Bucket", "Endpoint", "Prefix", "SecretKey", "SSE", "KMSKeyID", "Checksum", "PartSize", "RequestTimeout", "MaxRetries"} {
		require.ErrorContains(t, err, field)
	}
	require.NotContains(t, err.Error(), "secret")
	cfg := s3store.Config{Bucket: "b", AccessKey: "key", SecretKey: "s3cr3t", SessionToken: "t0ken"}
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v %#v", cfg, cfg), cfg.LogValue().String()} {
		require.NotContains(t, text, "s3cr3t")
		require.NotContains(t, text, "t0ken")
	}
}

// What is wrong is told by Open, within its timeout.
func TestOpenTellsWhatIsWrong(t *testing.T) {
	server := lab.S3(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	require.NoError(t, err)
	defer silent.Close()
	web := http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	webListener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer web.Close()
	wg.Go(func() { _ = web.Serve(webListener) })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	for name, c := range map[string]struct {
		change func(*s3store.Config)
		want   error
	}{
		"wrong secret":   {func(c *s3store.Config) { c.SecretKey = "wrong" }, s3store.ErrCredentials},
		"wrong key":      {func(c *s3store.Config) { c.AccessKey = "wrong" }, s3store.ErrCredentials},
		"no bucket":      {func(c *s3store.Config) { c.Bucket = "missing" }, s3store.ErrBucket},
		"nobody listens": {func(c *s3store.Config) { c.Endpoint = closed.Addr().String() }, s3store.ErrUnreachable},
		"silence":        {func(c *s3store.Config) { c.Endpoint = silent.Addr().String() }, s3store.ErrUnreachable},
		"no such host":   {func(c *s3store.Config) { c.Endpoint = "nothing.invalid:1" }, s3store.ErrUnreachable},
		"TLS":            {func(c *s3store.Config) { c.NoTLS = false }, s3store.ErrUnreachable},
		"no S3":          {func(c *s3store.Config) { c.Endpoint = webListener.Addr().String() }, s3store.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, server)
			cfg.RequestTimeout = 2 * time.Second
			c.change(&cfg)
			began := time.Now()
			_, err := s3store.Open(t.Context(), cfg)
			require.Error(t, err)
			t.Log(time.Since(began), err)
			require.ErrorIs(t, err, c.want)
			require.Less(t, time.Since(began), cfg.RequestTimeout+10*time.Second)
			require.NotContains(t, err.Error(), server.SecretKey)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s3store.Open(ctx, config(t, server))
	require.ErrorIs(t, err, context.Canceled)
}

func TestSettings(t *testing.T) {
	server := lab.S3(t)
	for name, change := range map[string]func(*s3store.Config){
		"prefix":     func(c *s3store.Config) { c.Prefix = "some/where/" },
		"crc32c":     func(c *s3store.Config) { c.Checksum = "crc32c" },
		"md5":        func(c *s3store.Config) { c.Checksum = "md5" },
		"none":       func(c *s3store.Config) { c.Checksum = "none" },
		"new bucket": func(c *s3store.Config) { c.Bucket, c.CreateBucket = "made-here", true },
		"sse":        func(c *s3store.Config) { c.SSE = "s3" },
		"class":      func(c *s3store.Config) { c.StorageClass = "STANDARD" },
		"region":     func(c *s3store.Config) { c.Region = "us-east-1" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, server)
			var trace bytes.Buffer
			cfg.Trace = &trace
			cfg.PartSize = 5 << 20
			change(&cfg)
			s := open(t, cfg)
			big := noise(12<<20 + 5)
			for _, content := range [][]byte{nil, []byte("small"), big} {
				o, err := s.Put(t.Context(), "a/k", struct{ io.Reader }{bytes.NewReader(content)}, &filestore.PutOptions{ContentType: "text/plain"})
				require.NoError(t, err)
				require.EqualValues(t, len(content), o.Size)
				b, err := s.ReadFile(t.Context(), "a/k")
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, b))
			}
			require.NoError(t, s.Check(t.Context()))
			require.Contains(t, trace.String(), "PUT ")
			require.NotContains(t, trace.String(), server.SecretKey)
			if cfg.Prefix != "" {
				whole := cfg
				whole.Prefix = ""
				_, err := open(t, whole).Stat(t.Context(), "some/where/a/k")
				require.NoError(t, err)
			}
		})
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// uploads are those that were begun and neither finished nor aborted.
func uploads(t *testing.T, server *lab.S3Server, bucket string) int {
	core, err := minio.NewCore(server.Endpoint(), &minio.Options{Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, "")})
	require.NoError(t, err)
	all, err := core.ListMultipartUploads(t.Context(), bucket, "", "", "", "", 1000)
	require.NoError(t, err)
	return len(all.Uploads)
}

// Contents of more than one part: conditions, promises and faults as with small ones, and nothing is left of an upload that failed.
func TestParts(t *testing.T) {
	server := lab.S3(t)
	cfg := config(t, server)
	cfg.PartSize = 5 << 20
	s := open(t, cfg)
	ctx := t.Context()
	content := noise(17 << 20)
	sum := sha256.Sum256(content)
	for name, n := range map[string]int{"less": 5<<20 - 1, "one": 5 << 20, "more": 5<<20 + 1, "two": 10 << 20, "odd": 17 << 20} {
		for _, size := range []int64{0, int64(n)} {
			o, err := s.Put(ctx, name, struct{ io.Reader }{bytes.NewReader(content[:n])}, &filestore.PutOptions{Size: size})
			require.NoError(t, err, name)
			require.EqualValues(t, n, o.Size)
			b, err := s.ReadFile(ctx, name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content[:n], b), "%s, size %d", name, size)
		}
	}
	o, err := s.Put(ctx, "k", bytes.NewReader(content), &filestore.PutOptions{SHA256: sum[:], ContentType: "a/b", Metadata: map[string]string{"x": "ü"}, IfAbsent: true})
	require.NoError(t, err)
	stat, err := s.Stat(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, sum[:], stat.SHA256)
	require.Equal(t, "a/b", stat.ContentType)
	require.Equal(t, map[string]string{"x": "ü"}, stat.Metadata)
	require.Equal(t, o.Version, stat.Version)
	_, err = s.Put(ctx, "k", bytes.NewReader(content), &filestore.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = s.Put(ctx, "k", bytes.NewReader(content), &filestore.PutOptions{IfMatch: "0123456789abcdef0123456789abcdef"})
	require.ErrorIs(t, err, filestore.ErrPrecondition)
	_, err = s.Put(ctx, "k", bytes.NewReader(content[1:]), &filestore.PutOptions{IfMatch: o.Version})
	require.NoError(t, err)
	before, err := s.Stat(ctx, "k")
	require.NoError(t, err)
	broken := errors.New("broken")
	for name, try := range map[string]func() error{
		"wrong sum": func() error {
			_, err := s.Put(ctx, "k", bytes.NewReader(content[2:]), &filestore.PutOptions{SHA256: sum[:]})
			require.ErrorIs(t, err, filestore.ErrCorrupt)
			return err
		},
		"too short": func() error {
			_, err := s.Put(ctx, "k", bytes.NewReader(content), &filestore.PutOptions{Size: 18 << 20})
			require.ErrorIs(t, err, filestore.ErrCorrupt)
			return err
		},
		"too long": func() error {
			_, err := s.Put(ctx, "k", bytes.NewReader(content), &filestore.PutOptions{Size: 16 << 20})
			require.ErrorIs(t, err, filestore.ErrCorrupt)
			return err
		},
		"source fails": func() error {
			_, err := s.Put(ctx, "k", io.MultiReader(bytes.NewReader(content), failing{broken}), nil)
			require.ErrorIs(t, err, broken)
			return err
		},
	} {
		require.Error(t, try(), name)
		now, err := s.Stat(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, before.Version, now.Version, name)
		require.Zero(t, uploads(t, server, cfg.Bucket), name)
	}
	longer, err := s.Append(ctx, "k", strings.NewReader("the end"), &filestore.AppendOptions{At: 17<<20 - 1})
	require.NoError(t, err)
	require.EqualValues(t, 17<<20+6, longer.Size)
	_, err = s.Append(ctx, "k", struct{ io.Reader }{bytes.NewReader(content)}, nil) // in several parts itself
	require.NoError(t, err)
	b, err := s.ReadFile(ctx, "k")
	require.NoError(t, err)
	require.True(t, bytes.Equal(slicesJoin(content[1:], []byte("the end"), content), b))
	require.Zero(t, uploads(t, server, cfg.Bucket))
}

func slicesJoin(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A stream that is longer than S3's number of parts allows is an error and no shorter object.
func TestTooManyParts(t *testing.T) {
	server := lab.S3(t)
	cfg := config(t, server)
	cfg.PartSize = 5 << 20
	s3store.SetMaxParts(&cfg, 3)
	s := open(t, cfg)
	content := noise(16 << 20)
	_, err := s.Put(t.Context(), "k", struct{ io.Reader }{bytes.NewReader(content[:15<<20])}, nil)
	require.NoError(t, err)
	_, err = s.Put(t.Context(), "k", struct{ io.Reader }{bytes.NewReader(content[:15<<20+1])}, nil)
	require.ErrorIs(t, err, s3store.ErrTooLarge)
	require.ErrorContains(t, err, "PartSize")
	o, err := s.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.EqualValues(t, 15<<20, o.Size)
	require.Zero(t, uploads(t, server, cfg.Bucket))
	_, err = s.Put(t.Context(), "k", struct{ io.Reader }{bytes.NewReader(content)}, &filestore.PutOptions{Size: 16 << 20})
	require.NoError(t, err, "a known size gets larger parts")
}

// wire is a transport that does harm.
type wire struct {
	fail func(*http.Request, func() (*http.Response, error)) (*http.Response, error)
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	next := func() (*http.Response, error) { return http.DefaultTransport.RoundTrip(r) }
	if w.fail == nil {
		return next()
	}
	return w.fail(r, next)
}

// A request that arrives damaged is refused, whatever protects it.
func TestDamageOnTheWay(t *testing.T) {
	server := lab.S3(t)
	for _, checksum := range []string{"sha256", "crc32c", "md5"} {
		cfg := config(t, server)
		w := &wire{}
		cfg.Checksum, cfg.Transport, cfg.PartSize = checksum, w, 5<<20
		s := open(t, cfg)
		w.fail = func(r *http.Request, next func() (*http.Response, error)) (*http.Response, error) {
			if r.Method == http.MethodPut && r.Body != nil && r.ContentLength > 0 {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				b[len(b)/2] ^= 1
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			return next()
		}
		for _, n := range []int{1000, 6 << 20} {
			_, err := s.WriteFile(t.Context(), "k", noise(n), nil)
			require.Error(t, err, "%s, %d bytes", checksum, n)
			t.Log(checksum, n, err)
			_, err = s.Stat(t.Context(), "k")
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
}

// The answer to a conditional write is lost and the client asks again: who won knows that it won.
func TestLostAnswer(t *testing.T) {
	server := lab.S3(t)
	cfg := config(t, server)
	w := &wire{}
	cfg.Transport = w
	s := open(t, cfg)
	var lost atomic.Int32
	w.fail = func(r *http.Request, next func() (*http.Response, error)) (*http.Response, error) {
		answer, err := next()
		if r.Method == http.MethodPut && err == nil && lost.Add(1) == 1 {
			answer.Body.Close()
			return nil, errors.New("connection reset")
		}
		return answer, err
	}
	o, err := s.WriteFile(t.Context(), "k", []byte("mine"), &filestore.PutOptions{IfAbsent: true})
	require.NoError(t, err)
	require.Greater(t, lost.Load(), int32(1), "it was asked again")
	lost.Store(0)
	_, err = s.WriteFile(t.Context(), "k", []byte("mine too"), &filestore.PutOptions{IfMatch: o.Version})
	require.NoError(t, err)
	lost.Store(1)
	_, err = s.WriteFile(t.Context(), "k", []byte("late"), &filestore.PutOptions{IfAbsent: true})
	require.ErrorIs(t, err, fs.ErrExist)
}

// An answer that ends early is an error and not a shorter content.
func TestCutAnswer(t *testing.T) {
	server := lab.S3(t)
	cfg := config(t, server)
	w := &wire{}
	cfg.Transport = w
	s := open(t, cfg)
	_, err := s.WriteFile(t.Context(), "k", noise(100000), nil)
	require.NoError(t, err)
	w.fail = func(r *http.Request, next func() (*http.Response, error)) (*http.Response, error) {
		answer, err := next()
		if err == nil && r.Method == http.MethodGet {
			answer.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(answer.Body, 5000), answer.Body}
		}
		return answer, err
	}
	_, err = s.ReadFile(t.Context(), "k")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// A server that stands still: the request ends after RequestTimeout, or at once with its context; when it goes on, all is well.
func TestFrozenServer(t *testing.T) {
	server := lab.S3(t)
	cfg := config(t, server)
	cfg.RequestTimeout, cfg.MaxRetries = 500*time.Millisecond, 1
	s := open(t, cfg)
	_, err := s.WriteFile(t.Context(), "k", []byte("old"), nil)
	require.NoError(t, err)
	server.Pause()
	var began time.Time
	require.Eventually(t, func() bool { // a request may slip in before the server stands
		began = time.Now()
		_, err = s.ReadFile(t.Context(), "k")
		return err != nil
	}, 20*time.Second, time.Millisecond)
	require.ErrorIs(t, err, s3store.ErrUnreachable)
	t.Log("an answer was given up after", time.Since(began))
	var took []time.Duration
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var putErr error
		source, feed := io.Pipe()
		wg.Go(func() { _, putErr = s.Put(ctx, "k", source, nil) })
		_, err := feed.Write([]byte("new"))
		require.NoError(t, err)
		require.NoError(t, feed.Close()) // the request is on its way, or soon
		began := time.Now()
		cancel()
		wg.Wait()
		took = append(took, time.Since(began))
		require.ErrorIs(t, putErr, context.Canceled)
	}
	t.Log("a Put ended after", took)
	require.Less(t, min(took[0], took[1], took[2]), 100*time.Millisecond)
	err = s.Check(t.Context())
	var r interface{ Remedy() string }
	require.ErrorAs(t, err, &r)
	server.Resume()
	require.Eventually(t, func() bool { return s.Check(t.Context()) == nil }, 20*time.Second, 50*time.Millisecond)
}

// Lists of several pages, in order, with and without folders.
func TestLongList(t *testing.T) {
	server := lab.S3(t)
	s := open(t, config(t, server))
	var want []string
	folders := map[string]bool{}
	var top []string
	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for i := range 2300 {
		key := fmt.Sprintf("%04d", i)
		if i%3 == 0 {
			key = fmt.Sprintf("%03d-/%d", i/9, i)
			if f := key[:5]; !folders[f] {
				folders[f] = true
				top = append(top, f)
			}
		} else {
			top = append(top, key)
		}
		want = append(want, key)
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if _, err := s.WriteFile(t.Context(), key, []byte("x"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for delimiter, want := range map[string][]string{"": want, "/": top} {
		var got []string
		for o, err := range s.List(t.Context(), "", delimiter) {
			require.NoError(t, err)
			got = append(got, o.Key)
		}
		require.ElementsMatch(t, want, got)
		require.IsIncreasing(t, got)
	}
	n, err := s.RemovePrefix(t.Context(), "100-")
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestStreamOfUnknownSize(t *testing.T) {
	s := open(t, config(t, lab.S3(t)))
	filestoretest.Stream(t, s, int64(filestoretest.Chaos(64, 5<<10))<<20, 32<<20)
}
