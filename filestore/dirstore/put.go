package dirstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/nines-go/nines/filestore"
)

const (
	putBuffer = 256 << 10
	attempts  = 100 // of placing a file while other processes remove its empty folder
)

var putBuffers = sync.Pool{New: func() any { return new([putBuffer]byte) }}

// errIsObject says that a folder of a key is an object.
var errIsObject = errors.New("is an object")

// Put writes a temporary file on the same file system, makes it and its attributes durable, and gives it its name: by rename, or by link where
// it must be the first. Readers see the old object or the new one; a crash leaves one of them, and at most a temporary file.
func (d *driver) Put(ctx context.Context, key string, r io.Reader, opts *filestore.PutOptions) (filestore.Object, error) {
	switch {
	case opts.IfMatch != "":
		return filestore.Object{}, fmt.Errorf("IfMatch: %w: a shared directory has no compare-and-set", errors.ErrUnsupported)
	case opts.IfAbsent && !d.canLink:
		return filestore.Object{}, fmt.Errorf("IfAbsent: %w: this file system has no hard links", errors.ErrUnsupported)
	case opts.IfAbsent:
		if f, _, err := d.open(key); err == nil { // early; link decides
			return filestore.Object{}, errors.Join(fs.ErrExist, f.Close())
		}
	}
	// Writing may hang with the storage: the caller's context ends the waiting, and what was written is removed when the storage goes on.
	done := make(chan staged, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- d.stage(ctx, key, r, opts) })
	var st staged
	select {
	case st = <-done:
	case <-ctx.Done():
		wg.Go(func() { d.discard(key, <-done) })
		return filestore.Object{}, ctx.Err()
	}
	if st.err == nil {
		st.err = ctx.Err()
	}
	if st.err != nil {
		d.discard(key, st)
		return filestore.Object{}, st.err
	}
	old, _ := d.root.Lstat(filepath.FromSlash(key))
	if err := d.place(ctx, st.temp, key, opts.IfAbsent); err != nil {
		if now, statErr := d.root.Lstat(filepath.FromSlash(key)); statErr != nil || !os.SameFile(now, st.info) {
			d.discard(key, st)
		}
		return filestore.Object{}, err
	}
	if opts.IfAbsent {
		_ = d.root.Remove(st.temp) // a linked file still has its temporary name
	}
	if old != nil && version(old) != version(st.info) {
		d.forget(key, old)
	}
	return st.meta.object(key, st.info), nil
}

// staged is a content under a temporary name, durable, with its attributes.
type staged struct {
	temp string
	info fs.FileInfo
	meta meta
	err  error
}

// discard removes what a Put that failed has written.
func (d *driver) discard(key string, st staged) {
	if st.temp != "" {
		_ = d.root.Remove(st.temp)
	}
	if st.info != nil {
		d.forget(key, st.info)
	}
}

// stage writes a temporary file. The sum is computed beside the writing, the attributes are made durable beside the content.
func (d *driver) stage(ctx context.Context, key string, r io.Reader, opts *filestore.PutOptions) (st staged) {
	var f *os.File
	if st.temp, f, st.err = d.temp(); st.err != nil {
		st.temp = ""
		return st
	}
	n, sum, err := write(ctx, f, r)
	if err == nil {
		err = promised(opts, n, sum)
	}
	if err != nil {
		st.err = errors.Join(err, f.Close())
		return st
	}
	st.meta = meta{Key: key, SHA256: sum, ContentType: opts.ContentType, Metadata: opts.Metadata}
	if st.info, err = f.Stat(); err == nil {
		var wg sync.WaitGroup
		var remembered error
		wg.Go(func() { remembered = d.remember(st.meta, st.info) })
		err = f.Sync()
		wg.Wait()
		err = errors.Join(err, remembered)
	}
	if err == nil { // a file system that sets the time when it writes through has another identity only now
		var now fs.FileInfo
		if now, err = f.Stat(); err == nil && version(now) != version(st.info) {
			d.forget(key, st.info)
			st.info = now
			err = d.remember(st.meta, now)
		}
	}
	st.err = errors.Join(err, f.Close())
	return st
}

func promised(opts *filestore.PutOptions, n int64, sum []byte) error {
	switch {
	case opts.Size != 0 && n != opts.Size:
		return fmt.Errorf("%w: %d bytes came, %d were promised", filestore.ErrCorrupt, n, opts.Size)
	case opts.SHA256 != nil && !bytes.Equal(opts.SHA256, sum):
		return fmt.Errorf("%w: the SHA-256 is %x", filestore.ErrCorrupt, sum)
	}
	return nil
}

// write copies r to f and returns the number of bytes and their sum, which another goroutine computes.
func write(ctx context.Context, f *os.File, r io.Reader) (int64, []byte, error) {
	type piece struct {
		buf *[putBuffer]byte
		n   int
	}
	h := sha256.New()
	pieces, free := make(chan piece, 1), make(chan *[putBuffer]byte, 2)
	for range cap(free) {
		free <- putBuffers.Get().(*[putBuffer]byte)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range pieces {
			h.Write(p.buf[:p.n])
			free <- p.buf
		}
	})
	var total int64
	var err error
	for ended := false; err == nil && !ended; {
		if err = ctx.Err(); err != nil {
			break
		}
		buf := <-free
		var n int
		n, ended, err = fill(r, buf[:])
		if err == nil && n > 0 {
			pieces <- piece{buf, n}
			_, err = f.Write(buf[:n])
			total += int64(n)
			startWriting(f, total-int64(n), int64(n))
			continue
		}
		free <- buf
	}
	close(pieces)
	wg.Wait()
	for range cap(free) {
		putBuffers.Put(<-free)
	}
	return total, h.Sum(nil), err
}

// fill reads until b is full or r ends. Unlike io.ReadFull it does not take an unexpected end that r itself reports, as a request's body does
// when its client goes away, for the end.
func fill(r io.Reader, b []byte) (n int, ended bool, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if err == io.EOF {
		return n, true, nil
	}
	return n, false, err
}

// place gives the temporary file its name and makes that durable.
func (d *driver) place(ctx context.Context, temp, key string, first bool) error {
	name, dir := filepath.FromSlash(key), path.Dir(key)
	var err error
	for try := range attempts {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Where a cache says that the folder is there and the storage does not, only making it helps.
		if err = d.makeDir(dir, try > 0); errors.Is(err, fs.ErrNotExist) {
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
		if err == nil || first && errors.Is(err, fs.ErrExist) && d.same(temp, name) {
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
	if isNotDir(err) || errors.Is(err, errIsObject) || dir != "." && d.throughLink(dir) {
		return fmt.Errorf("%w: a part of it is an object", filestore.ErrInvalidKey)
	}
	if errors.Is(err, fs.ErrExist) {
		return fs.ErrExist
	}
	return err
}

// same reports whether both names are one file: a network file system that sends a request twice answers the second link with "exists".
func (d *driver) same(temp, name string) bool {
	a, errA := d.root.Lstat(temp)
	b, errB := d.root.Lstat(name)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// makeDir makes a folder and those above it, each durable. With force it does not believe that one is there.
func (d *driver) makeDir(dir string, force bool) error {
	if dir == "." {
		return nil
	}
	if !force {
		if fi, err := d.root.Stat(filepath.FromSlash(dir)); err == nil && fi.IsDir() {
			return nil
		}
	}
	if err := d.makeDir(path.Dir(dir), force); err != nil {
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

func (d *driver) temp() (string, *os.File, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", nil, err
	}
	name := path.Join(tempDir, hex.EncodeToString(b))
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return name, f, err
}
