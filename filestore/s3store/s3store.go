package s3store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/nines-go/nines/filestore"
)

// Names of the metadata that are the driver's own.
const (
	metaSHA256  = "nines-sha256"
	metaUntyped = "nines-untyped" // no content type was given
	metaPut     = "nines-put"     // of a conditional Put: which one it was
)

// page is how many keys a request for a list brings.
const page = 1000

// Open connects to the bucket, writes below .nines/probe to see that it can be written and what the server can do, and returns the store. It takes
// at most Config.RequestTimeout. Its errors are ErrCredentials, ErrBucket and ErrUnreachable, with the cause.
func Open(ctx context.Context, cfg Config) (*filestore.Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	core, closeCore, err := cfg.client(cfg.RequestTimeout)
	if err != nil {
		return nil, fmt.Errorf("s3store: Config: %w", err)
	}
	slow, closeSlow, err := cfg.client(max(slowTimeout, cfg.RequestTimeout))
	if err != nil {
		return nil, fmt.Errorf("s3store: Config: %w", err)
	}
	d := &driver{core: core, slow: slow, cfg: cfg, closeIdle: func() { closeCore(); closeSlow() }}
	if d.sse, err = cfg.encryption(); err != nil {
		return nil, fmt.Errorf("s3store: Config.KMSKeyID: %w", err)
	}
	if cfg.Prefix != "" {
		d.prefix = cfg.Prefix + "/"
	}
	limited, cancel := context.WithTimeout(ctx, cfg.RequestTimeout)
	defer cancel()
	if err := d.probe(limited); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("%w: no answer within %s", ErrUnreachable, cfg.RequestTimeout)
		}
		return nil, fmt.Errorf("s3store: open bucket %q at %s: %w", cfg.Bucket, cfg.Endpoint, err)
	}
	return filestore.New(d), nil
}

type driver struct {
	core   *minio.Core
	slow   *minio.Core // for requests that the server takes long to answer
	cfg    Config
	prefix string

	closeIdle func()
	sse       encrypt.ServerSide

	// Found out at Open.
	ifAbsent, ifMatch bool
	condParts         bool // conditions are obeyed when an upload in parts is put together
	flat              bool
}

func (d *driver) key(key string) string { return d.prefix + key }

func (d *driver) Capabilities() filestore.Capabilities {
	return filestore.Capabilities{
		IfAbsent: d.ifAbsent, IfMatch: d.ifMatch, SignedURL: true, Copy: true, Append: true, FlatKeys: d.flat,
		Checksum: d.cfg.Checksum, MaxObject: min(int64(d.cfg.maxParts)*d.cfg.PartSize, 5<<40),
	}
}

func (d *driver) Close() error {
	d.closeIdle()
	return nil
}

// object puts together what the server says of an object.
func (d *driver) object(i minio.ObjectInfo) filestore.Object {
	o := filestore.Object{
		Key: strings.TrimPrefix(i.Key, d.prefix), Size: i.Size, Version: strings.Trim(i.ETag, `"`), ContentType: i.ContentType, Modified: i.LastModified,
	}
	for name, value := range i.UserMetadata {
		switch name = strings.ToLower(name); name {
		case metaSHA256:
			if sum, err := hex.DecodeString(value); err == nil && len(sum) == 32 {
				o.SHA256 = sum
			}
		case metaUntyped:
			o.ContentType = ""
		case metaPut:
		default:
			if o.Metadata == nil {
				o.Metadata = map[string]string{}
			}
			o.Metadata[name] = filestore.DecodeMetadata(value)
		}
	}
	return o
}

func (d *driver) Stat(ctx context.Context, key string) (filestore.Object, error) {
	i, err := d.core.StatObject(ctx, d.cfg.Bucket, d.key(key), minio.StatObjectOptions{})
	if err != nil {
		return filestore.Object{}, fault(ctx, err)
	}
	i.Key = d.key(key)
	return d.object(i), nil
}

// Get asks for the object at once, so that what is not there is an error here and not at the first Read. The answer is of one version.
func (d *driver) Get(ctx context.Context, key string, opts *filestore.GetOptions) (io.ReadCloser, filestore.Object, error) {
	var get minio.GetObjectOptions
	part := opts.Offset > 0 || opts.Length > 0
	if part {
		value := fmt.Sprintf("bytes=%d-", opts.Offset)
		if opts.Length > 0 {
			value += strconv.FormatInt(opts.Offset+opts.Length-1, 10)
		}
		get.Set("Range", value)
	}
	body, info, header, err := d.core.GetObject(ctx, d.cfg.Bucket, d.key(key), get)
	if code(err) == "InvalidRange" { // at or past the end
		o, err := d.Stat(ctx, key)
		if err == nil && opts.Offset < o.Size { // replaced meanwhile by a longer one
			return d.Get(ctx, key, opts)
		}
		return io.NopCloser(strings.NewReader("")), o, err
	}
	if err != nil {
		return nil, filestore.Object{}, fault(ctx, err)
	}
	info.Key = d.key(key)
	want := info.Size
	if part {
		if info.Size, err = total(header.Get("Content-Range")); err != nil {
			return nil, filestore.Object{}, errors.Join(err, body.Close())
		}
	}
	return &content{ReadCloser: body, ctx: ctx, left: want}, d.object(info), nil
}

// total is the size of the whole object.
func total(contentRange string) (int64, error) {
	n, err := strconv.ParseInt(contentRange[strings.LastIndexByte(contentRange, '/')+1:], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the server answered a range with Content-Range %q", contentRange)
	}
	return n, nil
}

// content is an answer's body that must have the length that was told.
type content struct {
	io.ReadCloser
	ctx  context.Context
	left int64
}

func (c *content) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.left -= int64(n)
	if err == io.EOF && c.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		err = fault(c.ctx, err)
	}
	return n, err
}

// Delete asks first: S3 does not say whether there was something.
func (d *driver) Delete(ctx context.Context, key string) error {
	if _, err := d.Stat(ctx, key); err != nil {
		return err
	}
	return fault(ctx, d.core.RemoveObject(ctx, d.cfg.Bucket, d.key(key), minio.RemoveObjectOptions{}))
}

// List yields pages as they come. Within a page the client gives first the objects and then the folders, so they are put in order here: what is
// held back is never more than two pages.
func (d *driver) List(ctx context.Context, prefix, delimiter string) iter.Seq2[filestore.Object, error] {
	return func(yield func(filestore.Object, error) bool) {
		owner := false
		opts := minio.ListObjectsOptions{Prefix: d.key(prefix), Recursive: delimiter == "", MaxKeys: page, FetchOwner: &owner}
		var held []filestore.Object
		flush := func(keep int) bool {
			slices.SortFunc(held, func(a, b filestore.Object) int { return strings.Compare(a.Key, b.Key) })
			for len(held) > keep {
				o := held[0]
				held = held[1:]
				if !yield(o, nil) {
					return false
				}
			}
			held = slices.Clone(held)
			return true
		}
		for i := range d.core.ListObjectsIter(ctx, d.cfg.Bucket, opts) {
			if i.Err != nil {
				err := fault(ctx, i.Err)
				if errors.Is(err, fs.ErrNotExist) {
					break
				}
				yield(filestore.Object{}, err)
				return
			}
			if delimiter == "" {
				if !strings.HasSuffix(i.Key, "/") && !yield(d.object(i), nil) { // a key with a slash at its end marks a folder, for other programs
					return
				}
				continue
			}
			folder := strings.HasSuffix(i.Key, "/")
			if folder && i.Key == d.key(prefix) {
				continue
			}
			if folder {
				held = append(held, filestore.Object{Key: strings.TrimPrefix(i.Key, d.prefix)})
			} else {
				held = append(held, d.object(i))
			}
			if len(held) >= 2*page && !flush(page) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(filestore.Object{}, err)
			return
		}
		flush(0)
	}
}

// Copy lets the server copy.
func (d *driver) Copy(ctx context.Context, from, to string) (filestore.Object, error) {
	o, err := d.Stat(ctx, from)
	if err != nil {
		return filestore.Object{}, err
	}
	if o.Size > maxPart {
		return d.compose(ctx, o, to, nil, &filestore.AppendOptions{}, "")
	}
	headers := map[string]string{"x-amz-copy-source-if-match": o.Version}
	if d.cfg.StorageClass != "" {
		headers["x-amz-storage-class"] = d.cfg.StorageClass
	}
	if d.sse != nil {
		h := http.Header{}
		d.sse.Marshal(h)
		for name := range h {
			headers[name] = h.Get(name)
		}
	}
	i, err := d.slow.CopyObject(ctx, d.cfg.Bucket, d.key(from), d.cfg.Bucket, d.key(to), headers, minio.CopySrcOptions{}, minio.PutObjectOptions{})
	if err != nil {
		return filestore.Object{}, fault(ctx, err)
	}
	o.Key, o.Version, o.Modified = to, strings.Trim(i.ETag, `"`), i.LastModified
	return o, nil
}

// SignedURL makes a link by itself; nothing is asked of the server.
func (d *driver) SignedURL(ctx context.Context, key string, opts *filestore.SignOptions) (string, error) {
	var u *url.URL
	var err error
	if opts.Method == http.MethodPut {
		u, err = d.core.PresignedPutObject(ctx, d.cfg.Bucket, d.key(key), opts.TTL)
	} else {
		values := url.Values{"response-content-disposition": {mime.FormatMediaType("attachment", map[string]string{"filename": opts.Filename})}}
		if opts.ContentType != "" {
			values.Set("response-content-type", opts.ContentType)
		}
		u, err = d.core.PresignedGetObject(ctx, d.cfg.Bucket, d.key(key), opts.TTL, values)
	}
	if err != nil {
		return "", fault(ctx, err)
	}
	return u.String(), nil
}

// probe finds out what the server can do.
func (d *driver) probe(ctx context.Context) error {
	base := filestore.Reserved + "probe/open-" + newID()
	plain := func(key string, cond func(*minio.PutObjectOptions)) error {
		opts := d.options(&filestore.PutOptions{}, nil)
		if cond != nil {
			cond(&opts)
		}
		_, err := d.single(ctx, key, []byte("probe"), nil, opts)
		return err
	}
	err := plain(base, nil)
	if code(err) == "NoSuchBucket" && d.cfg.CreateBucket {
		if err = d.core.MakeBucket(ctx, d.cfg.Bucket, minio.MakeBucketOptions{Region: d.cfg.Region}); err == nil || code(err) == "BucketAlreadyOwnedByYou" {
			err = plain(base, nil)
		}
	}
	if err = fault(ctx, err); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: what answers there does not speak S3", ErrUnreachable)
	}
	if err != nil {
		return err
	}
	defer func() {
		bye := context.WithoutCancel(ctx)
		bye, cancel := context.WithTimeout(bye, dialTimeout)
		defer cancel()
		for _, key := range []string{base, base + "/below"} {
			_ = d.core.RemoveObject(bye, d.cfg.Bucket, d.key(key), minio.RemoveObjectOptions{})
		}
	}()
	refused := func(err error) bool { return code(err) == "PreconditionFailed" }
	d.ifAbsent = refused(plain(base, func(o *minio.PutObjectOptions) { o.SetMatchETagExcept("*") }))
	d.ifMatch = refused(plain(base, func(o *minio.PutObjectOptions) { o.SetMatchETag("0123456789abcdef0123456789abcdef") }))
	if d.ifAbsent {
		d.condParts = refused(d.probeParts(ctx, base))
	}
	d.flat = plain(base+"/below", nil) == nil
	if err := ctx.Err(); err != nil {
		return err
	}
	b, _, err := d.Get(ctx, base, &filestore.GetOptions{})
	if err != nil {
		return err
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, []byte("probe")) {
		return errors.Join(err, fmt.Errorf("%w: the server gives back %q for what was just written", filestore.ErrCorrupt, got))
	}
	d.cfg.Logger.Debug("object store opened", "bucket", d.cfg.Bucket, "endpoint", d.cfg.Endpoint, "capabilities", d.Capabilities(), "conditional_parts", d.condParts)
	return nil
}

// probeParts puts an upload of one part together on condition that there is no object; there is one.
func (d *driver) probeParts(ctx context.Context, key string) error {
	id, err := d.core.NewMultipartUpload(ctx, d.cfg.Bucket, d.key(key), d.options(&filestore.PutOptions{}, nil))
	if err != nil {
		return err
	}
	defer d.abort(ctx, key, id)
	part, err := d.part(ctx, key, id, 1, []byte("probe"))
	if err != nil {
		return err
	}
	var cond minio.PutObjectOptions
	cond.SetMatchETagExcept("*")
	_, err = d.slow.CompleteMultipartUpload(ctx, d.cfg.Bucket, d.key(key), id, []minio.CompletePart{part}, cond)
	return err
}
