package memstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/filestore"
)

// Open returns an empty store.
func Open() *filestore.Store {
	return filestore.New(&driver{objects: map[string]object{}})
}

type object struct {
	filestore.Object
	content []byte
}

type driver struct {
	mu      sync.RWMutex
	objects map[string]object
	version uint64
}

func (d *driver) Put(ctx context.Context, key string, r io.Reader, opts *filestore.PutOptions) (filestore.Object, error) {
	content, err := io.ReadAll(reader{ctx, r})
	if err != nil {
		return filestore.Object{}, err
	}
	sum := sha256.Sum256(content)
	if opts.Size != 0 && opts.Size != int64(len(content)) {
		return filestore.Object{}, fmt.Errorf("%w: %d bytes came, %d were promised", filestore.ErrCorrupt, len(content), opts.Size)
	}
	if opts.SHA256 != nil && !bytes.Equal(opts.SHA256, sum[:]) {
		return filestore.Object{}, fmt.Errorf("%w: the SHA-256 is %x", filestore.ErrCorrupt, sum)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, exists := d.objects[key]
	switch {
	case opts.IfAbsent && exists:
		return filestore.Object{}, fs.ErrExist
	case opts.IfMatch != "" && (!exists || old.Version != opts.IfMatch):
		return filestore.Object{}, filestore.ErrPrecondition
	}
	if err := d.placeLocked(key); err != nil {
		return filestore.Object{}, err
	}
	d.version++
	o := filestore.Object{
		Key: key, Size: int64(len(content)), Version: strconv.FormatUint(d.version, 10), SHA256: sum[:],
		ContentType: opts.ContentType, Modified: time.Now(), Metadata: maps.Clone(opts.Metadata),
	}
	d.objects[key] = object{o, content}
	return clone(o), nil
}

// placeLocked refuses a key that a directory could not hold beside the others, so that all stores agree.
func (d *driver) placeLocked(key string) error {
	for i := range key {
		if key[i] == '/' {
			if _, ok := d.objects[key[:i]]; ok {
				return fmt.Errorf("%w: %q is an object", filestore.ErrInvalidKey, key[:i])
			}
		}
	}
	for other := range d.objects {
		if strings.HasPrefix(other, key+"/") {
			return fmt.Errorf("%w: there are objects below it", filestore.ErrInvalidKey)
		}
	}
	return nil
}

func (d *driver) Get(_ context.Context, key string, opts *filestore.GetOptions) (io.ReadCloser, filestore.Object, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	o, ok := d.objects[key]
	if !ok {
		return nil, filestore.Object{}, fs.ErrNotExist
	}
	part := o.content[min(opts.Offset, o.Size):]
	if opts.Length > 0 {
		part = part[:min(opts.Length, int64(len(part)))]
	}
	return io.NopCloser(bytes.NewReader(part)), clone(o.Object), nil
}

func (d *driver) Stat(_ context.Context, key string) (filestore.Object, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	o, ok := d.objects[key]
	if !ok {
		return filestore.Object{}, fs.ErrNotExist
	}
	return clone(o.Object), nil
}

func (d *driver) Delete(_ context.Context, key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.objects[key]; !ok {
		return fs.ErrNotExist
	}
	delete(d.objects, key)
	return nil
}

func (d *driver) List(ctx context.Context, prefix, delimiter string) iter.Seq2[filestore.Object, error] {
	return func(yield func(filestore.Object, error) bool) {
		d.mu.RLock()
		found := make([]filestore.Object, 0, len(d.objects))
		for key, o := range d.objects {
			if strings.HasPrefix(key, prefix) {
				found = append(found, clone(o.Object))
			}
		}
		d.mu.RUnlock()
		slices.SortFunc(found, func(a, b filestore.Object) int { return strings.Compare(a.Key, b.Key) })
		last := ""
		for _, o := range found {
			if err := ctx.Err(); err != nil {
				yield(filestore.Object{}, err)
				return
			}
			if delimiter != "" {
				if i := strings.Index(o.Key[len(prefix):], delimiter); i >= 0 {
					o = filestore.Object{Key: o.Key[:len(prefix)+i+len(delimiter)]}
					if o.Key == last {
						continue
					}
					last = o.Key
				}
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (d *driver) Capabilities() filestore.Capabilities {
	return filestore.Capabilities{IfAbsent: true, IfMatch: true}
}

func (d *driver) Close() error { return nil }

func clone(o filestore.Object) filestore.Object {
	o.SHA256, o.Metadata = bytes.Clone(o.SHA256), maps.Clone(o.Metadata)
	return o
}

// reader stops with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, errors.Join(err, context.Cause(r.ctx))
	}
	return r.r.Read(b)
}
