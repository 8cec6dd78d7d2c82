//go:build linux

package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/filestore/s3store"
	"github.com/nines-go/nines/internal/lab"
)

func bucket(t *testing.T, server *lab.S3Server, name, prefix string) *filestore.Store {
	s, err := s3store.Open(t.Context(), s3store.Config{
		Endpoint: server.Endpoint(), Bucket: name, Prefix: prefix, AccessKey: server.AccessKey, SecretKey: server.SecretKey, NoTLS: true, PathStyle: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func copyAll(t *testing.T, from, to string) {
	require.NoError(t, os.RemoveAll(to))
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
}

// wrong are the misconfigurations that a newcomer may bring: each returns the store of the members that work and the one of the newcomer, which is
// opened once the first is in use.
var wrong = map[string]func(t *testing.T) (first *filestore.Store, second func() (*filestore.Store, error)){
	"private directory": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		return dir(t, nastest.Scratch(t)), func() (*filestore.Store, error) { return dir(t, nastest.Scratch(t)), nil }
	},
	"private memory": func(*testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		return memstore.Open(), func() (*filestore.Store, error) { return memstore.Open(), nil }
	},
	"clone with the same ID": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		path := nastest.Scratch(t)
		return dir(t, path), func() (*filestore.Store, error) {
			clone := filepath.Join(nastest.Scratch(t), "clone")
			copyAll(t, path, clone)
			return dir(t, clone), nil
		}
	},
	"not mounted": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		mount := filepath.Join(nastest.Scratch(t), "mountpoint")
		return dir(t, nastest.Scratch(t)), func() (*filestore.Store, error) {
			require.NoError(t, os.Mkdir(mount, 0o700))
			return dir(t, mount), nil
		}
	},
	"read-only": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		path := nastest.Scratch(t)
		return dir(t, path), func() (*filestore.Store, error) {
			nas := nastest.Mount(t, path, nastest.Options{Cache: 3 * time.Second})
			s := dir(t, nas.Dir) // opened before the mount became read-only: else Open says it
			nas.Fail(syscall.EROFS, nastest.Create, nastest.Write, nastest.Mkdir, nastest.Rename, nastest.Link, nastest.Unlink)
			return s, nil
		}
	},
	"full": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		path := nastest.Scratch(t)
		return dir(t, path), func() (*filestore.Store, error) {
			nas := nastest.Mount(t, path, nastest.Options{Cache: 3 * time.Second})
			s := dir(t, nas.Dir)
			nas.Fail(syscall.ENOSPC, nastest.Write)
			return s, nil
		}
	},
	"other prefix": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		server := lab.S3(t)
		name := server.Bucket()
		return bucket(t, server, name, "app"), func() (*filestore.Store, error) { return bucket(t, server, name, "app2"), nil }
	},
	"other bucket": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		server := lab.S3(t)
		return bucket(t, server, server.Bucket(), ""), func() (*filestore.Store, error) { return bucket(t, server, server.Bucket(), ""), nil }
	},
	"other view": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		whole := dir(t, nastest.Scratch(t))
		first, err := whole.Sub("a")
		require.NoError(t, err)
		return first, func() (*filestore.Store, error) { return whole.Sub("b") }
	},
	"two servers without replication": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		one, two := lab.S3(t), lab.S3(t)
		name := one.Bucket()
		return bucket(t, one, name, ""), func() (*filestore.Store, error) {
			copyAll(t, filepath.Join(one.Objects(), name), filepath.Join(two.Objects(), name)) // once the same
			return bucket(t, two, name, ""), nil
		}
	},
	"stale cache": func(t *testing.T) (*filestore.Store, func() (*filestore.Store, error)) {
		path := nastest.Scratch(t)
		return dir(t, path), func() (*filestore.Store, error) {
			return dir(t, nastest.Mount(t, path, nastest.Options{Cache: 3 * time.Second, Frozen: time.Hour}).Dir), nil
		}
	},
}

// Each misconfiguration of a newcomer is found before it was ever ready, and does not stop who was there.
func TestNewcomerWithTheWrongStore(t *testing.T) {
	for name, stores := range wrong {
		t.Run(name, func(t *testing.T) {
			rounds, limit := 3, 2*time.Second
			var stale time.Duration
			if name == "stale cache" { // a cache is given some time, less here than in use
				rounds, limit = 1, 30*time.Second
				stale = time.Duration(filestoretest.Chaos(2, 10)) * time.Second
			}
			var took []time.Duration
			for range rounds {
				n := &net{members: map[string]*member{}}
				store, open := stores(t)
				first := startStale(t, n.join("a"), store, 0, stale)
				eventually(t, "green", func() bool { return isGreen(first) })
				s, err := open()
				require.NoError(t, err)
				began := time.Now()
				p := startStale(t, n.join("b"), s, 0, stale)
				var found error
				eventually(t, "the newcomer's verdict", func() bool {
					found = p.Check(t.Context())
					require.Error(t, found, "it was ready after %s", time.Since(began))
					require.True(t, isRed(p), found)
					require.False(t, isRed(first), "who was there goes on")
					return decided(found)
				})
				took = append(took, time.Since(began))
				if name != "read-only" && name != "full" {
					require.ErrorIs(t, found, filestore.ErrNotShared)
				}
				var r interface{ Remedy() string }
				require.ErrorAs(t, found, &r)
				require.NotEmpty(t, r.Remedy())
				t.Log(found)
			}
			t.Log("found after", took)
			best := took[0]
			for _, d := range took {
				best = min(best, d)
			}
			require.Less(t, best, limit)
		})
	}
}

// decided reports whether an error is more than "not yet".
func decided(err error) bool {
	for _, text := range []string{"not probed yet", "not yet told"} {
		if strings.Contains(err.Error(), text) {
			return false
		}
	}
	return true
}

// Two that start at the same moment with stores of their own: never were both ready, and soon at least one is red.
func TestTwoNewcomersWithTheirOwnStores(t *testing.T) {
	for range 10 {
		n := &net{members: map[string]*member{}}
		a, b := n.join("a"), n.join("b")
		p, q := start(t, a, dir(t, nastest.Scratch(t))), start(t, b, dir(t, nastest.Scratch(t)))
		eventually(t, "one is red", func() bool {
			first, second := p.Check(t.Context()), q.Check(t.Context())
			require.True(t, isRed(p) || isRed(q))
			return errors.Is(first, filestore.ErrNotShared) || errors.Is(second, filestore.ErrNotShared)
		})
		for range 20 {
			require.True(t, isRed(p) || isRed(q))
			<-time.After(5 * time.Millisecond)
		}
	}
}

// What happens to a member that was proven: its storage goes away, becomes read-only or full, is another one, or hangs. That member is red, the
// others go on.
func TestStoreThatIsLostLater(t *testing.T) {
	for name, harm := range map[string]func(nas *nastest.NAS){
		"read-only": func(nas *nastest.NAS) {
			nas.Fail(syscall.EROFS, nastest.Create, nastest.Mkdir, nastest.Rename, nastest.Unlink)
		},
		"full":   func(nas *nastest.NAS) { nas.Fail(syscall.ENOSPC, nastest.Write) },
		"broken": func(nas *nastest.NAS) { nas.Fail(syscall.EIO, nastest.Open, nastest.Read) },
		"gone":   func(nas *nastest.NAS) { nas.Fail(syscall.ENOENT, nastest.Open, nastest.Lookup, nastest.Create) },
	} {
		t.Run(name, func(t *testing.T) {
			n := &net{members: map[string]*member{}}
			path := nastest.Scratch(t)
			nas := nastest.Mount(t, path, nastest.Options{})
			a, b, c := start(t, n.join("a"), dir(t, path)), start(t, n.join("b"), dir(t, path)), start(t, n.join("c"), dir(t, nas.Dir))
			for _, p := range []*filestore.Proof{a, b, c} {
				eventually(t, "green", func() bool { return isGreen(p) })
			}
			harm(nas)
			eventually(t, "red", func() bool { return isRed(c) })
			for range 20 {
				require.False(t, isRed(a), a.Check(t.Context()))
				require.False(t, isRed(b), b.Check(t.Context()))
				<-time.After(10 * time.Millisecond)
			}
			nas.SetHook(nil)
			for _, p := range []*filestore.Proof{a, b, c} {
				eventually(t, "green again", func() bool { return isGreen(p) })
			}
		})
	}
}

// The disk goes away under a running node: the empty mount point below it must not become a store of its own.
func TestProofFindsAnUnmountedDisk(t *testing.T) {
	n := &net{members: map[string]*member{}}
	path := nastest.Scratch(t)
	first := start(t, n.join("a"), dir(t, path))
	eventually(t, "green", func() bool { return isGreen(first) })
	second := start(t, n.join("b"), dir(t, path))
	eventually(t, "green", func() bool { return isGreen(second) })
	require.NoError(t, os.RemoveAll(filepath.Join(path, ".nines")))
	eventually(t, "red", func() bool { return isRed(first) && isRed(second) })
	require.NoFileExists(t, filepath.Join(path, ".nines", "store-id"))
}

// The minority of proven members that disagree is red.
func TestOneOfThreeIsSeparatedLater(t *testing.T) {
	n := &net{members: map[string]*member{}}
	path, other := nastest.Scratch(t), filepath.Join(nastest.Scratch(t), "other")
	var moved atomic.Pointer[filestore.Store]
	two := dir(t, path)
	switching := filestore.Wrap(two, func(d filestore.Driver) filestore.Driver { return &switched{d, &moved} })
	a, b, c := start(t, n.join("a"), dir(t, path)), start(t, n.join("b"), dir(t, path)), start(t, n.join("c"), switching)
	for _, p := range []*filestore.Proof{a, b, c} {
		eventually(t, "green", func() bool { return isGreen(p) })
	}
	copyAll(t, path, other)
	moved.Store(dir(t, other))
	eventually(t, "the one is red", func() bool { return isRed(c) })
	eventually(t, "the others know", func() bool { return !isGreen(a) && !isGreen(b) })
	require.False(t, isRed(a))
	require.False(t, isRed(b))
	moved.Store(nil)
	for _, p := range []*filestore.Proof{a, b, c} {
		eventually(t, "green again", func() bool { return isGreen(p) })
	}
}

// Storage that hangs is red, though nothing returns.
func TestHungStore(t *testing.T) {
	path := nastest.Scratch(t)
	nas := nastest.Mount(t, path, nastest.Options{})
	n := &net{members: map[string]*member{}}
	p := start(t, n.join("a"), dir(t, nas.Dir))
	eventually(t, "green", func() bool { return isGreen(p) })
	release := make(chan struct{})
	nas.SetHook(func(nastest.Op, string) syscall.Errno {
		<-release
		return 0
	})
	eventually(t, "red", func() bool { return isRed(p) })
	require.ErrorContains(t, p.Check(t.Context()), "has not answered")
	bye, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.Shutdown(bye), context.DeadlineExceeded, "Shutdown does not hang with it")
	nas.SetHook(nil)
	close(release)
}

// No false alarm: members join, each with a mount of its own that caches for three seconds and is slow, and none is ever called wrong.
func TestJoinsOverASlowMount(t *testing.T) {
	source := nastest.Scratch(t)
	const nodes = 3
	var stores []*filestore.Store
	for range nodes {
		nas := nastest.Mount(t, source, nastest.Options{Cache: 3 * time.Second})
		nas.SetHook(func(op nastest.Op, _ string) syscall.Errno {
			if op == nastest.Open || op == nastest.Fsync || op == nastest.Rename {
				<-time.After(time.Duration(rand.Int64N(int64(4 * time.Millisecond))))
			}
			return 0
		})
		stores = append(stores, dir(t, nas.Dir))
	}
	n := &net{members: map[string]*member{}}
	first := startEvery(t, n.join("first"), stores[0], 0)
	eventually(t, "green", func() bool { return isGreen(first) })
	var slowest time.Duration
	joins := filestoretest.Chaos(25, 1000)
	for i := range joins {
		id := fmt.Sprint("n", i)
		began := time.Now()
		p, err := filestore.NewProof(filestore.ProofConfig{Store: stores[1+i%(nodes-1)], Cluster: n.join(id), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, p.Run(context.Background())) })
		eventually(t, "green", func() bool {
			require.Zero(t, p.Stats().Wrong, "%v", p.Check(t.Context()))
			require.Zero(t, first.Stats().Wrong, "%v", first.Check(t.Context()))
			require.False(t, isRed(first), "%v", first.Check(t.Context()))
			return isGreen(p)
		})
		slowest = max(slowest, time.Since(began))
		n.leave(id)
		require.NoError(t, p.Shutdown(t.Context()))
		wg.Wait()
	}
	t.Logf("%d joins, no false alarm, the slowest took %s", joins, slowest)
}

// switched is a driver that may be taken over by another store's.
type switched struct {
	filestore.Driver
	to *atomic.Pointer[filestore.Store]
}

func (s *switched) now() filestore.Driver {
	if other := s.to.Load(); other != nil {
		d := s.Driver
		filestore.Wrap(other, func(o filestore.Driver) filestore.Driver { d = o; return o })
		return d
	}
	return s.Driver
}

func (s *switched) Put(ctx context.Context, key string, r io.Reader, o *filestore.PutOptions) (filestore.Object, error) {
	return s.now().Put(ctx, key, r, o)
}

func (s *switched) Get(ctx context.Context, key string, o *filestore.GetOptions) (io.ReadCloser, filestore.Object, error) {
	return s.now().Get(ctx, key, o)
}

func (s *switched) Delete(ctx context.Context, key string) error { return s.now().Delete(ctx, key) }
