package filestore

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// ZipOptions are the extras of Zip; nil is the zero value.
type ZipOptions struct {
	NoCompression bool // for contents that are compressed already
}

// Zip writes an archive of the objects below dir to w, with names from there; "" is the whole store. It holds one piece of one object in memory.
// Each object is of one version; the archive as a whole is of no single moment. An object that is deleted meanwhile is an error: an archive
// that lacks one silently is none.
func (s *Store) Zip(ctx context.Context, w io.Writer, dir string, opts *ZipOptions) error {
	prefix := ""
	if dir = strings.TrimSuffix(dir, "/"); dir != "" {
		if err := s.begin(ctx, "zip", dir); err != nil {
			return err
		}
		prefix = dir + "/"
	}
	method := zip.Deflate
	if opts != nil && opts.NoCompression {
		method = zip.Store
	}
	z := zip.NewWriter(w)
	for o, err := range s.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		if err := s.zipOne(ctx, z, o, strings.TrimPrefix(o.Key, prefix), method); err != nil {
			return fmt.Errorf("filestore: zip %q: %w", dir, err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("filestore: zip %q: %w", dir, err)
	}
	return nil
}

func (s *Store) zipOne(ctx context.Context, z *zip.Writer, o Object, name string, method uint16) error {
	r, o, err := s.Get(ctx, o.Key, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: method, Modified: o.Modified.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}
