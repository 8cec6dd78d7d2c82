package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// removeBatch is how many keys RemovePrefix holds at once.
const removeBatch = 1000

// ReadFile returns a whole object.
func (s *Store) ReadFile(ctx context.Context, key string) ([]byte, error) {
	r, o, err := s.Get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := bytes.NewBuffer(make([]byte, 0, o.Size+bytes.MinRead))
	if _, err := b.ReadFrom(struct{ io.Reader }{r}); err != nil {
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

// Copy stores the object from as to, with its attributes: by the storage itself where Capabilities.Copy says so. What was at to is replaced.
func (s *Store) Copy(ctx context.Context, from, to string) (Object, error) {
	if err := errors.Join(s.begin(ctx, "copy", from), s.begin(ctx, "copy", to)); err != nil {
		return Object{}, err
	}
	s.copies.Add(1)
	if from == to {
		o, err := s.driver.Stat(ctx, from)
		return o, s.end("copy", from, err)
	}
	if c, ok := s.driver.(Copier); ok {
		o, err := c.Copy(ctx, from, to)
		if !errors.Is(err, errors.ErrUnsupported) {
			return o, s.end("copy", from, err)
		}
	}
	r, o, err := s.driver.Get(ctx, from, &GetOptions{})
	if err != nil {
		return Object{}, s.end("copy", from, err)
	}
	defer r.Close()
	o, err = s.driver.Put(ctx, to, r, &PutOptions{Size: o.Size, SHA256: o.SHA256, ContentType: o.ContentType, Metadata: o.Metadata})
	return o, s.end("copy", from, err)
}

// Move stores the object from as to, then deletes from. It is not atomic: a crash between the two leaves both; to is complete whenever it is there.
func (s *Store) Move(ctx context.Context, from, to string) error {
	if from == to {
		_, err := s.Stat(ctx, from)
		return err
	}
	if _, err := s.Copy(ctx, from, to); err != nil {
		return err
	}
	return s.Delete(ctx, from)
}

// RemovePrefix deletes every object below dir, which is taken as a directory: "ab" and "ab/" never touch "abc". It returns how many it deleted.
// What is put below dir meanwhile may be deleted or not.
func (s *Store) RemovePrefix(ctx context.Context, dir string) (int, error) {
	dir = strings.TrimSuffix(dir, "/")
	if err := s.begin(ctx, "remove", dir); err != nil {
		return 0, err
	}
	for removed := 0; ; {
		var keys []string
		for o, err := range s.List(ctx, dir+"/", "") {
			if err != nil {
				return removed, err
			}
			if keys = append(keys, o.Key); len(keys) == removeBatch {
				break
			}
		}
		for _, key := range keys {
			if err := s.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return removed, err
			}
			removed++
		}
		if len(keys) < removeBatch {
			return removed, nil
		}
	}
}

// Append replaces an object by its content and what r gives; readers see the old one or the longer one. The object must be there:
// fs.ErrNotExist. Content type and metadata stay. Where Capabilities.IfMatch says so, the second of two calls at once gets ErrPrecondition and
// nothing is lost; elsewhere one of them may be lost: let one node at a time append to a key. It costs what Get and Put of the whole object
// cost, unless Capabilities.Append says that the storage does it by itself.
func (s *Store) Append(ctx context.Context, key string, r io.Reader, opts *AppendOptions) (Object, error) {
	if err := s.begin(ctx, "append", key); err != nil {
		return Object{}, err
	}
	if opts == nil {
		opts = &AppendOptions{}
	}
	if err := opts.check(); err != nil {
		return Object{}, fmt.Errorf("filestore: append %q: %w", key, err)
	}
	s.appends.Add(1)
	src, done := newSource(ctx, r)
	defer done()
	o, err := s.append(ctx, key, src, opts)
	return o, s.end("append", key, err)
}

func (s *Store) append(ctx context.Context, key string, r io.Reader, opts *AppendOptions) (Object, error) {
	if a, ok := s.driver.(Appender); ok {
		o, err := a.Append(ctx, key, r, opts)
		if !errors.Is(err, errors.ErrUnsupported) {
			if err == nil {
				s.bytesIn.Add(max(o.Size-opts.At, 0))
			}
			return o, err
		}
	}
	old, o, err := s.driver.Get(ctx, key, &GetOptions{})
	if err != nil {
		return Object{}, err
	}
	defer old.Close()
	if opts.At != 0 && opts.At != o.Size {
		return Object{}, fmt.Errorf("%w: it has %d bytes, not %d", ErrPrecondition, o.Size, opts.At)
	}
	put := &PutOptions{ContentType: o.ContentType, Metadata: o.Metadata}
	if opts.Size != 0 {
		put.Size = o.Size + opts.Size
	}
	if s.driver.Capabilities().IfMatch {
		put.IfMatch = o.Version
	}
	longer, err := s.driver.Put(ctx, key, io.MultiReader(old, r), put)
	if err == nil {
		s.bytesIn.Add(longer.Size - o.Size)
	}
	return longer, err
}

// SignedURL returns a link that works for a while without credentials, made by the storage: errors.ErrUnsupported where it makes none (see
// Capabilities). It does not look whether the object is there.
func (s *Store) SignedURL(ctx context.Context, key string, opts *SignOptions) (string, error) {
	if err := s.begin(ctx, "sign", key); err != nil {
		return "", err
	}
	full, err := opts.complete(key)
	if err != nil {
		return "", fmt.Errorf("filestore: sign %q: %w", key, err)
	}
	signer, ok := s.driver.(Signer)
	if !ok {
		return "", fmt.Errorf("filestore: sign %q: %w", key, errors.ErrUnsupported)
	}
	url, err := signer.SignedURL(ctx, key, full)
	return url, s.end("sign", key, err)
}
