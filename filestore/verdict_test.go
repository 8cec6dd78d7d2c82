package filestore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/filestore/s3store"
	"github.com/nines-go/nines/internal/lab"
)

// corpus are keys at and around every rule of the grammar, and those that file systems, URLs and shells treat in their own ways.
func corpus() []string {
	keys := []string{
		"", "/", "//", ".", "..", "./", "../", "a", "a/", "/a", "a//b", "a/./b", "a/../b", "../a", "a/..", "..a", "a..", "...", ".../x", ".a", "a.", " ", " a", "a ", "a /b",
		"a\x00b", "a\nb", "a\tb", "\x7f", "a\u0080b", "a\u2028b", "\xff", "a\xc0\xafb", "\xed\xa0\x80", "\ufeffa", "a\u200bb", "e\u0301", "é", "ﬁ", "日本/語", "🎈", "Å",
		"a\\b", "..\\a", "c:d", "c:/d", "%2e%2e/a", "%2f", "a%00b", "a?b", "a#b", "a&b=c", "a+b", "a;b", "a,b", "a'b", "a\"b", "a`b", "$HOME", "~", "~root/x", "*", "a*b", "[a]", "{a}", "<a>", "a|b", "-", "--x", "-rf", "!a", "@", "a@b", "=", "^",
		"con", "NUL", "aux.txt", "lost+found", "Thumbs.db", ".DS_Store", ".git/config", ".nines", ".nines/", ".nines/store-id", ".nines/tmp/x", ".nines-x", ".ninesx/y", "a/.nines/b", ".Nines/x", "x/.nines",
		strings.Repeat("x", 199), strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("é", 100), strings.Repeat("é", 101),
		strings.Repeat("a/", 50) + "a", strings.Repeat(strings.Repeat("y", 199)+"/", 5) + strings.Repeat("z", 24), strings.Repeat(strings.Repeat("y", 199)+"/", 5) + strings.Repeat("z", 25), strings.TrimSuffix(strings.Repeat(strings.Repeat("y", 99)+"/", 10), "/"),
	}
	for c := range rune(128) {
		keys = append(keys, string(c), "a"+string(c)+"b", "d/"+string(c))
	}
	return keys
}

// randomKey is made of what is near the rules.
func randomKey(r *rand.Rand) string {
	pieces := []string{
		"a", "b", "x y", ".", "..", "...", "/", "/", "/", "//", "é", "e\u0301", "日", "\x00", "\n", "\\", "%", "?", "#", "+", ":", ".nines", ".nines/", "~", "*", "\xff", "\u00a0", "\u202e", "🎈",
		"tmp", "meta", strings.Repeat("z", 60), strings.Repeat("q", 198),
	}
	var b strings.Builder
	for range 1 + r.IntN(9) {
		if r.IntN(8) == 0 {
			b.WriteRune(rune(r.IntN(0x3000)))
		} else {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
	}
	return b.String()
}

// verdict is everything that a store makes of a key.
func verdict(t *testing.T, s *filestore.Store, key string) string {
	ctx := t.Context()
	name := func(err error) string {
		switch {
		case err == nil:
			return "ok"
		case errors.Is(err, filestore.ErrInvalidKey):
			return "invalid"
		case errors.Is(err, fs.ErrNotExist):
			return "absent"
		}
		return err.Error()
	}
	_, err := s.Stat(ctx, key)
	out := []string{name(err)}
	_, err = s.WriteFile(ctx, key, []byte(key), nil)
	out = append(out, name(err))
	b, err := s.ReadFile(ctx, key)
	out = append(out, name(err), fmt.Sprint(string(b) == key))
	var listed []string
	for o, err := range s.List(ctx, "", "") {
		require.NoError(t, err)
		listed = append(listed, o.Key)
	}
	out = append(out, fmt.Sprintf("%q", listed), name(s.Delete(ctx, key)), name(s.Delete(ctx, key)))
	return strings.Join(out, ", ")
}

// Every store makes the same of every key.
func TestSameVerdict(t *testing.T) {
	server := lab.S3(t)
	bucket, err := s3store.Open(t.Context(), s3store.Config{
		Endpoint: server.Endpoint(), Bucket: server.Bucket(), AccessKey: server.AccessKey, SecretKey: server.SecretKey, NoTLS: true, PathStyle: true,
	})
	require.NoError(t, err)
	stores := map[string]*filestore.Store{
		"directory": dir(t, nastest.Scratch(t)),
		"mount":     dir(t, nastest.Mount(t, nastest.Scratch(t), nastest.Options{Cache: 3 * time.Second}).Dir),
		"bucket":    bucket,
	}
	memory := memstore.Open()
	valid := 0
	for _, key := range corpus() {
		want := verdict(t, memory, key)
		require.Equal(t, filestore.CheckKey(key) == nil, strings.HasPrefix(want, "absent, ok"), "%q: %s", key, want)
		if filestore.CheckKey(key) == nil {
			valid++
			require.Equal(t, fmt.Sprintf("absent, ok, ok, true, %q, ok, absent", []string{key}), want)
		}
		for name, s := range stores {
			assert.Equal(t, want, verdict(t, s, key), "%s: %q", name, key)
		}
	}
	t.Logf("%d keys, %d of them valid", len(corpus()), valid)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range filestoretest.Chaos(600, 1000000) {
		key := randomKey(r)
		want := verdict(t, memory, key)
		require.Equal(t, want, verdict(t, stores["directory"], key), "%q", key)
		if i%100 == 0 {
			require.Equal(t, want, verdict(t, stores["bucket"], key), "%q", key)
		}
	}
}

// Whatever the key, and whatever links are planted in the directory, nothing outside is read, written or removed.
func TestNoKeyLeavesTheDirectory(t *testing.T) {
	base := nastest.Scratch(t)
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	require.NoError(t, os.MkdirAll(filepath.Join(outside, "a"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "d"), 0o700))
	for _, file := range []string{"secret", "a/secret"} {
		require.NoError(t, os.WriteFile(filepath.Join(outside, file), []byte("secret"), 0o600))
	}
	plant := func() {
		require.NoError(t, os.MkdirAll(filepath.Join(root, "d"), 0o700))
		for link, target := range map[string]string{
			"out": outside, "up": "..", "file": filepath.Join(outside, "secret"), "rel": "../outside/a", "d/out": "../../outside", "loop": "loop", "abs": "/", "none": filepath.Join(outside, "new"),
		} {
			_ = os.Remove(filepath.Join(root, link))
			require.NoError(t, os.Symlink(target, filepath.Join(root, link)))
		}
	}
	plant()
	s := dir(t, root)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	parts := []string{"out", "up", "file", "rel", "d", "loop", "abs", "none", "a", "secret", "outside", "root", "new", "..", ".", "tmp"}
	ctx := t.Context()
	for i := range filestoretest.Chaos(1500, 1000000) {
		names := make([]string, 1+r.IntN(4))
		for j := range names {
			names[j] = parts[r.IntN(len(parts))]
		}
		key := strings.Join(names, "/")
		if r.IntN(4) == 0 {
			key = randomKey(r)
		}
		if b, err := s.ReadFile(ctx, key); err == nil {
			require.NotEqual(t, "secret", string(b), "%q", key)
		} else {
			require.True(t, errors.Is(err, fs.ErrNotExist) || errors.Is(err, filestore.ErrInvalidKey), "%q: %v", key, err)
		}
		_, err := s.Put(ctx, key, strings.NewReader("ours"), &filestore.PutOptions{IfAbsent: r.IntN(2) == 0})
		require.True(t, err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, filestore.ErrInvalidKey), "%q: %v", key, err)
		err = s.Delete(ctx, key)
		require.True(t, err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, filestore.ErrInvalidKey), "%q: %v", key, err)
		if i%50 == 0 {
			plant()
		}
	}
	var left []string
	require.NoError(t, filepath.WalkDir(base, func(path string, _ fs.DirEntry, err error) error {
		if rel, relErr := filepath.Rel(base, path); relErr == nil && rel != "root" && !strings.HasPrefix(rel, "root/") {
			left = append(left, rel)
		}
		return err
	}))
	require.Equal(t, []string{".", "outside", "outside/a", "outside/a/secret", "outside/secret"}, left)
	for _, file := range []string{"secret", "a/secret"} {
		b, err := os.ReadFile(filepath.Join(outside, file))
		require.NoError(t, err)
		require.Equal(t, "secret", string(b))
	}
}

func FuzzSameVerdict(f *testing.F) {
	for _, key := range corpus() {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		require.Equal(t, verdict(t, memstore.Open(), key), verdict(t, dir(t, nastest.Scratch(t)), key), "%q", key)
	})
}
