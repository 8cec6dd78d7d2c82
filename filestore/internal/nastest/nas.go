//go:build linux

package nastest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/nines-go/nines/internal/lab"
)

// Op names an operation of the file system.
type Op string

// The operations that a fault can be put on.
const (
	Lookup   Op = "lookup"
	Getattr  Op = "getattr"
	Open     Op = "open"
	Create   Op = "create"
	Read     Op = "read"
	Write    Op = "write"
	Flush    Op = "flush"
	Fsync    Op = "fsync"
	Fsyncdir Op = "fsyncdir"
	Rename   Op = "rename"
	Link     Op = "link"
	Unlink   Op = "unlink"
	Mkdir    Op = "mkdir"
	Rmdir    Op = "rmdir"
	Readdir  Op = "readdir"
)

// Hook is called before an operation; path is below the mount. An errno other than 0 is the operation's answer, and it is not done.
type Hook func(op Op, path string) syscall.Errno

// Options say what the mount is like.
type Options struct {
	// Cache is how long names, also absent ones, and attributes are believed without asking; opening a file asks, as NFS does.
	Cache time.Duration
	// Frozen is how long a content that was read once is believed, against the promise of NFS: a cache that is set up wrongly. 0 is never.
	Frozen time.Duration
}

// NAS is one machine's mount of a directory.
type NAS struct {
	Dir string // where it is mounted

	source string
	server *fuse.Server
	frozen time.Duration

	mu    sync.Mutex
	hook  Hook
	cache map[string]copied // with Frozen
}

type copied struct {
	at      time.Time
	content []byte
}

// Mount shows source at Dir, a new folder, until the test ends.
func Mount(t testing.TB, source string, opts Options) *NAS {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		lab.Need(t, "FUSE", err)
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n := &NAS{Dir: filepath.Join(t.TempDir(), "nas"), source: source, frozen: opts.Frozen, cache: map[string]copied{}}
	if err := os.Mkdir(n.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	loopback, err := fs.NewLoopbackRoot(source)
	if err != nil {
		t.Fatal(err)
	}
	data := loopback.(*fs.LoopbackNode).RootData
	root := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, nas: n}
	data.RootNode = root
	n.server, err = fs.Mount(n.Dir, root, &fs.Options{
		AttrTimeout: &opts.Cache, EntryTimeout: &opts.Cache, NegativeTimeout: &opts.Cache,
		MountOptions: fuse.MountOptions{DirectMount: true, FsName: "nastest", Name: "nastest"},
	})
	if err != nil {
		lab.Need(t, "FUSE", err)
	}
	t.Cleanup(func() {
		n.SetHook(nil)
		n.unmount(t)
	})
	return n
}

// unmount does not wait for the server to end: a process that was started with a copy of the mounts, as those of network namespaces are, keeps it
// going until that process ends.
func (n *NAS) unmount(t testing.TB) {
	if err := syscall.Unmount(n.Dir, syscall.MNT_DETACH); err != nil {
		t.Errorf("nastest: unmount %s: %v", n.Dir, err)
	}
}

// SetHook puts h before every operation from now on; nil is none.
func (n *NAS) SetHook(h Hook) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hook = h
}

// Fail makes operations of these kinds fail with errno, until SetHook.
func (n *NAS) Fail(errno syscall.Errno, ops ...Op) {
	n.SetHook(func(op Op, _ string) syscall.Errno {
		if slices.Contains(ops, op) {
			return errno
		}
		return 0
	})
}

func (n *NAS) before(op Op, path string) syscall.Errno {
	n.mu.Lock()
	h := n.hook
	n.mu.Unlock()
	if h == nil {
		return 0
	}
	return h(op, path)
}

// node is a file or a folder.
type node struct {
	fs.LoopbackNode
	nas *NAS
}

// WrapChild makes nodes of the files and folders in it, too.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, nas: n.nas}
}

func (n *node) name(child string) string { return filepath.Join(n.Path(n.Root()), child) }

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.nas.before(Lookup, n.name(name)); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := n.nas.before(Getattr, n.name("")); errno != 0 {
		return errno
	}
	if h, ok := f.(*handle); ok {
		return h.LoopbackFile.Getattr(ctx, out)
	}
	return n.LoopbackNode.Getattr(ctx, nil, out)
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if h, ok := f.(*handle); ok {
		f = h.LoopbackFile
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// Open answers ESTALE when the name is another file by now: the kernel then asks for the name again, which is how opening gets past the cache.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.nas.before(Open, n.name("")); errno != 0 {
		return nil, 0, errno
	}
	path := filepath.Join(n.nas.source, n.name(""))
	if n.nas.frozen > 0 {
		if c, ok := n.nas.copied(path); ok {
			return &frozen{content: c}, fuse.FOPEN_DIRECT_IO, 0
		}
	}
	f, err := os.OpenFile(path, int(flags)&^(syscall.O_APPEND|syscall.O_CREAT|syscall.O_EXCL)|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ENOENT) {
		return nil, 0, syscall.ESTALE
	}
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	fi, err := f.Stat()
	if err != nil || fi.Sys().(*syscall.Stat_t).Ino != n.StableAttr().Ino {
		f.Close()
		return nil, 0, syscall.ESTALE
	}
	return &handle{fs.NewLoopbackFileFromOS(f), n}, 0, 0
}

// copied returns a content as it was when it was first read.
func (n *NAS) copied(path string) ([]byte, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.cache[path]; ok && time.Since(c.at) < n.frozen {
		return c.content, true
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	n.cache[path] = copied{time.Now(), b}
	return b, true
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.nas.before(Create, n.name(name)); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, &handle{f.(*fs.LoopbackFile), inode.Operations().(*node)}, fuseFlags, 0
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno := n.nas.before(Rename, n.name(name)); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.nas.before(Link, n.name(name)); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno := n.nas.before(Unlink, n.name(name)); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.nas.before(Mkdir, n.name(name)); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if errno := n.nas.before(Rmdir, n.name(name)); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.nas.before(Readdir, n.name("")); errno != 0 {
		return nil, 0, errno
	}
	f, fuseFlags, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &dirHandle{f, n}, fuseFlags, 0
}

// CopyFileRange is not offered, so that every byte goes through Write.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOSYS
}

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	node *node
}

// PassthroughFd keeps the kernel from going past this package.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

func (h *handle) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := h.node.nas.before(Read, h.node.name("")); errno != 0 {
		return nil, errno
	}
	return h.LoopbackFile.Read(ctx, buf, off)
}

func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := h.node.nas.before(Write, h.node.name("")); errno != 0 {
		return 0, errno
	}
	return h.LoopbackFile.Write(ctx, data, off)
}

func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if errno := h.node.nas.before(Flush, h.node.name("")); errno != 0 {
		return errno
	}
	return h.LoopbackFile.Flush(ctx)
}

func (h *handle) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if errno := h.node.nas.before(Fsync, h.node.name("")); errno != 0 {
		return errno
	}
	return h.LoopbackFile.Fsync(ctx, flags)
}

// dirHandle is an open folder.
type dirHandle struct {
	fs.FileHandle
	node *node
}

func (d *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	return d.FileHandle.(fs.FileReaddirenter).Readdirent(ctx)
}

func (d *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	return d.FileHandle.(fs.FileSeekdirer).Seekdir(ctx, off)
}

func (d *dirHandle) Releasedir(ctx context.Context, flags uint32) {
	d.FileHandle.(fs.FileReleasedirer).Releasedir(ctx, flags)
}

func (d *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	if errno := d.node.nas.before(Fsyncdir, d.node.name("")); errno != 0 {
		return errno
	}
	return d.FileHandle.(fs.FileFsyncdirer).Fsyncdir(ctx, flags)
}

// frozen is a file whose content is an old one.
type frozen struct{ content []byte }

func (f *frozen) Read(_ context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	part := f.content[min(off, int64(len(f.content))):]
	return fuse.ReadResultData(part[:min(len(part), len(buf))]), 0
}
