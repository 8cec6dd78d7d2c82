package mirror

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxDepth   = 32
	maxName    = 200 // bytes of a name between two slashes
	maxPathLen = 1024
)

// limits bound what an archive may unpack to.
type limits struct {
	size  int64
	files int
}

// unpack writes the files of a tar.gz below dir, which is empty, and makes them durable. Anything but regular files and folders, and any name
// that is not plainly below dir, is refused: an archive that has one is not to be trusted with the rest.
func unpack(ctx context.Context, r io.Reader, dir string, max limits) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	z, err := gzip.NewReader(ctxReader{ctx, r})
	if err != nil {
		return fmt.Errorf("%w: no gzip: %w", ErrBundle, err)
	}
	u := &unpacking{root: root, max: max, seen: map[string]bool{}, dirs: map[string]bool{".": true}}
	t := tar.NewReader(io.LimitReader(z, max.size+int64(max.files)*4096+1<<20)) // headers too: a bomb ends here
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return refused(ctx, "the archive is damaged", err)
		}
		if err := u.entry(ctx, h, t); err != nil {
			return err
		}
	}
	if len(u.seen) == 0 {
		return fmt.Errorf("%w: it is empty", ErrBundle)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(z, 1<<20)); err != nil { // the checksum comes at the end
		return refused(ctx, "the archive is damaged", err)
	}
	for d := range u.dirs {
		if err := syncDir(root, d); err != nil {
			return err
		}
	}
	return nil
}

func refused(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s: %w", ErrBundle, what, err)
}

type unpacking struct {
	root  *os.Root
	max   limits
	size  int64
	count int
	seen  map[string]bool // names in lower case: two that differ in case alone are one on some systems
	dirs  map[string]bool
}

func (u *unpacking) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	bad := func(why string) error { return fmt.Errorf("%w: %q: %s", ErrBundle, shorten(h.Name), why) }
	if u.count++; u.count > u.max.files {
		return fmt.Errorf("%w: it has more than %d files (Config.MaxFiles)", ErrBundle, u.max.files)
	}
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeDir:
		if name = strings.TrimSuffix(name, "/"); name == "" || name == "." {
			return nil
		}
	case tar.TypeReg:
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return bad("it is a link, a device or something else that is neither file nor folder")
	}
	if why := badName(name); why != "" {
		return bad(why)
	}
	if lower := strings.ToLower(name); u.seen[lower] && h.Typeflag == tar.TypeReg {
		return bad("it comes twice")
	} else {
		u.seen[lower] = true
	}
	if h.Typeflag == tar.TypeDir {
		return u.mkdir(name)
	}
	if h.Size > u.max.size-u.size {
		return fmt.Errorf("%w: it has more than %d bytes (Config.MaxSize)", ErrBundle, u.max.size)
	}
	if err := u.mkdir(path.Dir(name)); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := u.root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(ctxReader{ctx, r}, u.max.size-u.size+1))
	u.size += n
	switch {
	case err != nil:
		if _, ok := errors.AsType[*fs.PathError](err); !ok {
			err = refused(ctx, "the archive is damaged", err)
		}
	case n != h.Size || u.size > u.max.size:
		err = bad("it is not as long as it says")
	default:
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// badName says why a name is refused; "" for a good one.
func badName(name string) string {
	switch {
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "its name has bytes that no name should have"
	case strings.Contains(name, `\`) || !fs.ValidPath(name) || !filepath.IsLocal(filepath.FromSlash(name)):
		return "its name leads elsewhere"
	case len(name) > maxPathLen || strings.Count(name, "/") >= maxDepth:
		return "its name is too long or too deep"
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return "its name is too long"
		}
	}
	return ""
}

func (u *unpacking) mkdir(name string) error {
	if u.dirs[name] {
		return nil
	}
	if err := u.root.MkdirAll(filepath.FromSlash(name), 0o755); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrBundle, shorten(name), err)
	}
	for ; !u.dirs[name]; name = path.Dir(name) {
		u.dirs[name] = true
	}
	return nil
}

func syncDir(root *os.Root, name string) error {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
