package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Store is a driver with checked keys and with what can be built on any driver. It is safe for concurrent use.
type Store struct {
	driver Driver
	closed atomic.Bool
	puts, gets, stats, deletes, lists, appends, copies,
	failures, bytesIn, bytesOut,
	putTime, getTime atomic.Int64
}

// New wraps a driver. It panics when d is nil.
func New(d Driver) *Store {
	if d == nil {
		panic("filestore: New without a driver")
	}
	return &Store{driver: d}
}

// begin is the entry of every call with a key.
func (s *Store) begin(ctx context.Context, op, key string) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("filestore: %s %q: %w", op, shorten(key), err)
	}
	if err := CheckKey(key); err != nil {
		return fmt.Errorf("filestore: %s: %w", op, err)
	}
	return nil
}

// end counts and wraps the error of a driver.
func (s *Store) end(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) && !errors.Is(err, ErrPrecondition) {
		s.failures.Add(1)
	}
	return fmt.Errorf("filestore: %s %q: %w", op, key, err)
}

// Put stores what r gives as key. See Driver.Put and PutOptions. It returns when ctx ends, also while r does not answer; then one Read of r may
// still be going on, else r is the caller's again.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) (Object, error) {
	if err := s.begin(ctx, "put", key); err != nil {
		return Object{}, err
	}
	if opts == nil {
		opts = &PutOptions{}
	}
	if err := opts.check(); err != nil {
		return Object{}, fmt.Errorf("filestore: put %q: %w", key, err)
	}
	s.puts.Add(1)
	began := time.Now()
	src, done := newSource(ctx, r)
	o, err := s.driver.Put(ctx, key, src, opts)
	done()
	s.putTime.Add(int64(time.Since(began)))
	if err == nil {
		s.bytesIn.Add(o.Size)
	}
	return o, s.end("put", key, err)
}

// Get opens an object, or a part of it. The caller closes the reader.
func (s *Store) Get(ctx context.Context, key string, opts *GetOptions) (io.ReadCloser, Object, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, Object{}, err
	}
	if opts == nil {
		opts = &GetOptions{}
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return nil, Object{}, fmt.Errorf("filestore: get %q: offset %d, length %d: neither may be negative", key, opts.Offset, opts.Length)
	}
	s.gets.Add(1)
	began := time.Now()
	r, o, err := s.driver.Get(ctx, key, opts)
	s.getTime.Add(int64(time.Since(began)))
	if err != nil {
		return nil, Object{}, s.end("get", key, err)
	}
	return &reader{ReadCloser: r, ctx: ctx, n: &s.bytesOut}, o, nil
}

// reader counts, and ends with the context of its Get.
type reader struct {
	io.ReadCloser
	ctx context.Context
	n   *atomic.Int64
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(b)
	r.n.Add(int64(n))
	return n, err
}

var copyBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// WriteTo makes io.Copy use large pieces.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	buf := copyBuffers.Get().(*[256 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// Stat returns what is known of an object without its content.
func (s *Store) Stat(ctx context.Context, key string) (Object, error) {
	if err := s.begin(ctx, "stat", key); err != nil {
		return Object{}, err
	}
	s.stats.Add(1)
	o, err := s.driver.Stat(ctx, key)
	return o, s.end("stat", key, err)
}

// Delete removes an object; fs.ErrNotExist when it is not there.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.begin(ctx, "delete", key); err != nil {
		return err
	}
	s.deletes.Add(1)
	return s.end("delete", key, s.driver.Delete(ctx, key))
}

// List yields the objects whose key begins with prefix, in the order of their keys' bytes. See Driver.List. The only delimiters are "" and "/".
func (s *Store) List(ctx context.Context, prefix, delimiter string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if s.closed.Load() {
			yield(Object{}, ErrClosed)
			return
		}
		if err := checkPrefix(prefix); err != nil {
			yield(Object{}, fmt.Errorf("filestore: list: %w", err))
			return
		}
		if delimiter != "" && delimiter != "/" {
			yield(Object{}, fmt.Errorf("filestore: list: delimiter %q: %w: use none or a slash", delimiter, errors.ErrUnsupported))
			return
		}
		s.lists.Add(1)
		for o, err := range s.driver.List(ctx, prefix, delimiter) {
			if strings.HasPrefix(o.Key, Reserved) {
				continue
			}
			if !yield(o, s.end("list", prefix, err)) || err != nil {
				return
			}
		}
	}
}

// Capabilities tells what the store can do.
func (s *Store) Capabilities() Capabilities { return s.driver.Capabilities() }

// Check writes, reads and deletes a small object of its own name: nil when the store works for this process. Proof.Check says whether the
// other members see the same store.
func (s *Store) Check(ctx context.Context) error {
	if s.closed.Load() {
		return ErrClosed
	}
	key := Reserved + "check/" + newID()
	want := newID()
	if _, err := s.driver.Put(ctx, key, strings.NewReader(want), &PutOptions{Size: int64(len(want))}); err != nil {
		return &checkError{err: fmt.Errorf("filestore: the store cannot be written: %w", err), remedy: "see that the storage is mounted, writable and not full"}
	}
	got, err := s.read(ctx, key)
	if err == nil && string(got) != want {
		err = errors.New("what was read is not what was written")
	}
	if delErr := s.driver.Delete(ctx, key); err == nil {
		err = delErr
	}
	if err != nil {
		return &checkError{err: fmt.Errorf("filestore: the store cannot be read back: %w", err), remedy: "see that the storage is mounted and healthy"}
	}
	return nil
}

// read returns a small object, also a reserved one.
func (s *Store) read(ctx context.Context, key string) ([]byte, error) {
	r, _, err := s.driver.Get(ctx, key, &GetOptions{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, 64<<10))
}

// Close gives back what the driver holds. Calls afterwards return ErrClosed.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.driver.Close()
}

// checkError is a finding of a Check.
type checkError struct {
	err     error
	remedy  string
	warning bool
}

func (e *checkError) Error() string  { return e.err.Error() }
func (e *checkError) Unwrap() error  { return e.err }
func (e *checkError) Remedy() string { return e.remedy }
func (e *checkError) Warning() bool  { return e.warning }
