package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// File is an object opened for reading anywhere in it, as http.ServeContent and archive readers need. All that is read is of one version. It is
// for one goroutine at a time; ReadAt is safe for several.
type File struct {
	ctx  context.Context // of Open, because the interfaces that File satisfies have no place for one
	s    *Store
	o    Object
	r    io.ReadCloser // nil: to be opened at pos
	pos  int64
	done bool
}

// Open opens an object. ctx bounds all that is done with the file.
func (s *Store) Open(ctx context.Context, key string) (*File, error) {
	r, o, err := s.Get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	return &File{ctx: ctx, s: s, o: o, r: r}, nil
}

// Object returns what is known of the object.
func (f *File) Object() Object { return f.o }

// Stat returns the object as a file's information; its Sys is the Object.
func (f *File) Stat() (fs.FileInfo, error) { return info{f.o}, nil }

// Read reads from the present position. ErrPrecondition when the object was replaced since Open and the storage keeps no old ones.
func (f *File) Read(b []byte) (int, error) {
	switch {
	case f.done:
		return 0, fs.ErrClosed
	case f.pos >= f.o.Size:
		return 0, io.EOF
	case len(b) == 0:
		return 0, nil
	}
	if f.r == nil {
		r, err := f.open(f.pos, 0)
		if err != nil {
			return 0, err
		}
		f.r = r
	}
	n, err := f.r.Read(b)
	f.pos += int64(n)
	return n, err
}

// open returns the rest of the object, or a part, from offset.
func (f *File) open(offset, length int64) (io.ReadCloser, error) {
	r, o, err := f.s.Get(f.ctx, f.o.Key, &GetOptions{Offset: offset, Length: length})
	if errors.Is(err, fs.ErrNotExist) || err == nil && o.Version != f.o.Version {
		err = errors.Join(fmt.Errorf("filestore: read %q: %w: it changed while it was read", f.o.Key, ErrPrecondition), closeIt(r))
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func closeIt(c io.Closer) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

// Seek sets the position; what comes next is asked for at the next Read.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.o.Size
	}
	if f.done || offset < 0 {
		return 0, &fs.PathError{Op: "seek", Path: f.o.Key, Err: fs.ErrInvalid}
	}
	if offset == f.pos {
		return offset, nil
	}
	f.pos = offset
	if own, ok := f.r.(*reader); ok {
		if seeker, ok := own.ReadCloser.(io.Seeker); ok { // the same open file
			_, err := seeker.Seek(offset, io.SeekStart)
			return offset, err
		}
	}
	r := f.r
	f.r = nil
	return offset, closeIt(r)
}

// ReadAt reads at an offset and leaves the position as it is.
func (f *File) ReadAt(b []byte, offset int64) (int, error) {
	switch {
	case f.done:
		return 0, fs.ErrClosed
	case offset < 0:
		return 0, &fs.PathError{Op: "read", Path: f.o.Key, Err: fs.ErrInvalid}
	case offset >= f.o.Size:
		return 0, io.EOF
	case len(b) == 0:
		return 0, nil
	}
	r, err := f.open(offset, int64(len(b)))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := io.ReadFull(r, b)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// Close gives back what the file holds.
func (f *File) Close() error {
	if f.done {
		return fs.ErrClosed
	}
	f.done = true
	r := f.r
	f.r = nil
	return closeIt(r)
}
