package dirstore_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
)

func open(t *testing.T, dir string) *filestore.Store {
	s, err := dirstore.Open(t.Context(), dirstore.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	filestoretest.Run(t, func(t *testing.T) *filestore.Store { return open(t, nastest.Scratch(t)) })
}

func TestOpenNamesTheFault(t *testing.T) {
	_, err := dirstore.Open(t.Context(), dirstore.Config{})
	require.ErrorContains(t, err, "Config.Dir is empty")
	missing := filepath.Join(t.TempDir(), "missing")
	_, err = dirstore.Open(t.Context(), dirstore.Config{Dir: missing})
	require.ErrorContains(t, err, missing)
	require.ErrorContains(t, err, "mount")
	require.NoDirExists(t, missing)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = dirstore.Open(t.Context(), dirstore.Config{Dir: file})
	require.ErrorContains(t, err, file)
}

// Links planted in the directory lead nowhere.
func TestNothingLeavesTheDirectory(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "out")))
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "leak")))
	require.NoError(t, os.Symlink("../"+filepath.Base(outside)+"/secret", filepath.Join(dir, "up")))
	s := open(t, dir)
	for _, key := range []string{"out/secret", "leak", "up"} {
		_, err := s.ReadFile(t.Context(), key)
		require.Error(t, err, key)
	}
	_, err := s.WriteFile(t.Context(), "out/new", []byte("x"), nil)
	require.Error(t, err)
	require.NoFileExists(t, filepath.Join(outside, "new"))
	_, err = s.WriteFile(t.Context(), "leak", []byte("x"), nil)
	require.NoError(t, err, "the link itself is replaced")
	b, err := os.ReadFile(secret)
	require.NoError(t, err)
	require.Equal(t, "secret", string(b))
	for o, err := range s.List(t.Context(), "", "") {
		require.NoError(t, err)
		require.Equal(t, "leak", o.Key)
	}
}

// A file that came by other means is an object without attributes; one whose content was replaced by other means loses them.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "old"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "old", "file"), []byte("text"), 0o600))
	s := open(t, dir)
	o, err := s.Stat(t.Context(), "old/file")
	require.NoError(t, err)
	require.EqualValues(t, 4, o.Size)
	require.Nil(t, o.SHA256)
	_, err = s.WriteFile(t.Context(), "k", []byte("ours"), &filestore.PutOptions{ContentType: "text/plain"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "k"), []byte("theirs"), 0o600))
	o, err = s.Stat(t.Context(), "k")
	require.NoError(t, err)
	require.Empty(t, o.ContentType)
	require.Nil(t, o.SHA256)
}

// A pipe or an empty folder in the directory neither blocks nor counts.
func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, exec.Command("mkfifo", filepath.Join(dir, "pipe")).Run())
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	s := open(t, dir)
	_, err := s.ReadFile(t.Context(), "pipe")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.WriteFile(t.Context(), "folder", []byte("now an object"), nil)
	require.NoError(t, err)
}

// Writers and deleters of one folder never fail each other, though each deletion removes the folder when it is empty.
func TestFolderThatComesAndGoes(t *testing.T) {
	s := open(t, nastest.Scratch(t))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			key := fmt.Sprintf("a/b/%d", i)
			for range 50 {
				if _, err := s.WriteFile(t.Context(), key, []byte("x"), nil); err != nil {
					t.Error(err)
					return
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A list of a folder with more names than are held at once is complete, in order, and takes no more memory for more names.
func TestLongList(t *testing.T) {
	dir := nastest.Scratch(t)
	s := open(t, dir)
	n := filestoretest.Chaos(10000, 100000)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "many"), 0o700))
	for i := range n { // by other means, which is quicker
		require.NoError(t, os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("%06d", (i*7919)%n)), nil, 0o600))
	}
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	i, most := 0, uint64(0)
	for o, err := range s.List(t.Context(), "many/", "") {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("many/%06d", i), o.Key)
		if i++; i%1000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&during)
			most = max(most, during.HeapAlloc-min(before.HeapAlloc, during.HeapAlloc))
		}
	}
	require.Equal(t, n, i)
	t.Logf("a list of %d objects took %.1f MiB", n, float64(most)/(1<<20))
	require.Less(t, most, uint64(8<<20))
}

func TestStreamOfUnknownSize(t *testing.T) {
	filestoretest.Stream(t, open(t, nastest.Scratch(t)), int64(filestoretest.Chaos(64, 5<<10))<<20, 16<<20)
}
