package filestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

const (
	copyWorkers   = 4
	copyFailures  = 100 // that are told one by one
	progressEvery = 100 * time.Millisecond
)

// CopyOptions are the extras of Copy; nil is the zero value.
type CopyOptions struct {
	Prefix   string             // only keys that begin with it; "" is all
	Workers  int                // objects at once; default 4, 1 to 64. More helps where the way to the storage is long
	NoVerify bool               // do not read back what was written. The sums that the stores keep are compared all the same
	DryRun   bool               // write nothing: objects that would be copied count as Copied
	Progress func(CopyProgress) // told every 100 ms and at the end, never twice at once. It must not block
}

// CopyProgress is how far a Copy is, and at the end its result.
type CopyProgress struct {
	Objects, TotalObjects int64         // done and known of; Counted says that the total is final
	Bytes, TotalBytes     int64         // of contents, likewise
	Counted               bool          // all keys of the source have been listed
	Copied                int64         // objects written, and read back unless NoVerify
	Skipped               int64         // objects that were there already, with equal content and attributes
	Failed                int64         // objects that could not be copied
	Elapsed               time.Duration // since the beginning
}

// Copy brings every object of from to to, with its attributes: a move from a directory to S3, or the other way, or a backup. Each object is
// read once with its sum compared to what from knows of it, written, read back from to, and compared again. What to has already is skipped, so a
// Copy that was interrupted goes on where it was, and one that is repeated until nothing is Copied catches what changed meanwhile. Nothing is
// ever deleted.
//
// An object that fails does not end the Copy; the error tells of up to 100 of them, each with its key, and CopyProgress.Failed of all.
func Copy(ctx context.Context, from, to *Store, opts *CopyOptions) (CopyProgress, error) {
	if opts == nil {
		opts = &CopyOptions{}
	}
	c := &copying{from: from, to: to, opts: *opts, began: time.Now()}
	if err := c.check(); err != nil {
		return CopyProgress{}, fmt.Errorf("filestore: copy: %w", err)
	}
	return c.run(ctx)
}

type copying struct {
	from, to *Store
	opts     CopyOptions
	began    time.Time

	objects, total, bytes, totalBytes, copied, skipped, failed atomic.Int64
	counted                                                    atomic.Bool

	mu   sync.Mutex
	errs []error
}

func (c *copying) check() error {
	var errs []error
	if c.from == nil || c.to == nil {
		errs = append(errs, errors.New("from and to are both needed"))
	} else if c.from == c.to {
		errs = append(errs, errors.New("from and to are one store: use Store.Copy for keys of one"))
	}
	if c.opts.Workers == 0 {
		c.opts.Workers = copyWorkers
	}
	if c.opts.Workers < 1 || c.opts.Workers > 64 {
		errs = append(errs, fmt.Errorf("CopyOptions.Workers is %d: give 1 to 64, or 0 for %d", c.opts.Workers, copyWorkers))
	}
	return errors.Join(append(errs, checkPrefix(c.opts.Prefix))...)
}

func (c *copying) run(ctx context.Context) (CopyProgress, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan Object)
	var workers, others sync.WaitGroup
	for range c.opts.Workers {
		workers.Go(func() {
			for o := range work {
				c.object(ctx, o)
			}
		})
	}
	done := make(chan struct{})
	others.Go(func() { c.count(ctx) })
	others.Go(func() { c.tell(done) })
	listErr := c.feed(ctx, work)
	close(work)
	workers.Wait()
	if err := ctx.Err(); err != nil || listErr != nil {
		cancel() // the counting
		c.fail(errors.Join(err, listErr))
	}
	close(done)
	others.Wait()
	p := c.progress()
	if c.opts.Progress != nil {
		c.opts.Progress(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.errs...); err != nil {
		return p, fmt.Errorf("filestore: copy: %d objects failed: %w", p.Failed, err)
	}
	return p, nil
}

func (c *copying) feed(ctx context.Context, work chan<- Object) error {
	for o, err := range c.from.List(ctx, c.opts.Prefix, "") {
		if err != nil {
			return err
		}
		select {
		case work <- o:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// count finds the totals beside the work, for who shows how much is left.
func (c *copying) count(ctx context.Context) {
	if c.opts.Progress == nil {
		return
	}
	for o, err := range c.from.List(ctx, c.opts.Prefix, "") {
		if err != nil {
			return // the work has the same error
		}
		c.total.Add(1)
		c.totalBytes.Add(o.Size)
	}
	c.counted.Store(true)
}

func (c *copying) tell(done <-chan struct{}) {
	if c.opts.Progress == nil {
		return
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.opts.Progress(c.progress())
		case <-done:
			return
		}
	}
}

func (c *copying) progress() CopyProgress {
	p := CopyProgress{
		Objects: c.objects.Load(), Bytes: c.bytes.Load(), Counted: c.counted.Load(),
		Copied: c.copied.Load(), Skipped: c.skipped.Load(), Failed: c.failed.Load(), Elapsed: time.Since(c.began),
	}
	p.TotalObjects, p.TotalBytes = max(c.total.Load(), p.Objects), max(c.totalBytes.Load(), p.Bytes)
	return p
}

func (c *copying) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < copyFailures {
		c.errs = append(c.errs, err)
	}
}

// streamed counts the bytes of one object while they come.
type streamed struct {
	all *atomic.Int64
	n   int64
}

func (s *streamed) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	s.all.Add(int64(len(b)))
	return len(b), nil
}

// object copies one. The bytes of what is skipped or fails count as done too, so that the bar reaches its end.
func (c *copying) object(ctx context.Context, o Object) {
	seen := &streamed{all: &c.bytes}
	moved, err := c.one(ctx, o, seen)
	switch {
	case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		err = nil
		c.skipped.Add(1)
	case err != nil && ctx.Err() != nil: // one error for all of them
		return
	case err != nil:
		c.failed.Add(1)
		c.fail(fmt.Errorf("%q: %w", o.Key, err))
	case moved:
		c.copied.Add(1)
	default:
		c.skipped.Add(1)
	}
	c.objects.Add(1)
	c.bytes.Add(o.Size - seen.n)
}

// one reports whether it copied, which it does not when to has the same.
func (c *copying) one(ctx context.Context, listed Object, seen *streamed) (bool, error) {
	o, err := c.from.Stat(ctx, listed.Key) // a list may know less
	if err != nil {
		return false, err
	}
	equal, err := c.equal(ctx, o)
	if equal || err != nil || c.opts.DryRun {
		return !equal && err == nil, err
	}
	r, o, err := c.from.Get(ctx, o.Key, nil)
	if err != nil {
		return false, err
	}
	defer r.Close()
	h := sha256.New()
	put, err := c.to.Put(ctx, o.Key, io.TeeReader(r, io.MultiWriter(h, seen)), &PutOptions{Size: o.Size, SHA256: o.SHA256, ContentType: o.ContentType, Metadata: o.Metadata})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) { // of to: not "deleted meanwhile"
			err = errors.New(err.Error())
		}
		return false, err
	}
	sum := h.Sum(nil)
	if put.Size != o.Size || put.SHA256 != nil && !bytes.Equal(put.SHA256, sum) {
		return false, fmt.Errorf("%w: the target has %d bytes with sum %x, the source %d with %x", ErrCorrupt, put.Size, put.SHA256, o.Size, sum)
	}
	if c.opts.NoVerify {
		return true, nil
	}
	back, err := sumOf(ctx, c.to, o.Key)
	if err == nil && !bytes.Equal(back, sum) {
		err = fmt.Errorf("%w: what the target gives back has the sum %x instead of %x", ErrCorrupt, back, sum)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("the target does not have what was just written to it")
	}
	return err == nil, err
}

// equal reports whether the target has this object already.
func (c *copying) equal(ctx context.Context, o Object) (bool, error) {
	there, err := c.to.Stat(ctx, o.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || there.Size != o.Size || there.ContentType != o.ContentType || len(there.Metadata) != len(o.Metadata) {
		return false, err
	}
	for name, value := range o.Metadata {
		if there.Metadata[name] != value {
			return false, nil
		}
	}
	a, b := o.SHA256, there.SHA256
	if a == nil {
		if a, err = sumOf(ctx, c.from, o.Key); err != nil {
			return false, err
		}
	}
	if b == nil {
		if b, err = sumOf(ctx, c.to, o.Key); err != nil {
			return false, err
		}
	}
	return bytes.Equal(a, b), nil
}

func sumOf(ctx context.Context, s *Store, key string) ([]byte, error) {
	r, _, err := s.Get(ctx, key, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
