package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"sync/atomic"
)

// maxMetadata bounds the metadata of an object, in bytes of names and values: what every storage takes.
const maxMetadata = 2 << 10

// Store is a driver with checked keys and with what can be built on any driver. It is safe for concurrent use.
type Store struct {
	driver Driver
	closed atomic.Bool
	puts, gets, deletes, lists,
	failures, bytesIn, bytesOut atomic.Int64
}

// Stats are a store's figures since it was opened.
type Stats struct {
	Puts, Gets, Deletes, Lists int64
	Failures                   int64 // of these; an object that is not there is none
	BytesIn, BytesOut          int64
	Capabilities               Capabilities
}

// New wraps a driver. It panics when d is nil.
func New(d Driver) *Store {
	if d == nil {
		panic("filestore: New without a driver")
	}
	return &Store{driver: d}
}

// begin is the entry of every call with a key.
func (s *Store) begin(op, key string) error {
	if s.closed.Load() {
		return ErrClosed
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

// Put stores what r gives as key. See Driver.Put and PutOptions.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) (Object, error) {
	if err := s.begin("put", key); err != nil {
		return Object{}, err
	}
	if opts == nil {
		opts = &PutOptions{}
	}
	if err := opts.check(); err != nil {
		return Object{}, fmt.Errorf("filestore: put %q: %w", key, err)
	}
	s.puts.Add(1)
	o, err := s.driver.Put(ctx, key, r, opts)
	if err == nil {
		s.bytesIn.Add(o.Size)
	}
	return o, s.end("put", key, err)
}

func (o *PutOptions) check() error {
	var errs []error
	if o.Size < 0 {
		errs = append(errs, fmt.Errorf("PutOptions.Size is %d: give the number of bytes, or 0 when it is unknown", o.Size))
	}
	if o.IfAbsent && o.IfMatch != "" {
		errs = append(errs, errors.New("PutOptions.IfAbsent and IfMatch are both set: use one"))
	}
	if n := len(o.SHA256); n != 0 && n != 32 {
		errs = append(errs, fmt.Errorf("PutOptions.SHA256 has %d bytes: give 32 or none", n))
	}
	size := 0
	for k, v := range o.Metadata {
		size += len(k) + len(v)
	}
	if size > maxMetadata {
		errs = append(errs, fmt.Errorf("PutOptions.Metadata has %d bytes: at most %d are kept", size, maxMetadata))
	}
	return errors.Join(errs...)
}

// Get opens an object, or a part of it. The caller closes the reader.
func (s *Store) Get(ctx context.Context, key string, opts *GetOptions) (io.ReadCloser, Object, error) {
	if err := s.begin("get", key); err != nil {
		return nil, Object{}, err
	}
	if opts == nil {
		opts = &GetOptions{}
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return nil, Object{}, fmt.Errorf("filestore: get %q: offset %d, length %d: neither may be negative", key, opts.Offset, opts.Length)
	}
	s.gets.Add(1)
	r, o, err := s.driver.Get(ctx, key, opts)
	if err != nil {
		return nil, Object{}, s.end("get", key, err)
	}
	return &countingReader{ReadCloser: r, n: &s.bytesOut}, o, nil
}

type countingReader struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// Stat returns what is known of an object without its content.
func (s *Store) Stat(ctx context.Context, key string) (Object, error) {
	if err := s.begin("stat", key); err != nil {
		return Object{}, err
	}
	o, err := s.driver.Stat(ctx, key)
	return o, s.end("stat", key, err)
}

// Delete removes an object; fs.ErrNotExist when it is not there.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.begin("delete", key); err != nil {
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

// ReadFile returns a whole object.
func (s *Store) ReadFile(ctx context.Context, key string) ([]byte, error) {
	r, o, err := s.Get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := bytes.NewBuffer(make([]byte, 0, o.Size+bytes.MinRead))
	if _, err := b.ReadFrom(r); err != nil {
		return nil, s.end("read", key, err)
	}
	return b.Bytes(), nil
}

// WriteFile stores b as key.
func (s *Store) WriteFile(ctx context.Context, key string, b []byte, opts *PutOptions) (Object, error) {
	var o PutOptions
	if opts != nil {
		o = *opts
	}
	o.Size = int64(len(b))
	return s.Put(ctx, key, bytes.NewReader(b), &o)
}

// Exists reports whether there is such an object.
func (s *Store) Exists(ctx context.Context, key string) (bool, error) {
	_, err := s.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Move stores the object from as to, then deletes from. It is not atomic: a crash between the two leaves both; to is complete whenever it is there.
func (s *Store) Move(ctx context.Context, from, to string) error {
	if from == to {
		return nil
	}
	r, o, err := s.Get(ctx, from, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := s.Put(ctx, to, r, &PutOptions{Size: o.Size, SHA256: o.SHA256, ContentType: o.ContentType, Metadata: o.Metadata}); err != nil {
		return err
	}
	return s.Delete(ctx, from)
}

// RemovePrefix deletes every object below dir, which is taken as a directory: "ab" and "ab/" never touch "abc". It returns how many it deleted.
func (s *Store) RemovePrefix(ctx context.Context, dir string) (int, error) {
	dir = strings.TrimSuffix(dir, "/")
	if err := s.begin("remove", dir); err != nil {
		return 0, err
	}
	var keys []string
	for o, err := range s.List(ctx, dir+"/", "") {
		if err != nil {
			return 0, err
		}
		keys = append(keys, o.Key)
	}
	for i, key := range keys {
		if err := s.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return i, err
		}
	}
	return len(keys), nil
}

// Stats returns the figures since the store was opened.
func (s *Store) Stats() Stats {
	return Stats{
		Puts: s.puts.Load(), Gets: s.gets.Load(), Deletes: s.deletes.Load(), Lists: s.lists.Load(), Failures: s.failures.Load(),
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(), Capabilities: s.driver.Capabilities(),
	}
}

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
