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

// Object is one stored object without its content.
type Object struct {
	Key         string
	Size        int64  // bytes
	Version     string // opaque; another one after each Put
	SHA256      []byte // of the content; nil when unknown (the object came into the store by other means)
	ContentType string // "" when unknown
	Modified    time.Time
	Metadata    map[string]string
}

// PutOptions are the extras of Put; nil is the zero value.
type PutOptions struct {
	Size        int64             // bytes that will come, checked; 0 is unknown
	IfAbsent    bool              // only when there is no such object: else fs.ErrExist. Of several at once, on any nodes, one wins
	IfMatch     string            // only when Version is this one: else ErrPrecondition; errors.ErrUnsupported where the storage cannot
	ContentType string            // such as "image/png"
	SHA256      []byte            // of the content, checked
	Metadata    map[string]string // ≤ 2 KiB in all
}

// GetOptions select a part; nil is all of it.
type GetOptions struct {
	Offset int64 // bytes; at or past the end gives no bytes
	Length int64 // bytes; 0 is up to the end
}

// Capabilities tell what a store can do beside the rest.
type Capabilities struct{ IfAbsent, IfMatch, SignedURL bool }
