package s3store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/nines-go/nines/filestore"
)

// Append lets the server copy the old content into an upload in parts and sends only the new one. The server wants at least 5 MiB for that: a
// smaller object is read and written.
func (d *driver) Append(ctx context.Context, key string, r io.Reader, opts *filestore.AppendOptions) (filestore.Object, error) {
	o, err := d.Stat(ctx, key)
	if err != nil {
		return filestore.Object{}, err
	}
	if opts.At != 0 && opts.At != o.Size {
		return filestore.Object{}, fmt.Errorf("%w: it has %d bytes, not %d", filestore.ErrPrecondition, o.Size, opts.At)
	}
	if o.Size < minPart {
		return filestore.Object{}, errors.ErrUnsupported
	}
	match := ""
	if d.ifMatch && d.condParts {
		match = o.Version
	}
	return d.compose(ctx, o, key, r, opts, match)
}

// compose makes an object of another one's content and what r gives, if there is an r.
func (d *driver) compose(ctx context.Context, from filestore.Object, to string, r io.Reader, opts *filestore.AppendOptions, match string) (o filestore.Object, err error) {
	put := &filestore.PutOptions{ContentType: from.ContentType, Metadata: from.Metadata, IfMatch: match}
	var sum []byte
	if r == nil {
		sum = from.SHA256
	}
	id, err := d.core.NewMultipartUpload(ctx, d.cfg.Bucket, d.key(to), d.options(put, sum))
	if err != nil {
		return o, fault(ctx, err)
	}
	defer func() {
		if err != nil {
			d.abort(ctx, to, id)
		}
	}()
	parts, err := d.copyParts(ctx, from, to, id)
	if err != nil {
		return o, err
	}
	size := from.Size
	if r != nil {
		var n int64
		if parts, n, err = d.parts(ctx, to, id, parts, nil, r, d.cfg.PartSize, opts.Size, sha256.New()); err != nil {
			return o, err
		}
		if opts.Size != 0 && n != opts.Size {
			return o, fmt.Errorf("%w: %d bytes came, %d were promised", filestore.ErrCorrupt, n, opts.Size)
		}
		size += n
	}
	var cond minio.PutObjectOptions
	condition(&cond, put)
	info, err := d.slow.CompleteMultipartUpload(ctx, d.cfg.Bucket, d.key(to), id, parts, cond)
	if err != nil {
		return d.judge(ctx, to, "", put, err)
	}
	return d.stored(to, info, size, sum, put), nil
}

// copyParts copies an object as parts of an upload, none of them larger than S3 takes and none smaller than it wants.
func (d *driver) copyParts(ctx context.Context, from filestore.Object, to, id string) ([]minio.CompletePart, error) {
	pieces := (from.Size + maxPart - 1) / maxPart
	each := (from.Size + pieces - 1) / pieces
	var parts []minio.CompletePart
	for offset := int64(0); offset < from.Size; offset += each {
		p, err := d.slow.CopyObjectPart(ctx, d.cfg.Bucket, d.key(from.Key), d.cfg.Bucket, d.key(to), id, len(parts)+1, offset, min(each, from.Size-offset),
			map[string]string{"x-amz-copy-source-if-match": from.Version})
		if err != nil {
			return nil, fault(ctx, err)
		}
		p.ETag = strings.Trim(p.ETag, `"`)
		parts = append(parts, p)
	}
	return parts, nil
}
