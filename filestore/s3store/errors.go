package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"

	"github.com/minio/minio-go/v7"

	"github.com/nines-go/nines/filestore"
)

// Errors beside those of filestore. Open returns them, and every call of the store when the cause comes up later.
var (
	// ErrCredentials says that the server refused the keys, or that they may not do what was asked.
	ErrCredentials = errors.New("s3store: credentials refused")

	// ErrBucket says that there is no such bucket.
	ErrBucket = errors.New("s3store: no such bucket")

	// ErrUnreachable says that no server answered in time, or that what answered is none that speaks S3.
	ErrUnreachable = errors.New("s3store: server not reachable")

	// ErrTooLarge is returned by Put when a content does not fit into 10,000 parts of Config.PartSize. Nothing is stored.
	ErrTooLarge = errors.New("s3store: content too large")
)

// fault translates an error of the client. What the server said is kept in the text.
func fault(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	resp, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		if _, isNet := errors.AsType[net.Error](err); isNet {
			return fmt.Errorf("%w: %w", ErrUnreachable, bare(err))
		}
		if _, isURL := errors.AsType[*url.Error](err); isURL || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: %w", ErrUnreachable, bare(err))
		}
		return err
	}
	switch resp.Code {
	case "NoSuchKey", "NotFound":
		return fs.ErrNotExist
	case "NoSuchBucket", "InvalidBucketName":
		return fmt.Errorf("%w: %s", ErrBucket, said(resp))
	case "PreconditionFailed":
		return filestore.ErrPrecondition
	case "ObjectParentIsFile", "ExistingObjectIsDirectory", "ParentIsObject", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory":
		return fmt.Errorf("%w: %s", filestore.ErrInvalidKey, said(resp))
	case "BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "XAmzContentChecksumMismatch":
		return fmt.Errorf("%w: on its way to the server: %s", filestore.ErrCorrupt, said(resp))
	case "AccessDenied", "InvalidAccessKeyId", "InvalidAccessKeyID", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AllAccessDisabled", "AccountProblem", "XAdminUserNotFound":
		return fmt.Errorf("%w: %s", ErrCredentials, said(resp))
	}
	switch {
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", ErrCredentials, said(resp))
	case resp.StatusCode == http.StatusPreconditionFailed:
		return filestore.ErrPrecondition
	}
	return fmt.Errorf("the server says: %s", said(resp))
}

func said(r minio.ErrorResponse) string {
	if r.Message == "" {
		return fmt.Sprintf("%s (HTTP %d)", r.Code, r.StatusCode)
	}
	return fmt.Sprintf("%s: %s (HTTP %d)", r.Code, r.Message, r.StatusCode)
}

// bare is the cause without the address, which may hold a signature.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func code(err error) string {
	if resp, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return resp.Code
	}
	return ""
}
