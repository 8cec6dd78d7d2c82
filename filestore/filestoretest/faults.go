package filestoretest

import (
	"context"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/nines-go/nines/filestore"
)

// Faults breaks the calls of a store's driver, to see what a program makes of it. It is safe for concurrent use.
type Faults struct {
	mu     sync.Mutex
	before func(ctx context.Context, op, key string) error
	cut    int64 // bytes of each reader; -1 is none
	cutErr error
}

// NewFaults returns a store whose calls go through Faults to the driver of s. Closing it closes the driver of s.
func NewFaults(s *filestore.Store) (*filestore.Store, *Faults) {
	f := &Faults{cut: -1}
	return filestore.Wrap(s, func(d filestore.Driver) filestore.Driver { return &faulty{d, f} }), f
}

// Before sets what happens before each call: op is put, get, stat, delete, list, copy, append or sign; the call returns an error of fn instead of
// being done. fn may block to be slow. nil sets none.
func (f *Faults) Before(fn func(ctx context.Context, op, key string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = fn
}

// Fail makes the calls named by ops, or all when there is none, return err.
func (f *Faults) Fail(err error, ops ...string) {
	f.Before(func(_ context.Context, op, _ string) error {
		if len(ops) == 0 || slices.Contains(ops, op) {
			return err
		}
		return nil
	})
}

// Cut makes each reader return err after so many bytes.
func (f *Faults) Cut(after int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut, f.cutErr = after, err
}

// Heal takes all faults away.
func (f *Faults) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.cut, f.cutErr = nil, -1, nil
}

func (f *Faults) check(ctx context.Context, op, key string) error {
	f.mu.Lock()
	fn := f.before
	f.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(ctx, op, key)
}

type faulty struct {
	filestore.Driver
	f *Faults
}

func (d *faulty) Put(ctx context.Context, key string, r io.Reader, opts *filestore.PutOptions) (filestore.Object, error) {
	if err := d.f.check(ctx, "put", key); err != nil {
		return filestore.Object{}, err
	}
	return d.Driver.Put(ctx, key, r, opts)
}

func (d *faulty) Get(ctx context.Context, key string, opts *filestore.GetOptions) (io.ReadCloser, filestore.Object, error) {
	if err := d.f.check(ctx, "get", key); err != nil {
		return nil, filestore.Object{}, err
	}
	r, o, err := d.Driver.Get(ctx, key, opts)
	if err != nil {
		return nil, o, err
	}
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if d.f.cut >= 0 {
		r = &cutReader{r, d.f.cut, d.f.cutErr}
	}
	return r, o, nil
}

type cutReader struct {
	io.ReadCloser
	left int64
	err  error
}

func (r *cutReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, r.err
	}
	n, err := r.ReadCloser.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	return n, err
}

func (d *faulty) Stat(ctx context.Context, key string) (filestore.Object, error) {
	if err := d.f.check(ctx, "stat", key); err != nil {
		return filestore.Object{}, err
	}
	return d.Driver.Stat(ctx, key)
}

func (d *faulty) Delete(ctx context.Context, key string) error {
	if err := d.f.check(ctx, "delete", key); err != nil {
		return err
	}
	return d.Driver.Delete(ctx, key)
}

func (d *faulty) List(ctx context.Context, prefix, delimiter string) iter.Seq2[filestore.Object, error] {
	if err := d.f.check(ctx, "list", prefix); err != nil {
		return func(yield func(filestore.Object, error) bool) { yield(filestore.Object{}, err) }
	}
	return d.Driver.List(ctx, prefix, delimiter)
}

func (d *faulty) Copy(ctx context.Context, from, to string) (filestore.Object, error) {
	if err := d.f.check(ctx, "copy", from); err != nil {
		return filestore.Object{}, err
	}
	return filestore.TryCopy(ctx, d.Driver, from, to)
}

func (d *faulty) Append(ctx context.Context, key string, r io.Reader, opts *filestore.AppendOptions) (filestore.Object, error) {
	if err := d.f.check(ctx, "append", key); err != nil {
		return filestore.Object{}, err
	}
	return filestore.TryAppend(ctx, d.Driver, key, r, opts)
}

func (d *faulty) SignedURL(ctx context.Context, key string, opts *filestore.SignOptions) (string, error) {
	if err := d.f.check(ctx, "sign", key); err != nil {
		return "", err
	}
	return filestore.TrySign(ctx, d.Driver, key, opts)
}
