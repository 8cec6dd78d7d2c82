package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Wrap returns a store whose driver is what wrap makes of this one's: for drivers that count, slow down, encrypt or break others. Closing the
// result closes s's driver; use one of the two. A driver that embeds Driver and is to keep the optional methods calls TryCopy, TryAppend and
// TrySign.
func Wrap(s *Store, wrap func(Driver) Driver) *Store { return New(wrap(s.driver)) }

// TryCopy calls Copy of a driver that has it; errors.ErrUnsupported otherwise.
func TryCopy(ctx context.Context, d Driver, from, to string) (Object, error) {
	if c, ok := d.(Copier); ok {
		return c.Copy(ctx, from, to)
	}
	return Object{}, errors.ErrUnsupported
}

// TryAppend calls Append of a driver that has it; errors.ErrUnsupported otherwise.
func TryAppend(ctx context.Context, d Driver, key string, r io.Reader, opts *AppendOptions) (Object, error) {
	if a, ok := d.(Appender); ok {
		return a.Append(ctx, key, r, opts)
	}
	return Object{}, errors.ErrUnsupported
}

// TrySign calls SignedURL of a driver that has it; errors.ErrUnsupported otherwise.
func TrySign(ctx context.Context, d Driver, key string, opts *SignOptions) (string, error) {
	if s, ok := d.(Signer); ok {
		return s.SignedURL(ctx, key, opts)
	}
	return "", errors.ErrUnsupported
}

// Sub returns a view of the objects below dir, with keys from there: for tenants, or for what must not meet another part's keys. The store's own
// objects are the view's own too. Closing a view does not close s.
func (s *Store) Sub(dir string) (*Store, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if err := CheckKey(dir); err != nil {
		return nil, fmt.Errorf("filestore: sub: %w", err)
	}
	return New(&sub{d: s.driver, dir: dir + "/"}), nil
}

// sub is a driver whose keys are below a directory of another.
type sub struct {
	d   Driver
	dir string
}

// outer is a key of the view in the driver below.
func (s *sub) outer(key string) (string, error) {
	if rest, ok := strings.CutPrefix(key, Reserved); ok {
		return Reserved + "sub/" + s.dir + rest, nil
	}
	if len(s.dir)+len(key) > MaxKey {
		return "", fmt.Errorf("%w %q: with %s before it, it has more than %d bytes", ErrInvalidKey, shorten(key), s.dir, MaxKey)
	}
	return s.dir + key, nil
}

func (s *sub) inner(o Object) Object {
	if rest, ok := strings.CutPrefix(o.Key, Reserved+"sub/"+s.dir); ok {
		o.Key = Reserved + rest
	} else {
		o.Key = strings.TrimPrefix(o.Key, s.dir)
	}
	return o
}

func (s *sub) Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) (Object, error) {
	key, err := s.outer(key)
	if err != nil {
		return Object{}, err
	}
	o, err := s.d.Put(ctx, key, r, opts)
	return s.inner(o), err
}

func (s *sub) Get(ctx context.Context, key string, opts *GetOptions) (io.ReadCloser, Object, error) {
	key, err := s.outer(key)
	if err != nil {
		return nil, Object{}, err
	}
	r, o, err := s.d.Get(ctx, key, opts)
	return r, s.inner(o), err
}

func (s *sub) Stat(ctx context.Context, key string) (Object, error) {
	key, err := s.outer(key)
	if err != nil {
		return Object{}, err
	}
	o, err := s.d.Stat(ctx, key)
	return s.inner(o), err
}

func (s *sub) Delete(ctx context.Context, key string) error {
	key, err := s.outer(key)
	if err != nil {
		return err
	}
	return s.d.Delete(ctx, key)
}

func (s *sub) List(ctx context.Context, prefix, delimiter string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		prefix, err := s.outer(prefix)
		if err != nil {
			yield(Object{}, err)
			return
		}
		for o, err := range s.d.List(ctx, prefix, delimiter) {
			if !yield(s.inner(o), err) {
				return
			}
		}
	}
}

func (s *sub) Copy(ctx context.Context, from, to string) (Object, error) {
	from, err := s.outer(from)
	if err != nil {
		return Object{}, err
	}
	if to, err = s.outer(to); err != nil {
		return Object{}, err
	}
	o, err := TryCopy(ctx, s.d, from, to)
	return s.inner(o), err
}

func (s *sub) Append(ctx context.Context, key string, r io.Reader, opts *AppendOptions) (Object, error) {
	key, err := s.outer(key)
	if err != nil {
		return Object{}, err
	}
	o, err := TryAppend(ctx, s.d, key, r, opts)
	return s.inner(o), err
}

func (s *sub) SignedURL(ctx context.Context, key string, opts *SignOptions) (string, error) {
	key, err := s.outer(key)
	if err != nil {
		return "", err
	}
	return TrySign(ctx, s.d, key, opts)
}

func (s *sub) Capabilities() Capabilities { return s.d.Capabilities() }
func (s *sub) Close() error               { return nil }

// Operation is one call of a driver that Observe tells of.
type Operation struct {
	Name     string        // put, get, stat, delete, list, copy, append or sign
	Key      string        // or prefix
	Bytes    int64         // of content, written or read
	Duration time.Duration // of the call; of a get up to the Close of its reader
	Err      error         // what it returned; of a get also what reading returned
}

// Observe returns a store that calls done after every operation of its driver, for latencies, traces or logs. done is called on the goroutine
// of the operation: it must be quick and safe for concurrent use. Closing the result closes s's driver.
func Observe(s *Store, done func(Operation)) *Store {
	return Wrap(s, func(d Driver) Driver { return &observed{d, done} })
}

type observed struct {
	Driver
	done func(Operation)
}

func (d *observed) tell(name, key string, began time.Time, bytes int64, err error) {
	d.done(Operation{Name: name, Key: key, Bytes: bytes, Duration: time.Since(began), Err: err})
}

func (d *observed) Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) (Object, error) {
	began := time.Now()
	o, err := d.Driver.Put(ctx, key, r, opts)
	d.tell("put", key, began, o.Size, err)
	return o, err
}

func (d *observed) Get(ctx context.Context, key string, opts *GetOptions) (io.ReadCloser, Object, error) {
	began := time.Now()
	r, o, err := d.Driver.Get(ctx, key, opts)
	if err != nil {
		d.tell("get", key, began, 0, err)
		return nil, o, err
	}
	return &observedReader{ReadCloser: r, d: d, key: key, began: began}, o, nil
}

type observedReader struct {
	io.ReadCloser
	d     *observed
	key   string
	began time.Time
	n     int64
	err   error
	told  bool
}

func (r *observedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func (r *observedReader) Close() error {
	err := r.ReadCloser.Close()
	if !r.told {
		r.told = true
		r.d.tell("get", r.key, r.began, r.n, r.err)
	}
	return err
}

func (d *observed) Stat(ctx context.Context, key string) (Object, error) {
	began := time.Now()
	o, err := d.Driver.Stat(ctx, key)
	d.tell("stat", key, began, 0, err)
	return o, err
}

func (d *observed) Delete(ctx context.Context, key string) error {
	began := time.Now()
	err := d.Driver.Delete(ctx, key)
	d.tell("delete", key, began, 0, err)
	return err
}

func (d *observed) List(ctx context.Context, prefix, delimiter string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		began := time.Now()
		var failed error
		defer func() { d.tell("list", prefix, began, 0, failed) }()
		for o, err := range d.Driver.List(ctx, prefix, delimiter) {
			failed = err
			if !yield(o, err) {
				return
			}
		}
	}
}

func (d *observed) Copy(ctx context.Context, from, to string) (Object, error) {
	began := time.Now()
	o, err := TryCopy(ctx, d.Driver, from, to)
	if !errors.Is(err, errors.ErrUnsupported) {
		d.tell("copy", from, began, o.Size, err)
	}
	return o, err
}

func (d *observed) Append(ctx context.Context, key string, r io.Reader, opts *AppendOptions) (Object, error) {
	began := time.Now()
	o, err := TryAppend(ctx, d.Driver, key, r, opts)
	if !errors.Is(err, errors.ErrUnsupported) {
		d.tell("append", key, began, o.Size, err)
	}
	return o, err
}

func (d *observed) SignedURL(ctx context.Context, key string, opts *SignOptions) (string, error) {
	began := time.Now()
	url, err := TrySign(ctx, d.Driver, key, opts)
	d.tell("sign", key, began, 0, err)
	return url, err
}
