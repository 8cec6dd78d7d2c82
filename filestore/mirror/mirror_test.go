package mirror_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/filestore/mirror"
)

type handler = func(ctx context.Context, from string, payload []byte) ([]byte, error)

// cluster is a network in memory; who is away is not reached.
type cluster struct {
	mu       sync.Mutex
	handlers map[string]handler
}

type node struct {
	c  *cluster
	id string
}

func (n node) ID() string { return n.id }

func (n node) Alive() []string {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return slices.Sorted(maps.Keys(n.c.handlers))
}

func (n node) Handle(_ string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) func() {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.c.handlers[n.id] = fn
	return func() {
		n.c.mu.Lock()
		defer n.c.mu.Unlock()
		delete(n.c.handlers, n.id)
	}
}

func (n node) Request(ctx context.Context, to, _ string, payload []byte) ([]byte, error) {
	n.c.mu.Lock()
	fn := n.c.handlers[to]
	n.c.mu.Unlock()
	if fn == nil {
		return nil, errors.New("no answer")
	}
	return fn(ctx, n.id, payload)
}

func newMirror(t *testing.T, cfg mirror.Config) *mirror.Mirror {
	cfg.Logger = slog.New(slog.DiscardHandler)
	m, err := mirror.New(cfg)
	require.NoError(t, err)
	return m
}

// start runs a mirror, and returns it with what stops it.
func start(t *testing.T, cfg mirror.Config) (*mirror.Mirror, func()) {
	m := newMirror(t, cfg)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, m.Run(context.Background())) })
	stop := sync.OnceFunc(func() {
		require.NoError(t, m.Shutdown(context.Background()))
		wg.Wait()
	})
	t.Cleanup(stop)
	return m, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, 5*time.Millisecond, what)
}

// bundle packs files; a name that ends with a slash is a folder.
func bundle(t *testing.T, files map[string]string) []byte {
	var headers []tar.Header
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(files[name]))}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		headers, texts = append(headers, h), append(texts, files[name])
	}
	return pack(t, headers, texts)
}

func pack(t *testing.T, headers []tar.Header, texts []string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i, h := range headers {
		require.NoError(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(w, texts[i])
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

func version(n int) map[string]string {
	files := map[string]string{"bin/": "", "plugin.json": fmt.Sprint(n)}
	for i := range 20 {
		files[fmt.Sprintf("lib/%d/x", i)] = fmt.Sprint(n)
	}
	return files
}

func install(t *testing.T, m *mirror.Mirror, id string, n int) mirror.Extension {
	e, err := m.Install(t.Context(), id, fmt.Sprint(n), bytes.NewReader(bundle(t, version(n))), nil)
	require.NoError(t, err)
	return e
}

func has(m *mirror.Mirror, id, version string, enabled bool) bool {
	e, ok := m.Get(id)
	return ok && e.Version == version && e.Enabled == enabled
}

// Install, enable, upgrade, remove and install again on any node reach all; an upgrade keeps the state, a new installation starts disabled.
func TestFollowing(t *testing.T) {
	for name, store := range map[string]*filestore.Store{"memory": memstore.Open(), "directory": open(t, nastest.Scratch(t))} {
		t.Run(name, func(t *testing.T) {
			c := &cluster{handlers: map[string]handler{}}
			var all []*mirror.Mirror
			dirs := []string{}
			for i := range 3 {
				dirs = append(dirs, filepath.Join(nastest.Scratch(t), "extensions"))
				m, _ := start(t, mirror.Config{Store: store, Dir: dirs[i], Cluster: node{c, fmt.Sprint("n", i)}, Interval: time.Minute})
				all = append(all, m)
				eventually(t, "started", func() bool { return m.Check(t.Context()) == nil })
			}
			everywhere := func(version string, enabled bool) {
				for i, m := range all {
					eventually(t, fmt.Sprint(version, " on ", i), func() bool { return has(m, "weather", version, enabled) })
					require.NoError(t, m.Check(t.Context()))
					b, err := os.ReadFile(filepath.Join(dirs[i], "weather", "plugin.json"))
					require.NoError(t, err)
					require.Equal(t, version, string(b))
				}
			}
			e := install(t, all[0], "weather", 1)
			require.False(t, e.Enabled)
			everywhere("1", false)
			require.NoError(t, all[1].SetEnabled(t.Context(), "weather", true))
			everywhere("1", true)
			e = install(t, all[2], "weather", 2)
			require.True(t, e.Enabled, "an upgrade keeps it")
			everywhere("2", true)
			require.Len(t, all[0].Status(t.Context()), 3)
			require.Equal(t, "2", all[0].Status(t.Context())["n1"][0].Version)
			require.NoError(t, all[1].Remove(t.Context(), "weather"))
			for i, m := range all {
				eventually(t, "removed", func() bool { return len(m.List()) == 0 })
				require.NoFileExists(t, filepath.Join(dirs[i], "weather"))
			}
			require.ErrorIs(t, all[1].Remove(t.Context(), "weather"), fs.ErrNotExist)
			require.ErrorIs(t, all[1].SetEnabled(t.Context(), "weather", true), fs.ErrNotExist)
			install(t, all[0], "weather", 3)
			everywhere("3", false)
			require.NoError(t, all[0].SetEnabled(t.Context(), "weather", true))
			require.NoError(t, all[0].SetEnabled(t.Context(), "weather", false))
			everywhere("3", false)
			for o, err := range store.List(t.Context(), "", "") {
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(o.Key, "extensions/weather/"), o.Key)
			}
		})
	}
}

func open(t *testing.T, dir string) *filestore.Store {
	s, err := dirstore.Open(t.Context(), dirstore.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// A removal that a crash cut off after its first step: what is installed again is disabled all the same.
func TestHalfRemoval(t *testing.T) {
	store := memstore.Open()
	broken, faults := filestoretest.NewFaults(store)
	m := newMirror(t, mirror.Config{Store: broken, Dir: nastest.Scratch(t)})
	install(t, m, "a", 1)
	require.NoError(t, m.SetEnabled(t.Context(), "a", true))
	faults.Before(func(_ context.Context, op, key string) error {
		if op == "delete" && !strings.HasSuffix(key, "manifest.json") {
			return errors.New("crash")
		}
		return nil
	})
	require.Error(t, m.Remove(t.Context(), "a"))
	faults.Heal()
	_, ok := m.Get("a")
	require.False(t, ok)
	require.False(t, install(t, m, "a", 1).Enabled)
}

// A node that was away during everything has it when it is back; while the store is away it has what it had.
func TestCatchUp(t *testing.T) {
	store := memstore.Open()
	broken, faults := filestoretest.NewFaults(store)
	c := &cluster{handlers: map[string]handler{}}
	first := newMirror(t, mirror.Config{Store: store, Dir: nastest.Scratch(t), Cluster: node{c, "a"}})
	install(t, first, "kept", 1)
	install(t, first, "removed", 1)
	require.NoError(t, first.SetEnabled(t.Context(), "kept", true))
	cfg := mirror.Config{Store: broken, Dir: nastest.Scratch(t), Cluster: node{c, "b"}, Interval: 100 * time.Millisecond}
	second, stop := start(t, cfg)
	eventually(t, "both", func() bool { return has(second, "kept", "1", true) && has(second, "removed", "1", false) })
	stop()
	require.ErrorIs(t, second.Check(t.Context()), mirror.ErrClosed)
	_, err := second.Install(t.Context(), "x", "1", nil, nil)
	require.ErrorIs(t, err, mirror.ErrClosed)

	install(t, first, "kept", 2)
	install(t, first, "new", 1)
	require.NoError(t, first.Remove(t.Context(), "removed"))
	faults.Fail(errors.New("away"))
	second, _ = start(t, cfg)
	eventually(t, "a warning", func() bool {
		err := second.Check(t.Context())
		return err != nil && strings.Contains(err.Error(), "away")
	})
	var w interface{ Warning() bool }
	require.ErrorAs(t, second.Check(t.Context()), &w)
	require.True(t, w.Warning())
	require.True(t, has(second, "kept", "1", true))
	e, _ := second.Get("kept")
	require.FileExists(t, filepath.Join(e.Path, "plugin.json"))
	faults.Heal()
	eventually(t, "all of it", func() bool {
		_, there := second.Get("removed")
		return has(second, "kept", "2", true) && has(second, "new", "1", false) && !there && second.Check(t.Context()) == nil
	})
}

// While versions change as fast as they can, whoever looks sees the files of one version.
func TestNeverHalf(t *testing.T) {
	store := memstore.Open()
	dir := nastest.Scratch(t)
	c := &cluster{handlers: map[string]handler{}}
	writer := newMirror(t, mirror.Config{Store: store, Dir: nastest.Scratch(t), Cluster: node{c, "a"}})
	install(t, writer, "x", 0)
	reader, _ := start(t, mirror.Config{Store: store, Dir: dir, Cluster: node{c, "b"}})
	eventually(t, "there", func() bool { return has(reader, "x", "0", false) })
	var looks atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	look := func(path string) error {
		root, err := os.OpenRoot(path)
		if err != nil {
			return err
		}
		defer root.Close()
		first, err := root.ReadFile("plugin.json")
		if err != nil {
			return err
		}
		for i := range 20 {
			b, err := root.ReadFile(fmt.Sprintf("lib/%d/x", i))
			if err != nil {
				return err
			}
			if !bytes.Equal(b, first) {
				return fmt.Errorf("version %s beside %s", first, b)
			}
		}
		return nil
	}
	for _, path := range []func() string{
		func() string { return filepath.Join(dir, "x") },
		func() string { e, _ := reader.Get("x"); return e.Path },
	} {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := look(path()); err != nil {
					t.Error(err)
					return
				}
				looks.Add(1)
			}
		})
	}
	for n := range filestoretest.Chaos(15, 1000) {
		install(t, writer, "x", n+1)
		if n%3 == 0 {
			eventually(t, "follows", func() bool { return has(reader, "x", fmt.Sprint(n+1), false) })
		}
	}
	close(done)
	wg.Wait()
	t.Log(looks.Load(), "looks")
}

// An archive with anything but plain files below its folder is refused, by who installs it and by who finds it in the store.
func TestEvilArchives(t *testing.T) {
	file := func(name, text string) ([]tar.Header, []string) {
		return []tar.Header{{Name: "good", Typeflag: tar.TypeReg, Size: 4, Mode: 0o644}, {Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}}, []string{"good", text}
	}
	evil := map[string][]byte{}
	for name, path := range map[string]string{
		"up": "../evil", "deep up": "a/../../evil", "absolute": "/tmp/evil", "dots": "a/./b", "double": "a//b", "empty": "", "backslash": `a\..\..\evil`, "zero": "a\x01b",
		"long": strings.Repeat("x", 201), "deep": strings.Repeat("a/", 40) + "b",
	} {
		headers, texts := file(path, "evil")
		evil["name: "+name] = pack(t, headers, texts)
	}
	for name, kind := range map[string]byte{"symlink": tar.TypeSymlink, "hard link": tar.TypeLink, "character device": tar.TypeChar, "block device": tar.TypeBlock, "pipe": tar.TypeFifo, "unknown": 'Z'} {
		evil[name] = pack(t, []tar.Header{
			{Name: "good", Typeflag: tar.TypeReg, Size: 4, Mode: 0o644}, {Name: "x", Typeflag: kind, Linkname: "/etc/passwd", Mode: 0o644},
		}, []string{"good", ""})
	}
	evil["link, then a file through it"] = pack(t, []tar.Header{
		{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "x/evil", Typeflag: tar.TypeReg, Size: 4},
	}, []string{"", "evil"})
	headers, texts := file("good", "evil")
	evil["twice"] = pack(t, headers, texts)
	headers, texts = file("GOOD", "evil")
	evil["twice, in another case"] = pack(t, headers, texts)
	headers, texts = file("good/below", "evil")
	evil["below a file"] = pack(t, headers, texts)
	headers, texts = file("big", strings.Repeat("0", 3<<20))
	evil["bomb"] = pack(t, headers, texts)
	many := map[string]string{}
	for i := range 101 {
		many[fmt.Sprint(i)] = ""
	}
	evil["too many"] = bundle(t, many)
	folders := map[string]string{}
	for i := range 101 {
		folders[fmt.Sprintf("%d/", i)] = ""
	}
	evil["too many folders"] = bundle(t, folders)
	evil["nothing"] = pack(t, nil, nil)
	evil["no gzip"] = []byte("hello")
	evil["no tar"] = func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(bytes.Repeat([]byte("hello"), 1000))
		_ = z.Close()
		return b.Bytes()
	}()
	good := bundle(t, map[string]string{"good": strings.Repeat("good", 1000)})
	evil["cut off"] = good[:len(good)-10]
	evil["too large"] = append(bytes.Clone(good), make([]byte, 2<<20)...)

	store := memstore.Open()
	parent := nastest.Scratch(t)
	cfg := mirror.Config{Store: store, Dir: filepath.Join(parent, "dir"), MaxSize: 2 << 20, MaxFiles: 100, MaxBundle: 1 << 20, Interval: 100 * time.Millisecond}
	m := newMirror(t, cfg)
	for name, b := range evil {
		_, err := m.Install(t.Context(), "x", "1", bytes.NewReader(b), nil)
		require.ErrorIs(t, err, mirror.ErrBundle, name)
		for o, err := range store.List(t.Context(), "", "") {
			t.Fatal(name, o.Key, err)
		}
	}
	// Whoever can write to the store has put it there without Install.
	follower, _ := start(t, mirror.Config{Store: store, Dir: filepath.Join(parent, "follower"), MaxSize: 2 << 20, MaxFiles: 100, MaxBundle: 1 << 20, Interval: 100 * time.Millisecond})
	for name, b := range evil {
		_, err := m.Install(t.Context(), "x", "good", bytes.NewReader(good), nil)
		require.NoError(t, err)
		eventually(t, "the good one", func() bool { return has(follower, "x", "good", false) && follower.Check(t.Context()) == nil })
		sum := sha256.Sum256(b)
		_, err = store.WriteFile(t.Context(), fmt.Sprintf("extensions/x/%x.tar.gz", sum), b, nil)
		require.NoError(t, err)
		_, err = store.WriteFile(t.Context(), "extensions/x/manifest.json", fmt.Appendf(nil, `{"id":"x","version":"evil","sha256":"%x","lineage":"l"}`, sum), nil)
		require.NoError(t, err)
		eventually(t, "refused: "+name, func() bool { return errors.Is(follower.Check(t.Context()), mirror.ErrBundle) })
		require.True(t, has(follower, "x", "good", false), "the version before stays")
		require.NoError(t, m.Remove(t.Context(), "x"))
		eventually(t, "removed", func() bool { _, ok := follower.Get("x"); return !ok })
	}
	require.NoFileExists(t, "/tmp/evil")
	entries, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	staging, err := os.ReadDir(filepath.Join(parent, "follower", ".staging"))
	require.NoError(t, err)
	require.Empty(t, staging)
}

// A bundle that was changed in the store is not unpacked.
func TestDamagedBundle(t *testing.T) {
	store := memstore.Open()
	m := newMirror(t, mirror.Config{Store: store, Dir: nastest.Scratch(t)})
	e := install(t, m, "x", 1)
	other := bundle(t, version(9))
	_, err := store.WriteFile(t.Context(), "extensions/x/"+e.SHA256+".tar.gz", other, nil)
	require.NoError(t, err)
	follower, _ := start(t, mirror.Config{Store: store, Dir: nastest.Scratch(t), Interval: 100 * time.Millisecond})
	eventually(t, "refused", func() bool { return errors.Is(follower.Check(t.Context()), filestore.ErrCorrupt) })
	require.Empty(t, follower.List())
	require.Equal(t, 1, follower.Stats().Failed)
	install(t, m, "x", 2)
	eventually(t, "a good one", func() bool { return has(follower, "x", "2", false) && follower.Check(t.Context()) == nil })
}

func TestSignatures(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	_, stranger, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	store := memstore.Open()
	m := newMirror(t, mirror.Config{Store: store, Dir: nastest.Scratch(t), Keys: []ed25519.PublicKey{public}})
	b := bundle(t, version(1))
	sum := sha256.Sum256(b)
	for name, signature := range map[string][]byte{
		"none": nil, "short": {1}, "stranger": mirror.Sign(stranger, "x", "1", sum), "other ID": mirror.Sign(private, "y", "1", sum),
		"other version": mirror.Sign(private, "x", "2", sum), "other content": mirror.Sign(private, "x", "1", sha256.Sum256(nil)),
	} {
		_, err := m.Install(t.Context(), "x", "1", bytes.NewReader(b), &mirror.InstallOptions{Signature: signature})
		require.ErrorIs(t, err, mirror.ErrSignature, name)
	}
	_, err = m.Install(t.Context(), "x", "1", bytes.NewReader(b), &mirror.InstallOptions{Signature: mirror.Sign(private, "x", "1", sum)})
	require.NoError(t, err)
	// A mirror without keys installs what is not signed; one with keys does not follow.
	careless := newMirror(t, mirror.Config{Store: store, Dir: nastest.Scratch(t)})
	install(t, careless, "x", 2)
	careful, _ := start(t, mirror.Config{Store: store, Dir: nastest.Scratch(t), Keys: []ed25519.PublicKey{public}, Interval: 100 * time.Millisecond})
	eventually(t, "refused", func() bool { return errors.Is(careful.Check(t.Context()), mirror.ErrSignature) })
	require.Empty(t, careful.List())
}

func TestNewNamesEveryFault(t *testing.T) {
	_, err := mirror.New(mirror.Config{Prefix: "../x", Interval: 1, Keys: []ed25519.PublicKey{{1}}, MaxBundle: -1, MaxSize: -1, MaxFiles: -1})
	for _, field := range []string{"Store", "Dir", "Prefix", "Interval", "Keys[0]", "MaxBundle", "MaxSize", "MaxFiles"} {
		require.ErrorContains(t, err, field)
	}
	m := newMirror(t, mirror.Config{Store: memstore.Open(), Dir: nastest.Scratch(t)})
	for _, id := range []string{"", ".x", "../x", "X", "a/b", strings.Repeat("x", 65)} {
		_, err := m.Install(t.Context(), id, "1", nil, nil)
		require.ErrorContains(t, err, "ID", id)
	}
	_, err = m.Install(t.Context(), "x", "1\n", nil, nil)
	require.ErrorContains(t, err, "version")
}

// Run, Shutdown and calls race each other.
func TestRaceOfRunAndShutdown(t *testing.T) {
	for range 10 {
		m := newMirror(t, mirror.Config{Store: memstore.Open(), Dir: nastest.Scratch(t), Interval: 100 * time.Millisecond})
		b := bundle(t, version(1))
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, m.Run(t.Context())) })
		for range 2 {
			wg.Go(func() { require.NoError(t, m.Shutdown(t.Context())) })
		}
		wg.Go(func() {
			_, err := m.Install(t.Context(), "x", "1", bytes.NewReader(b), nil)
			require.True(t, err == nil || errors.Is(err, mirror.ErrClosed), err)
		})
		wg.Go(func() { m.List(); m.Stats(); _ = m.Check(t.Context()) })
		wg.Wait()
		_, err := m.Install(t.Context(), "x", "1", bytes.NewReader(b), nil)
		require.ErrorIs(t, err, mirror.ErrClosed)
	}
}

func FuzzInstall(f *testing.F) {
	t := &testing.T{}
	f.Add(bundle(t, version(1)))
	f.Add([]byte("hello"))
	f.Add(pack(t, []tar.Header{{Name: "../x", Typeflag: tar.TypeReg, Size: 1}}, []string{"x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		parent := nastest.Scratch(t)
		m := newMirror(t, mirror.Config{Store: memstore.Open(), Dir: filepath.Join(parent, "a"), MaxSize: 1 << 20, MaxFiles: 50, MaxBundle: 1 << 20})
		if _, err := m.Install(t.Context(), "x", "1", bytes.NewReader(b), nil); err != nil {
			require.ErrorIs(t, err, mirror.ErrBundle)
		}
		entries, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})
}
