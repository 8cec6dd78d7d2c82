//go:build linux

package dirstore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
	"github.com/nines-go/nines/internal/lab"
)

var cached = nastest.Options{Cache: 3 * time.Second}

func TestConformanceOnNAS(t *testing.T) {
	filestoretest.Run(t, func(t *testing.T) *filestore.Store { return open(t, nastest.Mount(t, nastest.Scratch(t), cached).Dir) })
}

// Each process has a mount of its own, with its own cache, as nodes have.
func TestIfAbsentAcrossMounts(t *testing.T) {
	source := nastest.Scratch(t)
	s := open(t, source)
	filestoretest.Race(t, s, 4, filestoretest.Chaos(100, 10000), func(id string) *exec.Cmd {
		return command("race "+id, nastest.Mount(t, source, cached).Dir)
	})
}

// Two nodes with caches of their own: what one wrote is what the other opens, folders that the other removed are made again, and an object that the
// other deleted is not in the way.
func TestTwoMounts(t *testing.T) {
	source := nastest.Scratch(t)
	a, b := open(t, nastest.Mount(t, source, cached).Dir), open(t, nastest.Mount(t, source, cached).Dir)
	ctx := t.Context()
	_, err := a.WriteFile(ctx, "a/keeps/the/folder", nil, nil) // so that only the lower one goes
	require.NoError(t, err)
	for i := range 20 {
		text := fmt.Sprint("text ", i, strings.Repeat(".", i))
		_, err := a.WriteFile(ctx, "a/b/k", []byte(text), &filestore.PutOptions{ContentType: text})
		require.NoError(t, err)
		r, o, err := b.Get(ctx, "a/b/k", nil)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.EqualValues(t, len(text), o.Size)
		require.Equal(t, text, o.ContentType)
		got, err := b.ReadFile(ctx, "a/b/k")
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		if i%3 == 0 {
			require.NoError(t, b.Delete(ctx, "a/b/k")) // with its folders, which a believes to be there
			_, err := a.Put(ctx, "a/b/k", strings.NewReader("x"), &filestore.PutOptions{IfAbsent: true})
			require.NoError(t, err)
		}
	}
}

// Disk full, read-only, and an error of the disk at each operation of a write: an error is returned, the old object stays, nothing is in the way
// afterwards. Where the name was already given, the new object may be seen.
func TestFaultsOfTheDisk(t *testing.T) {
	source := nastest.Scratch(t)
	nas := nastest.Mount(t, source, cached)
	s := open(t, nas.Dir)
	ctx := t.Context()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EDQUOT, syscall.ESTALE} {
		for _, op := range []nastest.Op{nastest.Create, nastest.Write, nastest.Fsync, nastest.Rename, nastest.Fsyncdir} {
			name := fmt.Sprint(op, " ", errno)
			_, err := s.WriteFile(ctx, "a/k", []byte("old"), &filestore.PutOptions{ContentType: "text/old"})
			require.NoError(t, err)
			nas.Fail(errno, op)
			_, err = s.WriteFile(ctx, "a/k", []byte("new"), nil)
			nas.SetHook(nil)
			require.ErrorIs(t, err, errno, name)
			b, readErr := s.ReadFile(ctx, "a/k")
			require.NoError(t, readErr, name)
			if op == nastest.Fsyncdir {
				require.Contains(t, []string{"old", "new"}, string(b), name)
			} else {
				require.Equal(t, "old", string(b), name)
				o, err := s.Stat(ctx, "a/k")
				require.NoError(t, err)
				require.Equal(t, "text/old", o.ContentType, name)
			}
			temps, err := os.ReadDir(filepath.Join(source, ".nines", "tmp"))
			require.NoError(t, err)
			require.Empty(t, temps, name)
		}
	}
	require.NoError(t, s.Check(ctx))
	for _, op := range []nastest.Op{nastest.Create, nastest.Write, nastest.Fsync, nastest.Read} {
		nas.Fail(syscall.EIO, op)
		err := s.Check(ctx)
		var r interface{ Remedy() string }
		require.ErrorAs(t, err, &r, op)
		nas.SetHook(nil)
	}
	nas.Fail(syscall.EIO, nastest.Read, nastest.Open)
	_, err := s.ReadFile(ctx, "a/k")
	require.ErrorIs(t, err, syscall.EIO, "not: it is not there")
	nas.Fail(syscall.EROFS, nastest.Create)
	_, err = dirstore.Open(ctx, dirstore.Config{Dir: nas.Dir})
	require.ErrorIs(t, err, syscall.EROFS)
}

// A Put makes durable what it promises: the content, its attributes, and the folder with the name. Each of these failing is an error.
func TestEachFsync(t *testing.T) {
	source := nastest.Scratch(t)
	nas := nastest.Mount(t, source, cached)
	s := open(t, nas.Dir)
	_, err := s.WriteFile(t.Context(), "a/k", []byte("old"), nil)
	require.NoError(t, err)
	for _, c := range []struct {
		op   nastest.Op
		path string
	}{{nastest.Fsync, ".nines/tmp/"}, {nastest.Fsync, ".nines/meta/"}, {nastest.Fsyncdir, "a"}} {
		nas.SetHook(func(op nastest.Op, path string) syscall.Errno {
			if op == c.op && strings.HasPrefix(path, c.path) {
				return syscall.EIO
			}
			return 0
		})
		_, err := s.WriteFile(t.Context(), "a/k", []byte("new"), nil)
		nas.SetHook(nil)
		require.ErrorIs(t, err, syscall.EIO, "%s %s", c.op, c.path)
	}
}

// A real file system that is full.
func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	require.NoError(t, os.Mkdir(dir, 0o700))
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
	if err != nil {
		lab.Need(t, "mount", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := open(t, dir)
	_, err = s.WriteFile(t.Context(), "k", make([]byte, 300<<10), nil)
	require.NoError(t, err)
	for range 5 {
		_, err = s.WriteFile(t.Context(), "k", make([]byte, 900<<10), nil)
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	b, err := s.ReadFile(t.Context(), "k")
	require.NoError(t, err)
	require.Len(t, b, 300<<10)
	_, err = s.WriteFile(t.Context(), "k", make([]byte, 400<<10), nil)
	require.NoError(t, err, "what failed before takes no room")
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1m"))
	_, err = s.WriteFile(t.Context(), "k", []byte("x"), nil)
	require.ErrorIs(t, err, syscall.EROFS)
	require.ErrorIs(t, s.Delete(t.Context(), "k"), syscall.EROFS)
	_, err = dirstore.Open(t.Context(), dirstore.Config{Dir: dir})
	require.ErrorContains(t, err, "cannot be written")
}

// The storage stands still in the middle of a write: the caller's context ends the waiting, and when it goes on nothing of the write is left.
func TestHungStorage(t *testing.T) {
	source := nastest.Scratch(t)
	nas := nastest.Mount(t, source, cached)
	s := open(t, nas.Dir)
	_, err := s.WriteFile(t.Context(), "k", []byte("old"), nil)
	require.NoError(t, err)
	for _, op := range []nastest.Op{nastest.Create, nastest.Write, nastest.Fsync} {
		var took []time.Duration
		for range 3 {
			reached, release := make(chan struct{}, 100), make(chan struct{})
			nas.SetHook(func(o nastest.Op, _ string) syscall.Errno {
				if o == op {
					reached <- struct{}{}
					<-release
				}
				return 0
			})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var putErr error
			wg.Go(func() { _, putErr = s.WriteFile(ctx, "k", []byte("new"), nil) })
			<-reached
			began := time.Now()
			cancel()
			wg.Wait()
			took = append(took, time.Since(began))
			require.ErrorIs(t, putErr, context.Canceled)
			nas.SetHook(nil)
			close(release)
		}
		t.Log(op, "given up after", took)
		require.Less(t, min(took[0], took[1], took[2]), 100*time.Millisecond, op)
	}
	require.Eventually(t, func() bool {
		temps, err := os.ReadDir(filepath.Join(source, ".nines", "tmp"))
		return err == nil && len(temps) == 0
	}, 20*time.Second, 10*time.Millisecond)
	b, err := s.ReadFile(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "old", string(b))
}

// A process is killed before or after each single operation of a write, one round for each, until a round needs no killing any more.
func TestKilledAtEveryStep(t *testing.T) {
	for _, role := range []string{"replace", "create"} {
		for _, done := range []bool{false, true} {
			if filestoretest.Chaos(1, 0) == 1 && done == (role == "replace") { // half of it every day
				continue
			}
			t.Run(fmt.Sprintf("%s/done=%v", role, done), func(t *testing.T) {
				source := nastest.Scratch(t)
				nas := nastest.Mount(t, source, nastest.Options{})
				direct := open(t, source)
				for step := 1; ; step++ {
					ended := killAt(t, nas, direct, role, step, done)
					if ended {
						t.Logf("a write has %d steps", step-1)
						require.Greater(t, step, 8)
						return
					}
				}
			})
		}
	}
}

// killAt reports whether the write ended before its step came.
func killAt(t *testing.T, nas *nastest.NAS, direct *filestore.Store, role string, step int, done bool) bool {
	ctx := t.Context()
	old := ""
	if role == "replace" {
		old = "old content"
		_, err := direct.WriteFile(ctx, "a/k", []byte(old), &filestore.PutOptions{ContentType: "text/old"})
		require.NoError(t, err)
	} else if err := direct.Delete(ctx, "a/k"); err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	cmd := command(role, nas.Dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "ready", lines.Text())
	count, killed := 0, atomic.Bool{}
	steps := make(chan struct{}, 1) // the hook runs on several goroutines
	nas.SetHook(func(nastest.Op, string) syscall.Errno {
		steps <- struct{}{}
		defer func() { <-steps }()
		if killed.Load() {
			return syscall.EIO
		}
		if count++; count != step {
			return 0
		}
		killed.Store(true)
		_ = cmd.Process.Kill()
		if done {
			return 0
		}
		return syscall.EIO
	})
	_, err = fmt.Fprintln(in)
	require.NoError(t, err)
	ended := lines.Scan() && lines.Text() == "done"
	_ = cmd.Wait()
	nas.SetHook(nil)
	if ended {
		return true
	}
	require.True(t, killed.Load())
	b, err := direct.ReadFile(ctx, "a/k")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		require.Equal(t, "create", role, "step %d", step)
	default:
		require.NoError(t, err)
		require.Contains(t, []string{old, "new content"}, string(b), "step %d", step)
		require.NotEmpty(t, b)
		o, err := direct.Stat(ctx, "a/k")
		require.NoError(t, err)
		want := map[string]string{"old content": "text/old", "new content": "text/new"}[string(b)]
		require.Equal(t, want, o.ContentType, "step %d: the attributes are of this content", step)
	}
	_, err = direct.WriteFile(ctx, "a/k", []byte("after"), nil)
	require.NoError(t, err, "step %d", step)
	require.NoError(t, direct.Check(ctx))
	return false
}

// A storage that is slow and fails now and then, at any operation: what fails is told, no read is torn, nothing that was stored is lost, and
// afterwards all is well.
func TestUnreliableStorage(t *testing.T) {
	source := nastest.Scratch(t)
	nas := nastest.Mount(t, source, cached)
	s, direct := open(t, nas.Dir), open(t, source)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	nas.SetHook(func(nastest.Op, string) syscall.Errno {
		mu.Lock()
		fail, slow := r.IntN(150) == 0, r.IntN(100) == 0
		mu.Unlock()
		if slow {
			<-time.After(5 * time.Millisecond)
		}
		if fail {
			return syscall.EIO
		}
		return 0
	})
	var failures, reads atomic.Int64
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for key := range 3 {
					b, err := s.ReadFile(t.Context(), fmt.Sprint("d/", key))
					if err == nil && !whole(b) {
						t.Errorf("torn: %d bytes", len(b))
						return
					}
					reads.Add(1)
				}
			}
		})
	}
	for key := range 3 {
		writers.Go(func() {
			name, last := fmt.Sprint("d/", key), -1
			for i := range filestoretest.Chaos(40, 5000) {
				_, err := s.WriteFile(t.Context(), name, content(i), nil)
				b, readErr := direct.ReadFile(t.Context(), name)
				if errors.Is(readErr, fs.ErrNotExist) && last < 0 && err != nil {
					failures.Add(1)
					continue
				}
				if readErr != nil {
					t.Error(readErr)
					return
				}
				switch got := string(b); {
				case err == nil && got == string(content(i)):
					last = i
				case err != nil && last >= 0 && got == string(content(last)):
					failures.Add(1)
				case err != nil && got == string(content(i)): // the fault came after the name was given
					failures.Add(1)
					last = i
				default:
					t.Errorf("write %d returned %v, last was %d, and there are %d bytes of %d", i, err, last, len(b), b[0])
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	nas.SetHook(nil)
	t.Log(failures.Load(), "writes failed beside", reads.Load(), "reads")
	require.Positive(t, failures.Load())
	require.NoError(t, s.Check(t.Context()))
	_, err := s.WriteFile(t.Context(), "d/0", []byte("well"), nil)
	require.NoError(t, err)
}

func whole(b []byte) bool {
	return len(b) > 0 && len(b) == len(content(int(b[0]))) && bytes.Count(b, b[:1]) == len(b)
}
