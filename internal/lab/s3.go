package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// versitygw is the program of the object store, built once by the set-up script.
const versitygw = "versitygw-v1.8.0"

// S3Server is an object store that speaks S3 over plain HTTP and keeps its objects in files.
type S3Server struct {
	server
	AccessKey, SecretKey string
	t                    testing.TB
}

// S3 starts an object store with no bucket. Two calls start two stores that know nothing of each other.
func S3(t testing.TB) *S3Server {
	t.Helper()
	program, err := s3Program()
	Need(t, "versitygw", err)
	dir, err := folder("s3")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	s := &S3Server{AccessKey: "testkey", SecretKey: "testsecret", t: t}
	s.server = server{
		what: "versitygw", dir: filepath.Join(dir, "0"), env: []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey},
		busy: func(log string) bool { return strings.Contains(log, "in use") },
		argv: func(port int) []string {
			return []string{program, "--port", fmt.Sprintf("127.0.0.1:%d", port), "--quiet", "posix", filepath.Join(dir, "0", "objects")}
		},
		answer: func(ctx context.Context) error {
			c, err := s.client()
			if err != nil {
				return err
			}
			name := "lab-" + filepath.Base(dir)
			if err := os.MkdirAll(filepath.Join(dir, "0", "objects", name), 0o700); err != nil {
				return err
			}
			if ok, err := c.BucketExists(ctx, name); err != nil || !ok {
				return fmt.Errorf("its bucket is not there: %w", err)
			}
			return nil
		},
	}
	t.Cleanup(func() {
		s.kill()
		_ = os.RemoveAll(dir)
	})
	if err := os.MkdirAll(filepath.Join(s.dir, "objects"), 0o700); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := s.firstStart(); err != nil {
		t.Fatalf("lab: start the object store: %v", err)
	}
	return s
}

// Endpoint is the host:port of the store.
func (s *S3Server) Endpoint() string { return s.addr() }

// Objects is the folder whose sub-folders are the buckets, for tests that spoil what is stored.
func (s *S3Server) Objects() string { return filepath.Join(s.dir, "objects") }

var buckets atomic.Int64

// Bucket makes a new empty bucket and returns its name.
func (s *S3Server) Bucket() string {
	s.t.Helper()
	name := fmt.Sprintf("bucket%d", buckets.Add(1))
	c, err := s.client()
	if err == nil {
		err = c.MakeBucket(context.Background(), name, minio.MakeBucketOptions{})
	}
	if err != nil {
		s.t.Fatalf("lab: make a bucket: %v", err)
	}
	return name
}

// Pause stops the store as if the machine had frozen; Resume lets it go on.
func (s *S3Server) Pause()  { s.pause() }
func (s *S3Server) Resume() { s.resume() }

// Kill ends the store with SIGKILL; Start starts it again on the same port, with what it had stored.
func (s *S3Server) Kill() { s.kill() }

// Start starts the store again after Kill.
func (s *S3Server) Start() {
	s.t.Helper()
	err := s.launch()
	if err == nil {
		err = s.ready()
	}
	if err != nil {
		s.t.Fatalf("lab: start the object store: %v", err)
	}
}

func (s *S3Server) client() (*minio.Client, error) {
	return minio.New(s.addr(), &minio.Options{Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, "")})
}

// s3Program finds versitygw in the cache of the user who set the tests up.
var s3Program = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "nines", "bin", versitygw)
	if usable(file) {
		return file, nil
	}
	if file, err := exec.LookPath("versitygw"); err == nil {
		return file, nil
	}
	return "", fmt.Errorf("neither %s nor the PATH has it: run make setup", file)
})
