package filestore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// FS shows the store as a read-only file system, for http.FileServerFS, templates and the like: its files are *File. ctx bounds every call.
func (s *Store) FS(ctx context.Context) fs.FS { return storeFS{ctx, s} }

// storeFS keeps a context because fs.FS has no place for one.
type storeFS struct {
	ctx context.Context
	s   *Store
}

func (f storeFS) Open(name string) (fs.File, error) {
	fault := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fault(fs.ErrInvalid)
	}
	if name != "." {
		file, err := f.s.Open(f.ctx, name)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			if errors.Is(err, ErrInvalidKey) {
				err = fs.ErrNotExist
			}
			return fault(err)
		}
	}
	entries, err := f.ReadDir(name)
	if err != nil {
		return fault(err)
	}
	return &dir{info: info{Object{Key: name + "/"}}, entries: entries}, nil
}

// ReadDir lists a folder: a prefix that some object has.
func (f storeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	var entries []fs.DirEntry
	for o, err := range f.s.List(f.ctx, prefix, "/") {
		if err != nil {
			return nil, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(info{o}))
	}
	if len(entries) == 0 && name != "." {
		return nil, fs.ErrNotExist
	}
	return entries, nil
}

type dir struct {
	info    info
	entries []fs.DirEntry
}

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return nil }
func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Name(), Err: errors.New("is a directory")}
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 || n > len(d.entries) {
		if n > 0 && len(d.entries) == 0 {
			return nil, io.EOF
		}
		n = len(d.entries)
	}
	out := d.entries[:n]
	d.entries = d.entries[n:]
	return out, nil
}

// info is an object, or a folder when its key ends with a slash.
type info struct{ o Object }

func (i info) Name() string       { return path.Base(i.o.Key) }
func (i info) Size() int64        { return i.o.Size }
func (i info) ModTime() time.Time { return i.o.Modified }
func (i info) IsDir() bool        { return strings.HasSuffix(i.o.Key, "/") }
func (i info) Sys() any           { return i.o }
func (i info) Mode() fs.FileMode {
	if i.IsDir() {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
