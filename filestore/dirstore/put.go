package dirstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/nines-go/nines/filestore"
)

const (
	copyBuffer = 256 << 10
	attempts   = 100 // of placing a file while other processes remove its empty folder
)

// errIsObject says that a folder of a key is an object.
var errIsObject = errors.New("is an object")

// Put writes a temporary file on the same file system, makes it and its attributes durable, and gives it its name: by rename, or by link where
// it must be the first. Readers see the old object or the new one; a crash leaves one of them, and at most a temporary file.
func (d *driver) Put(ctx context.Context, key string, r io.Reader, opts *filestore.PutOptions) (filestore.Object, error) {
	if opts.IfMatch != "" {
		return filestore.Object{}, fmt.Errorf("IfMatch: %w: a shared directory has no compare-and-set", errors.ErrUnsupported)
	}
	if opts.IfAbsent {
		if _, err := d.Stat(ctx, key); err == nil {
			return filestore.Object{}, fs.ErrExist // early; link decides
		}
	}
	temp, f, err := d.temp()
	if err != nil {
		return filestore.Object{}, err
	}
	named := false
	defer func() {
		if !named {
			_ = d.root.Remove(temp)
		}
	}()
	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(onlyWriter{f}, h), ctxReader{ctx, r}, make([]byte, copyBuffer))
	switch sum := h.Sum(nil); {
	case err != nil:
	case opts.Size != 0 && n != opts.Size:
		err = fmt.Errorf("%w: %d bytes came, %d were promised", filestore.ErrCorrupt, n, opts.Size)
	case opts.SHA256 != nil && !bytes.Equal(opts.SHA256, sum):
		err = fmt.Errorf("%w: the SHA-256 is %x", filestore.ErrCorrupt, sum)
	default:
		err = f.Sync()
	}
	fi, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return filestore.Object{}, err
	}
	if err := d.remember(key, fi, meta{SHA256: h.Sum(nil), ContentType: opts.ContentType, Metadata: opts.Metadata}); err != nil {
		return filestore.Object{}, err
	}
	old, _ := d.root.Lstat(filepath.FromSlash(key))
	if err := d.place(ctx, temp, key, opts.IfAbsent); err != nil {
		d.forget(key, fi)
		return filestore.Object{}, err
	}
	named = !opts.IfAbsent // a linked file still has its temporary name
	if old != nil {
		d.forget(key, old)
	}
	return d.object(key, fi), nil
}

// place gives the temporary file its name and makes that durable.
func (d *driver) place(ctx context.Context, temp, key string, first bool) error {
	name, dir := filepath.FromSlash(key), path.Dir(key)
	var err error
	for range attempts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err = d.makeDir(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			break
		}
		if first {
			err = d.root.Link(temp, name)
		} else {
			err = d.root.Rename(temp, name)
		}
		if err == nil {
			return d.syncDir(dir)
		}
		if fi, statErr := d.root.Lstat(name); statErr == nil && fi.IsDir() { // an empty folder is no object
			if d.root.Remove(name) != nil {
				return fmt.Errorf("%w: there are objects below it", filestore.ErrInvalidKey)
			}
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if isNotDir(err) || errors.Is(err, errIsObject) {
		return fmt.Errorf("%w: a part of it is an object", filestore.ErrInvalidKey)
	}
	if errors.Is(err, fs.ErrExist) {
		return fs.ErrExist
	}
	return err
}

// makeDir makes a folder and those above it, each durable.
func (d *driver) makeDir(dir string) error {
	if dir == "." {
		return nil
	}
	if fi, err := d.root.Stat(filepath.FromSlash(dir)); err == nil && fi.IsDir() {
		return nil
	}
	if err := d.makeDir(path.Dir(dir)); err != nil {
		return err
	}
	if err := d.root.Mkdir(filepath.FromSlash(dir), 0o700); errors.Is(err, fs.ErrExist) {
		fi, err := d.root.Stat(filepath.FromSlash(dir))
		switch {
		case err != nil: // another process made it and removed it again: fs.ErrNotExist
			return err
		case !fi.IsDir():
			return errIsObject
		}
		return nil
	} else if err != nil {
		return err
	}
	return d.syncDir(path.Dir(dir))
}

// ctxReader stops with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// onlyWriter hides ReadFrom, which would read past the context and the sum.
type onlyWriter struct{ io.Writer }

// hidden reports whether a name of the directory is no key: the store's own, or one that CheckKey refuses.
func hidden(key string, dir bool) bool {
	if dir {
		return strings.HasPrefix(key, filestore.Reserved)
	}
	return filestore.CheckKey(key) != nil
}
