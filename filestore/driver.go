package filestore

import (
	"context"
	"io"
	"iter"
	"time"
)

// Driver is the implementers' interface: what dirstore, memstore and others provide, and what New wraps. Its methods are safe for concurrent
// use. A driver may rely on keys that CheckKey accepts, or that are below Reserved.
type Driver interface {
	// Put stores what r gives as key: the whole object becomes visible at once and durable before Put returns, or nothing changes.
	Put(ctx context.Context, key string, r io.Reader, opts *PutOptions) (Object, error)
	// Get opens an object or a part of it. What is read is of one version, also while the key is overwritten or deleted.
	Get(ctx context.Context, key string, opts *GetOptions) (io.ReadCloser, Object, error)
	// Stat returns what is known of an object without its content.
	Stat(ctx context.Context, key string) (Object, error)
	// Delete removes an object; fs.ErrNotExist when it is not there.
	Delete(ctx context.Context, key string) error
	// List yields the objects whose key begins with prefix in the order of their keys' bytes. With delimiter "/" the keys below a further
	// slash are put together as one Object with the Key up to that slash and nothing else. It may miss, or still show, what changes meanwhile.
	List(ctx context.Context, prefix, delimiter string) iter.Seq2[Object, error]
	// Capabilities tells what this store can do.
	Capabilities() Capabilities
	// Close gives back what the driver holds.
	Close() error
}

// Copier is what a Driver has beside the rest when its storage copies objects by itself. A driver that finds out that it cannot returns
// errors.ErrUnsupported before anything is changed; the Store then reads and writes.
type Copier interface {
	// Copy stores the content and the attributes of from as to, atomically and durably as Put does. fs.ErrNotExist when from is not there.
	Copy(ctx context.Context, from, to string) (Object, error)
}

// Appender is what a Driver has beside the rest when it can put a longer object together without sending the old content again. It returns
// errors.ErrUnsupported, before it reads from r, where it cannot; the Store then reads and writes.
type Appender interface {
	// Append replaces an object by its content and what r gives, atomically and durably as Put does, keeping content type and metadata.
	// fs.ErrNotExist when it is not there. With opts.At the object must have that many bytes: else ErrPrecondition. ErrPrecondition too
	// when another call replaced the object meanwhile and the driver has IfMatch.
	Append(ctx context.Context, key string, r io.Reader, opts *AppendOptions) (Object, error)
}

// Signer is what a Driver has beside the rest when its storage hands out links that work without credentials.
type Signer interface {
	// SignedURL returns a link to an object; opts has no zero field.
	SignedURL(ctx context.Context, key string, opts *SignOptions) (string, error)
}

// Object is one stored object without its content.
type Object struct {
	Key         string            // its name in the store
	Size        int64             // bytes
	Version     string            // opaque; another one after each Put of another content
	SHA256      []byte            // of the content; nil when unknown (see the table of the package)
	ContentType string            // "" when unknown
	Modified    time.Time         // when it was put, by the storage's clock
	Metadata    map[string]string // what PutOptions.Metadata said
}

// PutOptions are the extras of Put; nil is the zero value.
type PutOptions struct {
	Size        int64             // bytes that will come, checked; 0 is unknown
	IfAbsent    bool              // only when there is no such object: else fs.ErrExist. Of several at once, on any nodes, one wins
	IfMatch     string            // only when Version is this one: else ErrPrecondition; errors.ErrUnsupported where the storage cannot
	ContentType string            // such as "image/png": printable ASCII, at most 255 bytes
	SHA256      []byte            // of the content, checked
	Metadata    map[string]string // names of a-z, 0-9 and "-"; values without control characters and "=?"; ≤ 1,900 bytes in all
}

// GetOptions select a part; nil is all of it.
type GetOptions struct {
	Offset int64 // bytes; at or past the end gives no bytes
	Length int64 // bytes; 0 is up to the end
}

// AppendOptions are the extras of Append; nil is the zero value.
type AppendOptions struct {
	// At is the number of bytes that the object has before, checked: an upload that is resumed sends its position, and a piece that arrives
	// twice is appended once. 0 is not checked.
	At int64
	// Size is the number of bytes that will come, checked; 0 is unknown.
	Size int64
}

// SignOptions are the extras of SignedURL; nil is the zero value.
type SignOptions struct {
	TTL         time.Duration // how long the link works; default 6 h, 1 s to 7 days
	Method      string        // "GET", the default, or "PUT"
	Filename    string        // the name under which a browser saves it; default: the last segment of the key
	ContentType string        // that the answer says; default: the object's own
}

// Capabilities tell what a store can do beside the rest. Where it depends on the server it was tried out when the store was opened.
type Capabilities struct {
	IfAbsent  bool // PutOptions.IfAbsent works
	IfMatch   bool // PutOptions.IfMatch works
	SignedURL bool // Store.SignedURL works
	Copy      bool // the storage copies by itself; else Copy and Move read and write
	Append    bool // the storage puts longer objects together by itself; else Append reads and writes
	FlatKeys  bool // a key may be below another object, as in S3 proper; a directory refuses it with ErrInvalidKey

	// Checksum is what protects a content on its way to the storage: "sha256", "crc32c", "md5" or "none"; "" where it goes over no network.
	Checksum string
	// MaxObject is the largest object, in bytes; 0 is what the storage has room for.
	MaxObject int64
}
