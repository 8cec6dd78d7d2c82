package s3store

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3's checksum on the way, not a secret's
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/nines-go/nines/filestore"
)

const (
	firstBuffer  = 128 << 10
	abortTimeout = 10 * time.Second
	conflicts    = 10 // how often a conditional write is tried again that the server refused because another one was going on
)

func newID() string {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		panic(err) // never: crypto/rand ends the process itself
	}
	return hex.EncodeToString(b)
}

// Put sends a content that ends within the first part as one request, and a longer one in parts.
func (d *driver) Put(ctx context.Context, key string, r io.Reader, opts *filestore.PutOptions) (filestore.Object, error) {
	switch {
	case opts.IfAbsent && !d.ifAbsent:
		return filestore.Object{}, fmt.Errorf("IfAbsent: %w by this server", errors.ErrUnsupported)
	case opts.IfMatch != "" && !d.ifMatch:
		return filestore.Object{}, fmt.Errorf("IfMatch: %w by this server", errors.ErrUnsupported)
	}
	partSize := d.cfg.PartSize
	if opts.Size > int64(d.cfg.maxParts)*partSize {
		partSize = (opts.Size/int64(d.cfg.maxParts) + 1<<20) &^ (1<<20 - 1)
		if partSize > maxPart {
			return filestore.Object{}, fmt.Errorf("%w: %d bytes do not fit into %d parts of 5 GiB", ErrTooLarge, opts.Size, d.cfg.maxParts)
		}
	}
	first, ended, err := head(r, opts.Size, partSize)
	if err != nil {
		return filestore.Object{}, err
	}
	if !ended {
		return d.putParts(ctx, key, first, r, partSize, opts)
	}
	sum := sha256.Sum256(first)
	if err := promised(opts, int64(len(first)), sum[:]); err != nil {
		return filestore.Object{}, err
	}
	id := ""
	put := d.options(opts, sum[:])
	if opts.IfAbsent || opts.IfMatch != "" {
		id = newID()
		put.UserMetadata[metaPut] = id
		condition(&put, opts)
	}
	info, err := d.send(ctx, key, first, sum[:], put)
	if err != nil {
		return d.judge(ctx, key, id, opts, err)
	}
	return d.stored(key, info, int64(len(first)), sum[:], opts), nil
}

// head reads the first part, or less when r ends within it. Its buffer grows with what comes, so that a small content of unknown size takes little.
func head(r io.Reader, size, limit int64) (b []byte, ended bool, err error) {
	room := int64(firstBuffer)
	if size > 0 {
		room = min(size, limit) + 1 // one more shows whether more comes than was promised
	}
	b = make([]byte, 0, min(room, limit+1))
	for {
		n := 0
		n, ended, err = fill(r, b[len(b):cap(b)])
		if b = b[:len(b)+n]; err != nil || ended {
			return b, ended, err
		}
		if int64(cap(b)) > limit {
			return b, false, nil
		}
		b = append(make([]byte, 0, min(4*int64(cap(b)), limit+1)), b...)
	}
}

// fill reads until b is full or r ends. Unlike io.ReadFull it does not take an unexpected end that r itself reports for the end.
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

func promised(opts *filestore.PutOptions, n int64, sum []byte) error {
	switch {
	case opts.Size != 0 && n != opts.Size:
		return fmt.Errorf("%w: %d bytes came, %d were promised", filestore.ErrCorrupt, n, opts.Size)
	case opts.SHA256 != nil && !bytes.Equal(opts.SHA256, sum):
		return fmt.Errorf("%w: the SHA-256 is %x", filestore.ErrCorrupt, sum)
	}
	return nil
}

// options are those of a request that makes an object or begins one.
func (d *driver) options(opts *filestore.PutOptions, sum []byte) minio.PutObjectOptions {
	m := make(map[string]string, len(opts.Metadata)+3)
	for name, value := range opts.Metadata {
		m[name] = filestore.EncodeMetadata(value)
	}
	if sum != nil {
		m[metaSHA256] = hex.EncodeToString(sum)
	}
	if opts.ContentType == "" {
		m[metaUntyped] = "1"
	}
	return minio.PutObjectOptions{
		UserMetadata: m, ContentType: opts.ContentType, ServerSideEncryption: d.sse, StorageClass: d.cfg.StorageClass, DisableContentSha256: true,
	}
}

func condition(put *minio.PutObjectOptions, opts *filestore.PutOptions) {
	switch {
	case opts.IfAbsent:
		put.SetMatchETagExcept("*")
	case opts.IfMatch != "":
		put.SetMatchETag(opts.IfMatch)
	}
}

// protection is what goes with a body so that the server sees when it is damaged.
type protection struct {
	md5, sha256 string
	header      http.Header
}

// sum is the SHA-256 of b where it is known already.
func (d *driver) protect(b, sum []byte) protection {
	p := protection{header: http.Header{}}
	switch d.cfg.Checksum {
	case "sha256":
		if sum == nil {
			own := sha256.Sum256(b)
			sum = own[:]
		}
		p.sha256 = hex.EncodeToString(sum)
	case "crc32c":
		p.header.Set("X-Amz-Checksum-Crc32c", crc(b))
	case "md5":
		sum := md5.Sum(b) //nolint:gosec // see above
		p.md5 = base64.StdEncoding.EncodeToString(sum[:])
	}
	return p
}

func crc(b []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

// single is one request that makes an object.
func (d *driver) single(ctx context.Context, key string, b, sum []byte, put minio.PutObjectOptions) (minio.UploadInfo, error) {
	p := d.protect(b, sum)
	for name := range p.header {
		put.UserMetadata[strings.ToLower(name)] = p.header.Get(name)
	}
	return d.core.PutObject(ctx, d.cfg.Bucket, d.key(key), bytes.NewReader(b), int64(len(b)), p.md5, p.sha256, put)
}

// send is single, tried again while the server is busy with another write on the same condition.
func (d *driver) send(ctx context.Context, key string, b, sum []byte, put minio.PutObjectOptions) (info minio.UploadInfo, err error) {
	for try := range conflicts {
		info, err = d.single(ctx, key, b, sum, put)
		if code(err) != "ConditionalRequestConflict" && code(err) != "OperationAborted" {
			break
		}
		select {
		case <-ctx.Done():
			return info, ctx.Err()
		case <-time.After(time.Duration(try+1) * 20 * time.Millisecond):
		}
	}
	return info, err
}

// judge says what a failed write means. A request that was sent twice because the first answer was lost finds its own object there: it is stored.
func (d *driver) judge(ctx context.Context, key, id string, opts *filestore.PutOptions, err error) (filestore.Object, error) {
	err = fault(ctx, err)
	if !errors.Is(err, filestore.ErrPrecondition) {
		if errors.Is(err, fs.ErrNotExist) && opts.IfMatch != "" { // S3 says that there is nothing that could match
			err = filestore.ErrPrecondition
		}
		return filestore.Object{}, err
	}
	if id != "" {
		info, statErr := d.core.StatObject(ctx, d.cfg.Bucket, d.key(key), minio.StatObjectOptions{})
		for name, value := range info.UserMetadata {
			if statErr == nil && strings.EqualFold(name, metaPut) && value == id {
				info.Key = d.key(key)
				return d.object(info), nil
			}
		}
	}
	if opts.IfAbsent {
		err = fs.ErrExist
	}
	return filestore.Object{}, err
}

func (d *driver) stored(key string, info minio.UploadInfo, n int64, sum []byte, opts *filestore.PutOptions) filestore.Object {
	o := filestore.Object{Key: key, Size: n, Version: strings.Trim(info.ETag, `"`), SHA256: sum, ContentType: opts.ContentType, Modified: info.LastModified}
	if o.Modified.IsZero() {
		o.Modified = time.Now()
	}
	if len(opts.Metadata) > 0 {
		o.Metadata = make(map[string]string, len(opts.Metadata))
		maps.Copy(o.Metadata, opts.Metadata)
	}
	return o
}

// putParts sends a long content whose first bytes were read.
func (d *driver) putParts(ctx context.Context, key string, first []byte, r io.Reader, partSize int64, opts *filestore.PutOptions) (o filestore.Object, err error) {
	if (opts.IfAbsent || opts.IfMatch != "") && !d.condParts {
		return o, fmt.Errorf("a condition on more than %d bytes: %w by this server", d.cfg.PartSize, errors.ErrUnsupported)
	}
	begin := d.options(opts, opts.SHA256)
	marker := ""
	if opts.IfAbsent || opts.IfMatch != "" {
		marker = newID()
		begin.UserMetadata[metaPut] = marker
	}
	if d.cfg.Checksum == "crc32c" {
		begin.UserMetadata["x-amz-checksum-algorithm"] = "CRC32C"
	}
	id, err := d.core.NewMultipartUpload(ctx, d.cfg.Bucket, d.key(key), begin)
	if err != nil {
		return o, fault(ctx, err)
	}
	defer func() {
		if err != nil {
			d.abort(ctx, key, id)
		}
	}()
	whole := sha256.New()
	parts, n, err := d.parts(ctx, key, id, nil, first, r, partSize, opts.Size, whole)
	if err != nil {
		return o, err
	}
	sum := whole.Sum(nil)
	if err := promised(opts, n, sum); err != nil {
		return o, err
	}
	var cond minio.PutObjectOptions
	condition(&cond, opts)
	info, err := d.slow.CompleteMultipartUpload(ctx, d.cfg.Bucket, d.key(key), id, parts, cond)
	if err != nil {
		return d.judge(ctx, key, marker, opts, err)
	}
	return d.stored(key, info, n, sum, opts), nil
}

// parts sends first and what r gives after the parts that are there already. While one part is on its way the next one is read; two are in memory.
func (d *driver) parts(ctx context.Context, key, id string, parts []minio.CompletePart, first []byte, r io.Reader, partSize, size int64, whole hash.Hash) ([]minio.CompletePart, int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	type sent struct {
		part minio.CompletePart
		buf  []byte
		err  error
	}
	free := [][]byte{nil, nil} // made when they are needed
	results := make(chan sent, 1)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
	}()
	under := 0 // requests under way: at most one
	collect := func() error {
		s := <-results
		under--
		free = append(free, s.buf)
		if s.err != nil {
			return fault(ctx, s.err)
		}
		parts = append(parts, s.part)
		return nil
	}
	var total int64
	for ended := false; !ended; {
		if under > 0 && len(free) == 0 {
			if err := collect(); err != nil {
				return nil, 0, err
			}
		}
		buf := free[0]
		free = free[1:]
		var n int
		var err error
		switch {
		case int64(len(first)) >= partSize: // it is the first part, and the beginning of the next
			buf, n = first[:partSize], int(partSize)
			r, first = io.MultiReader(bytes.NewReader(bytes.Clone(first[partSize:])), r), nil
		case buf == nil:
			buf = make([]byte, partSize)
			fallthrough
		default:
			n, ended, err = fill(r, buf)
		}
		if err != nil {
			return nil, 0, err
		}
		if under > 0 {
			if err := collect(); err != nil {
				return nil, 0, err
			}
		}
		if n == 0 && len(parts) > 0 {
			break
		}
		number := len(parts) + 1
		if total += int64(n); size != 0 && total > size {
			return nil, 0, fmt.Errorf("%w: more than %d bytes came", filestore.ErrCorrupt, size)
		}
		if number > d.cfg.maxParts {
			return nil, 0, fmt.Errorf("%w: it has more than %d parts of %d bytes: set Config.PartSize higher, or tell PutOptions.Size", ErrTooLarge, d.cfg.maxParts, partSize)
		}
		under++
		wg.Go(func() {
			p, err := d.part(ctx, key, id, number, buf[:n])
			results <- sent{p, buf, err}
		})
		whole.Write(buf[:n])
	}
	if under > 0 {
		if err := collect(); err != nil {
			return nil, 0, err
		}
	}
	return parts, total, nil
}

func (d *driver) part(ctx context.Context, key, id string, number int, b []byte) (minio.CompletePart, error) {
	p := d.protect(b, nil)
	done, err := d.core.PutObjectPart(ctx, d.cfg.Bucket, d.key(key), id, number, bytes.NewReader(b), int64(len(b)), minio.PutObjectPartOptions{
		Md5Base64: p.md5, Sha256Hex: p.sha256, CustomHeader: p.header, SSE: d.sse, DisableContentSha256: true,
	})
	return minio.CompletePart{PartNumber: number, ETag: done.ETag, ChecksumCRC32C: done.ChecksumCRC32C}, err
}

// abort gives back what an upload took, also after ctx ended.
func (d *driver) abort(ctx context.Context, key, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_ = d.core.AbortMultipartUpload(ctx, d.cfg.Bucket, d.key(key), id)
}
